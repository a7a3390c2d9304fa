package receipt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"patd/tokens"
)

// modelStore is a store: a feed of numbers, and the table of servers.
type modelStore struct {
	mu       sync.Mutex
	position uint64
	rows     map[string]*modelRow
	made     int    // rows
	tag      uint64 // of the table
}

type modelRow struct {
	name        string
	ended, left bool
	ask         uint64
	answers     map[string]uint64
}

func newModelStore() *modelStore { return &modelStore{position: 1, rows: map[string]*modelRow{}} }

// change commits a change.
func (s *modelStore) change() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position++
	return s.position
}

// modelServer is a server by docs/verifier-protocol.md: it follows the feed, is one of the servers of the store, and
// has watches. What it does takes time, and may be held up anywhere.
type modelServer struct {
	store   *modelStore
	name    string
	lag     time.Duration // of each way to the store, at most
	ctx     context.Context
	kill    context.CancelFunc
	board   *Board
	running *sync.WaitGroup
	turn    chan struct{} // has one place, for the reader of the feed

	mu       sync.Mutex
	random   *rand.Rand
	frozen   time.Time // until then the process stands still
	away     time.Time // until then it does not reach the store
	id       string    // of its row; empty: there is none
	mine     map[string]bool
	asked    uint64
	answered map[string]uint64
	seen     uint64 // the table's tag
	changed  chan struct{}
	position uint64
	received time.Time
	news     chan struct{}
}

var _ tokens.Servers = (*modelServer)(nil)

var errModelAway = errors.New("the store is away")

// startServer starts a server, which runs until ctx ends or it is killed.
func (s *modelStore) startServer(
	ctx context.Context,
	name string,
	lag time.Duration,
	running *sync.WaitGroup,
) *modelServer {
	v := &modelServer{
		store: s, name: name, lag: lag, running: running, turn: make(chan struct{}, 1), answered: map[string]uint64{},
		mine: map[string]bool{}, changed: make(chan struct{}), news: make(chan struct{}),
		random: rand.New(rand.NewPCG(uint64(len(name)), 5)),
	}
	v.ctx, v.kill = context.WithCancel(ctx)
	v.board = New(Config{Servers: v, Stopping: v.ctx, Reached: v.reached})
	return v
}

// run follows the feed and the other servers.
func (v *modelServer) run() {
	v.running.Go(func() {
		v.join()
		for v.ctx.Err() == nil {
			_ = v.read(v.ctx)
			pause(v.ctx, 100*time.Millisecond)
		}
	})
	v.running.Go(func() { v.board.Follow(v.ctx) })
}

// hold is a step of the process: it stands still while the process does.
func (v *modelServer) hold(ctx context.Context) {
	for ctx.Err() == nil {
		v.mu.Lock()
		until := v.frozen
		v.mu.Unlock()
		d := time.Until(until)
		if d <= 0 {
			return
		}
		pause(ctx, d)
	}
}

// use runs something in the store, which has a way to it and back.
func (v *modelServer) use(ctx context.Context, fn func()) error {
	v.hold(ctx)
	v.mu.Lock()
	there, back := time.Duration(v.random.Int64N(int64(v.lag)+1)), time.Duration(v.random.Int64N(int64(v.lag)+1))
	away := time.Until(v.away)
	v.mu.Unlock()
	if away > 0 {
		pause(ctx, min(away, time.Second))
		return errModelAway
	}
	pause(ctx, there)
	if err := ctx.Err(); err != nil {
		return err
	}
	v.store.mu.Lock()
	fn()
	v.store.mu.Unlock()
	pause(ctx, back)
	v.hold(ctx)
	return ctx.Err()
}

// write is use for what changes the table.
func (v *modelServer) write(ctx context.Context, fn func()) error {
	return v.use(ctx, func() {
		v.store.tag++
		fn()
	})
}

func (v *modelServer) join() {
	var id string
	v.mu.Lock()
	asked := v.asked
	v.mu.Unlock()
	for v.ctx.Err() == nil && v.write(v.ctx, func() {
		v.store.made++
		id = fmt.Sprint(v.name, " ", v.store.made)
		v.store.rows[id] = &modelRow{name: v.name, ask: asked, answers: map[string]uint64{}}
	}) != nil {
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.id, v.mine[id], v.answered = id, true, map[string]uint64{}
}

// leave is the end in order.
func (v *modelServer) leave() {
	id := v.current()
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	v.kill()
	if row := v.store.rows[id]; row != nil && !row.ended {
		row.ended, row.left = true, true
		v.store.tag++
	}
}

func (v *modelServer) current() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.id
}

