package store

import (
	"context"
	"database/sql"
	"errors"

	"patd/store/internal/db"
	"patd/tokens"
)

const commitTx = `COMMIT`

var (
	errOver      = errors.New("the transaction is over")
	errUnchanged = errors.New("nothing was changed")
	errNoEvent   = errors.New("change the store: rows were written without an audit event")
)

// View implements tokens.Store.
func (s *Store) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	return s.view(ctx, func(t *readTx) error { return fn(t) })
}

func (s *Store) view(ctx context.Context, fn func(*readTx) error) error {
	c, err := s.views.Begin(ctx, s.dialect.BeginRead)
	if err != nil {
		return db.Fault("begin to read", err)
	}
	defer s.views.Put(c)
	defer c.Rollback()
	tx := &readTx{ctx: ctx, c: c, store: s}
	defer tx.end()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.failed
}

// Update implements tokens.Store.
func (s *Store) Update(ctx context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
	var seq uint64
	var unchanged bool // by fn, when it ran last
	of := s.feed.History()
	err := s.group.do(ctx, "change the store", false, func(t *tx) error {
		events, err := fn(t)
		unchanged = false
		switch {
		case err != nil:
			return err
		case t.failed != nil:
			return t.failed
		case len(events) == 0 && t.wrote:
			return errNoEvent
		case len(events) == 0 && t.kept:
			seq = 0 // it may have run before
			return nil
		case len(events) == 0:
			unchanged = true
			return errUnchanged
		}
		t.ends = tokens.OnlyEnds(events)
		return t.record(events, db.Micros(s.options.Now()), &seq)
	})
	if unchanged && errors.Is(err, errUnchanged) { // not the failure of another whose transaction it shared
		return nil
	}
	if s.noteChange(err); err == nil {
		s.feed.Advance(seq, of)
	}
	return err
}

// transact does housekeeping in a transaction: it gives way to changes, shares their flush of the disk where it can,
// and should be short. Waiting for it heeds ctx; fn may be run again.
func (s *Store) transact(ctx context.Context, op string, fn func(*tx) error) error {
	return s.group.do(ctx, op, true, fn)
}

// readTx is a snapshot. Once a statement has failed it does nothing more: SQLite may have rolled back by itself, and
// a statement that came after would stand alone.
type readTx struct {
	ctx    context.Context
	c      *db.Conn
	store  *Store
	failed error
	cause  error // the database's, of failed

	token *guardedToken // the last that was read, as it is now
	aside *aside        // it runs beside others; nil: alone
}

func (t *readTx) end() {
	if t.failed == nil {
		t.failed = db.Fault("use a transaction", errOver)
	}
}

// fail keeps the first failure and returns it.
func (t *readTx) fail(op string, err error) error {
	if cerr := t.ctx.Err(); cerr != nil && db.IsInterrupt(err) {
		err = cerr
	}
	t.failed, t.cause = db.Fault(op, err), err
	return t.failed
}

// alone makes ready for a statement that runs by itself.
func (t *readTx) alone() error {
	if t.failed == nil && t.aside != nil {
		return t.aside.park(t)
	}
	return t.failed
}

// one scans the only row of a query; ErrNotFound when there is none.
func (t *readTx) one(op, query string, dest []any, args ...any) error {
	if err := t.alone(); err != nil {
		return err
	}
	err := t.c.One(t.ctx, query, dest, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return tokens.ErrNotFound
	}
	if err != nil {
		return t.fail(op, err)
	}
	return nil
}

// each runs f on every row of a query.
func (t *readTx) each(op, query string, f func(*sql.Rows) error, args ...any) error {
	if err := t.alone(); err != nil {
		return err
	}
	if err := t.c.Each(t.ctx, query, f, args...); err != nil {
		return t.fail(op, err)
	}
	return nil
}

// tx is a transaction that writes, or one change's part of it.
type tx struct {
	readTx
	wrote  bool
	kept   bool // it wrote what needs no event
	shared bool // others have written in the transaction: what this one writes needs a savepoint
	saved  bool // there is one
	tried  bool // a statement that writes was run, whatever came of it
	fed    bool // the change feed was written to
	ends   bool // it only takes away, and may use the disk's reserve
	proof  proof
}

// lost reports whether a failure has ended the transaction, or may have.
func (t *tx) lost() bool {
	return t.c.Broken() || t.cause != nil && db.EndsTransaction(t.cause, t.saved)
}

// A savepoint begins with the first statement that writes, so that a change that is refused, as most that fail are,
// needs none.
const (
	beginSaved  = `SAVEPOINT change`
	undoSaved   = `ROLLBACK TO change`
	forgetSaved = `RELEASE change`
)

// toWrite makes ready for a statement that writes.
func (t *tx) toWrite(op string) error {
	if err := t.alone(); err != nil {
		return err
	}
	if t.shared && !t.saved {
		if _, err := t.c.Exec(t.ctx, beginSaved); err != nil {
			return t.fail(op, err)
		}
		t.saved = true
	}
	t.tried = true
	return nil
}

// exec runs a statement and returns how many rows it wrote.
func (t *tx) exec(op, query string, args ...any) (int64, error) {
	if err := t.toWrite(op); err != nil {
		return 0, err
	}
	r, err := t.c.Exec(t.ctx, query, args...)
	if err != nil {
		return 0, t.fail(op, err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return 0, t.fail(op, err)
	}
	t.wrote = t.wrote || n > 0
	return n, nil
}

// returning is each for a statement that writes.
func (t *tx) returning(op, query string, f func(*sql.Rows) error, args ...any) error {
	if err := t.toWrite(op); err != nil {
		return err
	}
	return t.each(op, query, f, args...)
}

// mustExec is exec for a statement that is about one record: it returns absent when none was written.
func (t *tx) mustExec(op string, absent error, query string, args ...any) error {
	n, err := t.exec(op, query, args...)
	if err == nil && n == 0 {
		return absent
	}
	return err
}
