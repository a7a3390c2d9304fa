package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Statement is one of a pipeline.
type Statement struct {
	Query string
	Args  []any
	Row   func(Row) error // runs on every row, until it fails

	Done bool  // it was run
	Rows int64 // how many it wrote, or returned
	Err  error // of Row
}

// Row is a row of a result.
type Row interface{ Scan(dest ...any) error }

// Pipeline sends statements to PostgreSQL in one go: they take one way through the network together. They run one after
// another, up to the first that fails, whose error it returns. Each may take as long as one that is sent alone.
func (c *Conn) Pipeline(ctx context.Context, list []*Statement) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	var late atomic.Bool
	next := func() {}
	if c.limit > 0 {
		timer := time.AfterFunc(c.limit, func() { late.Store(true); cancel() })
		defer timer.Stop()
		next = func() { timer.Reset(c.limit) }
	}
	var batch pgx.Batch
	for _, s := range list {
		batch.Queue(c.form(s.Query), s.Args...)
	}
	var failed error
	err := c.raw.Raw(func(dc any) error {
		conn, ok := dc.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("the driver's %T has no pipeline", dc)
		}
		results := conn.Conn().SendBatch(within, &batch)
		for _, s := range list {
			if failed = s.read(results); failed != nil {
				break
			}
			next()
		}
		if err := results.Close(); failed == nil {
			failed = err
		}
		return nil
	})
	err = errors.Join(err, failed)
	if err != nil && late.Load() {
		err = errors.Join(context.DeadlineExceeded, err)
	}
	return c.note(ctx, err)
}

// read reads the results of a statement.
func (s *Statement) read(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if s.Row != nil && s.Err == nil {
			s.Err = s.Row(flagRow{rows})
		}
	}
	rows.Close()
	s.Rows, s.Done = rows.CommandTag().RowsAffected(), rows.Err() == nil
	return rows.Err()
}

// flagRow reads flags as database/sql does, which are numbers in the tables.
type flagRow struct{ Row }

// Scan implements Row.
func (r flagRow) Scan(dest ...any) error {
	dest = slices.Clone(dest)
	for i := range dest {
		if to, ok := dest[i].(*bool); ok {
			dest[i] = &flag{to}
		}
	}
	return r.Row.Scan(dest...)
}

// flag is where a flag goes.
type flag struct{ to *bool }

// Scan implements sql.Scanner.
func (f *flag) Scan(v any) error {
	switch v := v.(type) {
	case int64:
		*f.to = v != 0
	case bool:
		*f.to = v
	default:
		return fmt.Errorf("a %T is no flag", v)
	}
	return nil
}

// form is a statement as the database reads it. As stmt, it keeps each.
func (c *Conn) form(query string) string {
	text, ok := c.forms[query]
	if !ok {
		text = c.dialect.form(query)
		c.forms[query] = text
	}
	return text
}
