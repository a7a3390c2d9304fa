package receipt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"patd/tokens"
)

// The model has verifiers that follow docs/verifier-protocol.md, and servers of one store that they watch, over
// connections that stall, lag and are cut, in virtual time. Servers stand still, do not reach the store, are killed,
// end and are started. Each verifier and each server has in memory that a token is ALLOW. The token is revoked through
// one of the servers, and the receipt is compared with what they would let pass from then on.

// script is what happens in one run.
type script struct {
	Servers   []serverScript
	Verifiers []verifierScript
	Events    []event
	Revoke    int // after so many milliseconds
	Earlier   int // another receipt begins so many milliseconds before; 0: none
	Wait      int // milliseconds
}

type serverScript struct {
	Start int // milliseconds
	Lag   int // of each way to the store, in milliseconds
}

type verifierScript struct {
	Home         int // the server that it watches first
	Acknowledges bool
	AckDelay     int // milliseconds
	Slow         int // its clock is slower than the server's by so many millionths
	Latency      int // of its connection, in milliseconds
}

// event is a fault.
type event struct {
	At, For int // milliseconds
	Kind    kind
	Which   int // the verifier whose connection it is, or the server
}

type kind int

const (
	stalls kind = iota // a verifier's connection
	cut
	freezes // a server
	loses   // a server loses its way to the store
	dies
	leaves
	kinds
)

// drawScript draws a script of one server, or of several.
func drawScript(several bool, draw func(string, int, int) int) script {
	s := script{Revoke: draw("revoke", 4500, 9000), Wait: draw("wait", 0, 8000)}
	last := cut
	s.Servers = []serverScript{{Lag: draw("lag", 0, 20)}}
	if several {
		s.Revoke += 9000 * draw("later", 0, 1)
		s.Wait, last = draw("longer", 0, 20000), leaves
		for range draw("servers", 1, 3) {
			s.Servers = append(s.Servers, serverScript{
				Start: s.Revoke * draw("in the middle", 0, 1) * draw("of hundred", 95, 110) / 100,
				Lag:   draw("lag", 0, 300),
			})
		}
	}
	for range draw("verifiers", 1, 4) {
		s.Verifiers = append(s.Verifiers, verifierScript{
			Home:         draw("home", 0, len(s.Servers)-1),
			Acknowledges: draw("acknowledges", 0, 2) > 0,
			AckDelay:     draw("acknowledgement", 0, 1500),
			Slow:         draw("slow", 0, 150),
			Latency:      draw("latency", 0, 400),
		})
	}
	for range draw("events", 0, 6) {
		e := event{
			At:   s.Revoke + draw("at", -3000, 3000),
			Kind: kind(draw("kind", 0, int(last))),
			For:  draw("for", 0, 6000),
		}
		if e.Kind <= cut {
			e.Which = draw("which", 0, 3) % len(s.Verifiers)
		} else {
			e.Which = 1 + draw("which", 0, 3)%(len(s.Servers)-1) // the first serves the call
			e.At, e.For = e.At-draw("earlier", 0, 9000), e.For*draw("longer", 1, 3)
		}
		s.Events = append(s.Events, e)
	}
	if !several {
		return s
	}
	switch draw("aimed", 0, 2) {
	case 1: // what a server knows is as old as it can be
		s.Wait = 20000
		s.Events = append(s.Events, event{
			At:    s.Revoke - draw("just before", 0, 200),
			Kind:  freezes + kind(draw("how", 0, 1)),
			For:   draw("as long as it counts", 4000, 6000),
			Which: 1,
		}, event{At: s.Revoke + draw("its verifier", 3500, 5500), Kind: cut, For: 6000})
	case 2: // a server wakes when it is just being counted as gone, and then loses its way to the store
		s.Revoke, s.Earlier = s.Revoke+9000, 8000
		frozen := draw("until it is counted as gone", 6000, 8000)
		lost := s.Revoke - 9000 + frozen + draw("after a reading", 200, 1000)
		s.Events = append(s.Events, event{At: s.Revoke - 9000, Kind: freezes, For: frozen, Which: 1},
			event{At: lost, Kind: loses, For: 9000, Which: 1})
	}
	return s
}

// modelVerifier has the rule of memory.
type modelVerifier struct {
	script  verifierScript
	servers func() []*modelServer
	service tokens.Actor

	mu      sync.Mutex
	applied uint64
	open    time.Time // until then, by the clock of the test, memory is used
	cut     func()
	blocked time.Time // until then, its connection delivers nothing, and no new one is made
}

// lets reports whether a check that begins now passes from memory, where it has an answer from before a position.
func (v *modelVerifier) lets(position uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.applied < position && time.Now().Before(v.open)
}

func (v *modelVerifier) until() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.blocked
}

func (v *modelVerifier) run(ctx context.Context, running *sync.WaitGroup) {
	for next := v.script.Home; ctx.Err() == nil; next++ {
		if d := time.Until(v.until()); d > 0 {
			pause(ctx, min(d, 50*time.Millisecond))
			continue
		}
		servers := v.servers()
		server := servers[next%len(servers)]
		watching, cut := context.WithCancel(ctx)
		v.mu.Lock()
		v.cut = cut
		v.mu.Unlock()
		v.watch(watching, server, running)
		cut()
		pause(ctx, 50*time.Millisecond)
	}
}

