package store

import (
	"context"
	"database/sql"
	"iter"
	"slices"

	"patd/internal/tracecontext"
	"patd/store/internal/db"
	"patd/tokens"
)

// In PostgreSQL a statement is a way through the network, and the changes of a group would go it one after another. So
// they run side by side, each up to where it needs an answer of the database; what all of them ask then goes in one
// pipeline, and so do the rows that they add at the end. They take turns: only one runs at a time.
//
// All read what was there before any of them wrote. A change whose reads another's rows would have altered waits, and
// runs again by itself, as one after the other would have. So does one that needs a statement of another kind; it goes
// on where it stopped, if nothing was written meanwhile that it might have read.

// aside is the run of a change beside others.
type aside struct {
	m     *member
	t     *tx
	next  func() (*db.Statement, bool) // runs it up to the next statement; nil: to where it has to be alone
	stop  func()
	yield func(*db.Statement) bool

	asks   *db.Statement
	parked bool
	done   bool
	rows   []*row
	places []place // of what it read and of its rows
	absent []place // it looked, and nothing is there
}

// place is what rows of a group can change for others: a userTokens, a tokens.ID or a tokens.RequestKey.
type place any

// userTokens are the tokens of a user, by its key.
type userTokens int64

// begin begins the run of a change, which ends with stop at the latest.
func (b *batch) begin(m *member) *aside {
	a := &aside{m: m}
	a.t = &tx{readTx: readTx{ctx: m.ctx, c: b.c, store: b.group.store, aside: a}}
	a.next, a.stop = iter.Pull(func(yield func(*db.Statement) bool) {
		a.yield = yield
		m.run(a.t)
	})
	b.asides = append(b.asides, a)
	return a
}

// sideBySide runs changes up to their ends, and adds their rows. The changes that it returns have to be alone.
func (b *batch) sideBySide(list []*member) (waiting []*aside) {
	runs := make([]*aside, len(list))
	for i, m := range list {
		runs[i] = b.begin(m)
	}
	if !b.runBeside(runs) {
		return nil
	}
	b.stale = false
	rows, waiting, taken := b.inOrder(runs)
	if len(rows) > 0 {
		b.add(rows)
	}
	for _, a := range waiting {
		a.parked = a.parked && !meets(taken, a.places) // another's rows are where it looked
	}
	return waiting
}

// runBeside runs changes until each has ended or has to be alone. It reports whether the transaction stands.
func (b *batch) runBeside(runs []*aside) bool {
	for {
		var asked []*db.Statement
		for _, a := range runs {
			if !a.parked && !a.done {
				b.step(a)
			}
			if a.asks != nil {
				asked = append(asked, a.asks)
			}
		}
		if len(asked) == 0 {
			return true
		}
		if err := b.c.Pipeline(context.Background(), asked); err != nil {
			b.lose(err) // each finds out by itself whose it is
			return false
		}
	}
}

// inOrder returns the rows of the changes that can stand as if each had come after those before it, where those rows
// are, and the changes that have to wait. A change without rows can stand before all of them.
func (b *batch) inOrder(runs []*aside) (rows []*row, waiting []*aside, taken map[place]bool) {
	taken = make(map[place]bool)
	for _, a := range runs {
		m := a.m
		failed := m.last.err != nil || m.last.panicked != nil
		switch {
		case a.parked || len(a.rows) > 0 && !failed && meets(taken, a.places):
			waiting = append(waiting, a)
		case failed || len(a.rows) == 0:
			m.uncommitted = b.wrote
		default:
			m.ends = a.t.ends
			rows = append(rows, a.rows...)
			for _, r := range a.rows {
				for _, p := range r.at {
					taken[p] = true
				}
			}
		}
	}
	return rows, waiting, taken
}

func meets(taken map[place]bool, places []place) bool {
	return slices.ContainsFunc(places, func(p place) bool { return taken[p] })
}

// step runs a change up to the next statement.
func (b *batch) step(a *aside) {
	b.inside = a.m
	asks, more := a.next()
	b.inside = nil
	a.asks, a.done, a.parked = asks, !more, more && asks == nil
}

// alone runs a change that had to wait for the others: on from where it stopped, or again.
func (b *batch) alone(a *aside) {
	if !a.parked || b.stale {
		b.inside = a.m
		a.stop()
		b.run(a.m)
		return
	}
	a.m.uncommitted = b.wrote
	a.t.aside, a.t.shared = nil, b.wrote
	b.step(a)
	b.keepOrUndo(a.m, a.t)
}

// stopAll ends the runs that have not ended, each even when the one before ends the goroutine.
func (b *batch) stopAll() {
	if n := len(b.asides); n > 0 {
		a := b.asides[n-1]
		b.asides = b.asides[:n-1]
		defer b.stopAll()
		a.stop()
	}
}

// beside is each for a read that can go with those of other changes. at is what of it others' rows may change; nil:
// nothing.
func (t *readTx) beside(op, query string, at place, f func(db.Row) error, args ...any) error {
	if t.failed != nil {
		return t.failed
	}
	a := t.aside
	if a == nil || at != nil && a.adds(at) {
		return t.each(op, query, func(rows *sql.Rows) error { return f(rows) }, args...)
	}
	if at != nil {
		a.places = append(a.places, at)
	}
	return a.ask(t, op, &db.Statement{Query: query, Args: slices.Clone(args), Row: f})
}

// oneBeside is beside for the only row of a query; ErrNotFound when there is none.
func (t *readTx) oneBeside(op, query string, at place, dest []any, args ...any) error {
	if t.aside == nil {
		return t.one(op, query, dest, args...)
	}
	found := false
	into := slices.Clone(dest) // so that the slice of a change that is alone need not be on the heap
	err := t.beside(op, query, at, func(row db.Row) error {
		found = true
		return row.Scan(into...)
	}, args...)
	if err == nil && !found {
		return tokens.ErrNotFound
	}
	return err
}

// ask has a statement run with those of others.
func (a *aside) ask(t *readTx, op string, s *db.Statement) error {
	if !a.yield(s) {
		return t.fail(op, errLost)
	}
	if s.Err != nil {
		return t.fail(op, s.Err)
	}
	return nil
}

// adds reports whether the change itself has added a row there.
func (a *aside) adds(at place) bool {
	return slices.ContainsFunc(a.rows, func(r *row) bool { return slices.Contains(r.at, at) })
}

// add keeps a row for the end of the group. Its arguments are copied, so that those of a change that is alone need not
// be on the heap.
func (a *aside) add(t *tx, r *row, args []any) {
	r.args = slices.Clone(args)
	a.rows = append(a.rows, r)
	a.places = append(a.places, r.at...)
	t.wrote = true
}

// park waits until the change is alone, and does what it put off.
func (a *aside) park(t *readTx) error {
	const op = "wait for the others of a group"
	if !a.yield(nil) {
		return t.fail(op, errLost)
	}
	for _, r := range a.rows {
		if err := a.t.mustExec(r.op, tokens.ErrTaken, r.in.one, r.args...); err != nil {
			return t.fail(r.op, err)
		}
	}
	return nil
}

// besides are changes that can run side by side. A statement of a call that is traced has a text of its own.
func (m *member) besides(d *db.Dialect) bool {
	return d.Remote && !m.housekeeping && !m.alone && tracecontext.SQLComment(m.ctx) == ""
}
