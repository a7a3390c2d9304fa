package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/oidctest"
	"patd/internal/proctest"
)

// loginRig is a server whose people sign in at a real OpenID provider, and a person's home directory.
type loginRig struct {
	*testing.T
	provider *oidctest.Real
	srv      *daemon
	home     string
}

func newLoginRig(t *testing.T) *loginRig {
	t.Helper()
	p := oidctest.StartReal(t, "0")
	data := filepath.Join(t.TempDir(), "data")
	srv := serve(
		t,
		data,
		"--oidc-issuer",
		p.URL,
		"--oidc-audience",
		oidctest.RealAudience,
		"--oidc-cli-client-id",
		"cli",
		"--oidc-cli-scopes",
		"offline_access,tokens",
		"--oidc-cli-parameters",
		"prompt=consent,resource="+oidctest.RealAudience,
		"--features-source",
		"claim",
		"--oidc-features-claim",
		"features",
		"--oidc-permissions-claim",
		"groups",
		"--oidc-permissions",
		"patd-support=tokens+users",
	)
	return &loginRig{T: t, provider: p, srv: srv, home: t.TempDir()}
}

// command prepares a command as the person would run it.
func (r *loginRig) command(args ...string) *exec.Cmd {
	r.Helper()
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "patd"
	cmd.Env = proctest.Bare("HOME="+r.home, "PATH=/nowhere", "PATD_ADDR="+r.srv.GRPC)
	return cmd
}

// patd runs a command and returns what it prints on both.
func (r *loginRig) patd(args ...string) (string, error) {
	r.Helper()
	out, err := r.command(args...).CombinedOutput()
	return string(out), err
}

func (r *loginRig) want(text string, args ...string) {
	r.Helper()
	out, err := r.patd(args...)
	if err != nil || !strings.Contains(out, text) {
		r.Errorf("patd %s: %v, want %q in\n%s", strings.Join(args, " "), err, text, out)
	}
}

func (r *loginRig) wantFailure(text string, args ...string) {
	r.Helper()
	out, err := r.patd(args...)
	if err == nil || !strings.Contains(out, text) {
		r.Errorf("patd %s: %v, want a failure with %q in\n%s", strings.Join(args, " "), err, text, out)
	}
}

// browse opens an address as a browser does, follows it, and fills in every form of the provider as a user, until there
// is none.
func (r *loginRig) browse(address, user string) {
	r.Helper()
	r.browseWith(newClient(r.T), address, user)
}

func (r *loginRig) browseWith(browser *http.Client, address, user string) {
	r.Helper()
	response, err := browser.Get(address)
	for range 8 {
		if err != nil {
			r.Fatal(err)
		}
		text, err2 := io.ReadAll(response.Body)
		response.Body.Close()
		if err2 != nil {
			r.Fatal(err2)
		}
		action := formAt.FindStringSubmatch(string(text))
		if action == nil {
			return
		}
		form := url.Values{"login": {user}, "password": {"any"}}
		for _, field := range hiddenField.FindAllStringSubmatch(string(text), -1) {
			form.Set(field[1], field[2])
		}
		response, err = browser.PostForm(action[1], form)
	}
	r.Fatal("the provider's forms have no end")
}

var (
	formAt      = regexp.MustCompile(`<form[^>]*action="([^"]+)"`)
	hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)
	localPage   = regexp.MustCompile(`good once\): (http://127\.0\.0\.1:\d+/\S+)`)
	devicePage  = regexp.MustCompile(`or open (http://\S+)`)
)

// login starts patd login, hands the address that it shows to a browser, and returns what it prints.
func (r *loginRig) login(shown *regexp.Regexp, browser func(address string), args ...string) (string, error) {
	r.Helper()
	cmd, said := r.command(append([]string{"login"}, args...)...), proctest.NewOutput()
	var out strings.Builder
	cmd.Stderr, cmd.Stdout = said, &out
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	found, err := said.Await(patience, shown)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		r.Fatal(err)
	}
	browser(found[1])
	err = cmd.Wait()
	return out.String() + said.String(), err
}

func (r *loginRig) loginAs(user string) {
	r.Helper()
	out, err := r.login(localPage, func(address string) { r.browse(address, user) }, "--no-browser")
	if err != nil || !strings.Contains(out, "You are signed in") {
		r.Fatalf("patd login as %s: %v\n%s", user, err, out)
	}
}