func (v *modelVerifier) watch(ctx context.Context, server *modelServer, running *sync.WaitGroup) {
	asked := time.Now()
	pipe, ended := make(chan modelMessage, 64), make(chan struct{})
	running.Go(func() {
		defer close(ended)
		server.watch(ctx, v.service, pipe, time.Duration(v.script.Latency)*time.Millisecond)
	})
	for {
		var m modelMessage
		silent := time.NewTimer(3 * time.Second)
		select {
		case <-ctx.Done():
			silent.Stop()
			return
		case <-ended:
			silent.Stop()
			return
		case <-silent.C:
			return
		case m = <-pipe:
		}
		silent.Stop()
		for { // what holds the connection up may come while the message waits
			d := max(time.Until(m.at), time.Until(v.until()))
			if d <= 0 {
				break
			}
			pause(ctx, min(d, 50*time.Millisecond))
			if ctx.Err() != nil {
				return
			}
		}
		// The clock of the verifier has counted less, so that what came seems younger.
		now := time.Now()
		at := asked.Add(m.elapsed + now.Sub(asked)*time.Duration(v.script.Slow)/1e6)
		if now.Sub(at) > 1500*time.Millisecond {
			return
		}
		v.mu.Lock()
		v.applied = max(v.applied, m.sequence)
		if at.After(now) {
			at = now
		}
		v.open = at.Add(3*time.Second + 3*time.Second*time.Duration(v.script.Slow)/1e6)
		v.mu.Unlock()
		if m.acknowledge && v.script.Acknowledges {
			running.Go(func() {
				pause(ctx, time.Duration(v.script.AckDelay)*time.Millisecond)
				if time.Until(v.until()) <= 0 { // or it is lost
					_ = server.board.Acknowledge(v.service, m.id, m.sequence)
				}
			})
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// play runs a script, and returns how the receipt was wrong; "": it was not.
func play(t *testing.T, s script, bounds func(*Board)) (wrong string, got Receipt, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var running sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		defer running.Wait()
		defer stop()
		m := &model{store: newModelStore()}
		for i, one := range s.Servers {
			server := m.store.startServer(ctx, fmt.Sprint("server", i), milliseconds(one.Lag), &running)
			bounds(server.board)
			m.all = append(m.all, server)
			running.Go(func() {
				pause(ctx, milliseconds(one.Start))
				m.begin(server)
			})
		}
		synctest.Wait()
		for i, one := range s.Verifiers {
			v := &modelVerifier{script: one, servers: m.started, service: tokens.Actor{
				Kind: tokens.ServiceActor, TokenID: tokens.ID(i + 1), Name: fmt.Sprint("s", i),
			}}
			m.verifiers = append(m.verifiers, v)
			running.Go(func() { v.run(ctx, &running) })
		}
		for _, e := range s.Events {
			running.Go(func() {
				pause(ctx, milliseconds(e.At))
				m.happen(e)
			})
		}
		admin := tokens.Actor{Kind: tokens.ServiceActor, Name: "admin"}
		if s.Earlier > 0 {
			running.Go(func() {
				pause(ctx, milliseconds(s.Revoke-s.Earlier))
				m.store.change()
				m.all[0].board.Wait(ctx, admin, time.Second)
			})
		}
		pause(ctx, milliseconds(s.Revoke))
		position, began := m.store.change(), time.Now()
		got = m.all[0].board.Wait(ctx, admin, milliseconds(s.Wait))
		took = time.Since(began)
		if !got.Everywhere {
			return
		}
		for range 800 {
			if who := m.lets(position); who != "" {
				wrong = fmt.Sprintf("%s lets the token pass %v after the change, the receipt took %v", who,
					time.Since(began), took)
				return
			}
			pause(ctx, 25*time.Millisecond)
		}
	})
	return wrong, got, took
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// model is what a script is played with.
type model struct {
	store     *modelStore
	all       []*modelServer
	verifiers []*modelVerifier

	mu   sync.Mutex
	runs []*modelServer
}

func (m *model) begin(v *modelServer) {
	v.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs = append(m.runs, v)
}

// started returns the servers that have been started.
func (m *model) started() []*modelServer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.runs)
}

func (m *model) happen(e event) {
	until := time.Now().Add(milliseconds(e.For))
	later := func(at *time.Time) {
		if until.After(*at) {
			*at = until
		}
	}
	if e.Kind <= cut {
		v := m.verifiers[e.Which]
		v.mu.Lock()
		defer v.mu.Unlock()
		later(&v.blocked)
		if e.Kind == cut && v.cut != nil {
			v.cut()
		}
		return
	}
	v := m.all[e.Which]
	switch e.Kind {
	case dies:
		v.kill()
	case leaves:
		v.leave()
	default:
		v.mu.Lock()
		defer v.mu.Unlock()
		if e.Kind == freezes {
			later(&v.frozen)
		} else {
			later(&v.away)
		}
	}
}

