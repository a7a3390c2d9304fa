package signin_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"patd/internal/oidctest"
	"patd/server/signin"
	"patd/tokens/secret"
)

// TestRefusalsAreCountedByTheirCause refuses a different number of tokens for each cause.
func TestRefusalsAreCountedByTheirCause(t *testing.T) {
	t.Parallel()
	clock := newClock()
	p, away := newProvider(t, clock), newProvider(t, clock)
	away.Set(oidctest.Fault(http.StatusBadGateway), nil)
	c := p.config()
	c.Issuers = append(c.Issuers, signin.Issuer{URL: away.URL, Audiences: []string{audience}})
	s := signIn(t, c)
	if _, err := s.Verify(t.Context(), secret.NewSecret(p.Sign(t, p.good()))); err != nil {
		t.Fatal(err)
	}
	forged := oidctest.Sign(t, jose.RS256, rsaKey(t, 1), claims{"kid": "k0", "typ": "JWT"}, p.good())
	want := map[string]uint64{}
	for i, of := range []struct{ cause, jwt string }{
		{"malformed", "a.b.c"},
		{"issuer", p.Sign(t, p.with(claims{"iss": "https://elsewhere.example"}))},
		{"expired", p.Sign(t, p.with(claims{"exp": 1}))},
		{"claims", p.Sign(t, p.with(claims{"aud": "another"}))},
		{"signature", forged},
		{"unavailable", p.Sign(t, p.with(claims{"iss": away.URL}))},
	} {
		want[of.cause] = uint64(i + 1)
		for range i + 1 {
			if _, err := s.Verify(t.Context(), secret.NewSecret(of.jwt)); err == nil {
				t.Errorf("%s: accepted", of.cause)
			}
		}
	}
	got := map[string]uint64{}
	s.Refusals(func(c signin.Cause, total uint64) { got[c.String()] = total })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestTheAgeOfKeysIsThatOfTheOldest has one provider whose keys are fetched an hour after the other's.
func TestTheAgeOfKeysIsThatOfTheOldest(t *testing.T) {
	t.Parallel()
	clock := newClock()
	p, later := newProvider(t, clock), newProvider(t, clock)
	first := clock.now()
	c := p.config()
	c.Issuers = append(c.Issuers, signin.Issuer{URL: later.URL, Audiences: []string{audience}})
	s := signIn(t, c)
	wantUser(t, s, p.Sign(t, p.good()), "alice")
	if got := s.KeysFetched(); !got.IsZero() {
		t.Errorf("an issuer has no keys, and the oldest were fetched at %s", got)
	}
	clock.wait(30 * time.Minute)
	wantUser(t, s, later.Sign(t, later.good()), "alice")
	if got := s.KeysFetched(); !got.Equal(first) {
		t.Errorf("the oldest keys were fetched at %s, want %s", got, first)
	}
}
