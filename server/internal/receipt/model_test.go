package receipt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"patd/tokens"
)

// The model has verifiers that follow docs/verifier-protocol.md and watch one server, over connections that stall, lag
// and are cut, in virtual time. Each verifier has in memory that a token is ALLOW. The token is revoked, and the
// receipt is compared with what the verifiers would let pass from then on.

// script is what happens in one run.
type script struct {
	Verifiers []verifierScript
	Events    []event
	Revoke    int // after so many milliseconds
	Wait      int // milliseconds
}

type verifierScript struct {
	Acknowledges bool
	AckDelay     int // milliseconds
	Slow         int // its clock is slower than the server's by so many millionths
	Latency      int // of its connection, in milliseconds
}

// event is a fault of one verifier's connection.
type event struct {
	At, Verifier, For int // milliseconds; which; milliseconds
	Cut               bool
}

func drawScript(draw func(string, int, int) int) script {
	s := script{Revoke: draw("revoke", 4500, 9000), Wait: draw("wait", 0, 8000)}
	for range draw("verifiers", 1, 4) {
		s.Verifiers = append(s.Verifiers, verifierScript{
			Acknowledges: draw(
				"acknowledges",
				0,
				2,
			) > 0,
			AckDelay: draw("acknowledgement", 0, 1500),
			Slow:     draw("slow", 0, 150),
			Latency:  draw("latency", 0, 400),
		})
	}
	for range draw("events", 0, 6) {
		s.Events = append(s.Events, event{
			At: s.Revoke + draw(
				"at",
				-3000,
				3000,
			),
			Verifier: draw("which", 0, 3) % len(s.Verifiers),
			For:      draw("for", 0, 6000),
			Cut:      draw("cut", 0, 2) == 0,
		})
	}
	return s
}

// modelServer follows a feed of numbers.
type modelServer struct {
	board *Board

	mu       sync.Mutex
	position uint64
	news     chan struct{}
}

func (s *modelServer) state() (uint64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position, s.news
}

func (s *modelServer) change() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position++
	close(s.news)
	s.news = make(chan struct{})
	return s.position
}

type modelMessage struct {
	sequence    uint64
	elapsed     time.Duration
	acknowledge bool
	at          time.Time // when it leaves the pipe at the earliest
	id          string
}

// watch is server/internal/introspect.follow.
func (s *modelServer) watch(
	ctx context.Context,
	service tokens.Actor,
	pipe chan<- modelMessage,
	latency time.Duration,
) {
	w := s.board.Watch(service)
	defer w.End()
	began := time.Now()
	send := func() <-chan struct{} {
		elapsed := time.Since(began)
		at, news := s.state()
		m := modelMessage{
			sequence:    at,
			elapsed:     elapsed,
			id:          w.ID(),
			acknowledge: w.Sending(at),
			at:          time.Now().Add(latency),
		}
		select {
		case pipe <- m:
		case <-ctx.Done():
		}
		return news
	}
	news := send()
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		case <-news:
			pause(ctx, 20*time.Millisecond)
		case <-w.Asked():
			pause(ctx, 20*time.Millisecond)
		}
		news = send()
	}
}

// modelVerifier has the rule of memory.
type modelVerifier struct {
	script  verifierScript
	server  *modelServer
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
	for ctx.Err() == nil {
		if d := time.Until(v.until()); d > 0 {
			pause(ctx, min(d, 50*time.Millisecond))
			continue
		}
		watching, cut := context.WithCancel(ctx)
		v.mu.Lock()
		v.cut = cut
		v.mu.Unlock()
		v.watch(watching, running)
		cut()
		pause(ctx, 50*time.Millisecond)
	}
}

