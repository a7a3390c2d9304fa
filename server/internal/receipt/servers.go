package receipt

import (
	"context"
	"strings"
	"time"

	"patd/tokens"
)

const (
	// roundGap is the least time between two requests to the other servers, and maxAsked how many may be unanswered:
	// calls that wait share a request, so that no caller can fill the store with them.
	roundGap = 20 * time.Millisecond
	maxAsked = 8
	// maxAnswering bounds the requests of others that are answered at once.
	maxAnswering = 64
	// silentFor is how long a server may leave a request unanswered before it is counted as gone. One that is there
	// answers within the bound of its watches. No receipt rests on it: one that is counted as gone by mistake joins
	// again.
	silentFor = 6 * time.Second
	// lookedAway is after how long without a look at the table the others are given all that time anew: this server may
	// have stood still, or the database.
	lookedAway = 2 * time.Second
	// useTable bounds each reading and writing of the table of servers, and tableAgain is the pause after one that failed.
	useTable   = 2 * time.Second
	tableAgain = 250 * time.Millisecond
	// lookForAnswers is how often the table is read while an answer is due, since no signal may come.
	lookForAnswers = 25 * time.Millisecond
	// lookForUnknown is how often it is read while there are servers of which only the connections are seen.
	lookForUnknown = time.Second
)

// other is another server. The board's mu guards it.
type other struct {
	tokens.StoreServer
	known time.Time // when it was first found
	// ended is when it was first found ended, which is no earlier than it was; zero: it has not.
	ended time.Time
}

// silentName is how a receipt names the server.
func (o *other) silentName() string {
	if o.Unknown {
		return silentServers
	}
	return "server:" + strings.ToValidUTF8(o.Name, "?")
}

// serverTrust is how long after a change another server, and what watches it, may let pass what the change took away:
// the server does not trust its feed for longer after a reading from before the change, and sends no message then.
func (b *Board) serverTrust() time.Duration { return b.feedTrust + b.bound(MaxAge) }

// safeAt returns when another server is safe at the latest, for a change that was made by then.
func (b *Board) safeAt(o *other, changed time.Time) time.Time {
	at := changed.Add(b.serverTrust())
	if o.ended.IsZero() {
		return at
	}
	bound := b.goneTrust + b.bound(MaxAge)
	if o.Left {
		bound = b.bound(MaxAge) // it decides nothing any more
	}
	if ended := o.ended.Add(bound); ended.Before(at) {
		return ended
	}
	return at
}

// round is one look at the other servers, which any number of calls share.
type round struct {
	ask  bool // they are to be asked
	done chan struct{}

	// These are set when done is closed.
	failed bool
	number uint64 // of the request; 0: none was made
	// serving and ended are the ids of the others at that time.
	serving, ended []string
}

// join returns the next round that begins.
func (b *Board) join(ask bool) *round {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = &round{done: make(chan struct{})}
	}
	b.next.ask = b.next.ask || ask
	raise(b.wake)
	return b.next
}

func raise(level chan<- struct{}) {
	select {
	case level <- struct{}{}:
	default:
	}
}

// Follow keeps up with the other servers until ctx ends: it makes the requests of calls that wait, and answers theirs.
// It should go on for as long as any call is answered.
func (b *Board) Follow(ctx context.Context) {
	if b.config.Servers == nil {
		return
	}
	// Servers that were killed earlier are found out before a call waits for them.
	b.join(true)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		changed := b.config.Servers.Changed()
		next := b.turn(ctx)
		pause.Reset(max(time.Until(next), 0))
		var due <-chan time.Time
		if !next.IsZero() {
			due = pause.C
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-b.wake:
		case <-due:
		}
	}
}

// turn does what is due, and returns when something is again; zero: when something has changed.
func (b *Board) turn(ctx context.Context) (next time.Time) {
	r, next := b.begin(time.Now())
	if err := b.look(ctx); err != nil {
		b.finish(r, 0, true)
		return time.Now().Add(tableAgain)
	}
	if r != nil {
		number, err := b.request(ctx, r)
		b.finish(r, number, err != nil)
	}
	next = sooner(next, b.answer(ctx))
	return sooner(next, b.settle(ctx))
}

// sooner returns the earlier of two times; zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// begin takes the round that calls have joined, unless it would ask too soon.
func (b *Board) begin(now time.Time) (r *round, next time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r = b.next; r == nil {
		return nil, time.Time{}
	}
	if r.ask {
		if len(b.asked) >= maxAsked {
			return nil, time.Time{} // until one is answered, or given up
		}
		if n := len(b.asked); n > 0 && now.Before(b.lastAsked.Add(roundGap)) {
			return nil, b.lastAsked.Add(roundGap)
		}
	}
	b.next = nil
	return r, time.Time{}
}

// look reads the table of servers.
func (b *Board) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, useTable)
	defer cancel()
	list, err := b.config.Servers.Others(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now() // no earlier than what was read
	if now.Sub(b.looked) > lookedAway {
		b.resumed = now
	}
	b.looked = now
	found := make(map[string]bool, len(list))
	for _, s := range list {
		found[s.ID] = true
		o := b.others[s.ID]
		if o == nil {
			o = &other{known: now}
			b.others[s.ID] = o
		}
		o.StoreServer = s
		if s.Ended && o.ended.IsZero() {
			o.ended = now
		} else if !s.Ended {
			o.ended = time.Time{} // a program of which only the connections are seen came back
		}
	}
	for id, o := range b.others {
		switch {
		case found[id]:
		case o.Unknown && o.ended.IsZero():
			o.ended = now // its connections have ended, and it may go on for a while
		case !o.Unknown || !now.Before(o.ended.Add(b.serverTrust())):
			delete(b.others, id)
		}
	}
	b.wakeCalls()
	return nil
}

