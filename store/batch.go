package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"patd/store/internal/db"
	"patd/store/internal/reserve"
	"patd/tokens"
)

var (
	errLost          = errors.New("the transaction was rolled back")
	errNoTransaction = errors.New("the transaction has failed, or was never begun")
)

// transaction runs those in line in one transaction, and those who come meanwhile. When none can begin, it refuses
// those who were in line: they have waited for as long as it took to find out.
func (g *group) transaction(line []*member) {
	begin := g.writer.Dialect().BeginWrite
	sparing := g.reserve.InUse()
	if sparing != g.sparing {
		begin = append([]string{db.LogPages(sparing)}, begin...)
	}
	c, err := g.writer.Begin(context.Background(), begin)
	if err != nil {
		g.refuse(line, err)
		return
	}
	g.sparing = sparing
	defer g.writer.Put(c)
	b := &batch{c: c, group: g}
	defer func() { g.after(b.end(), b.back) }() // even when a change ends the goroutine
	defer b.stopAll()
	if c.Dialect().Remote {
		turn := time.NewTimer(maxTurn)
		defer turn.Stop()
		b.turn = turn.C
	}
	for !b.over && !b.long() {
		beside, alone := b.take()
		if len(beside) == 0 && alone == nil {
			return
		}
		b.runAll(beside, alone)
	}
}

// take takes those in line who can run side by side, and then one who has to be alone.
func (b *batch) take() (beside []*member, alone *member) {
	for {
		m := b.group.next(b.ran)
		if m == nil {
			return beside, nil
		}
		b.ran = append(b.ran, m)
		m.uncommitted = true // should the transaction be lost before it runs, it must run again
		if !m.besides(b.c.Dialect()) {
			return beside, m
		}
		beside = append(beside, m)
	}
}

// runAll runs members. Those whose turn is over before they have run go back in line.
func (b *batch) runAll(beside []*member, alone *member) {
	var waiting []*aside
	if len(beside) > 0 {
		waiting = b.sideBySide(beside)
	}
	for i, a := range waiting {
		if b.over {
			return
		}
		if b.long() {
			for _, a := range waiting[i:] {
				b.putBack(a.m)
			}
			break
		}
		b.alone(a)
	}
	switch {
	case alone == nil || b.over:
	case b.long():
		b.putBack(alone)
	default:
		b.run(alone)
	}
}

func (b *batch) putBack(m *member) {
	b.ran = slices.DeleteFunc(b.ran, func(r *member) bool { return r == m })
	b.back = append(b.back, m)
}

// maxTurn is how long a transaction takes in others that wait where those of other processes wait for it, too.
const maxTurn = 100 * time.Millisecond

// long reports whether the turn is over, once there is something to commit.
func (b *batch) long() bool {
	select {
	case <-b.turn:
		b.late = true
	default:
	}
	return b.wrote && b.late
}

// batch is a transaction on the writer's connection, and those who share it.
type batch struct {
	group  *group
	c      *db.Conn
	ran    []*member // they wait for the end
	inside *member   // who is running
	wrote  bool      // there is something to commit
	fed    bool      // so has the change feed
	proof  proof     // which shows whether the commit happened
	over   bool      // it was rolled back
	err    error     // why it did not happen

	asides []*aside  // runs that may not have ended
	stale  bool      // somebody who was alone wrote since their reads
	back   []*member // their turn was over before they ran

	turn <-chan time.Time // tells once that others have waited for long enough; nil: there are none
	late bool             // it did
}

// run runs a member by itself.
func (b *batch) run(m *member) {
	// Even a refusal may rest on what others wrote and have not committed.
	m.uncommitted = b.wrote
	t := &tx{readTx: readTx{ctx: m.ctx, c: b.c, store: b.group.store}, shared: b.wrote}
	b.inside = m
	m.run(t)
	b.inside = nil
	b.keepOrUndo(m, t)
}

// keepOrUndo undoes what a member did when it failed, and remembers it otherwise.
func (b *batch) keepOrUndo(m *member, t *tx) {
	b.stale = b.stale || t.tried
	if m.ends = t.ends; m.last.err == nil && m.last.panicked == nil && t.wrote && !t.ends && b.group.reserve.Keeps() {
		m.last.err = tokens.DiskReserved(m.op, reserve.ErrKept)
	}
	failed := m.last.panicked != nil || m.last.err != nil
	switch {
	case t.lost():
		// Its failure is its result, unless it was only in the way of another, or the connection broke, and this was
		// the first time.
		m.uncommitted = !m.alone && (db.IsConflict(t.cause) || b.c.Dialect().Remote && b.c.Broken() &&
			!db.IsTimeout(t.cause)) ||
			m.ends && db.IsFull(t.cause)
		if !failed { // it did not notice
			m.last.err = db.Fault(m.op, errLost)
		}
		b.lose(m.last.err)
	case failed && t.saved:
		b.savepoint(undoSaved, forgetSaved)
	case failed && t.tried:
		b.lose(m.last.err) // nobody else has written
	case t.saved:
		b.savepoint(forgetSaved)
		b.keep(t)
	case t.tried:
		m.uncommitted, b.wrote = true, true
		b.keep(t)
	}
}

