package store_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"patd/internal/longtest"
	"patd/store"
	"patd/tokens"
)

func TestTwoHandlesSeeEachOthersChangesAtOnce(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	a, b := open(t, path, store.Options{}), open(t, path, store.Options{})
	id := fill(t, a, 1)[0]
	lookup(t, b, id)
	for i := range 20 {
		name := strconv.Itoa(i)
		err := a.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
			tok, err := tx.Token(id)
			if err != nil {
				return nil, err
			}
			tok.Name = name
			e := tokens.Event{
				Time:    time.Now(),
				Actor:   "operator",
				Action:  tokens.ActionTokenUpdate,
				TokenID: id,
				Outcome: tokens.OutcomeSuccess,
			}
			return []tokens.Event{e}, tx.UpdateToken(tok)
		})
		if err != nil {
			t.Fatal(err)
		}
		c := lookup(t, b, id)
		if c.Token.Name != name {
			t.Fatalf("the other handle read %q, want %q", c.Token.Name, name)
		}
		if c.Sequence > a.Sequence() {
			t.Fatalf("a lookup answered position %d, ahead of the newest, %d", c.Sequence, a.Sequence())
		}
	}
	if err := b.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Sequence() == 0 || a.Sequence() != b.Sequence() {
		t.Errorf("positions %d and %d, want the same", a.Sequence(), b.Sequence())
	}
}

func TestSeveralProcessesWriteOneStore(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	path := newPath(t)
	waits := []func() error{startChild(t, path), startChild(t, path)} // on a store that is not there yet
	st := open(t, path, store.Options{BusyTimeout: time.Minute})
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			for j := range 25 {
				if err := tryPut(t.Context(), st, fmt.Sprintf("parent%d.%d", i, j)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, wait := range waits {
		g.Go(wait)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(prefixes(t, st)); n != 150 {
		t.Errorf("%d changes were kept, want 150", n)
	}
	if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check: %v, %v", found, err)
	}
	if n := count(t, st, "events"); n != "200" {
		t.Errorf("%s events, want one for each of 200 changes", n)
	}
}

func TestAnotherProcessHoldingTheStoreDelaysWritesOnly(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st := open(t, path, store.Options{BusyTimeout: 20 * time.Millisecond})
	id := fill(t, st, 1)[0]
	other := open(t, path, store.Options{})
	exec1(t, other, `BEGIN IMMEDIATE`)
	if err := tryPut(t.Context(), st, "acme"); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("past the busy timeout: %v", err)
	}
	lookup(t, st, id)
	exec1(t, other, `ROLLBACK`)
	put(t, st, "acme")
}

func TestWaitingForTheWriterHeedsTheContext(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st := open(t, path, store.Options{BusyTimeout: time.Minute})
	other := open(t, path, store.Options{})
	exec1(t, other, `BEGIN IMMEDIATE`)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := tryPut(ctx, st, "never"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another process writes: %v, want the deadline", err)
	}
	exec1(t, other, `ROLLBACK`)
	put(t, st, "acme")

	inside, leave := make(chan struct{}), make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		return st.Update(t.Context(), func(tokens.Tx) ([]tokens.Event, error) {
			close(inside)
			<-leave
			return nil, nil
		})
	})
	<-inside
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := tryPut(ctx, st, "never"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another goroutine writes: %v, want the deadline", err)
	}
	close(leave)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if got := prefixes(t, st); len(got) != 1 || got[0] != "acme" {
		t.Errorf("prefixes %v, want those of the changes that were answered", got)
	}
}

func TestAPanicInAClosureLeavesTheStoreWorking(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
			if err := tx.PutPrefix("half"); err != nil {
				t.Error(err)
			}
			panic("a defect")
		})
	}()
	put(t, st, "acme")
	if got := prefixes(t, st); len(got) != 1 {
		t.Errorf("prefixes %v: the panicking change was kept", got)
	}
}

func TestOldChangesAndExpiredRequestsArePruned(t *testing.T) {
	t.Parallel()
	c := newClock()
	st := open(t, newPath(t), store.Options{Now: c.now, FlushInterval: time.Hour})
	id := fill(t, st, 5)[0]
	err := st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		e := tokens.Event{
			Time:    c.now(),
			Actor:   "operator",
			Action:  tokens.ActionTokenCreate,
			TokenID: id,
			Outcome: tokens.OutcomeSuccess,
		}
		return []tokens.Event{
				e,
			}, tx.PutRequest(
				tokens.Request{TokenID: id, Sealed: []byte("x"), ExpireTime: c.now().Add(time.Hour)},
				c.now(),
			)
	})
	if err != nil {
		t.Fatal(err)
	}
	events, position := count(t, st, "events"), st.Sequence()
	prune := func() {
		if err := st.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	changes := count(t, st, "changes")
	prune()
	if got := count(t, st, "changes"); got != changes {
		t.Errorf("%s changes after pruning at once, want %s", got, changes)
	}
	c.move(2 * time.Hour)
	prune()
	if got := count(t, st, "changes"); got != "1" {
		t.Errorf("%s changes after two hours, want the newest", got)
	}
	if got := count(t, st, "requests"); got != "0" {
		t.Errorf("%s requests after two hours, want none", got)
	}
	if got := count(t, st, "events"); got != events {
		t.Errorf("%s events after pruning, want %s", got, events)
	}
	put(t, st, "acme")
	if st.Sequence() != position+1 {
		t.Errorf("position %d after pruning and a change, want %d", st.Sequence(), position+1)
	}
}

func TestALookupIsAtLeastAsNewAsItsSequence(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	id := fill(t, st, 1)[0]
	rename := func(name string) error {
		return st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
			tok, err := tx.Token(id)
			if err != nil {
				return nil, err
			}
			tok.Name = name
			e := tokens.Event{
				Time:    time.Now(),
				Actor:   "operator",
				Action:  tokens.ActionTokenUpdate,
				TokenID: id,
				Outcome: tokens.OutcomeSuccess,
			}
			return []tokens.Event{e}, tx.UpdateToken(tok)
		})
	}
	// The token is named after the position of its change.
	first := st.Sequence() + 1
	if err := rename(strconv.FormatUint(first, 10)); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		for seq := first + 1; seq < first+200; seq++ {
			if err := rename(strconv.FormatUint(seq, 10)); err != nil {
				return err
			}
			if got := st.Sequence(); got != seq {
				return fmt.Errorf("position %d after change %d returned", got, seq)
			}
		}
		return nil
	})
	for range 2 {
		g.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				c, err := st.Lookup(t.Context(), id)
				if err != nil {
					return err
				}
				seen, err := strconv.ParseUint(c.Token.Name, 10, 64)
				if err != nil {
					return err
				}
				if c.Sequence > seen || c.Sequence < first {
					return fmt.Errorf("a lookup at position %d read change %d", c.Sequence, seen)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
