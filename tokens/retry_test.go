package tokens_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"patd/tokens"
	"patd/tokens/secret"
)

const idem = "7e2c5a52-93a1-4f0e-a6b9-0d7b3f2f4d11"

func TestRepeatedMintAnswersTheSameSecret(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	ttl := 24 * time.Hour
	req := tokens.MintRequest{
		User:           "u1",
		Name:           "n",
		Scopes:         []string{"a"},
		Lifetime:       tokens.Lifetime{TTL: &ttl},
		IdempotencyKey: idem,
	}
	first, err := h.Mint(ctx, admin, req)
	if err != nil || first.Replayed {
		t.Fatalf("%+v, %v", first, err)
	}
	h.wait(time.Hour)
	h.reopen()
	again, err := h.Mint(ctx, admin, req)
	if err != nil || !again.Replayed || again.Token.ID != first.Token.ID ||
		again.Secret.Reveal() != first.Secret.Reveal() {
		t.Fatalf("replayed %v, %v: %v", again.Replayed, again.Token.ID, err)
	}
	for name, change := range map[string]func(*tokens.MintRequest){
		"name": func(r *tokens.MintRequest) { r.Name = "m" }, "scopes": func(r *tokens.MintRequest) { r.Scopes = []string{"b"} },
		"ttl": func(r *tokens.MintRequest) { d := 2 * ttl; r.Lifetime.TTL = &d }, "user": func(r *tokens.MintRequest) { r.User = "u2" },
		"no ttl": func(r *tokens.MintRequest) { r.Lifetime.TTL = nil }, "cidrs": func(r *tokens.MintRequest) { r.CIDRs = []string{"10.0.0.0/8"} },
		"audience": func(r *tokens.MintRequest) { r.Audiences = []string{"x"} }, "label": func(r *tokens.MintRequest) { r.Labels = map[string]string{"a": ""} },
		"description": func(r *tokens.MintRequest) { r.Description = "d" },
	} {
		other := req
		change(&other)
		_, err := h.Mint(ctx, admin, other)
		wantReason(t, err, "IDEMPOTENCY_KEY_REUSED", "another "+name)
	}
	byOther := req
	byOther.Name = "theirs"
	another := tokens.Actor{Kind: tokens.ServiceActor, Name: "other", TokenID: 3, Permissions: tokens.PermTokens}
	h.serviceOf(another)
	m, err := h.Mint(ctx, another, byOther)
	if err != nil || m.Replayed {
		t.Errorf("another caller's use of the same key: replayed %v, %v", m.Replayed, err)
	}
	if list, _, err := h.Tokens(
		ctx,
		admin,
		tokens.TokenFilter{User: "u1"},
		tokens.Page{},
	); len(list) != 2 ||
		err != nil {
		t.Errorf("%d tokens, %v", len(list), err)
	}
}

func TestReplayComesWithoutASecretThatIsNoLongerCurrent(t *testing.T) {
	for name, end := range map[string]func(h *house, id string) error{
		"revoked": func(h *house, id string) error { _, err := h.Revoke(ctx, admin, "u1", id, ""); return err },
		"rotated": func(h *house, id string) error {
			_, err := h.Rotate(ctx, admin, tokens.RotateRequest{User: "u1", TokenID: id})
			return err
		},
		"revoked with all":  func(h *house, _ string) error { _, err := h.RevokeAll(ctx, admin, "u1", ""); return err },
		"revoked by itself": func(h *house, id string) error { return revokeSelf(h, id) },
		"of a deleted user": func(h *house, _ string) error { _, err := h.DeleteUser(ctx, admin, "u1", ""); return err },
	} {
		h := newHouse(t)
		h.give("u1", "a")
		req := tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}, IdempotencyKey: idem}
		first, err := h.Mint(ctx, admin, req)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(h, first.Token.ID.String()); err != nil {
			t.Fatal(err)
		}
		again, err := h.Mint(ctx, admin, req)
		if err != nil || !again.Replayed || again.Token.ID != first.Token.ID || !again.Secret.IsEmpty() {
			t.Errorf("%s: replayed %v with secret %v, %v", name, again.Replayed, !again.Secret.IsEmpty(), err)
		}
	}
}

