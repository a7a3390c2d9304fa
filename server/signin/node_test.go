package signin_test

import (
	"bufio"
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"patd/internal/longtest"
	"patd/server/signin"
)

const providerDir = "testdata/provider"

// nodeProvider is oidc-provider, a certified OpenID provider, run by Node.
type nodeProvider struct {
	issuer string
	stop   func()
}

// needNode skips a test where there is no Node, except in CI, where there has to be one; and installs the provider
// once.
func needNode(t *testing.T) {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("CI") == "true" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath("node"); err != nil {
		missing("the real OpenID provider needs Node: %v", err)
	}
	if _, err := os.Stat(filepath.Join(providerDir, "node_modules", "oidc-provider", "package.json")); err == nil {
		return
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = providerDir
	if out, err := install.CombinedOutput(); err != nil {
		missing("the real OpenID provider could not be installed: %v\n%s", err, out)
	}
}

// startNode runs the provider on a loopback port, any for "0".
func startNode(t *testing.T, port string) *nodeProvider {
	t.Helper()
	cmd := exec.Command("node", "provider.mjs", port)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = providerDir, &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	p := &nodeProvider{stop: func() {
		if !stopped {
			stopped = true
			_ = stdin.Close()
			_ = cmd.Wait()
			http.DefaultClient.CloseIdleConnections()
		}
	}}
	t.Cleanup(p.stop)
	var ready struct{ Issuer string }
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		p.stop()
		t.Fatalf("the provider did not start: %v\n%s", err, &stderr)
	}
	p.issuer = ready.Issuer
	return p
}

func (p *nodeProvider) port(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(p.issuer)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

func (p *nodeProvider) post(t *testing.T, path string, body any) string {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(p.issuer+path, "application/json", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return read(t, resp)
}

func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %v\n%s", resp.Request.Method, resp.Request.URL, resp.Status, err, text)
	}
	return string(text)
}

// sign has the provider's current key sign claims that its own endpoints would not.
func (p *nodeProvider) sign(t *testing.T, header, c claims) string {
	t.Helper()
	return p.post(t, "/test/sign", claims{"header": header, "claims": c})
}

type grant struct {
	Access string `json:"access_token"`
	ID     string `json:"id_token"`
}

// exchange asks the token endpoint.
func (p *nodeProvider) exchange(t *testing.T, form url.Values) grant {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, p.issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("web", "a-secret-for-tests-only")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	var g grant
	if err := json.Unmarshal([]byte(read(t, resp)), &g); err != nil {
		t.Fatal(err)
	}
	return g
}

var formAction = regexp.MustCompile(`<form[^>]*action="([^"]+)"`)

// signInAs does what a browser does: the authorization code flow (OpenID Connect Core 1.0 section 3.1), through the
// provider's own pages for login and consent.
func (p *nodeProvider) signInAs(t *testing.T, user string) grant {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var code string
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if code = r.URL.Query().Get("code"); code != "" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	defer browser.CloseIdleConnections()
	query := url.Values{
		"client_id": {"web"}, "response_type": {"code"}, "scope": {"openid tokens"},
		"redirect_uri": {"http://127.0.0.1/callback"}, "resource": {audience},
	}
	resp, err := browser.Get(p.issuer + "/auth?" + query.Encode())
	for _, form := range []url.Values{{"prompt": {"login"}, "login": {user}, "password": {"any"}}, {"prompt": {"consent"}}} {
		if err != nil {
			t.Fatal(err)
		}
		page := read(t, resp)
		action := formAction.FindStringSubmatch(page)
		if action == nil {
			t.Fatalf("there is no form on the page:\n%s", page)
		}
		resp, err = browser.PostForm(action[1], form)
	}
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if code == "" {
		t.Fatalf("no code after consent: %s", resp.Status)
	}
	return p.exchange(t, url.Values{
		"grant_type": {
			"authorization_code",
		},
		"code":         {code},
		"redirect_uri": {"http://127.0.0.1/callback"},
		"resource":     {audience},
	})
}

func (p *nodeProvider) config() signin.Config {
	return signin.Config{
		Issuers: []signin.Issuer{{URL: p.issuer, Audiences: []string{audience}, FeaturesClaim: "features"}},
	}
}

// in is claims of alice that are in order, with changes.
func (p *nodeProvider) in(changed claims) claims {
	now := time.Now().Unix()
	c := claims{"iss": p.issuer, "sub": "alice", "aud": audience, "iat": now, "exp": now + 60}
	for k, v := range changed {
		c[k] = v
	}
	return c
}