// keep remembers what a member did for the commit.
func (b *batch) keep(t *tx) {
	b.fed = b.fed || t.fed
	if t.proof.seq != 0 {
		b.proof = t.proof
	}
}

// savepoint ends a member's savepoint. One that is not there went with the transaction.
func (b *batch) savepoint(statements ...string) {
	if err := b.c.ExecAll(context.Background(), statements); err != nil {
		b.lose(err)
	}
}

// lose gives the transaction up. No result may rest on it from here on, whatever the cause, which a panic hides.
func (b *batch) lose(cause error) {
	b.c.Rollback()
	b.over, b.err = true, errors.Join(errLost, cause)
}

// end commits and sends the results. It returns the members that have none: they must run again, each alone. When the
// commit fails, nothing that rests on it has happened.
func (b *batch) end() (again []*member) {
	switch {
	case b.inside != nil: // the change ended the goroutine
		b.inside.uncommitted = false
		b.lose(nil)
	case !b.over:
		b.commit()
	}
	// A constraint that is checked by the commit does not tell whose it is, and a transaction that one of them lost is
	// not the others' failure.
	conflict, full := db.IsConflict(b.err), db.IsFull(b.err)
	if full {
		b.group.reserve.NoteFull()
	} else if b.err == nil && b.wrote && b.group.reserve.Full() && b.gave() {
		b.group.reserve.NoteRoom()
	}
	retry := b.over || conflict || len(b.ran) > 1 && db.IsConstraint(b.err)
	if conflict || b.over && b.c.Broken() {
		<-time.After(rand.N(maxPause)) // lest both come again at once
	}
	for _, m := range b.ran {
		switch {
		case b.err == nil || !m.uncommitted:
			m.answer <- m.last
		case retry && !m.alone, full && m.ends && b.relieve(m):
			again = append(again, m)
		case full && !m.ends && b.group.reserve.Exists():
			m.answer <- outcome{err: tokens.DiskReserved(m.op, b.err)}
		default:
			m.answer <- outcome{err: db.Fault(m.op, b.err)}
		}
	}
	return again
}

// gave reports whether a change that was committed gives something.
func (b *batch) gave() bool {
	return slices.ContainsFunc(b.ran, func(m *member) bool { return m.uncommitted && !m.ends })
}

// relieve reports whether a change that only takes away should run again, though the disk is full: by itself, and if it
// had no room then either, once more with that of the reserve, and of the write-ahead log once that is in the file.
func (b *batch) relieve(m *member) bool {
	switch {
	case !m.alone:
		return true
	case m.relieved:
		return false
	}
	m.relieved = b.group.reserve.Release()
	if m.relieved && !b.c.Broken() {
		// It may not get far: whether there is room now shows when m runs.
		_, _ = b.c.Exec(context.Background(), db.RewindLog)
	}
	return m.relieved
}

// maxPause is how long a transaction that was in another's way waits at most before it is tried again.
const maxPause = 50 * time.Millisecond

func (b *batch) commit() {
	if !b.wrote {
		b.c.Rollback()
		return
	}
	if b.c.Dialect().Remote && !b.c.InTransaction() {
		b.lose(errNoTransaction) // PostgreSQL would answer the commit of a transaction that failed as if all were well
		return
	}
	announced, err := b.announceAndCommit()
	switch {
	case err == nil:
	case !announced && !b.c.Broken():
		b.lose(err)
	case b.c.Dialect().Remote && b.c.Broken():
		b.resolveCommit(err)
	default:
		b.c.Rollback()
		b.err = err
	}
}

// announceAndCommit also reports whether what goes before the commit was done.
func (b *batch) announceAndCommit() (announced bool, err error) {
	announce := b.c.Dialect().Announce
	if !b.fed || announce == "" {
		_, err := b.c.Exec(context.Background(), commitTx)
		return true, err
	}
	first := &db.Statement{Query: announce}
	err = b.c.Pipeline(context.Background(), []*db.Statement{first, {Query: commitTx}})
	return first.Done, err
}