// lets returns who lets a check pass that begins now.
func (m *model) lets(position uint64) string {
	for i, v := range m.verifiers {
		if v.lets(position) {
			return fmt.Sprintf("verifier %d", i)
		}
	}
	for _, v := range m.started() {
		if v.lets(position) {
			return v.name
		}
	}
	return ""
}

func asTheyAre(*Board) {}

// TestAReceiptIsNeverFollowedByAnAllow plays scripts of rapid with one server.
func TestAReceiptIsNeverFollowedByAnAllow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(false, func(name string, low, high int) int { return rapid.IntRange(low, high).Draw(rt, name) })
		wrong, got, took := play(t, s, asTheyAre)
		if wrong != "" {
			rt.Fatal(wrong)
		}
		// By the rule of the verifiers everything is safe soon, unless a watch began meanwhile.
		if most := verifierTrust + slack + 10*time.Millisecond; !got.Everywhere && took > most+time.Second {
			rt.Fatalf("after %v there is no receipt: %v", took, got)
		}
	})
}

// TestAReceiptOfSeveralServersIsNeverFollowedByAnAllow plays scripts of rapid with several.
func TestAReceiptOfSeveralServersIsNeverFollowedByAnAllow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(true, func(name string, low, high int) int { return rapid.IntRange(low, high).Draw(rt, name) })
		wrong, got, took := play(t, s, asTheyAre)
		if wrong != "" {
			rt.Fatal(wrong)
		}
		if most := feedTrust + verifierTrust + 2*slack; !got.Everywhere && took > most+time.Second {
			rt.Fatalf("after %v there is no receipt: %v", took, got)
		}
	})
}

// TestAShorterBoundIsFoundOut shows that the model can fail: with less time than verifiers trust their memory, or
// servers theirs, it does.
func TestAShorterBoundIsFoundOut(t *testing.T) {
	for name, c := range map[string]struct {
		bounds func(*Board)
		// drawn are what scripts are to have where it is found out; what is not named is by chance.
		drawn map[string]int
	}{
		"of verifiers": {func(b *Board) { b.trust = verifierTrust - 500*time.Millisecond }, nil},
		"of servers": {
			func(b *Board) { b.feedTrust = feedTrust - 2*time.Second },
			map[string]int{
				"aimed": 1, "how": 1, "home": 1, "acknowledges": 0, "in the middle": 0, "events": 0, "verifiers": 4,
			},
		},
		"of servers that were counted as gone": {
			func(b *Board) { b.goneTrust = time.Second - verifierTrust },
			map[string]int{"aimed": 2, "in the middle": 0, "events": 0, "lag": 300},
		},
	} {
		found := false
		for seed := range uint64(500) {
			r := rand.New(rand.NewPCG(seed, 18))
			s := drawScript(c.drawn != nil, func(name string, low, high int) int {
				if n, ok := c.drawn[name]; ok {
					return n
				}
				return low + r.IntN(high-low+1)
			})
			if wrong, _, _ := play(t, s, c.bounds); wrong != "" {
				t.Logf("%s, script %d: %s", name, seed, wrong)
				found = true
				break
			}
		}
		if !found {
			t.Errorf("%s: no script shows that the bound is too short", name)
		}
	}
}

// TestAReceiptTakesAsLongAsItMust has verifiers that acknowledge, that never do, and one whose connection stands still.
func TestAReceiptTakesAsLongAsItMust(t *testing.T) {
	acknowledges, silent := verifierScript{Acknowledges: true, AckDelay: 5, Latency: 10}, verifierScript{Latency: 10}
	for name, c := range map[string]struct {
		script      script
		everywhere  bool
		least, most time.Duration
	}{
		"all acknowledge":    {script{Verifiers: []verifierScript{acknowledges, acknowledges}, Wait: 8000}, true, 15 * time.Millisecond, 60 * time.Millisecond},
		"one never does":     {script{Verifiers: []verifierScript{acknowledges, silent}, Wait: 8000}, true, verifierTrust, verifierTrust + 2*slack},
		"not within a wait":  {script{Verifiers: []verifierScript{acknowledges, silent}, Wait: 2000}, false, 2 * time.Second, 2 * time.Second},
		"one stands still":   {script{Verifiers: []verifierScript{acknowledges}, Wait: 8000, Events: []event{{At: 5500, For: 9000, Kind: stalls}}}, true, verifierTrust, verifierTrust + 2*slack},
		"one has broken off": {script{Verifiers: []verifierScript{acknowledges}, Wait: 8000, Events: []event{{At: 5500, For: 9000, Kind: cut}}}, true, 2 * time.Second, verifierTrust + slack},
	} {
		c.script.Revoke, c.script.Servers = 6000, []serverScript{{}}
		wrong, got, took := play(t, c.script, asTheyAre)
		if wrong != "" || got.Everywhere != c.everywhere || took < c.least || took > c.most {
			t.Errorf("%s: %+v after %v %s", name, got, took, wrong)
		}
	}
}
