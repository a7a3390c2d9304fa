package replicatest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// How long histories are recorded, of how many tokens, and by how many readers on each replica.
const (
	recordFor     = 4 * time.Second
	recordTokens  = 3
	recordReaders = 2
	checkWithin   = 30 * time.Second
)

// write is a change of what a token may do. Those of one token are made one after another, on one replica, and
// numbered.
type write struct {
	serial int
	to     decision // what the token is from then on
}

// read is an introspection; its output is a decision.
type read struct{}

// history is what was done with one token. Times are since its beginning, on one clock.
type history struct {
	home   int
	began  time.Time
	mu     sync.Mutex
	writes []porcupine.Operation
	reads  [][]porcupine.Operation // by replica
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// wrote records a change that was answered.
func (h *history) wrote(w write, call int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = append(h.writes, porcupine.Operation{Input: w, Call: call, Return: h.now()})
}

// saw records an answered introspection.
func (h *history) saw(at, reader int, got decision, call int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads[at] = append(
		h.reads[at],
		porcupine.Operation{ClientId: 1 + reader, Input: read{}, Output: got, Call: call, Return: h.now()},
	)
}

// register is a token as one replica shows it: what the last write made it, and writes come in their order.
func register() porcupine.Model {
	type state write
	return porcupine.Model{
		Init: func() any { return state{0, allow} },
		Step: func(s, input, output any) (bool, any) {
			have, _ := s.(state)
			if w, ok := input.(write); ok {
				return w.serial == have.serial+1, state(w)
			}
			got, _ := output.(decision)
			return got == have.to, s
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " ", output) },
	}
}

// lagging is the history as one replica saw it, when a write may take that long after its answer to arrive there: it is
// a register whose writes end so much later.
func (h *history) lagging(at int, lag time.Duration) []porcupine.Operation {
	all := make([]porcupine.Operation, 0, len(h.writes)+len(h.reads[at]))
	for _, w := range h.writes {
		w.Return += int64(lag)
		all = append(all, w)
	}
	return append(all, h.reads[at]...)
}

// record works with one token: a client on its home changes it, ever again, and at last revokes it; others on all
// replicas look at it.
func record(ctx context.Context, c *cluster, tok token, home int, until time.Time) (*history, error) {
	h := &history{home: home, began: time.Now(), reads: make([][]porcupine.Operation, len(c.replicas))}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var g sync.WaitGroup
	for at, r := range c.replicas {
		for reader := range recordReaders {
			g.Go(func() { h.observe(reading, r.now(), tok, at, reader) })
		}
	}
	err := h.change(ctx, c.replicas[home].now(), tok, until)
	final, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	if err == nil { // they have time to be wrong about what is final
		h.observe(final, c.replicas[home].now(), tok, home, recordReaders)
	}
	stop()
	g.Wait()
	return h, err
}

// change suspends and resumes the token's user until the time is over, and then revokes the token.
func (h *history) change(ctx context.Context, a *api, tok token, until time.Time) error {
	for serial := 1; ; serial++ {
		w, do := write{serial, suspended}, func() error { return a.suspend(ctx, tok.user) }
		switch over := time.Now().After(until); {
		case over:
			w.to, do = revoked, func() error { return a.revoke(ctx, tok) }
		case serial%2 == 0:
			w.to, do = allow, func() error { return a.resume(ctx, tok.user) }
		}
		call := h.now()
		// Each can be said twice, so that one that failed is said until it is answered: it happened somewhere in
		// between.
		err := do()
		for tries := 0; isOutage(err) && tries < 20; tries++ {
			err = do()
		}
		if err != nil {
			return fmt.Errorf("make a token %s: %w", w.to, err)
		}
		h.wrote(w, call)
		if w.to == revoked {
			return nil
		}
	}
}

func (h *history) observe(ctx context.Context, a *api, tok token, at, reader int) {
	pause := time.NewTicker(pace)
	defer pause.Stop()
	for ctx.Err() == nil {
		call := h.now()
		if got, err := a.decide(ctx, tok.secret); err == nil { // a failure says nothing of the token
			h.saw(at, reader, got, call)
		}
		<-pause.C
	}
}

