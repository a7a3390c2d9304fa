package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"patd/tokens"
)

// errClosed is the cause of every answer after Close.
var errClosed = errors.New("the store is closed")

// pool lends out the connections of one kind. A waiting borrower heeds its context, which a *sql.DB does only
// together with the costlier heeding of it during the statement. The connection that came back last is lent first: its
// cache is the warmest, and one that is never needed is never opened.
type pool struct {
	db    *sql.DB
	slots chan struct{} // one for each connection that may be lent
	done  <-chan struct{}

	mu   sync.Mutex
	idle []*conn
}

func newPool(dsn string, n int, done <-chan struct{}) (*pool, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("prepare connections to the store: %w", err)
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	p := &pool{db: db, slots: make(chan struct{}, n), done: done}
	for range n {
		p.slots <- struct{}{}
	}
	return p, nil
}

// get borrows a connection. The error is errClosed, the context's or the driver's.
func (p *pool) get(ctx context.Context) (*conn, error) {
	select {
	case <-p.done:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	default:
	}
	select {
	case <-p.slots:
	case <-p.done:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c := p.pop(); c != nil {
		return c, nil
	}
	raw, err := p.db.Conn(ctx)
	if err != nil {
		p.slots <- struct{}{}
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &conn{raw: raw, stmts: make(map[string]*sql.Stmt)}, nil
}

// pop answers the connection that was given back last; nil when there is none.
func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return c
}

// put gives a connection back. One that is not in a known state is closed, and another opened when it is needed.
func (p *pool) put(c *conn) {
	if c.broken {
		_ = c.discard()
	} else {
		p.mu.Lock()
		p.idle = append(p.idle, c)
		p.mu.Unlock()
	}
	p.slots <- struct{}{}
}

// close waits for every borrower and closes the connections. done must be closed before.
func (p *pool) close() error {
	var errs []error
	for range cap(p.slots) {
		<-p.slots
	}
	for c := p.pop(); c != nil; c = p.pop() {
		errs = append(errs, c.close())
	}
	return errors.Join(append(errs, p.db.Close())...)
}

// conn is a connection and its prepared statements, used by one goroutine at a time.
type conn struct {
	raw    *sql.Conn
	stmts  map[string]*sql.Stmt
	broken bool

	direct direct

	// A lookup's row and where its columns go, made once.
	row     *credentialRow
	columns []any
}

// credential answers the row that a lookup scans into. Every scan overwrites all of it.
func (c *conn) credential() (*credentialRow, []any) {
	if c.row == nil {
		c.row = new(credentialRow)
		c.columns = c.row.dest()
	}
	return c.row, c.columns
}

// stmt prepares a statement once. Its key is the text: statements are constants, so there are as many as those.
func (c *conn) stmt(query string) (*sql.Stmt, error) {
	if st := c.stmts[query]; st != nil {
		return st, nil
	}
	st, err := c.raw.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, c.note(err)
	}
	c.stmts[query] = st
	return st, nil
}

func (c *conn) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	st, err := c.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, args...)
	return rows, c.note(err)
}

func (c *conn) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	st, err := c.stmt(query)
	if err != nil {
		return nil, err
	}
	r, err := st.ExecContext(ctx, args...)
	return r, c.note(err)
}

// each runs f on every row.
func (c *conn) each(ctx context.Context, query string, f func(*sql.Rows) error, args ...any) error {
	rows, err := c.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return c.note(rows.Err())
}

// one scans the only row of a query; sql.ErrNoRows when there is none.
func (c *conn) one(ctx context.Context, query string, dest []any, args ...any) error {
	rows, err := c.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return c.note(err)
		}
		return sql.ErrNoRows
	}
	return rows.Scan(dest...)
}

const rollbackTx = `ROLLBACK`

// rollback ends a transaction that may have ended already: SQLite rolls back by itself after some failures, and a
// cancelled BEGIN may or may not have begun.
func (c *conn) rollback() {
	_, err := c.exec(context.Background(), rollbackTx)
	var se *sqlite.Error
	if err != nil && (!errors.As(err, &se) || se.Code() != sqlite3.SQLITE_ERROR) {
		c.broken = true
	}
}

// note marks a connection that the driver has given up.
func (c *conn) note(err error) error {
	if err != nil && (errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)) {
		c.broken = true
	}
	return err
}

func (c *conn) close() error {
	errs := c.direct.close()
	for _, st := range c.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// discard closes the connection and keeps the *sql.DB from lending it again.
func (c *conn) discard() error {
	_ = c.raw.Raw(func(any) error { return driver.ErrBadConn })
	return c.close()
}

// fault turns a failure into what the port promises. Answers, and errors that are the domain's already, pass; the
// context's end stays recognizable; everything else is an outage, and one that no retry ends says so.
func fault(op string, err error) error {
	var known *tokens.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known), errors.Is(err, tokens.ErrNotFound), errors.Is(err, tokens.ErrTaken):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", op, err)
	case isFull(err):
		return tokens.DiskFull(op, err)
	case isCode(err, sqlite3.SQLITE_CORRUPT), isCode(err, sqlite3.SQLITE_NOTADB):
		damaged := tokens.StoreUnavailable(op, err)
		damaged.Message = "the database file is damaged; stop the server, run patd check and restore a backup"
		return damaged
	default:
		return tokens.StoreUnavailable(op, err)
	}
}

// isFull tells whether SQLite had no room to write. It reports a quota or a file size limit as a failed write, and no
// room for the index of the write-ahead log as a failure to grow that.
func isFull(err error) bool {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return false
	}
	switch se.Code() {
	case sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE:
		return true
	default:
		return se.Code()&0xff == sqlite3.SQLITE_FULL
	}
}

func isCode(err error, primary int) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && se.Code()&0xff == primary
}

// micros is how instants are stored.
func micros(t time.Time) int64 { return t.UnixMicro() }

func instant(us int64) time.Time { return time.UnixMicro(us).UTC() }
