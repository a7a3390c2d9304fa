package storetest

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"patd/tokens"
)

func testAbsence(t *testing.T, f *fixture) {
	_, err := f.st.Lookup(f.ctx, 77)
	f.isNotFound("Lookup", err)
	_, err = f.st.LookupService(f.ctx, 77)
	f.isNotFound("LookupService", err)
	f.update(func(tx tokens.Tx) error {
		_, err := tx.Token(77)
		f.isNotFound("Token", err)
		_, err = tx.User("nobody")
		f.isNotFound("User", err)
		_, err = tx.Service("none")
		f.isNotFound("Service", err)
		_, err = tx.Request(tokens.RequestKey{1}, f.now)
		f.isNotFound("Request", err)
		f.isNotFound("UpdateToken", tx.UpdateToken(tokens.Token{ID: 77, Name: "n", Scopes: []string{"s"}}))
		f.isNotFound("ReplaceSecret", tx.ReplaceSecret(77, hash("k1", 1), f.rotation(f.now)))
		f.isNotFound("UpdateUser", tx.UpdateUser(tokens.User{Key: 77, State: tokens.UserActive}))
		f.isNotFound("SetBlocked", tx.SetBlocked(77, "api"))
		_, err = tx.Feature("a")
		f.isNotFound("Feature", err)
		f.isNotFound("UpdateFeature", tx.UpdateFeature(tokens.FeatureEntry{Name: "a", Consent: tokens.ConsentImplicit}))
		f.isNotFound("DeleteFeature", tx.DeleteFeature("a"))
		_, err = tx.Audience("api")
		f.isNotFound("Audience", err)
		f.isNotFound("UpdateAudience", tx.UpdateAudience(tokens.AudienceEntry{ID: "api",
			AccessFormat: tokens.AccessOpaque}))
		f.isNotFound("DeleteAudience", tx.DeleteAudience("api"))
		f.isNotFound(
			"ReplaceServiceSecret",
			tx.ReplaceServiceSecret(tokens.ServiceAccount{ID: 77, RotateTime: f.now}, hash("k1", 1)),
		)
		f.isNotFound("RevokeService", tx.RevokeService(77, tokens.Revocation{Time: f.now}))
		return nil
	})
}

func testTaken(t *testing.T, f *fixture) {
	u := f.user("u")
	tok, svc := f.token(u, "one"), f.service("gateway")
	f.update(func(tx tokens.Tx) error {
		again := tok
		again.Name = "two"
		f.isTaken("InsertToken", tx.InsertToken(again, hash("k1", 99)))
		f.isTaken("InsertService", tx.InsertService(svc, hash("k1", 99)))
		_, err := tx.InsertUser(tokens.User{ID: "u", State: tokens.UserActive, CreateTime: f.now})
		f.isTaken("InsertUser", err)
		return tx.PutPrefix("acme")
	})
	f.equal("the token that was there", f.read(tok.ID), tok)
	f.equal("what came after in the transaction", f.prefixes(), []string{"acme"})
}

func testFreshness(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	for i := range 50 {
		if err := f.rename(f.st, tok, name(i)); err != nil {
			t.Fatal(err)
		}
		if got := f.lookup(tok.ID).Token.Name; got != name(i) {
			t.Fatalf("after an update that returned, a lookup read %q, want %q", got, name(i))
		}
		f.equal("a view after an update", f.read(tok.ID).Name, name(i))
	}
}

func testSnapshot(t *testing.T, f *fixture) {
	u := f.user("u")
	tok := f.token(u, "one")
	f.view(func(tx tokens.ReadTx) error {
		before, err := tx.Token(tok.ID)
		if err != nil {
			return err
		}
		if err := f.rename(f.st, tok, "changed"); err != nil {
			return err
		}
		f.token(u, "two")
		after, err := tx.Token(tok.ID)
		if err != nil {
			return err
		}
		f.equal("the token in the same view", after, before)
		list, err := tx.Tokens(tokens.TokenQuery{UserKey: u.Key, Now: f.now, Limit: 10})
		f.equal("the tokens in the same view", len(list), 1)
		return err
	})
}

func testRollback(t *testing.T, f *fixture) {
	u := f.user("u")
	tok := f.token(u, "one")
	before := f.eventsOf(tokens.EventQuery{})
	refused := errors.New("refused")
	err := f.st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		second := tok
		second.ID, second.Name = f.nextID(), "two"
		if err := tx.InsertToken(second, hash("k1", f.n)); err != nil {
			return nil, err
		}
		if n, err := tx.RevokeTokens(u.Key, tokens.Revocation{Time: f.now, By: "x"}); err != nil || len(n) != 2 {
			t.Errorf("in the transaction: revoked %d, %v; want 2: it sees its own writes", n, err)
		}
		return f.events(tokens.Event{TokenID: tok.ID}), refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("got %v, want the closure's own error", err)
	}
	f.equal("tokens", f.tokens(tokens.TokenQuery{UserKey: u.Key, State: tokens.StateActive}), []string{"one"})
	f.equal("events", f.eventsOf(tokens.EventQuery{}), before)
}

func testNoEvents(t *testing.T, f *fixture) {
	err := f.st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) { return nil, tx.PutPrefix("acme") })
	if err == nil {
		t.Error("a write without an event was accepted")
	}
	f.equal("prefixes", f.prefixes(), []string{})
	err = f.st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		_, err := tx.Keys()
		return nil, err
	})
	if err != nil {
		t.Errorf("reading only, without an event: %v", err)
	}
}

