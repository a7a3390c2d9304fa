package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
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

// connect makes a connection that no pool lends. Closing it leaves db open.
func connect(ctx context.Context, d *dialect, db *sql.DB) (*conn, error) {
	return newPool(d, db, 1, 0, nil).get(ctx)
}

// fresh makes a connection of its own, in place of the one that a pool of one has lent, which is closed. It is discarded, not
// given back.
func (p *pool) fresh(ctx context.Context) (*conn, error) {
	raw, err := p.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return newConn(p, raw), nil
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