func revokeSelf(h *house, id string) error {
	tid, err := secret.ParseID(id)
	if err != nil {
		return err
	}
	_, err = h.RevokeSelf(ctx, tokens.Actor{Kind: tokens.TokenActor, User: "u1", TokenID: tid}, "")
	return err
}

func TestIdempotencyKeyIsFreeAfterADay(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	req := tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}, IdempotencyKey: idem}
	if _, err := h.Mint(ctx, admin, req); err != nil {
		t.Fatal(err)
	}
	h.wait(tokens.IdempotencyWindow - time.Microsecond)
	if m, err := h.Mint(ctx, admin, req); err != nil || !m.Replayed {
		t.Errorf("within 24 h: replayed %v, %v", m.Replayed, err)
	}
	h.wait(time.Microsecond)
	req.Name = "n2"
	if m, err := h.Mint(ctx, admin, req); err != nil || m.Replayed {
		t.Errorf("after 24 h: replayed %v, %v", m.Replayed, err)
	}
}

func TestIdempotencyKeyForm(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	for k, want := range map[string]string{
		strings.Repeat("k", 15): "IDEMPOTENCY_KEY_INVALID", strings.Repeat("k", 16): "", strings.Repeat("k", 255): "",
		strings.Repeat("k", 256): "IDEMPOTENCY_KEY_INVALID", "key with\nnewline": "IDEMPOTENCY_KEY_INVALID", "clé très longue et unique": "IDEMPOTENCY_KEY_INVALID",
	} {
		_, err := h.Mint(
			ctx,
			admin,
			tokens.MintRequest{
				User:           "u1",
				Name:           k[:5] + string(rune('a'+len(k)%26)),
				Scopes:         []string{"a"},
				IdempotencyKey: k,
			},
		)
		wantReason(t, err, want, k)
	}
}

func TestReplayAfterTheKeysWereRotated(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	req := tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}, IdempotencyKey: idem}
	first, err := h.Mint(ctx, admin, req)
	if err != nil {
		t.Fatal(err)
	}
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	if again, err := h.Mint(ctx, admin, req); err != nil || again.Secret.Reveal() != first.Secret.Reveal() {
		t.Errorf("replayed %v, %v", again.Replayed, err)
	}
}

func TestOneOfManyRepeatedMintsMakesTheToken(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	req := tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}, IdempotencyKey: idem}
	var wg sync.WaitGroup
	secrets := make([]string, 16)
	for i := range secrets {
		wg.Go(func() {
			m, err := h.Mint(ctx, admin, req)
			if err != nil {
				t.Error(err)
				return
			}
			secrets[i] = m.Secret.Reveal()
		})
	}
	wg.Wait()
	for _, s := range secrets {
		if s != secrets[0] || s == "" {
			t.Fatal("two callers have different secrets")
		}
	}
}

