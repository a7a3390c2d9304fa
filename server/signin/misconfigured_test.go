package signin_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"patd/internal/oidctest"
	"patd/internal/proctest"
	"patd/internal/waittest"
	"patd/server/signin"
)

// await waits until an issuer is in a state.
func await(t *testing.T, s *signin.SignIn, url string, want signin.Status) {
	t.Helper()
	waittest.Until(t, fmt.Sprintf("the state %v of the issuer", want), func() bool { return s.Statuses()[url] == want })
}

// TestMisspeltIssuerIsNoticedAtStart holds that an issuer which is spelled otherwise in its discovery document is told
// at the start, with both spellings and as a fault of the settings, and that an outage is told as one.
func TestMisspeltIssuerIsNoticedAtStart(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := newProvider(t, c)
	log := proctest.NewOutput()
	config := p.config()
	config.Logger = slog.New(slog.NewTextHandler(log, nil))
	p.Describe(oidctest.Discovery, p.URL+"/")
	s := signIn(t, config)
	s.Start()
	await(t, s, p.URL, signin.StatusMisconfigured)
	waittest.Until(t, "its line in the log", func() bool { return strings.HasSuffix(log.String(), "\n") })
	text := log.String()
	for _, want := range []string{"misconfigured", p.URL + `\"`, p.URL + `/\"`, "level=ERROR"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not say %q: %s", want, text)
		}
	}
	wantUnavailable(t, s, p.Sign(t, p.good()))

	p.Set(oidctest.Fault(http.StatusBadGateway), nil)
	c.wait(10 * time.Second)
	s.Start()
	await(t, s, p.URL, signin.StatusOutage)
	waittest.Until(t, "another line", func() bool { return len(log.String()) > len(text) })
	if text := strings.TrimPrefix(
		log.String(),
		text,
	); !strings.Contains(text, "does not answer") ||
		strings.Contains(text, "misconfigured") {
		t.Errorf("an outage is told as %s", text)
	}

	p.Describe(oidctest.Discovery, p.URL)
	c.wait(10 * time.Second)
	s.Start()
	await(t, s, p.URL, signin.StatusGood)
	wantUser(t, s, p.Sign(t, p.good()), "alice")
}

// TestKeyThatCannotBeReadLeavesTheOthers holds that a certificate which Go cannot parse leaves its key good, that a key
// which cannot be read at all leaves the others good, and that the log says which and why.
func TestKeyThatCannotBeReadLeavesTheOthers(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	good, err := json.Marshal(oidctest.PublicKey("k0", rsaKey(t, 0).Public(), "RS256"))
	if err != nil {
		t.Fatal(err)
	}
	withCertificate := strings.TrimSuffix(string(good), "}") + `,"x5c":["bm90IGEgY2VydGlmaWNhdGU="]}`
	for name, keys := range map[string]string{
		"only one": withCertificate,
		"others":   `{"kty":"RSA","kid":"broken","use":"sig","n":5},` + string(good),
	} {
		t.Run(name, func(t *testing.T) {
			log := proctest.NewOutput()
			config := p.config()
			config.Logger = slog.New(slog.NewTextHandler(log, nil))
			p.Set(nil, oidctest.JSON(`{"keys":[`+keys+`]}`))
			s := signIn(t, config)
			wantUser(t, s, p.Sign(t, p.good()), "alice")
			kid := map[string]string{"only one": "k0", "others": "broken"}[name]
			// The line may come after the answer.
			waittest.Until(t, "the log says that key "+kid+" cannot be read", func() bool {
				return strings.HasSuffix(log.String(), "\n")
			})
			if text := log.String(); !strings.Contains(text, kid) || strings.Count(text, "cannot be read") != 1 {
				t.Errorf("the log does not say once that key %s cannot be read: %s", kid, text)
			}
		})
	}
}

// TestClaimLeftOutForItsSizeIsNoClaim holds that a claim of features which is absent, or said to be elsewhere, is not
// taken for one that names nothing.
func TestClaimLeftOutForItsSizeIsNoClaim(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	config := p.config()
	config.Issuers[0].FeaturesClaim = "groups"
	s := signIn(t, config)
	sources := map[string]any{"src1": map[string]string{"endpoint": "https://graph.example/users/alice"}}
	for name, c := range map[string]struct {
		claims claims
		known  bool
	}{
		"named":            {claims{"groups": []string{"a"}}, true},
		"empty":            {claims{"groups": []string{}}, true},
		"absent":           {claims{}, false},
		"elsewhere":        {claims{"_claim_names": map[string]string{"groups": "src1"}, "_claim_sources": sources}, false},
		"partly elsewhere": {claims{"groups": []string{"a"}, "_claim_names": map[string]string{"groups": "src1"}, "_claim_sources": sources}, false},
		"another's":        {claims{"groups": []string{"a"}, "_claim_names": map[string]string{"roles": "src1"}, "_claim_sources": sources}, true},
		"hasgroups":        {claims{"hasgroups": true}, false},
		"hasgroups, some":  {claims{"groups": []string{}, "hasgroups": true}, false},
		"hasgroups false":  {claims{"groups": []string{"a"}, "hasgroups": false}, true},
	} {
		t.Run(name, func(t *testing.T) {
			who := wantUser(t, s, p.Sign(t, p.with(c.claims)), "alice")
			if who.HasFeatures != c.known {
				t.Errorf("its features are known: %v, want %v", who.HasFeatures, c.known)
			}
		})
	}
}