// credential returns the file that patd login wrote.
func (r *loginRig) credential() string {
	r.Helper()
	found, err := filepath.Glob(filepath.Join(r.home, ".config", "patd", "login-*.json"))
	if err != nil || len(found) != 1 {
		r.Fatalf("the files of credentials are %q, %v", found, err)
	}
	return found[0]
}

// edit changes fields of the credential's file, and returns it as it was.
func (r *loginRig) edit(changed map[string]any) map[string]any {
	r.Helper()
	text, err := os.ReadFile(r.credential())
	if err != nil {
		r.Fatal(err)
	}
	var was, now map[string]any
	if err := json.Unmarshal(text, &was); err != nil {
		r.Fatal(err)
	}
	_ = json.Unmarshal(text, &now)
	for k, v := range changed {
		now[k] = v
	}
	if text, err = json.Marshal(now); err == nil {
		err = os.WriteFile(r.credential(), text, 0o600)
	}
	if err != nil {
		r.Fatal(err)
	}
	return was
}

// TestPeopleCallAsThemselvesWithTheCommandLine signs in with a browser and on another device, at a real provider, and
// calls as a user and as an operator; the credential is for its owner alone, refreshed, and ended.
func TestPeopleCallAsThemselvesWithTheCommandLine(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newLoginRig(t)
	r.wantFailure("or sign in with `patd login`", "whoami")
	r.wantFailure(
		"names the provider "+r.provider.URL+", and not",
		"login",
		"--no-browser",
		"--expect-issuer",
		"https://login.example.com",
	)

	r.loginAs("alice")
	if info, err := os.Stat(r.credential()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the credential's file: %v %v", info, err)
	}
	if info, err := os.Stat(filepath.Dir(r.credential())); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the credential's folder: %v %v", info, err)
	}
	r.want("user  alice", "whoami")
	r.want("pat_", "token", "create", "--user", "me", "--name", "mine", "--scope", "reports.read")
	r.want("mine", "token", "list", "--user", "me")
	r.wantFailure("PERMISSION_DENIED", "token", "list", "--user", "bob")
	r.wantFailure("CREDENTIAL_INVALID", "whoami", "--token-file", r.unrelated())
	r.wantFailure("say who is calling", "whoami", "--addr", "127.0.0.1:1") // signed in to another server

	out, err := r.login(devicePage, func(address string) { r.browse(address, "olga") }, "--device")
	if err != nil || !strings.Contains(out, "tokens users") {
		t.Fatalf("patd login --device: %v\n%s", err, out)
	}
	r.want(`"user": "olga"`, "whoami", "--json")
	r.want("mine", "token", "list", "--user", "alice") // as an operator
	r.wantFailure("PERMISSION_DENIED", "token", "create", "--user", "alice", "--name", "x", "--scope", "reports.read")

	kept := r.edit(nil)
	r.want("", "logout")
	r.wantFailure("or sign in with `patd login`", "whoami")
	r.want("Nobody is signed in", "logout")
	if again := refreshed(t, r.provider, fmt.Sprint(kept["refresh_token"])); again != http.StatusBadRequest {
		t.Errorf("after signing out, the provider responds to the refresh token with %d", again)
	}
}

// unrelated writes a file with a token that no server knows.
func (r *loginRig) unrelated() string {
	r.Helper()
	file := filepath.Join(r.TempDir(), "token")
	if err := os.WriteFile(
		file,
		[]byte("pats_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0\n"),
		0o600,
	); err != nil {
		r.Fatal(err)
	}
	return file
}

