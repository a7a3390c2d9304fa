package store

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"

	"patd/store/internal/db"
	"patd/store/internal/reserve"
)

// Bounds of one transaction: how many changes share it, and how many transactions may pass over housekeeping that waits
// while changes keep coming.
const (
	groupLimit = 128
	patience   = 4
)

// group is the line before the writer. Changes that come while it is at work wait, and the next transaction takes them
// all: one flush of the disk serves many. A change that comes alone begins at once.
//
// While somebody waits there is one goroutine, which runs the changes one after another: to hand each its turn on its
// own goroutine was measured to cost a quarter of the throughput. What ends a change's function, a panic too, is handed
// back to its caller and does not affect the others.
type group struct {
	store   *Store
	writer  *db.Pool
	reserve *reserve.Reserve // nil: the disk is another machine's
	sparing bool             // the writer keeps the write-ahead log short; of the goroutine alone
	loop    sync.WaitGroup

	mu      sync.Mutex
	line    []*member // changes
	behind  []*member // housekeeping, which gives way to them
	passed  int       // how many transactions passed over behind
	working bool      // the goroutine is there
	closed  bool
}

// member is a change in line.
type member struct {
	op           string
	ctx          context.Context // one that does not end
	housekeeping bool
	fn           func(*tx) error
	answer       chan outcome // one, when it is on disk or is not going to be
	alone        bool         // it runs again, after a transaction that it shared was lost, in one of its own
	ends         bool         // it only takes away
	relieved     bool         // it runs again, after the disk's reserve was given up for it

	last outcome
	// uncommitted says that its changes, or the changes of others that it has read, depend on the commit.
	uncommitted bool
}

// outcome is how a run of a change ended.
type outcome struct {
	err      error
	panicked *panicked // it did
	exited   bool      // it ended its goroutine
}

// panicked is the panic of a change's function, handed back to its caller with the stack that led to it.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }

// Stack is the stack of the panic itself.
func (p *panicked) Stack() []byte { return p.stack }

func (p *panicked) Unwrap() error {
	err, _ := p.value.(error)
	return err
}

// do runs fn in a transaction, its own or one shared with others, and returns once that is on disk. Waiting for the
// turn heeds ctx; from then on it happens whole or not at all. fn may be run again, and runs on another goroutine.
func (g *group) do(ctx context.Context, op string, housekeeping bool, fn func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return db.Fault(op, err)
	}
	m := &member{op: op, ctx: context.WithoutCancel(ctx), housekeeping: housekeeping, fn: fn,
		answer: make(chan outcome, 1)}
	if !g.join(m) {
		return db.Fault(op, db.ErrClosed)
	}
	var out outcome
	select {
	case out = <-m.answer:
	case <-ctx.Done():
		if g.leave(m) {
			return db.Fault(op, ctx.Err())
		}
		out = <-m.answer // it has begun
	}
	switch {
	case out.panicked != nil:
		panic(out.panicked)
	case out.exited:
		runtime.Goexit() // a test that failed inside fn, for one
	}
	return out.err
}

// join puts a member in line, unless the store is closed.
func (g *group) join(m *member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if m.housekeeping {
		g.behind = append(g.behind, m)
	} else {
		g.line = append(g.line, m)
	}
	if !g.working {
		g.working = true
		g.loop.Go(g.work)
	}
	return true
}

// leave takes a member out of line again. False: its turn has come.
func (g *group) leave(m *member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, line := range []*[]*member{&g.line, &g.behind} {
		if i := slices.Index(*line, m); i >= 0 {
			*line = slices.Delete(*line, i, i+1)
			return true
		}
	}
	return false
}

// next takes the first in line, for a transaction that ran have shared; nil when it should end. Housekeeping has its
// turn when no change waits, or when it was passed over for long enough.
func (g *group) next(ran []*member) *member {
	g.mu.Lock()
	defer g.mu.Unlock()
	line := &g.line
	if len(g.behind) > 0 && (len(g.line) == 0 || g.passed >= patience) {
		line = &g.behind
	}
	switch n := len(ran); {
	case len(*line) == 0, n >= groupLimit, n > 0 && (ran[0].alone || (*line)[0].alone):
		return nil
	}
	m := (*line)[0]
	*line = slices.Delete(*line, 0, 1)
	if m.housekeeping {
		g.passed = 0
	}
	return m
}

// after puts those back who must run again, each alone, and those whose turn was over too soon, before all others. It
// counts a transaction that left housekeeping in line.
func (g *group) after(again, back []*member) {
	for _, m := range again {
		m.alone = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.line = slices.Concat(again, back, g.line)
	if len(g.behind) > 0 {
		g.passed++
	}
}

// waiting returns the members in line. When there are none, or the store is closed, the goroutine's work is over.
func (g *group) waiting() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.working = !g.closed && len(g.line)+len(g.behind) > 0
	if !g.working {
		return nil
	}
	return slices.Concat(g.line, g.behind)
}

// work runs transactions until the line is empty. A change that ends the goroutine does not end the work.
func (g *group) work() {
	over := false
	defer func() {
		if !over {
			g.loop.Go(g.work)
		}
	}()
	for line := g.waiting(); line != nil; line = g.waiting() {
		g.transaction(line)
	}
	over = true
}

// close waits for the transaction under way and refuses the members that are still in line.
func (g *group) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.loop.Wait()
	g.mu.Lock()
	line := slices.Concat(g.line, g.behind)
	g.mu.Unlock()
	g.refuse(line, db.ErrClosed)
}

// refuse sends the error to those of the members that are still in line.
func (g *group) refuse(members []*member, err error) {
	for _, m := range members {
		if g.leave(m) {
			m.answer <- outcome{err: db.Fault(m.op, err)}
		}
	}
}

// run runs the change. It returns unless the change ended the goroutine; even then m.last is set.
func (m *member) run(t *tx) {
	m.last = outcome{exited: true}
	defer func() {
		t.end()
		if !m.last.exited {
			return
		}
		if v := recover(); v != nil {
			m.last = outcome{panicked: &panicked{value: v, stack: debug.Stack()}}
		}
	}()
	err := m.fn(t)
	if err == nil {
		err = t.failed
	}
	m.last = outcome{err: err}
}