func (v *modelVerifier) watch(ctx context.Context, running *sync.WaitGroup) {
	asked := time.Now()
	pipe := make(chan modelMessage, 64)
	running.Go(func() { v.server.watch(ctx, v.service, pipe, time.Duration(v.script.Latency)*time.Millisecond) })
	for {
		var m modelMessage
		silent := time.NewTimer(3 * time.Second)
		select {
		case <-ctx.Done():
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
					_ = v.server.board.Acknowledge(v.service, m.id, m.sequence)
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
func play(t *testing.T, s script, trust time.Duration) (wrong string, got Receipt, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var running sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		defer running.Wait()
		defer stop()
		server := &modelServer{position: 1, news: make(chan struct{})}
		server.board = New(Config{
			Alone: true, Stopping: ctx,
			Reached: func(context.Context) (uint64, error) { at, _ := server.state(); return at, nil },
		})
		server.board.trust = trust
		var verifiers []*modelVerifier
		for i, one := range s.Verifiers {
			v := &modelVerifier{script: one, server: server, service: tokens.Actor{
				Kind: tokens.ServiceActor, TokenID: tokens.ID(i + 1), Name: fmt.Sprint("s", i),
			}}
			verifiers = append(verifiers, v)
			running.Go(func() { v.run(ctx, &running) })
		}
		for _, e := range s.Events {
			running.Go(func() {
				pause(ctx, time.Duration(e.At)*time.Millisecond)
				v := verifiers[e.Verifier]
				v.mu.Lock()
				defer v.mu.Unlock()
				if until := time.Now().Add(time.Duration(e.For) * time.Millisecond); until.After(v.blocked) {
					v.blocked = until
				}
				if e.Cut && v.cut != nil {
					v.cut()
				}
			})
		}
		pause(ctx, time.Duration(s.Revoke)*time.Millisecond)
		position, began := server.change(), time.Now()
		got = server.board.Wait(
			ctx,
			tokens.Actor{Kind: tokens.ServiceActor, Name: "admin"},
			time.Duration(s.Wait)*time.Millisecond,
		)
		took = time.Since(began)
		if !got.Everywhere {
			return
		}
		for range 400 {
			for i, v := range verifiers {
				if v.lets(position) {
					wrong = fmt.Sprintf(
						"verifier %d lets the token pass %v after the receipt said %v",
						i,
						time.Since(began)-took,
						got,
					)
					return
				}
			}
			pause(ctx, 10*time.Millisecond)
		}
	})
	return wrong, got, took
}

// TestAReceiptIsNeverFollowedByAnAllow plays scripts of rapid.
func TestAReceiptIsNeverFollowedByAnAllow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(func(name string, low, high int) int { return rapid.IntRange(low, high).Draw(rt, name) })
		wrong, got, took := play(t, s, verifierTrust)
		if wrong != "" {
			rt.Fatal(wrong)
		}
		// By the rule of the verifiers everything is safe soon, unless a watch began meanwhile.
		if most := verifierTrust + slack + 10*time.Millisecond; !got.Everywhere && took > most+time.Second {
			rt.Fatalf("after %v there is no receipt: %v", took, got)
		}
	})
}

// TestAShorterBoundIsFoundOut shows that the model can fail: with less time than verifiers trust their memory it does.
func TestAShorterBoundIsFoundOut(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 18))
		s := drawScript(func(_ string, low, high int) int { return low + r.IntN(high-low+1) })
		if wrong, _, _ := play(t, s, verifierTrust-500*time.Millisecond); wrong != "" {
			t.Logf("script %d: %s", seed, wrong)
			return
		}
	}
	t.Fatal("no script shows that the bound is too short")
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
		"one stands still":   {script{Verifiers: []verifierScript{acknowledges}, Wait: 8000, Events: []event{{At: 5500, For: 9000}}}, true, verifierTrust, verifierTrust + 2*slack},
		"one has broken off": {script{Verifiers: []verifierScript{acknowledges}, Wait: 8000, Events: []event{{At: 5500, For: 9000, Cut: true}}}, true, 2 * time.Second, verifierTrust + slack},
	} {
		c.script.Revoke = 6000
		wrong, got, took := play(t, c.script, verifierTrust)
		if wrong != "" || got.Everywhere != c.everywhere || took < c.least || took > c.most {
			t.Errorf("%s: %+v after %v %s", name, got, took, wrong)
		}
	}
}