func TestKeysRotateAndRetire(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	seen, grace, idle := h.mint("u1", "seen", "a"), h.mint("u1", "grace", "a"), h.mint("u1", "idle", "a")
	rotated, err := h.Rotate(ctx, admin, tokens.RotateRequest{User: "u1", TokenID: grace.Token.ID.String()})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "s", Permissions: []string{"introspect"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tokens.RetireKey(ctx, h.store, h.ring.Get(), "a", h.now()); reason(err) != "KEY_CURRENT" {
		t.Errorf("retire the only key: %v", err)
	}
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	h.wait(35 * time.Second)
	if err := tokens.RetireKey(
		ctx,
		h.store,
		h.ring.Get(),
		"a",
		h.now(),
	); reason(err) != "KEY_TOO_RECENT" ||
		!strings.Contains(err.Error(), "key b has been in force for only 35s") ||
		!strings.Contains(err.Error(), "try again in 25s") {
		t.Errorf("retire a key right after the rotation: %v", err)
	}
	if err := tokens.RetireKey(ctx, h.store, h.ring.Get(), "b", h.now()); reason(err) != "KEY_CURRENT" {
		t.Errorf("retire the newest key: %v", err)
	}
	h.wait(time.Hour)
	for _, s := range []tokens.Secret{seen.Secret, grace.Secret, rotated.Secret} {
		h.wants(s, tokens.Allow, "under the older key")
	}
	if _, err := h.Authenticate(ctx, svc.Secret, tokens.Peer{}); err != nil {
		t.Error(err)
	}
	h.reopen()
	if err := tokens.RetireKey(
		ctx,
		h.store,
		h.ring.Get(),
		"a",
		h.now(),
	); reason(err) != "KEY_IN_USE" ||
		!strings.Contains(err.Error(), "key a: 1;") {
		t.Errorf("retire a key with the idle token's digest: %v", err)
	}
	if _, err := h.Revoke(ctx, admin, "u1", idle.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	if err := tokens.RetireKey(ctx, h.store, h.ring.Get(), "a", h.now()); err != nil {
		t.Fatal(err)
	}
	h.ring.Set(parseKeys(t, lineB))
	h.reopen()
	for _, s := range []tokens.Secret{seen.Secret, grace.Secret, rotated.Secret} {
		h.wants(s, tokens.Allow, "digested anew")
	}
	if a, err := h.Authenticate(ctx, svc.Secret, tokens.Peer{}); err != nil || a.Name != "s" {
		t.Errorf("%+v, %v", a, err)
	}
	h.wants(idle.Secret, tokens.NotFound, "revoked, under a key that is gone")
}

func TestKeyThatIsNotLoadedIsAnOutage(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	m := h.mint("u1", "n", "a")
	svc, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "s", Permissions: []string{"introspect"}})
	if err != nil {
		t.Fatal(err)
	}
	h.ring.Set(parseKeys(t, lineA))
	_, err = h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: m.Secret})
	wantReason(t, err, "KEY_UNAVAILABLE", "introspect")
	_, err = h.Authenticate(ctx, svc.Secret, tokens.Peer{})
	wantReason(t, err, "KEY_UNAVAILABLE", "authenticate")
}

func TestRefusedAttemptsAreRecorded(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	bearer := tokens.Actor{Kind: tokens.TokenActor, User: "u1", TokenID: m.Token.ID}
	for _, err := range []error{
		mintErr(h, bearer, tokens.MintRequest{User: "u1", Name: "x", Scopes: []string{"a"}}),
		mintErr(h, admin, tokens.MintRequest{User: "u1", Name: "x", Scopes: []string{"b"}}),
		mintErr(h, admin, tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}}),
		mintErr(h, admin, tokens.MintRequest{User: m.Secret.Reveal(), Name: "n", Scopes: []string{"a"}}),
	} {
		if err == nil {
			t.Error("not refused")
		}
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.create"}, tokens.Page{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, strings.Join([]string{e.Actor, e.User, e.Reason}, " "))
		if strings.Contains(e.User+e.Detail+e.Reason, m.Secret.Reveal()[16:]) {
			t.Errorf("the secret stands in an event: %+v", e)
		}
	}
	want := []string{
		"service:admin  SECRET_IN_FIELD",
		"service:admin u1 NAME_TAKEN",
		"service:admin u1 SCOPE_NOT_HELD",
		"token:" + m.Token.ID.String() + " u1 PERMISSION_DENIED",
		"service:admin u1 ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func mintErr(h *house, a tokens.Actor, r tokens.MintRequest) error {
	_, err := h.Mint(ctx, a, r)
	return err
}
