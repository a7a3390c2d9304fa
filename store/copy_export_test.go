package store

import (
	"context"

	"patd/store/internal/db"
)

// BeforeVerify has fn called between the writing of a copy and its verification. exec runs a statement at its
// destination.
func (o Options) BeforeVerify(fn func(exec func(query string) error) error) Options {
	o.copied = func(ctx context.Context, c *db.Conn) error {
		return fn(func(query string) error {
			_, err := c.Exec(ctx, query)
			return err
		})
	}
	return o
}

// CopiedTable is a table as a copy knows it.
type CopiedTable struct {
	Name          string
	Columns, Key  []string
	Sequence      string
	Autoincrement bool
}

// CopiedTables are the tables that a copy knows.
func CopiedTables() (list []CopiedTable) {
	for _, t := range copiedTables() {
		key := copiedTable{columns: t.key}
		list = append(list, CopiedTable{t.name, t.columnNames(), key.columnNames(), t.sequence, t.counted})
	}
	return list
}