// TestKeysOfARemoteIssuerAreNotFetchedInside holds that the address which is connected to counts, whatever the name in
// jwks_uri resolves to.
func TestKeysOfARemoteIssuerAreNotFetchedInside(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here := l.Addr().String()
	for name, c := range map[string]struct {
		issuer, keys, from string
		refused            bool
	}{
		"loopback by address":       {"https://login.example/", "https://127.0.0.1/jwks", "203.0.113.1", true},
		"loopback by name":          {"https://login.example/", "https://localhost/jwks", "203.0.113.1", true},
		"loopback by resolving":     {"https://login.example/", "https://keys.example/jwks", "203.0.113.1", true},
		"the same host, rebound":    {"https://login.example/", "https://login.example/jwks", "203.0.113.1", true},
		"a private address":         {"https://login.example/", "https://10.0.0.1/jwks", "203.0.113.1", true},
		"a mapped private address":  {"https://login.example/", "https://[::ffff:10.0.0.1]/jwks", "203.0.113.1", true},
		"metadata of a cloud":       {"https://login.example/", "https://169.254.169.254/jwks", "203.0.113.1", true},
		"private, another host":     {"https://login.corp/", "https://10.0.0.2/jwks", "10.0.0.1", true},
		"an issuer on this machine": {"http://127.0.0.1:1/", "http://127.0.0.1:1/jwks", "127.0.0.1", false},
		"a name of this machine":    {"https://login.example/", "https://login.example/jwks", "127.0.0.1", false},
	} {
		err := signin.DialKeys(t.Context(), c.issuer, c.keys, c.from, here)
		if c.refused != signin.Misconfigured(err) || !c.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDiscoveryOfARemoteIssuerDoesNotLeadInside has a provider elsewhere whose document says that its keys are at an
// address of this machine: nothing is asked there, and the operator finds it as a fault of the settings.
func TestDiscoveryOfARemoteIssuerDoesNotLeadInside(t *testing.T) {
	t.Parallel()
	const url = "https://login.example"
	for _, keys := range []string{"http://127.0.0.1:1/jwks", "https://10.0.0.1/jwks", "https://localhost/jwks"} {
		leading := documented{t, fmt.Sprintf(`{"issuer": %q, "jwks_uri": %q}`, url, keys)}
		s := signIn(t, signin.Config{
			Issuers: []signin.Issuer{{URL: url, Audiences: []string{audience}}}, Transport: leading,
		})
		s.Start()
		await(t, s, url, signin.StatusMisconfigured)
	}
}

// documented is a provider that has a discovery document, and is to be asked for nothing else.
type documented struct {
	t        *testing.T
	document string
}

func (d documented) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.String() != "https://login.example/.well-known/openid-configuration" {
		d.t.Errorf("a request goes to %s", r.URL)
	}
	body := io.NopCloser(strings.NewReader(d.document))
	return &http.Response{StatusCode: http.StatusOK, Body: body, Request: r, Header: http.Header{}}, nil
}

// answering is a provider that answers everything.
type answering struct{}

func (answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r, Header: http.Header{}}, nil
}

// TestEndpointsOfARemoteIssuerAreNotReachedInside holds the other endpoints that a discovery document names to the rule
// of its keys: the secret of patd as a client, codes and users' tokens go to them.
func TestEndpointsOfARemoteIssuerAreNotReachedInside(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		issuer, endpoint string
		refused          bool
	}{
		"loopback by address":       {"https://login.example/", "https://127.0.0.1/token", true},
		"loopback by name":          {"https://login.example/", "https://localhost/token", true},
		"a private address":         {"https://login.example/", "https://10.0.0.1/token", true},
		"a mapped private address":  {"https://login.example/", "https://[::ffff:10.0.0.1]/token", true},
		"metadata of a cloud":       {"https://login.example/", "https://169.254.169.254/token", true},
		"plain text":                {"https://login.example/", "http://login.example/token", true},
		"another host":              {"https://login.example/", "https://tokens.example/token", false},
		"an issuer on this machine": {"http://127.0.0.1:1/", "http://127.0.0.1:1/token", false},
	} {
		s, err := signin.New(
			signin.Config{
				Issuers:   []signin.Issuer{{URL: c.issuer, Audiences: []string{"patd"}}},
				Transport: answering{},
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		client, err := s.ClientOf(c.issuer)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{c.issuer + ".well-known/openid-configuration", c.endpoint} {
			var resp *http.Response
			if resp, err = client.Post(at, "", nil); err == nil {
				resp.Body.Close()
			}
		}
		if c.refused != signin.Misconfigured(err) || !c.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}
