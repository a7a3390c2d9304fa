package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// direct is the driver's own interface to a connection, without database/sql in between, for the point lookup: its way
// of scanning and its locks were measured to be a fifth of one.
type direct struct {
	stmts  map[string]driver.Stmt
	values []driver.Value
	args   [1]driver.NamedValue
}

// Directly runs f on every row of a query with one argument. dest is filled before each call, with memory that the
// driver does not use again.
func (c *Conn) Directly(ctx context.Context, query string, arg int64, dest []any, f func() error) error {
	if c.dialect.Remote { // the way there is what takes time
		return c.Each(ctx, query, func(rows *sql.Rows) error {
			if err := rows.Scan(dest...); err != nil {
				return err
			}
			return f()
		}, arg)
	}
	err := c.raw.Raw(func(dc any) error {
		st, err := c.direct.stmt(dc, query)
		if err != nil {
			return err
		}
		c.direct.args[0] = driver.NamedValue{Ordinal: 1, Value: arg}
		rows, err := st.QueryContext(ctx, c.direct.args[:])
		if err != nil {
			return err
		}
		return errors.Join(c.direct.each(rows, dest, f), rows.Close())
	})
	return c.note(ctx, err)
}

// stmt prepares a statement once.
func (d *direct) stmt(dc any, query string) (driver.StmtQueryContext, error) {
	st := d.stmts[query]
	if st == nil {
		p, ok := dc.(driver.ConnPrepareContext)
		if !ok {
			return nil, fmt.Errorf("the driver's %T cannot prepare", dc)
		}
		var err error
		if st, err = p.PrepareContext(context.Background(), query); err != nil {
			return nil, err
		}
		if d.stmts == nil {
			d.stmts = make(map[string]driver.Stmt)
		}
		d.stmts[query] = st
	}
	q, ok := st.(driver.StmtQueryContext)
	if !ok {
		return nil, fmt.Errorf("the driver's %T cannot query", st)
	}
	return q, nil
}

func (d *direct) each(rows driver.Rows, dest []any, f func() error) error {
	if len(d.values) != len(dest) {
		d.values = make([]driver.Value, len(dest))
	}
	for {
		err := rows.Next(d.values)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i, v := range d.values {
			if err := assign(dest[i], v); err != nil {
				return fmt.Errorf("read column %d: %w", i, err)
			}
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// close closes the statements, before the connection that they belong to.
func (d *direct) close() (errs []error) {
	for _, st := range d.stmts {
		errs = append(errs, st.Close())
	}
	d.stmts = nil
	return errs
}

// assign stores a column's value. There are as many types as the lookup has.
func assign(dest any, v driver.Value) error {
	ok := false
	switch d := dest.(type) {
	case *int64:
		*d, ok = v.(int64)
	case *string:
		*d, ok = v.(string)
	case *sql.RawBytes:
		*d, ok = v.([]byte)
		ok = ok || v == nil
	case *sql.NullInt64:
		d.Int64, d.Valid = v.(int64)
		ok = d.Valid || v == nil
	case *sql.NullString:
		d.String, d.Valid = v.(string)
		ok = d.Valid || v == nil
	}
	if !ok {
		return fmt.Errorf("a %T is no %T", v, dest)
	}
	return nil
}