// wakeCalls has the calls that wait look at the servers. The caller has the lock.
func (b *Board) wakeCalls() {
	for one := range b.waits {
		if one.wake != b.wake { // Follow itself waits for an answer
			one.changed()
		}
	}
}

// request asks the others, if there are some and the round is to ask.
func (b *Board) request(ctx context.Context, r *round) (number uint64, err error) {
	if !r.ask || !b.anyToAsk() {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, useTable)
	defer cancel()
	if number, err = b.config.Servers.Ask(ctx); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastAsked = time.Now()
	b.asked = append(b.asked, asked{number: number, at: b.lastAsked})
	return number, nil
}

// asked is a request that is not answered by all.
type asked struct {
	number uint64
	at     time.Time // it was made before
}

func (b *Board) anyToAsk() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.others {
		if o.asks() {
			return true
		}
	}
	return false
}

// asks reports whether the server is one that answers.
func (o *other) asks() bool { return o.ended.IsZero() && !o.Unknown }

// finish has the calls of a round go on.
func (b *Board) finish(r *round, number uint64, failed bool) {
	if r == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r.number, r.failed = number, failed
	for id, o := range b.others {
		if o.ended.IsZero() {
			r.serving = append(r.serving, id)
		} else {
			r.ended = append(r.ended, id)
		}
	}
	close(r.done)
	b.wakeCalls()
}

// answering is a request, or several, that are answered once this server's watches have the changes from before.
type answering struct {
	upTo map[string]uint64 // the numbers by the id of who asked
	wait *wait
}

// answer answers the requests of others for which this server is safe, and returns when the next may be.
func (b *Board) answer(ctx context.Context) (next time.Time) {
	if asked := b.unanswered(); len(asked) > 0 {
		// Read after the requests, and so with every change from before them.
		position, err := b.reached(ctx)
		if err != nil {
			next = time.Now().Add(tableAgain)
		} else {
			b.mu.Lock()
			w := b.enter(position, true)
			w.wake = b.wake
			b.answers = append(b.answers, &answering{upTo: asked, wait: w})
			b.mu.Unlock()
		}
	}
	ready, due := b.ready(time.Now())
	next = sooner(next, due)
	if len(ready) == 0 {
		return next
	}
	ctx, cancel := context.WithTimeout(ctx, useTable)
	defer cancel()
	if err := b.config.Servers.Answer(ctx, ready); err != nil {
		return time.Now().Add(tableAgain)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, number := range ready {
		if o := b.others[id]; o != nil {
			o.Answered = max(o.Answered, number)
		}
	}
	return next
}

// unanswered returns the requests of others that nothing is being done about, by who asked.
func (b *Board) unanswered() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.answers) >= maxAnswering {
		return nil
	}
	list := map[string]uint64{}
	for id, o := range b.others {
		if o.ended.IsZero() && o.Asks > o.Answered {
			list[id] = o.Asks
		}
	}
	for _, a := range b.answers {
		for id, number := range a.upTo {
			if number >= list[id] {
				delete(list, id)
			}
		}
	}
	return list
}

// ready returns the answers for which this server is safe, and takes them from those that are under way.
func (b *Board) ready(now time.Time) (upTo map[string]uint64, next time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	upTo = map[string]uint64{}
	kept := b.answers[:0]
	for _, a := range b.answers {
		silent := silence{now: now}
		b.silentWatches(a.wait, &silent)
		if len(silent.names) > 0 {
			kept = append(kept, a)
			next = sooner(next, silent.next)
			continue
		}
		delete(b.waits, a.wait)
		for id, number := range a.upTo {
			upTo[id] = max(upTo[id], number)
		}
	}
	clear(b.answers[len(kept):])
	b.answers = kept
	return upTo, next
}

// settle forgets requests that are answered, counts servers as gone that do not answer, and forgets those that ended
// long ago. It returns when it has something to do again.
func (b *Board) settle(ctx context.Context) (next time.Time) {
	b.mu.Lock()
	now := time.Now()
	soon := func(at time.Time) { next = sooner(next, at) }
	least := ^uint64(0) // what all have answered
	var gone, forget []string
	for id, o := range b.others {
		switch {
		case o.Unknown:
			soon(now.Add(lookForUnknown))
		case !o.ended.IsZero():
			if at := o.ended.Add(b.serverTrust()); now.Before(at) {
				soon(at)
			} else {
				forget = append(forget, id)
			}
		default:
			least = min(least, o.Answers)
			if at := b.answerDue(o); at.IsZero() {
				continue
			} else if now.Before(at) {
				soon(at)
			} else {
				gone = append(gone, id)
			}
		}
	}
	kept := b.asked[:0]
	for _, a := range b.asked {
		if a.number > least {
			kept = append(kept, a)
		}
	}
	b.asked = kept
	if len(kept) > 0 {
		soon(now.Add(lookForAnswers))
	}
	if b.next != nil && len(kept) < maxAsked {
		soon(b.lastAsked.Add(roundGap))
	}
	b.mu.Unlock()
	if len(gone)+len(forget) == 0 {
		return next
	}
	ctx, cancel := context.WithTimeout(ctx, useTable)
	defer cancel()
	if err := b.config.Servers.End(ctx, gone, forget); err != nil {
		return time.Now().Add(tableAgain)
	}
	return time.Now() // to see it
}

// answerDue returns when a server that has not answered is counted as gone; zero: it has answered. The caller has the
// lock.
func (b *Board) answerDue(o *other) time.Time {
	for _, a := range b.asked {
		if a.number > o.Answers {
			since := a.at
			for _, later := range []time.Time{o.known, b.resumed} {
				if later.After(since) {
					since = later
				}
			}
			return since.Add(silentFor)
		}
	}
	return time.Time{}
}
