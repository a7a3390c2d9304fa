package store

import (
	"context"
	"errors"

	sqlite3 "modernc.org/sqlite/lib"
)

var errLost = errors.New("the transaction was rolled back")

// transaction runs those in line in one transaction, and those who come meanwhile. When none can begin, it refuses those
// who were in line: they have waited for as long as it took to find out.
func (g *group) transaction(line []*member) {
	c, err := g.writer.get(context.Background())
	if err != nil {
		g.refuse(line, err)
		return
	}
	defer g.writer.put(c)
	if _, err := c.exec(context.Background(), beginWrite); err != nil {
		c.rollback()
		g.refuse(line, err)
		return
	}
	b := &batch{c: c}
	defer func() { g.after(b.end()) }() // even when a change ends the goroutine
	for !b.over {
		m := g.next(b.ran)
		if m == nil {
			return
		}
		b.run(m)
	}
}

// batch is a transaction on the writer's connection, and those who share it.
type batch struct {
	c      *conn
	ran    []*member // they wait for the end
	inside bool      // the last of them is running
	wrote  bool      // there is something to commit
	over   bool      // it was rolled back
	err    error     // why it did not happen
}

// run runs a member, and undoes what it did when it failed.
func (b *batch) run(m *member) {
	b.ran = append(b.ran, m)
	// Even a refusal may rest on what others wrote and have not committed.
	m.uncommitted = b.wrote
	t := &tx{readTx: readTx{ctx: m.ctx, c: b.c}, shared: b.wrote}
	b.inside = true
	m.run(t)
	b.inside = false
	failed := m.last.panicked != nil || m.last.err != nil
	switch {
	case t.lost || b.c.broken:
		m.uncommitted = false // its failure is its answer
		b.lose(m.last.err)
	case failed && t.saved:
		b.savepoint(undoSaved, forgetSaved)
	case failed && t.tried:
		b.lose(m.last.err) // nobody else has written
	case t.saved:
		b.savepoint(forgetSaved)
	case t.tried:
		m.uncommitted, b.wrote = true, true
	}
}

// savepoint ends a member's savepoint. One that is not there went with the transaction.
func (b *batch) savepoint(statements ...string) {
	for _, statement := range statements {
		if _, err := b.c.exec(context.Background(), statement); err != nil {
			b.lose(err)
			return
		}
	}
}

// lose gives the transaction up. No answer may rest on it from here on, whatever the cause, which a panic hides.
func (b *batch) lose(cause error) {
	b.c.rollback()
	b.over, b.err = true, errors.Join(errLost, cause)
}

// end commits and answers. It returns those that it has no answer for: they must run again, each alone. When the commit
// fails, nothing that rests on it has happened.
func (b *batch) end() (again []*member) {
	switch {
	case b.inside: // the change ended the goroutine
		b.ran[len(b.ran)-1].uncommitted = false
		b.lose(nil)
	case !b.over:
		b.commit()
	}
	// A constraint that is checked by the commit does not tell whose it is, and a transaction that one of them lost is
	// not the others' failure.
	retry := b.over || len(b.ran) > 1 && isCode(b.err, sqlite3.SQLITE_CONSTRAINT)
	for _, m := range b.ran {
		switch {
		case b.err == nil || !m.uncommitted:
			m.answer <- m.last
		case retry:
			again = append(again, m)
		default:
			m.answer <- outcome{err: fault(m.op, b.err)}
		}
	}
	return again
}

func (b *batch) commit() {
	if !b.wrote {
		b.c.rollback()
		return
	}
	if _, err := b.c.exec(context.Background(), commitTx); err != nil {
		b.c.rollback()
		b.err = err
	}
}
