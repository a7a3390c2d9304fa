package tokens_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"patd/tokens"
)

func TestSigningKeysFollowTheDigestKeys(t *testing.T) {
	both := tokens.DeriveSigningKeys(parseKeys(t, lineB+"\n"+lineA))
	again := tokens.DeriveSigningKeys(parseKeys(t, lineA))
	if len(both) != 2 || len(again) != 1 {
		t.Fatalf("%d and %d keys", len(both), len(again))
	}
	if both[1].ID != again[0].ID || !both[1].Key.Equal(again[0].Key) {
		t.Error("the same digest key gives another signing key")
	}
	if both[0].ID == both[1].ID || both[0].Key.Equal(both[1].Key) {
		t.Error("two digest keys give one signing key")
	}
	for _, k := range both {
		if k.Key.Curve != elliptic.P256() {
			t.Errorf("%s is not of P-256", k.ID)
		}
		if _, err := k.Key.ECDH(); err != nil { // checks that the point is on the curve
			t.Error(err)
		}
		sum := sha256.Sum256([]byte("message"))
		sig, err := ecdsa.SignASN1(rand.Reader, k.Key, sum[:])
		if err != nil || !ecdsa.VerifyASN1(&k.Key.PublicKey, sum[:], sig) {
			t.Errorf("%s does not sign: %v", k.ID, err)
		}
		if len(k.ID) != 43 {
			t.Errorf("key id %q is no thumbprint", k.ID)
		}
	}
}

func TestRotatingTheKeysRotatesTheSigningKeys(t *testing.T) {
	h := newHouse(t)
	old := h.SigningKeys()
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	got := h.SigningKeys()
	if len(got) != 2 || got[1].ID != old[0].ID || got[0].ID == old[0].ID {
		t.Errorf("%v after %v", got, old)
	}
}

func TestASigningKeyDoesNotPrint(t *testing.T) {
	k := tokens.DeriveSigningKeys(parseKeys(t, lineA))[0]
	raw, err := k.Key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal([]any{k, &k, map[string]any{"k": k}})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "k", k, "list", []tokens.SigningKey{k})
	out := string(text) + log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		out += fmt.Sprintf(verb+verb, k, []tokens.SigningKey{k})
	}
	for _, form := range []string{fmt.Sprintf("%x", raw), fmt.Sprintf("%d", raw), k.Key.D.String()} { //nolint:staticcheck // D is what must not be seen
		if strings.Contains(strings.ToLower(out), form) {
			t.Errorf("the key is printed: %s", out)
		}
	}
	if !strings.Contains(out, k.ID) {
		t.Error("its id is not printed")
	}
}

func TestGrantsMoveToTheNewKey(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	seen, idle := h.exchange(m.Secret, offline), h.exchange(m.Secret, offline)
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	h.wait(2 * time.Minute)
	inUse := func(want string) {
		t.Helper()
		if err := h.store.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		err := tokens.RetireKey(ctx, h.store, h.ring.Get(), "a", h.now())
		if want == "" && err != nil ||
			want != "" && (err == nil || !strings.Contains(err.Error(), "key a: "+want+";")) {
			t.Errorf("retire: %v, want %s in use", err, want)
		}
	}
	inUse("5")
	h.wants(m.Secret, tokens.Allow, "the token")
	inUse("4")
	h.wants(seen.Access, tokens.Allow, "an access token")
	inUse("3")
	h.refuses(
		seen.Refresh,
		"SCOPE_INVALID",
		"a refresh that does not use the token up",
		func(r *tokens.RefreshRequest) { r.Scopes = []string{"x"} },
	)
	inUse("2")
	if err := h.RevokeSecret(ctx, tokens.Actor{}, idle.Refresh); err != nil {
		t.Fatal(err)
	}
	inUse("")
	h.ring.Set(parseKeys(t, lineB))
	h.reopen()
	h.wants(seen.Access, tokens.Allow, "under the new key")
	h.refreshed(seen.Refresh)
}

func TestAnAccessTokenUnderAKeyThatIsNotLoadedIsAnOutage(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	g := h.exchange(m.Secret, offline)
	h.ring.Set(parseKeys(t, lineA))
	_, err := h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: g.Access})
	wantReason(t, err, "KEY_UNAVAILABLE", "introspect")
	h.refuses(g.Refresh, "KEY_UNAVAILABLE", "refresh")
	wantReason(t, h.RevokeSecret(ctx, tokens.Actor{}, g.Access), "KEY_UNAVAILABLE", "revoke")
	wantReason(t, h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{g.Refresh}), "KEY_UNAVAILABLE", "leak")
}

// A verifier that keeps the published keys for a while must know a key before it meets a signature by it.
func TestANewSigningKeyIsPublishedBeforeItSigns(t *testing.T) {
	delay := func(c *tokens.Config) { c.SigningKeyDelay = 10 * time.Minute }
	h := newHouse(t, delay)
	first := h.Signer()
	if all := h.SigningKeys(); len(all) != 1 || all[0].ID != first.ID {
		t.Fatalf("a new store signs with %s, published are %v", first, all)
	}
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen(delay)
	second := h.SigningKeys()[0]
	if second.ID == first.ID {
		t.Fatal("the key that was rotated to is not published")
	}
	if got := h.Signer(); got.ID != first.ID {
		t.Error("a key signs at once")
	}
	h.wait(10*time.Minute - time.Microsecond)
	if got := h.Signer(); got.ID != first.ID {
		t.Error("a key signs before the delay has passed")
	}
	if age := h.SigningKeysMaxAge(); age <= 0 || age >= 10*time.Minute {
		t.Errorf("verifiers may keep the keys for %s, a new one signs after 10 min", age)
	}
	h.wait(time.Microsecond)
	if got := h.Signer(); got.ID != second.ID {
		t.Error("the new key does not sign once the delay has passed")
	}
}