// refreshed presents a refresh token as the command line would, and returns the status.
func refreshed(t *testing.T, p *oidctest.Real, token string) int {
	t.Helper()
	response, err := http.PostForm(
		p.URL+"/token",
		url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"cli"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

// TestOneProcessAtATimeRefreshesTheCredential runs commands at once whose credential has expired. The provider ends a
// refresh token that is used twice, with all that came of it: only one of them may use it.
func TestOneProcessAtATimeRefreshesTheCredential(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newLoginRig(t)
	r.loginAs("alice")
	was := r.edit(map[string]any{"expire_time": time.Now().Add(-time.Minute)})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { r.want("user  alice", "whoami") })
	}
	all.Wait()
	now := r.edit(nil)
	if now["refresh_token"] == was["refresh_token"] || now["token"] == was["token"] {
		t.Error("nothing was refreshed")
	}
	if info, err := os.Stat(r.credential()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the refreshed credential's file: %v %v", info, err)
	}

	// What the provider does not accept any more needs a person.
	r.edit(map[string]any{"expire_time": time.Now().Add(-time.Minute), "refresh_token": was["refresh_token"]})
	r.wantFailure("run `patd login`", "whoami")
	// A provider that does not answer is no reason to refuse a token that still works.
	r.edit(map[string]any{"expire_time": time.Now().Add(40 * time.Second)})
	r.provider.Stop()
	r.want("user  alice", "whoami")
	r.edit(map[string]any{"expire_time": time.Now().Add(-time.Minute)})
	r.wantFailure("discovery document of "+r.provider.URL, "whoami")
	r.want("is deleted here only", "logout")
}

// TestSigningInBelongsToOneBrowser sends to the loopback address what any program on the machine can send. None of it
// signs anybody in, or keeps the person from signing in. A response of another provider, or a refusal, signs nobody in.
func TestSigningInBelongsToOneBrowser(t *testing.T) {
	t.Parallel()
	r := newLoginRig(t)
	begin := func(address string) (own *http.Client, base, request string) {
		own = newClient(t)
		own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		_, request = r.get(own, address)
		own.CheckRedirect = nil
		return own, address[:strings.LastIndexByte(address, '/')], request
	}
	out, err := r.login(localPage, func(address string) {
		own, base, request := begin(address)
		asked, err := url.Parse(request)
		if err != nil {
			t.Fatal(err)
		}
		q := asked.Query()
		if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) < 43 || len(q.Get("state")) < 26 ||
			len(q.Get("nonce")) < 26 {
			t.Errorf("the request to the provider is %q", q)
		}
		state := "&state=" + q.Get("state")
		for path, want := range map[string]int{
			"/": http.StatusNotFound, "/callback": http.StatusBadRequest, "/callback?code=x" + state: http.StatusBadRequest,
			"/callback?error=access_denied" + state: http.StatusBadRequest, strings.TrimPrefix(address, base): http.StatusGone,
		} {
			if code, _ := r.get(newClient(t), base+path); code != want {
				t.Errorf("%s in another browser: %d, want %d", path, code, want)
			}
		}
		if code, _ := r.get(own, base+"/callback?code=x&state=x"); code != http.StatusBadRequest {
			t.Errorf("a wrong state: %d", code)
		}
		if code, _ := r.get(
			own,
			strings.Replace(base, "127.0.0.1", "localhost", 1)+"/callback?code=x"+state,
		); code != http.StatusNotFound {
			t.Errorf("another name of the address: %d", code)
		}
		r.browseWith(own, request, "alice")
	}, "--no-browser")
	if err != nil || !strings.Contains(out, "user  alice") {
		t.Errorf("signing in among strangers: %v\n%s", err, out)
	}
	r.want("", "logout")
	for response, want := range map[string]string{
		"code=x&iss=https://other.example": "the response is of another provider", "code=x": "the response is of another provider",
		"error=access_denied&iss=" + r.provider.URL: "denied at the provider", "code=x&iss=" + r.provider.URL: "exchange the code: the provider says invalid_grant",
	} {
		out, err := r.login(localPage, func(address string) {
			own, base, request := begin(address)
			asked, _ := url.Parse(request)
			r.get(own, base+"/callback?"+response+"&state="+asked.Query().Get("state"))
		}, "--no-browser")
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("the response %s: %v, want %q in\n%s", response, err, want, out)
		}
	}
	r.wantFailure("or sign in with `patd login`", "whoami")
}

// get sends a request, and returns the status and where it leads.
func (r *loginRig) get(browser *http.Client, address string) (int, string) {
	r.Helper()
	response, err := browser.Get(address)
	if err != nil {
		r.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, response.Header.Get("Location")
}

// newClient returns a browser without cookies.
func newClient(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Transport: &http.Transport{}}
	t.Cleanup(browser.CloseIdleConnections)
	return browser
}