// publicKeys reads what the provider publishes.
func (p *nodeProvider) publicKeys(t *testing.T) []jose.JSONWebKey {
	t.Helper()
	resp, err := http.Get(p.issuer + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(read(t, resp)), &set); err != nil {
		t.Fatal(err)
	}
	return set.Keys
}

func TestRealProviderSignsUsersIn(t *testing.T) {
	longtest.Slow(t)
	needNode(t)
	p := startNode(t, "0")
	s := signIn(t, p.config())
	g := p.signInAs(t, "alice")
	who := wantUser(t, s, g.Access, "alice")
	if d := cmp.Diff(
		[]string{"billing.read", "reports.read"},
		who.Features,
	); d != "" || !who.HasFeatures ||
		who.Issuer != p.issuer {
		t.Errorf("%+v: %s", who, d)
	}
	if bob := wantUser(t, s, p.signInAs(t, "bob").Access, "bob"); !bob.HasFeatures || len(bob.Features) != 0 {
		t.Errorf("bob holds %v", bob.Features)
	}

	// The ID token is for the client, not for patd, unless the operator says that the client is patd's own page.
	wantInvalid(t, s, g.ID)
	c := p.config()
	c.Issuers[0].Audiences = []string{"web"}
	own := signIn(t, c)
	wantUser(t, own, g.ID, "alice")
	wantInvalid(t, own, g.Access)

	// A program that got a token for itself is a user of that name, if operators let it have tokens for patd at all.
	wantUser(
		t,
		s,
		p.exchange(t, url.Values{"grant_type": {"client_credentials"}, "resource": {audience}}).Access,
		"web",
	)
	wantInvalid(
		t,
		s,
		p.exchange(t, url.Values{"grant_type": {"client_credentials"}, "resource": {"https://other.example/"}}).Access,
	)
}

func TestRealProviderRefusesForgeries(t *testing.T) {
	longtest.Slow(t)
	needNode(t)
	p, other := startNode(t, "0"), startNode(t, "0")
	s := signIn(t, p.config())
	now := time.Now().Unix()
	wantUser(t, s, p.sign(t, claims{"typ": "JWT"}, p.in(nil)), "alice")
	for name, jwt := range map[string]string{
		"wrong audience":              p.sign(t, nil, p.in(claims{"aud": "https://other.example/"})),
		"expired":                     p.sign(t, nil, p.in(claims{"exp": now - 60, "iat": now - 3600})),
		"nbf in the future":           p.sign(t, nil, p.in(claims{"nbf": now + 60})),
		"logout token":                p.sign(t, claims{"typ": "logout+jwt"}, p.in(nil)),
		"another provider's":          other.signInAs(t, "alice").Access,
		"another provider's, our iss": other.sign(t, claims{"kid": "key-1"}, p.in(nil)),
		"ours, another iss":           p.sign(t, nil, p.in(claims{"iss": other.issuer})),
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, s, jwt) })
	}
	parts := strings.Split(p.sign(t, nil, p.in(nil)), ".")
	for _, alg := range []string{"none", "None", "NONE", ""} {
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + alg + `","kid":"key-1"}`))
		wantInvalid(t, s, header+"."+parts[1]+".")
		wantInvalid(t, s, header+"."+parts[1]+"."+parts[2])
	}
	for _, k := range p.publicKeys(t) {
		public, ok := k.Key.(*rsa.PublicKey)
		if !ok {
			t.Fatalf("the provider publishes %T", k.Key)
		}
		for _, jwt := range confused(t, public, k.KeyID, p.in(nil)) {
			wantInvalid(t, s, jwt)
		}
	}
}

func TestRealProviderRotatesAndGoesDown(t *testing.T) {
	longtest.Slow(t)
	needNode(t)
	p := startNode(t, "0")
	clock := newClock()
	clock.at.Store(time.Now().UnixNano())
	c := p.config()
	c.Now = clock.now
	s := signIn(t, c)
	old := p.signInAs(t, "alice").Access
	wantUser(t, s, old, "alice")

	p.post(t, "/test/rotate", claims{})
	next := p.signInAs(t, "bob").Access
	wantUser(t, s, next, "bob")
	wantInvalid(t, s, old) // its key is not published any more

	p.stop()
	wantUser(t, s, next, "bob")
	clock.wait(11 * time.Minute)
	wantUser(t, s, next, "bob") // the keys could not be renewed; they serve
	fresh := signIn(t, c)
	wantUnavailable(t, fresh, next)

	again := startNode(t, p.port(t)) // with a new key, under the name of the very first
	clock.wait(3 * time.Second)
	third := again.sign(t, nil, again.in(claims{"sub": "carol", "exp": clock.now().Unix() + 60}))
	wantUser(t, fresh, third, "carol")
	wantUser(t, s, third, "carol")
	wantInvalid(t, s, next)
}
