package tokens_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

// The tests in this file each stand for something that a hostile tester did to a running server.

func TestRetryIsAnsweredAfterTheTokenHasExpired(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	soon := noon.Add(2 * time.Second)
	req := tokens.MintRequest{
		User:           "u1",
		Name:           "n",
		Scopes:         []string{"a"},
		Lifetime:       tokens.Lifetime{ExpireTime: &soon},
		IdempotencyKey: idem,
	}
	first, err := h.Mint(ctx, admin, req)
	if err != nil {
		t.Fatal(err)
	}
	h.wait(time.Hour)
	if again, err := h.Mint(
		ctx,
		admin,
		req,
	); err != nil || !again.Replayed ||
		again.Secret.Reveal() != first.Secret.Reveal() {
		t.Errorf("replayed %v, %v", again.Replayed, err)
	}
}

func TestBatchAnswersAreBounded(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	const most, answer = 4 << 20, 64 << 10
	batch := func(n int) (passed int, err error) {
		rs := make([]tokens.IntrospectRequest, n)
		for i := range rs {
			rs[i].Secret = m.Secret
		}
		caller := gw
		err = h.IntrospectEach(ctx, &caller, rs, func(*tokens.Introspection) int { passed++; return answer })
		return passed, err
	}
	if n, err := batch(most / answer); err != nil || n != most/answer {
		t.Errorf("%d answers, %v", n, err)
	}
	n, err := batch(1000)
	if wantReason(t, err, "BATCH_TOO_LARGE", "a thousand large answers"); n > most/answer+1 {
		t.Errorf("%d answers were made before the batch was refused", n)
	}
}

func TestPrefixOfAnotherServerIsLearnt(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	acme, err := tokens.BindKeys(ctx, h.store, h.ring.Get(), "acme", h.now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := tokens.NewService(tokens.Config{Store: h.store, Keys: h.ring, Prefixes: acme, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	m, err := other.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}})
	if err != nil || !strings.HasPrefix(m.Secret.Reveal(), "acme_") {
		t.Fatal(err)
	}
	if err := h.LearnPrefixes(ctx, ""); err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.Allow, "minted under the other server's prefix")
	if own := h.mint("u1", "own", "a"); !strings.HasPrefix(own.Secret.Reveal(), "pat_") {
		t.Error("the own prefix has changed")
	}
}

func TestEachTokensHistoryIsComplete(t *testing.T) {
	h := newHouse(t)
	for name, end := range map[string]func(user string) error{
		"revoke all": func(user string) error { _, err := h.RevokeAll(ctx, admin, user, "r"); return err },
		"delete":     func(user string) error { _, err := h.DeleteUser(ctx, admin, user, "r"); return err },
	} {
		h.give(name, "a")
		one, two := h.mint(name, "1", "a"), h.mint(name, "2", "a")
		if err := end(name); err != nil {
			t.Fatal(err)
		}
		for _, m := range []tokens.Minted{one, two} {
			events, _, err := h.Events(ctx, admin, tokens.EventFilter{TokenID: m.Token.ID.String()}, tokens.Page{})
			if err != nil || len(events) != 2 || events[0].Action != tokens.ActionTokenRevoke ||
				events[0].Detail != "r" {
				t.Errorf("%s: %+v, %v", name, events, err)
			}
		}
	}
}

func TestLimitsHaveOneReason(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Limits.Features = 2 })
	_, err := h.SetUserFeatures(ctx, admin, "u1", []string{"a", "b", "c"})
	wantReason(t, err, "TOO_MANY_FEATURES", "set")
	h.give("u1", "a", "b")
	_, err = h.UpdateUserFeatures(ctx, admin, "u1", []string{"c"}, nil)
	wantReason(t, err, "TOO_MANY_FEATURES", "add")
}

func TestRefusalsAreRecordedAsFarAsAllowed(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	left := 2
	h.LimitRefusals(func(tokens.Actor) bool { left--; return left >= 0 })
	for range 5 {
		_, err := h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"b"}})
		wantReason(t, err, "SCOPE_NOT_HELD", "mint")
	}
	if events, _, err := h.Events(
		ctx,
		admin,
		tokens.EventFilter{Action: "token.create"},
		tokens.Page{},
	); len(events) != 2 ||
		err != nil {
		t.Errorf("%d events, %v", len(events), err)
	}
}

// TestMalformedTokensAreRefusedBeforeTheStore changes each character of a live token, and counts what the store is
// asked.
func TestMalformedTokensAreRefusedBeforeTheStore(t *testing.T) {
	var faulty *storetest.Faulty
	h := newHouse(t, func(c *tokens.Config) {
		faulty = storetest.NewFaulty(c.Store)
		c.Store = faulty
	})
	h.give("u1", "a")
	live := h.mint("u1", "n", "a").Secret.Reveal()
	bad := []string{
		"",
		live + "0",
		live[:len(live)-1],
		strings.Repeat(live, 4),
		strings.Repeat("x", 257),
		strings.Repeat("x", 1<<20),
		strings.ToUpper(live),
	}
	for i := range live {
		changed := []byte(live)
		changed[i]++
		bad = append(bad, string(changed))
	}
	before := faulty.Calls()
	for _, text := range bad {
		h.wants(secret.NewSecret(text), tokens.NotFound, "a malformed token")
		if _, err := h.Authenticate(ctx, secret.NewSecret(text), tokens.Peer{}); err == nil {
			t.Error("a malformed token authenticates")
		}
	}
	asked := faulty.Calls()
	if asked[storetest.OpLookupService] == before[storetest.OpLookupService]+len(bad) { // about the caller
		asked[storetest.OpLookupService] = before[storetest.OpLookupService]
	}
	maps.DeleteFunc(asked, func(_ storetest.Op, n int) bool { return n == 0 })
	if d := cmp.Diff(before, asked); d != "" {
		t.Errorf("the store was asked about malformed tokens:\n%s", d)
	}
	h.wants(secret.NewSecret(live), tokens.Allow, "the token itself")
	if faulty.Calls()[storetest.OpLookup] != before[storetest.OpLookup]+1 {
		t.Error("the store was not asked about the token itself: this test proves nothing")
	}
}