// historiesAreLinearizable records what clients see of tokens that others change, while connections to the database are
// cut, those that write among them. On the replica where the changes are made there must be an order of all that agrees
// with every answer and with what came before what. On any other one too, when each change is allowed to arrive within
// the bound after it was answered: so nothing is seen that is older, changes are seen in their order, and none is seen
// to go back.
func historiesAreLinearizable(t *testing.T, c *cluster) {
	histories := make([]*history, recordTokens)
	watched := make([]token, recordTokens)
	for n := range watched {
		user := fmt.Sprint("linear-", n)
		must(t, c.replicas[0].now().hold(t.Context(), user, "a"))
		tok, _, err := c.replicas[0].now().mint(t.Context(), user, "token", "")
		must(t, err)
		watched[n] = tok
	}
	stopListeners, stopWorkers := cutting(
		t,
		c,
		terminateListeners,
		time.Second,
	), cutting(
		t,
		c,
		terminateOne,
		200*time.Millisecond,
	)
	until := time.Now().Add(recordFor)
	var g sync.WaitGroup
	for n := range histories {
		g.Go(func() {
			h, err := record(t.Context(), c, watched[n], n%len(c.replicas), until)
			if err != nil {
				t.Errorf("record a history: %v", err)
			}
			histories[n] = h
		})
	}
	g.Wait()
	t.Logf("%d connections were cut", stopListeners()+stopWorkers())
	var worst time.Duration
	writes, reads := 0, 0
	for n, h := range histories {
		writes += len(h.writes)
		for at := range c.replicas {
			reads += len(h.reads[at])
			lag := h.check(t, at)
			if lag > worst {
				worst = lag
			}
			if h.home == at && lag > 0 {
				t.Errorf("token %d: the history on its home is not linearizable, but for a lag of %s", n, lag)
			}
		}
	}
	if writes < 2*recordTokens {
		t.Errorf("only %d changes were made: the test proves nothing", writes)
	}
	t.Logf("%d changes and %d introspections; every history is one of a lag of %s at most", writes, reads, worst)
}

// check finds the least of a few lags by which a replica's history can be explained.
func (h *history) check(t *testing.T, at int) time.Duration {
	t.Helper()
	for _, lag := range []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, soon, 2 * soon, 5 * soon, bound} {
		switch porcupine.CheckOperationsTimeout(register(), h.lagging(at, lag), checkWithin) {
		case porcupine.Ok:
			return lag
		case porcupine.Unknown:
			t.Fatalf(
				"replica %d: a history of %d changes and %d introspections is too much to check",
				at,
				len(h.writes),
				len(h.reads[at]),
			)
		case porcupine.Illegal:
		}
	}
	t.Errorf("replica %d: the history of a token cannot be explained, whatever the lag", at)
	return bound
}

// TestAHistoryThatIsWrongIsFound makes sure that the checker can fail.
func TestAHistoryThatIsWrongIsFound(t *testing.T) {
	op := func(input, output any, call, ret int) porcupine.Operation {
		return porcupine.Operation{Input: input, Output: output, Call: int64(call), Return: int64(ret)}
	}
	first, last := op(write{1, suspended}, nil, 10, 20), op(write{2, revoked}, nil, 30, 40)
	for _, c := range []struct {
		name  string
		reads []porcupine.Operation
		lag   time.Duration
		want  bool
	}{
		{"in order", []porcupine.Operation{op(read{}, allow, 0, 5), op(read{}, suspended, 21, 25), op(read{}, revoked, 41, 45)}, 0, true},
		{"while it is changed either is right", []porcupine.Operation{op(read{}, suspended, 11, 12), op(read{}, revoked, 31, 39)}, 0, true},
		{"after it was revoked", []porcupine.Operation{op(read{}, suspended, 41, 45)}, 0, false},
		{"after it was revoked, within the bound", []porcupine.Operation{op(read{}, suspended, 41, 45)}, 10, true},
		{"after it was revoked, past the bound", []porcupine.Operation{op(read{}, suspended, 51, 55)}, 10, false},
		{"back again", []porcupine.Operation{op(read{}, revoked, 41, 42), op(read{}, suspended, 43, 44)}, 10, false},
		{"before it was revoked", []porcupine.Operation{op(read{}, revoked, 21, 25)}, 10, false},
	} {
		h := &history{writes: []porcupine.Operation{first, last}, reads: [][]porcupine.Operation{c.reads}}
		if got := porcupine.CheckOperations(register(), h.lagging(0, c.lag)); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}
