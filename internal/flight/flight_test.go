package flight_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"patd/internal/flight"
)

type group = flight.Group[string, int, string]

func TestEveryWaiterGetsTheOneResult(t *testing.T) {
	t.Parallel()
	var g group
	f := g.Begin("k", 7)
	const waiters = 16
	var waiting, ended sync.WaitGroup
	waiting.Add(waiters)
	var mu sync.Mutex
	for range waiters {
		ended.Go(func() {
			mu.Lock()
			joined := g.Find("k")
			joined.Join()
			mu.Unlock()
			waiting.Done()
			if err := joined.Wait(context.Background()); err != nil {
				t.Error(err)
			}
			if value, err := joined.Result(); value != "v" || err != nil || joined.Begun != 7 {
				t.Errorf("%q, %v of %d", value, err, joined.Begun)
			}
		})
	}
	waiting.Wait()
	mu.Lock()
	g.Land("k", f, "v", nil)
	g.Land("k", f, "later", errors.New("later"))
	if g.Find("k") != nil {
		t.Error("a flight that has landed can be joined")
	}
	f.Join() // late, by one that held it
	mu.Unlock()
	ended.Wait()
	if err := f.Wait(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestAWaiterGoesWithItsOwnContextAndTheOthersStay(t *testing.T) {
	t.Parallel()
	f := flight.New[int, string](0)
	f.Join()
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := f.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the one that goes: %v", err)
		}
		close(left)
	})
	ended.Go(func() {
		if err := f.Wait(context.Background()); err != nil {
			t.Errorf("the one that stays: %v", err)
		}
		select {
		case <-left:
		default:
			t.Error("the one that stays did not wait")
		}
	})
	cancel()
	<-left
	f.Land("v", nil)
	ended.Wait()
}

func TestAFlightFromBeforeAnInvalidationIsStaleAndCannotBeJoined(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(*group){
		"its key":        func(g *group) { g.Invalidate("k") },
		"everything":     func(g *group) { g.InvalidateAll() },
		"its successor":  func(g *group) { g.Begin("k", 2) },
		"twice, and all": func(g *group) { g.Invalidate("k"); g.Invalidate("k"); g.InvalidateAll() },
	} {
		var g group
		f, other := g.Begin("k", 1), g.Begin("other", 1)
		f.Join()
		if f.Stale() {
			t.Errorf("%s: stale before", name)
		}
		invalidate(&g)
		if !f.Stale() || g.Find("k") == f {
			t.Errorf("%s: the flight is not stale, or can be joined", name)
		}
		if all := g.Find("other") == nil; all != other.Stale() {
			t.Errorf("%s: another flight is gone %t and stale %t", name, all, other.Stale())
		}
		next := g.Begin("k", 3)
		g.Land("k", f, "old", nil)
		if g.Find("k") != next || next.Stale() {
			t.Errorf("%s: the end of the stale flight touched the one that followed", name)
		}
		if err := f.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		if value, err := f.Result(); value != "old" || err != nil {
			t.Errorf("%s: those that waited got %q, %v", name, value, err)
		}
	}
}

func TestAnAbandonedFlightSaysSo(t *testing.T) {
	t.Parallel()
	var g group
	f := g.Begin("k", 0)
	f.Join()
	func() {
		defer func() { _ = recover() }()
		defer g.Abandon("k", f)
		panic("x")
	}()
	if _, err := f.Result(); !errors.Is(err, flight.ErrAbandoned) || !f.Landed() || g.Find("k") != nil {
		t.Errorf("%v", err)
	}
	f = g.Begin("k", 0)
	g.Land("k", f, "v", nil)
	g.Abandon("k", f)
	if value, err := f.Result(); value != "v" || err != nil {
		t.Errorf("abandoned after it had landed: %q, %v", value, err)
	}
}
