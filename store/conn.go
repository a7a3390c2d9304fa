package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// pool lends out the connections of one kind. A waiting borrower heeds its context, which a *sql.DB does only
// together with the costlier heeding of it during the statement. The connection that came back last is lent first: its
// cache is the warmest, and one that is never needed is never opened.
type pool struct {
	dialect *dialect
	limit   time.Duration // of a statement; 0: none
	db      *sql.DB
	slots   chan struct{} // one for each connection that may be lent
	done    <-chan struct{}

	mu   sync.Mutex
	idle []*conn
}

func newPool(d *dialect, db *sql.DB, n int, limit time.Duration, done <-chan struct{}) *pool {
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	p := &pool{dialect: d, limit: limit, db: db, slots: make(chan struct{}, n), done: done}
	for range n {
		p.slots <- struct{}{}
	}
	return p
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
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = &statementTimeout{err} // the database's doing, not the caller's
		}
		return nil, fmt.Errorf("connect: %w", err)
	}
	return newConn(p, raw), nil
}

func newConn(p *pool, raw *sql.Conn) *conn {
	return &conn{dialect: p.dialect, limit: p.limit, raw: raw, stmts: make(map[string]*sql.Stmt)}
}

// use runs fn on a connection, and again on another when the first turns out to be dead: connections to a database that was
// restarted are, and do not tell before they are used.
func (p *pool) use(ctx context.Context, fn func(*conn) error) error { return p.lend(ctx, false, fn) }

// begin borrows a connection in a transaction that the statements begin. The caller gives it back.
func (p *pool) begin(ctx context.Context, statements []string) (begun *conn, err error) {
	err = p.lend(ctx, true, func(c *conn) error {
		if err := c.execAll(ctx, statements); err != nil {
			c.rollback()
			return err
		}
		begun = c
		return nil
	})
	return begun, err
}

func (p *pool) lend(ctx context.Context, keep bool, fn func(*conn) error) error {
	dead, err := p.lendOne(ctx, keep, fn)
	if dead && err != nil {
		_, err = p.lendOne(ctx, keep, fn)
	}
	return err
}

// lendOne runs fn on a connection, which stays lent when it is to be kept and fn succeeds.
func (p *pool) lendOne(ctx context.Context, keep bool, fn func(*conn) error) (dead bool, err error) {
	c, err := p.get(ctx)
	if err != nil {
		return false, err
	}
	kept := false
	defer func() {
		if !kept {
			p.put(c)
		}
	}()
	err = fn(c)
	kept = keep && err == nil
	return c.broken && !isTimeout(err), err
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
		if p.dialect.remote {
			// What ended one has likely ended the others, which nobody can tell before they are used.
			for c := p.pop(); c != nil; c = p.pop() {
				_ = c.discard()
			}
		}
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
		if p.dialect.remote { // a server that does not answer keeps nobody from ending, and what was answered is on its disk
			_ = c.discard()
			continue
		}
		errs = append(errs, c.close())
	}
	return errors.Join(append(errs, p.db.Close())...)
}

// conn is a connection and its prepared statements, used by one goroutine at a time.
type conn struct {
	dialect *dialect
	limit   time.Duration // of a statement; 0: none
	raw     *sql.Conn
	stmts   map[string]*sql.Stmt
	broken  bool

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

// bound is the context of a statement, which ends no later than the connection's limit.
func (c *conn) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.limit == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.limit)
}

// stmt prepares a statement once. Its key is the text: statements are constants, so there are as many as those.
func (c *conn) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
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

// exec runs a statement.
func (c *conn) exec(ctx context.Context, query string, args ...any) (r sql.Result, err error) {
	within, cancel := c.bound(ctx)
	defer cancel()
	st, err := c.stmt(within, query)
	if err == nil {
		r, err = st.ExecContext(within, args...)
	}
	return r, c.note(ctx, err)
}

// execAll runs statements one after another, up to the first that fails.
func (c *conn) execAll(ctx context.Context, statements []string) error {
	for _, statement := range statements {
		if _, err := c.exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// each runs f on every row.
func (c *conn) each(ctx context.Context, query string, f func(*sql.Rows) error, args ...any) error {
	within, cancel := c.bound(ctx)
	defer cancel()
	st, err := c.stmt(within, query)
	if err != nil {
		return c.note(ctx, err)
	}
	rows, err := st.QueryContext(within, args...)
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

// one scans the only row of a query; sql.ErrNoRows when there is none.
func (c *conn) one(ctx context.Context, query string, dest []any, args ...any) error {
	err := sql.ErrNoRows
	if failed := c.each(ctx, query, func(rows *sql.Rows) error {
		err = rows.Scan(dest...)
		return err
	}, args...); failed != nil {
		return failed
	}
	return err
}

const rollbackTx = `ROLLBACK`

// rollback ends a transaction that may have ended already: SQLite rolls back by itself after some failures, and a
// cancelled BEGIN may or may not have begun.
func (c *conn) rollback() {
	if c.broken {
		return
	}
	_, err := c.exec(context.Background(), rollbackTx)
	if err != nil && !isSQLite(err, sqlite3.SQLITE_ERROR) {
		c.broken = true
	}
}

// note marks a connection that the driver has given up, or whose server does not take changes any more, and tells a
// statement that took too long from a caller who went away.
func (c *conn) note(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	c.broken = c.broken || gone(err) || c.dialect.remote && (disconnected(c.raw) || isState(err, "25006")) // read_only_sql_transaction
	if c.limit > 0 && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return &statementTimeout{err}
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
	if c.dialect.remote {
		return cutOff(c.raw)
	}
	_ = c.raw.Raw(func(any) error { return driver.ErrBadConn })
	return c.close()
}

// micros is how instants are stored.
func micros(t time.Time) int64 { return t.UnixMicro() }

func instant(us int64) time.Time { return time.UnixMicro(us).UTC() }