// read reads the feed to its end.
func (v *modelServer) read(ctx context.Context) error {
	select {
	case v.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-v.turn }()
	id := v.current()
	if id == "" {
		return errModelAway
	}
	began := time.Now()
	var position, tag uint64
	var there bool
	if err := v.use(ctx, func() {
		row := v.store.rows[id]
		position, tag, there = v.store.position, v.store.tag, row != nil && !row.ended
	}); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.id != id:
		return errModelAway
	case !there:
		v.id = ""
		v.running.Go(v.join)
		return errModelAway
	}
	if tag != v.seen {
		v.seen = tag
		close(v.changed)
		v.changed = make(chan struct{})
	}
	if position > v.position {
		v.position = position
		close(v.news)
		v.news = make(chan struct{})
	}
	v.received = began
	return nil
}

func (v *modelServer) reached(ctx context.Context) (uint64, error) {
	err := v.read(ctx)
	at, _, _ := v.state()
	return at, err
}

// state is what a message is made of. False: the feed is not trusted, and no message is made.
func (v *modelServer) state() (position uint64, news <-chan struct{}, trusted bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.position, v.news, time.Since(v.received) < feedTrust
}

// lets reports whether a check that begins now passes from the server's memory, where that has an answer from before a
// position.
func (v *modelServer) lets(position uint64) bool {
	at, _, trusted := v.state()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ctx.Err() == nil && trusted && at < position && time.Now().After(v.frozen)
}

// Others implements tokens.Servers.
func (v *modelServer) Others(ctx context.Context) (list []tokens.StoreServer, err error) {
	v.mu.Lock()
	own, mine, answered := v.id, maps.Clone(v.mine), maps.Clone(v.answered)
	v.mu.Unlock()
	if own == "" {
		return nil, errModelAway
	}
	err = v.use(ctx, func() {
		for id, row := range v.store.rows {
			if !mine[id] {
				list = append(list, tokens.StoreServer{
					ID: id, Name: row.name, Ended: row.ended, Left: row.left, Asks: row.ask, Answered: answered[id],
					Answers: row.answers[own],
				})
			}
		}
	})
	return list, err
}

// own runs something on the server's row, if it has not ended.
func (v *modelServer) own(ctx context.Context, fn func(*modelRow)) error {
	id, there := v.current(), false
	err := v.write(ctx, func() {
		if row := v.store.rows[id]; row != nil && !row.ended {
			there = true
			fn(row)
		}
	})
	if err == nil && !there {
		err = errModelAway
	}
	return err
}

// Ask implements tokens.Servers.
func (v *modelServer) Ask(ctx context.Context) (uint64, error) {
	v.mu.Lock()
	v.asked++
	number := v.asked
	v.mu.Unlock()
	return number, v.own(ctx, func(row *modelRow) { row.ask = number })
}

// Answer implements tokens.Servers.
func (v *modelServer) Answer(ctx context.Context, upTo map[string]uint64) error {
	err := v.own(ctx, func(row *modelRow) {
		for id, number := range upTo {
			row.answers[id] = max(row.answers[id], number)
		}
	})
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, number := range upTo {
		v.answered[id] = max(v.answered[id], number)
	}
	return nil
}

// End implements tokens.Servers.
func (v *modelServer) End(ctx context.Context, gone, forget []string) error {
	return v.write(ctx, func() {
		for _, id := range gone {
			if row := v.store.rows[id]; row != nil {
				row.ended = true
			}
		}
		for _, id := range forget {
			if row := v.store.rows[id]; row != nil && row.ended {
				delete(v.store.rows, id)
			}
		}
	})
}

// Changed implements tokens.Servers.
func (v *modelServer) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

type modelMessage struct {
	sequence    uint64
	elapsed     time.Duration
	acknowledge bool
	at          time.Time // when it leaves the pipe at the earliest
	id          string
}

// watch is server/internal/introspect.follow.
func (v *modelServer) watch(
	ctx context.Context,
	service tokens.Actor,
	pipe chan<- modelMessage,
	latency time.Duration,
) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(v.ctx, cancel)()
	v.hold(ctx)
	w := v.board.Watch(service)
	defer w.End()
	began := time.Now()
	send := func() (news <-chan struct{}, trusted bool) {
		elapsed := time.Since(began)
		v.hold(ctx)
		at, news, trusted := v.state()
		if !trusted {
			return nil, false
		}
		m := modelMessage{
			sequence:    at,
			elapsed:     elapsed,
			id:          w.ID(),
			acknowledge: w.Sending(at),
			at:          time.Now().Add(latency),
		}
		v.hold(ctx)
		if v.ctx.Err() != nil { // it was killed
			return nil, false
		}
		select {
		case pipe <- m:
		case <-ctx.Done():
		}
		return news, true
	}
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		news, trusted := send()
		if !trusted {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		case <-news:
			pause(ctx, 20*time.Millisecond)
		case <-w.Asked():
			pause(ctx, 20*time.Millisecond)
		}
	}
}