func testOver(t *testing.T, f *fixture) {
	var late tokens.Tx
	f.update(func(tx tokens.Tx) error {
		late = tx
		return nil
	})
	if err := late.PutPrefix("acme"); err == nil {
		t.Error("a write after the transaction was accepted")
	}
	if _, err := late.Keys(); err == nil {
		t.Error("a read after the transaction was answered")
	}
	f.equal("prefixes", f.prefixes(), []string{})
}

func testCancelled(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	ctx, cancel := context.WithCancel(f.ctx)
	err := f.st.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		cancel() // under way: it happens
		return f.events(tokens.Event{}), tx.PutPrefix("acme")
	})
	if err != nil {
		t.Errorf("an update whose context ended under way: %v", err)
	}
	f.equal("prefixes", f.prefixes(), []string{"acme"})
	started := func() { t.Error("a call with an ended context started") }
	for what, call := range map[string]func() error{
		"Lookup": func() error { _, err := f.st.Lookup(ctx, tok.ID); return err },
		"View":   func() error { return f.st.View(ctx, func(tokens.ReadTx) error { started(); return nil }) },
		"Update": func() error {
			return f.st.Update(ctx, func(tokens.Tx) ([]tokens.Event, error) { started(); return nil, nil })
		},
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", what, err)
		}
	}
}

func testEvents(t *testing.T, f *fixture) {
	full := tokens.Event{
		Time: f.now, Actor: "service:gw", Action: tokens.ActionTokenRevoke, User: "u", TokenID: 5, Service: "gw",
		PeerIP: netip.MustParseAddr("2001:db8::1"), Outcome: tokens.OutcomeRefused, Reason: "NOPE", Detail: "scopes",
	}
	least := tokens.Event{Time: f.now, Actor: "operator", Action: tokens.ActionKeyAdd, Outcome: tokens.OutcomeSuccess}
	f.update(func(tokens.Tx) error { return nil }, full, least)
	got := f.eventsOf(tokens.EventQuery{Limit: 2})
	if len(got) != 2 || got[0].Seq <= got[1].Seq || got[1].Seq == 0 {
		t.Fatalf("got %d events, newest first, with growing positions; want 2", len(got))
	}
	full.Seq, least.Seq = got[1].Seq, got[0].Seq
	f.equal("events", got, []tokens.Event{least, full})
}

func testEventQueries(t *testing.T, f *fixture) {
	for i := range 10 {
		e := tokens.Event{User: "u", Actor: "operator", TokenID: tokens.ID(i%2 + 1), Action: tokens.ActionTokenUpdate}
		if i >= 6 {
			e.User, e.Actor, e.Action = "v", "user:v", tokens.ActionTokenRevoke
		}
		f.update(func(tokens.Tx) error { return nil }, e)
	}
	count := func(q tokens.EventQuery) int { return len(f.eventsOf(q)) }
	f.equal("by user", count(tokens.EventQuery{User: "u"}), 6)
	f.equal("by token", count(tokens.EventQuery{TokenID: 1}), 5)
	f.equal("by token and user", count(tokens.EventQuery{TokenID: 1, User: "v"}), 2)
	f.equal("by actor", count(tokens.EventQuery{Actor: "user:v"}), 4)
	f.equal("by action and user", count(tokens.EventQuery{User: "v", Action: tokens.ActionTokenUpdate}), 0)
	var seqs []uint64
	q := tokens.EventQuery{User: "u", Limit: 4}
	for {
		page := f.eventsOf(q)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			seqs = append(seqs, e.Seq)
		}
		q.Before = seqs[len(seqs)-1]
	}
	f.equal("events over all pages", len(seqs), 6)
	for i := 1; i < len(seqs); i++ {
		if seqs[i] >= seqs[i-1] {
			t.Errorf("positions %v are not newest first", seqs)
		}
	}
}

func testSequence(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	before := f.lookup(tok.ID).Sequence
	f.update(func(tokens.Tx) error { return nil }, tokens.Event{TokenID: tok.ID, Outcome: tokens.OutcomeRefused})
	f.equal("the sequence after a refusal", f.lookup(tok.ID).Sequence, before)
	f.update(func(tokens.Tx) error { return nil }, tokens.Event{TokenID: tok.ID})
	if after := f.lookup(tok.ID).Sequence; after <= before {
		t.Errorf("the sequence went from %d to %d, want it to grow", before, after)
	}
}

func testConcurrent(t *testing.T, f *fixture) {
	const workers, each = 64, 5
	u := f.user("u")
	tok := f.token(u, "0")
	f.update(func(tx tokens.Tx) error { return tx.PutPrefix("p") })
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				err := f.st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
					now, err := tx.Token(tok.ID)
					if err != nil {
						return nil, err
					}
					now.Name += "+"
					return f.events(tokens.Event{TokenID: tok.ID}), tx.UpdateToken(now)
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
				if c, err := f.st.Lookup(f.ctx, tok.ID); err != nil || c.Token.ID != tok.ID {
					t.Errorf("lookup: %v", err)
				}
			}
		})
	}
	wg.Wait()
	f.equal("changes that were kept", len(f.read(tok.ID).Name)-1, workers*each)
	f.equal("their events and the first", len(f.eventsOf(tokens.EventQuery{TokenID: tok.ID})), workers*each+1)
}
