package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	sqlite3 "modernc.org/sqlite/lib"

	"patd/internal/tracecontext"
)

// Conn is a connection and its prepared statements, used by one goroutine at a time.
type Conn struct {
	dialect *Dialect
	limit   time.Duration // of a statement; 0: none
	raw     *sql.Conn
	stmts   map[string]*sql.Stmt
	forms   map[string]string // of statements of pipelines
	broken  bool

	direct direct

	// Scratch is kept with the connection for its user: memory that is made once.
	Scratch any
}

// Dialect is what its database differs in from others.
func (c *Conn) Dialect() *Dialect { return c.dialect }

// Raw is the connection of database/sql, for what a conn has no method for. Its statements are not noted.
func (c *Conn) Raw() *sql.Conn { return c.raw }

// Broken reports whether the connection is of no use any more.
func (c *Conn) Broken() bool { return c.broken }

// bound is the context of a statement, which ends no later than the connection's limit.
func (c *Conn) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.limit == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.limit)
}

// stmt prepares a statement once. Its key is the text: statements are constants, so there are as many as those.
func (c *Conn) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if st := c.stmts[query]; st != nil {
		return st, nil
	}
	st, err := c.raw.PrepareContext(ctx, c.dialect.form(query))
	if err != nil {
		return nil, err
	}
	c.stmts[query] = st
	return st, nil
}

// Exec runs a statement.
func (c *Conn) Exec(ctx context.Context, query string, args ...any) (r sql.Result, err error) {
	within, cancel := c.bound(ctx)
	defer cancel()
	if comment := c.comment(ctx); comment != "" {
		r, err = c.raw.ExecContext(within, c.dialect.form(query)+comment, once(args)...)
		return r, c.note(ctx, err)
	}
	st, err := c.stmt(within, query)
	if err == nil {
		r, err = st.ExecContext(within, args...)
	}
	return r, c.note(ctx, err)
}

// ExecAll runs statements one after another, up to the first that fails.
func (c *Conn) ExecAll(ctx context.Context, statements []string) error {
	for _, statement := range statements {
		if _, err := c.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// Each runs f on every row.
func (c *Conn) Each(ctx context.Context, query string, f func(*sql.Rows) error, args ...any) error {
	within, cancel := c.bound(ctx)
	defer cancel()
	rows, err := c.query(within, query, args)
	if err != nil {
		return c.note(ctx, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return c.note(ctx, rows.Err())
}

// query runs a statement that returns rows.
func (c *Conn) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	if comment := c.comment(ctx); comment != "" {
		return c.raw.QueryContext(ctx, c.dialect.form(query)+comment, once(args)...)
	}
	st, err := c.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

// comment returns the comment of a statement for PostgreSQL; empty: none. A statement with a comment is prepared for
// one use: each has another text.
func (c *Conn) comment(ctx context.Context) string {
	if !c.dialect.Remote {
		return ""
	}
	return tracecontext.SQLComment(ctx)
}

// once puts in front of a statement's arguments that it is not to be kept prepared.
func once(args []any) []any { return append([]any{pgx.QueryExecModeDescribeExec}, args...) }

// One scans the only row of a query; sql.ErrNoRows when there is none.
func (c *Conn) One(ctx context.Context, query string, dest []any, args ...any) error {
	err := sql.ErrNoRows
	if failed := c.Each(ctx, query, func(rows *sql.Rows) error {
		err = rows.Scan(dest...)
		return err
	}, args...); failed != nil {
		return failed
	}
	return err
}

const rollbackTx = `ROLLBACK`

// Rollback ends a transaction that may have ended already: SQLite rolls back by itself after some failures, and a
// cancelled BEGIN may or may not have begun.
func (c *Conn) Rollback() {
	if c.broken {
		return
	}
	_, err := c.Exec(context.Background(), rollbackTx)
	if err != nil && !isSQLite(err, sqlite3.SQLITE_ERROR) {
		c.broken = true
	}
}

// note marks a connection that the driver has given up, or whose server does not take changes any more, and marks the
// error of a statement that took too long, which is no caller who went away.
func (c *Conn) note(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	readOnly := "25006" // read_only_sql_transaction
	c.broken = c.broken || gone(err) || c.dialect.Remote && (disconnected(c.raw) || IsState(err, readOnly))
	if c.limit > 0 && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return &statementTimeout{err}
	}
	return err
}

// Close closes the connection and its statements.
func (c *Conn) Close() error {
	errs := c.direct.close()
	for _, st := range c.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// Discard closes the connection and keeps the *sql.DB from lending it again.
func (c *Conn) Discard() error {
	if c.dialect.Remote {
		return cutOff(c.raw)
	}
	_ = c.raw.Raw(func(any) error { return driver.ErrBadConn })
	return c.Close()
}
