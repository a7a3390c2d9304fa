package signin_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"patd/internal/oidctest"
	"patd/server/signin"
	"patd/tokens"
)

// TestIdentityOfClaims holds claims that the caller has verified to the rules of a token's.
func TestIdentityOfClaims(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	c := p.config()
	c.Issuers[0].FeaturesClaim = "groups"
	s := signIn(t, c)
	for name, c := range map[string]struct {
		issuer, claims string
		user           string // empty: refused
		lacks          bool
	}{
		"good":               {p.URL, `{"sub":"alice","groups":["a"]}`, "alice", false},
		"no features":        {p.URL, `{"sub":"alice"}`, "alice", true},
		"another issuer":     {"https://elsewhere.example", `{"sub":"alice","groups":[]}`, "", false},
		"a list":             {p.URL, `["alice"]`, "", false},
		"no JSON":            {p.URL, `sub=alice`, "", false},
		"no user":            {p.URL, `{"groups":[]}`, "", true},
		"an impossible user": {p.URL, `{"sub":"me","groups":[]}`, "", false},
		"an end in text":     {p.URL, `{"sub":"alice","groups":[],"exp":"never"}`, "", false},
		"features elsewhere": {p.URL, `{"sub":"alice","groups":["a"],"_claim_names":{"groups":"src1"}}`, "alice", true},
		"elsewhere unclear":  {p.URL, `{"sub":"alice","groups":["a"],"_claim_names":"groups"}`, "alice", true},
		"more, unclear":      {p.URL, `{"sub":"alice","groups":["a"],"hasgroups":1e999}`, "alice", true},
	} {
		who, err := s.Identify(c.issuer, []byte(c.claims))
		if who.User != c.user || (err == nil) != (c.user != "") {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
		if err != nil && strings.Contains(err.Error(), "alice") {
			t.Errorf("%s: the error repeats the claims: %v", name, err)
		}
		if who.HasFeatures != (c.user != "" && !c.lacks) {
			t.Errorf("%s: its features are known: %v", name, who.HasFeatures)
		}
		if lacks := s.Lacks(c.issuer, []byte(c.claims)); lacks != c.lacks {
			t.Errorf("%s: lacks %v, want %v", name, lacks, c.lacks)
		}
	}
}

// TestSignatureAloneIsVerified holds that the payload of a JWT comes back only if its issuer signed it, in one of the
// algorithms that are pinned, and that an outage is none of its faults.
func TestSignatureAloneIsVerified(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	p.Publish(t, oidctest.PublicKey("k0", rsaKey(t, 0).Public(), "")) // of any algorithm
	s := signIn(t, p.config())
	good := p.Sign(t, claims{"sub": "alice"}) // an ID token has another audience, which the caller checks
	p.SetDown(true)
	_, err := s.VerifySignature(t.Context(), p.URL, good)
	if e := new(tokens.Error); !errors.As(err, &e) || e.Reason != "SIGNIN_UNAVAILABLE" {
		t.Errorf("while the provider is down: %v", err)
	}
	p.SetDown(false)
	p.clock.wait(3 * time.Second)
	payload, err := s.VerifySignature(t.Context(), p.URL, good)
	var got map[string]string
	if err != nil || json.Unmarshal(payload, &got) != nil || got["sub"] != "alice" {
		t.Errorf("%q, %v", payload, err)
	}
	kid := claims{"kid": "k0"}
	for name, c := range map[string]struct{ issuer, jwt string }{
		"no JWT":            {p.URL, "alice"},
		"another issuer":    {"https://elsewhere.example", good},
		"another key":       {p.URL, oidctest.Sign(t, jose.RS256, rsaKey(t, 1), kid, claims{"sub": "alice"})},
		"another algorithm": {p.URL, oidctest.Sign(t, jose.RS512, rsaKey(t, 0), kid, claims{"sub": "alice"})},
	} {
		payload, err := s.VerifySignature(t.Context(), c.issuer, c.jwt)
		if e := new(tokens.Error); payload != nil || !errors.As(err, &e) || e.Reason != "CREDENTIAL_INVALID" {
			t.Errorf("%s: %q, %v", name, payload, err)
		}
		noLeak(t, c.jwt, err)
	}
}

// TestClientOfAnIssuerKeepsTheLimits holds the client for requests to a provider to the limit of keys' bodies.
func TestClientOfAnIssuerKeepsTheLimits(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	p.Set(padded(p.DiscoveryResponse()), nil)
	s := signIn(t, p.config())
	if client, err := s.ClientOf("https://%zz"); err == nil {
		t.Errorf("a client for what is no URL: %v", client)
	}
	own, err := s.ClientOf(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer own.CloseIdleConnections()
	for _, client := range []*http.Client{own, s.Client()} {
		resp, err := client.Get(p.URL + oidctest.Discovery)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err == nil || n > 1<<20 {
			t.Errorf("%d bytes were read, %v", n, err)
		}
		resp.Body.Close()
	}
}

// TestIssuerThatTakesNoTokensHasNoAudience holds that of the two only one can be meant.
func TestIssuerThatTakesNoTokensHasNoAudience(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	c := p.config()
	c.Issuers[0].NoBearer = true
	if _, err := signin.New(c); err == nil || !strings.Contains(err.Error(), "name audiences, or accept no tokens") {
		t.Errorf("both: %v", err)
	}
	c.Issuers[0].Audiences = nil
	wantInvalid(t, signIn(t, c), p.Sign(t, p.good()))
}
