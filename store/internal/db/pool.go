package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Pool lends out the connections of one kind. A waiting borrower heeds its context, which a *sql.DB does only together
// with heeding it during the statement, which costs more. The connection that came back last is lent first: its cache
// is the warmest, and one that is never needed is never opened.
type Pool struct {
	dialect *Dialect
	limit   time.Duration // of a statement; 0: none
	db      *sql.DB
	slots   chan struct{} // one for each connection that may be lent
	done    <-chan struct{}

	mu   sync.Mutex
	idle []*Conn
}

func newPool(d *Dialect, db *sql.DB, n int, limit time.Duration, done <-chan struct{}) *Pool {
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	p := &Pool{dialect: d, limit: limit, db: db, slots: make(chan struct{}, n), done: done}
	for range n {
		p.slots <- struct{}{}
	}
	return p
}

// Get borrows a connection. The error is errClosed, the context's or the driver's.
func (p *Pool) Get(ctx context.Context) (*Conn, error) {
	select {
	case <-p.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	default:
	}
	select {
	case <-p.slots:
	case <-p.done:
		return nil, ErrClosed
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

func newConn(p *Pool, raw *sql.Conn) *Conn {
	return &Conn{
		dialect: p.dialect,
		limit:   p.limit,
		raw:     raw,
		stmts:   make(map[string]*sql.Stmt),
		forms:   make(map[string]string),
	}
}

// Dialect is what the pool's database differs in from others.
func (p *Pool) Dialect() *Dialect { return p.dialect }

// Size is how many connections the pool lends at most.
func (p *Pool) Size() int { return cap(p.slots) }

// Connect makes a connection that no pool lends. Closing it leaves db open.
func Connect(ctx context.Context, d *Dialect, db *sql.DB) (*Conn, error) {
	return newPool(d, db, 1, 0, nil).Get(ctx)
}

// Fresh makes a connection of its own, in place of the one that a pool of one has lent, which is closed. It is
// discarded, not given back.
func (p *Pool) Fresh(ctx context.Context) (*Conn, error) {
	raw, err := p.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return newConn(p, raw), nil
}

// Use runs fn on a connection, and again on another when the first turns out to be dead: connections to a database that
// was restarted are, which shows only when they are used.
func (p *Pool) Use(ctx context.Context, fn func(*Conn) error) error { return p.lend(ctx, false, fn) }

// Begin borrows a connection in a transaction that the statements begin. The caller gives it back.
func (p *Pool) Begin(ctx context.Context, statements []string) (begun *Conn, err error) {
	err = p.lend(ctx, true, func(c *Conn) error {
		if err := c.begin(ctx, statements); err != nil {
			c.Rollback()
			return err
		}
		begun = c
		return nil
	})
	return begun, err
}

func (c *Conn) begin(ctx context.Context, statements []string) error {
	if !c.dialect.Remote || len(statements) == 1 {
		return c.ExecAll(ctx, statements)
	}
	list := make([]*Statement, len(statements))
	for i, statement := range statements {
		list[i] = &Statement{Query: statement}
	}
	return c.Pipeline(ctx, list)
}

func (p *Pool) lend(ctx context.Context, keep bool, fn func(*Conn) error) error {
	dead, err := p.lendOne(ctx, keep, fn)
	if dead && err != nil {
		_, err = p.lendOne(ctx, keep, fn)
	}
	return err
}

// lendOne runs fn on a connection, which stays lent when it is to be kept and fn succeeds.
func (p *Pool) lendOne(ctx context.Context, keep bool, fn func(*Conn) error) (dead bool, err error) {
	c, err := p.Get(ctx)
	if err != nil {
		return false, err
	}
	kept := false
	defer func() {
		if !kept {
			p.Put(c)
		}
	}()
	err = fn(c)
	kept = keep && err == nil
	return c.broken && !IsTimeout(err), err
}

// pop returns the connection that was given back last; nil when there is none.
func (p *Pool) pop() *Conn {
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

// Put gives a connection back. One that is not in a known state is closed, and another opened when it is needed.
func (p *Pool) Put(c *Conn) {
	if c.broken {
		_ = c.Discard()
		if p.dialect.Remote {
			// What ended one has likely ended the others, which shows only when they are used.
			for c := p.pop(); c != nil; c = p.pop() {
				_ = c.Discard()
			}
		}
	} else {
		p.mu.Lock()
		p.idle = append(p.idle, c)
		p.mu.Unlock()
	}
	p.slots <- struct{}{}
}

// Close waits for every borrower and closes the connections. done must be closed before.
func (p *Pool) Close() error {
	var errs []error
	for range cap(p.slots) {
		<-p.slots
	}
	for c := p.pop(); c != nil; c = p.pop() {
		if p.dialect.Remote {
			// A server that hangs must not keep the store from closing. Committed changes are on its disk.
			_ = c.Discard()
			continue
		}
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, p.db.Close())...)
}
