package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
)

// TestGitHubsReportsAreAnsweredInItsForm has a live token, ended ones, and what is none.
func TestGitHubsReportsAreAnsweredInItsForm(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	id, live := r.mint("u1", "live")
	_, ended := r.mint("u1", "ended")
	if got := r.rest("DELETE", "/v1/self", ended, ""); got.code != http.StatusOK {
		t.Fatal(got.body)
	}
	service := r.service("leaky", "audit")
	sent := []string{live, ended, "ghp_no_secret_of_patd", live + "x", service, live}
	want := []string{"true", "true", "false", "false", "true", "true"}
	for range 2 {
		wantLabels(t, "a message", h.says(r, "k1", messageOf(t, sent...)), sent, want...)
	}
	if d := r.introspect(live); d != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("the live one: %s", d)
	}
	tok, err := r.svc.Token(t.Context(), tokens.Operator(), "u1", id)
	must(t, err)
	if rev := tok.Revocation; rev == nil || rev.Reason != "LEAKED" || rev.By != "partner:github" {
		t.Errorf("revoked: %+v", rev)
	}
	events := r.rest("GET", "/v1/events?action=token.leaked&token_id="+id, r.admin, "").body
	if strings.Count(events, `"token.leaked"`) != 1 ||
		!strings.Contains(
			events,
			"leaked: token · by: github · in: content · at: https://github.com/o/r/blob/1/f · in effect: reports.read",
		) {
		t.Errorf("the event: %s", events)
	}
	if got := r.rest(
		"GET",
		"/v1/events?actor=partner:github&action=token.revoke",
		r.admin,
		"",
	).body; strings.Count(
		got,
		`"LEAKED"`,
	) != 1 {
		t.Errorf("the partner's events: %s", got)
	}
	if got := h.says(r, "k1", "[]"); got.code != 200 || got.body != "[]\n" {
		t.Errorf("a message about nothing: %d %s", got.code, got.body)
	}
	lines := r.logs.find(
		map[string]any{
			"method": "v1.leaks.github",
			"level":  "INFO",
			"code":   "OK",
			"actor":  "partner:github",
			"peer":   "127.0.0.1",
		},
	)
	if len(lines) != 3 || h.fetches() != 1 {
		t.Errorf("%d lines, %d fetches of keys", len(lines), h.fetches())
	}
}

// TestOneMatchDoesNotSpoilAMessageOfGitHub has matches of other forms beside a live token.
func TestOneMatchDoesNotSpoilAMessageOfGitHub(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	_, live := r.mint("u1", "live")
	one := strings.Trim(messageOf(t, live), "[]")
	got := h.says(
		r,
		"k1",
		`[null,1,"x",{},{"token":1},{"token":""},["a"],{"token":"\ud800","type":7,"url":{},"more":{}},`+one+`]`,
	)
	if got.code != http.StatusOK || strings.Count(got.body, "false_positive") != 1 ||
		strings.Count(got.body, "true_positive") != 1 {
		t.Errorf("%d %s", got.code, got.body)
	}
	if d := r.introspect(live); d != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("the live one: %s", d)
	}
	for _, body := range []string{"", "{}", "[", `"x"`, "[]]", "\xff"} {
		if got := h.says(r, "k1", body); got.code != http.StatusBadRequest {
			t.Errorf("%q: %d %s", body, got.code, got.body)
		}
	}
}

// TestOnlyGitHubSignsItsMessages sends forgeries, none of which has an effect.
func TestOnlyGitHubSignsItsMessages(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	_, live := r.mint("u1", "live")
	body := messageOf(t, live)
	good := h.signature("k1", body)
	key, sig := good[1], good[3]
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	sum := sha256.Sum256([]byte(body))
	theirs, err := ecdsa.SignASN1(rand.Reader, other, sum[:])
	must(t, err)
	const id, signature = "Github-Public-Key-Identifier", "Github-Public-Key-Signature"
	for name, c := range map[string]struct {
		body    string
		headers []string
	}{
		"none":              {body, nil},
		"no key":            {body, []string{signature, sig}},
		"no signature":      {body, []string{id, key}},
		"another key":       {body, []string{id, key, signature, base64.StdEncoding.EncodeToString(theirs)}},
		"an unknown key":    {body, []string{id, "k9", signature, sig}},
		"no base64":         {body, []string{id, key, signature, "!" + sig}},
		"empty":             {body, []string{id, key, signature, "AAAA"}},
		"two signatures":    {body, []string{id, key, signature, sig, signature, sig}},
		"two keys":          {body, []string{id, key, id, key, signature, sig}},
		"a long signature":  {body, []string{id, key, signature, strings.Repeat("A", 4096)}},
		"another body":      {body + " ", []string{id, key, signature, sig}},
		"of an empty body":  {"", []string{id, key, signature, sig}},
		"another admin's":   {body, []string{"Authorization", "Bearer " + r.admin}},
		"a large forgery":   {messageOf(t, live, strings.Repeat("x", 500_000)), []string{id, key, signature, sig}},
		"zeros of a forger": {body, []string{id, key, signature, base64.StdEncoding.EncodeToString([]byte{0x30, 6, 2, 1, 0, 2, 1, 0})}},
	} {
		got := r.rest("POST", githubPath, "", c.body, c.headers...)
		if reason, _ := got.reason(); got.code != http.StatusUnauthorized || reason != "SIGNATURE_INVALID" ||
			strings.Contains(got.body, live) {
			t.Errorf("%s: %d %s", name, got.code, got.body)
		}
	}
	if d := r.introspect(live); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("a forgery had an effect: %s", d)
	}
	if got := r.rest("POST", githubPath, "", body, good...); got.code != http.StatusOK {
		t.Errorf("the message itself: %d %s", got.code, got.body)
	}
	if got := r.rest(
		"GET",
		githubPath,
		"",
		"",
	); got.code != http.StatusMethodNotAllowed ||
		got.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d %s", got.code, got.body)
	}
}

// TestForgedReportsAreLimitedAndGenuineOnesAreNot sends more forgeries than an address may.
func TestForgedReportsAreLimitedAndGenuineOnesAreNot(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	forged := append(h.signature("k1", "[]")[:2], "Github-Public-Key-Signature", "AAAA")
	for i := range 60 {
		if got := r.rest("POST", githubPath, "", "[]", forged...); got.code != http.StatusUnauthorized {
			t.Fatalf("forgery %d: %d %s", i, got.code, got.body)
		}
	}
	wantLimited(t, "the next", r.rest("POST", githubPath, "", "[]", forged...), "1")
	for range 2 {
		if got := h.says(r, "k1", "[]"); got.code != http.StatusOK {
			t.Errorf("a genuine one: %d %s", got.code, got.body)
		}
	}
}

// TestGitHubsKeysAreFetchedAgainForANewOneAtABoundedRate rotates a key, and sends messages under keys that are none.
func TestGitHubsKeysAreFetchedAgainForANewOneAtABoundedRate(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure, func(c *server.Config) { c.LeakRate = -1 })
	wants := func(what string, got answerOf, code, fetches int) {
		t.Helper()
		if got.code != code || h.fetches() != fetches {
			t.Errorf("%s: %d %s, %d fetches, want %d and %d", what, got.code, got.body, h.fetches(), code, fetches)
		}
	}
	wants("the first", h.says(r, "k1", "[]"), 200, 1)
	h.rotate("k2")
	wants("under the new key", h.says(r, "k2", "[]"), 200, 2)
	wants("under the old key", h.says(r, "k1", "[]"), 200, 2)
	strange := append([]string{"Github-Public-Key-Identifier", "k9"}, h.signature("k1", "[]")[2:]...)
	for range 50 {
		if got := r.rest("POST", githubPath, "", "[]", strange...); got.code != http.StatusUnauthorized {
			t.Fatalf("an unknown key: %d %s", got.code, got.body)
		}
	}
	if n := h.fetches(); n > 6 {
		t.Errorf("%d fetches for keys that are none", n)
	}
	h.rotate("k3")
	before := h.fetches()
	wants("a new key after too many", h.says(r, "k3", "[]"), 401, before)
	r.wait(2*time.Minute + time.Second)
	wants("and a while later", h.says(r, "k3", "[]"), 200, before+1)
	r.wait(time.Hour + time.Second)
	wants("keys that are old", h.says(r, "k1", "[]"), 200, before+2)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.same == 0 {
		t.Error("no fetch was conditional")
	}
}

// TestAnOutageOfGitHubsKeysIsNoForgery cannot verify a message, and says so; keys at hand serve for a day.
func TestAnOutageOfGitHubsKeysIsNoForgery(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	_, live := r.mint("u1", "live")
	body := messageOf(t, live)
	faults := map[string]http.HandlerFunc{
		"status":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no keys": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"public_keys":[]}`) },
		"others": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"public_keys":[{"key_identifier":"k1","key":"x"}]}`)
		},
		"elsewhere": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://example.com/")
			w.WriteHeader(http.StatusFound)
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", 2<<20)) },
	}
	for name, f := range faults {
		h.fails(f)
		got := h.says(r, "k1", body)
		if reason, _ := got.reason(); got.code != http.StatusServiceUnavailable ||
			reason != "GITHUB_KEYS_UNAVAILABLE" ||
			got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", name, got.code, got.body)
		}
		before := h.fetches()
		if got := h.says(r, "k1", body); got.code != http.StatusServiceUnavailable || h.fetches() != before {
			t.Errorf("%s, at once again: %d, %d fetches more", name, got.code, h.fetches()-before)
		}
		r.wait(time.Minute)
	}
	h.fails(nil)
	if d := r.introspect(live); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("a message that could not be verified had an effect: %s", d)
	}
	wantLabels(t, "afterwards", h.says(r, "k1", body), []string{live}, "true")
	h.fails(faults["status"])
	r.wait(23 * time.Hour)
	wantLabels(t, "keys of yesterday", h.says(r, "k1", body), []string{live}, "true")
	r.wait(2 * time.Hour)
	if got := h.says(r, "k1", body); got.code != http.StatusServiceUnavailable {
		t.Errorf("older keys: %d %s", got.code, got.body)
	}
}

// TestAStoreOutageIsNeverAFalsePositive has the store fail for a message.
func TestAStoreOutageIsNeverAFalsePositive(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	_, live := r.mint("u1", "live")
	_, other := r.mint("u1", "other")
	sent := []string{live, other, "garbage"}
	for _, fail := range []func(){
		func() { r.faulty.Fail(storetest.Outage()) }, func() { r.faulty.FailOp(storetest.OpLookup, storetest.Outage()) },
		func() { r.faulty.FailOp(storetest.OpCommit, storetest.Full()) },
	} {
		fail()
		if got := h.says(
			r,
			"k1",
			messageOf(t, sent...),
		); got.code != http.StatusServiceUnavailable ||
			strings.Contains(got.body, "positive") {
			t.Errorf("%d %s", got.code, got.body)
		}
		r.faulty.Fail(nil)
		if d := r.introspect(live); d != patdv1.IntrospectResponse_ALLOW {
			t.Errorf("half an effect: %s", d)
		}
	}
	wantLabels(t, "afterwards", h.says(r, "k1", messageOf(t, sent...)), sent, "true", "true", "false")
}

// TestLargeMessagesOfGitHubAreTakenWithinABound sends one of many matches, whole and in pieces, and one that is too
// large.
func TestLargeMessagesOfGitHubAreTakenWithinABound(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	sent, want := []string{}, []string{}
	for i := range 1500 {
		sent, want = append(sent, fmt.Sprintf("garbage %d", i)), append(want, "false")
	}
	_, live := r.mint("u1", "live")
	sent, want = append(sent, live), append(want, "true")
	body := messageOf(t, sent...)
	if len(body) < 150_000 {
		t.Fatal(len(body))
	}
	wantLabels(t, "whole", h.says(r, "k1", body), sent, want...)
	reader := struct{ io.Reader }{strings.NewReader(body)} // of no known length
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+r.srv.HTTPAddr()+githubPath, reader)
	must(t, err)
	setHeaders(req, h.signature("k1", body))
	resp, err := r.client.Do(req)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		t.Errorf("in pieces: %d", resp.StatusCode)
	}
	if got := h.says(r, "k1", messageOf(t, strings.Repeat("x", 1<<20))); got.code != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d %.200s", got.code, got.body)
	}
	wantMetric(t, r, "patd_unknown_caller_memory_bytes 0")
}

func setHeaders(r *http.Request, headers []string) {
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
}

// TestLargeMessagesOfGitHubAreTakenOverHTTP2 has a stranger's connection, of which no more is read than is accounted
// for.
func TestLargeMessagesOfGitHubAreTakenOverHTTP2(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePair(t, certFile, keyFile, 1)
	served, err := server.LoadTLS(certFile, keyFile, nil)
	must(t, err)
	r := newRig(t, h.configure, func(c *server.Config) { c.TLS = served })
	_, live := r.mint("u1", "live")
	body := messageOf(t, strings.Repeat("x", 900_000), live)
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true},
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(
		t.Context(),
		"POST",
		"https://"+r.srv.HTTPAddr()+githubPath,
		strings.NewReader(body),
	)
	must(t, err)
	setHeaders(req, h.signature("k1", body))
	resp, err := client.Do(req)
	must(t, err)
	text, err := io.ReadAll(resp.Body)
	must(t, errors.Join(err, resp.Body.Close()))
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || !strings.Contains(string(text), "true_positive") {
		t.Errorf("%s: %d %.300s", resp.Proto, resp.StatusCode, text)
	}
}

// TestGitHubsKeysAreFetchedFromFitAddressesOnly refuses the others when the server is made.
func TestGitHubsKeysAreFetchedFromFitAddressesOnly(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t)
	if got := r.rest("POST", githubPath, "", "[]", h.signature("k1", "[]")...); got.code != http.StatusNotFound {
		t.Errorf("without keys: %d %s", got.code, got.body)
	}
	for _, u := range []string{"http://example.com/", "https://10.0.0.1/", "https://u:p@example.com/", "ftp://example.com/", "https://169.254.169.254/latest"} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		must(t, lis.Close())
		_, err = server.New(
			server.Config{
				Service:     r.svc,
				HTTPAddr:    lis.Addr().String(),
				GRPCAddr:    "127.0.0.1:0",
				GitHubLeaks: server.GitHubLeaks{KeysURL: u},
			},
		)
		if err == nil || !strings.Contains(err.Error(), "--github-leak-keys-url") || strings.Contains(err.Error(), u) {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// TestTheMessageInGitHubsDocumentationIsGenuine has the sample of "Secret scanning partner program", with the key that
// signed it.
func TestTheMessageInGitHubsDocumentationIsGenuine(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	const id = "bcb53661c06b4728e59d897fb6165d5c9cda0fd9cdf9d09ead458168deb7518c"
	const public = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYAGMWO8XgCamYKMJS6jc/qgvSlAd\nAjPuDPRcXU22YxgBrz+zoN19MzuRyW87qEt9/AmtoNP5GrobzUvQSyJFVw==\n-----END PUBLIC KEY-----\n"
	text, err := json.Marshal(map[string]any{"key_identifier": id, "key": public, "is_current": true})
	must(t, err)
	h.extra = string(text) + ","
	r := newRig(t, h.configure)
	got := r.rest(
		"POST",
		githubPath,
		"",
		`[{"source":"commit","token":"some_token","type":"some_type","url":"https://example.com/base-repo-url/"}]`,
		"GITHUB-PUBLIC-KEY-IDENTIFIER",
		id,
		"GITHUB-PUBLIC-KEY-SIGNATURE",
		"MEQCIQDaMKqrGnE27S0kgMrEK0eYBmyG0LeZismAEz/BgZyt7AIfXt9fErtRS4XaeSt/AO1RtBY66YcAdjxji410VQV4xg==",
	)
	sum := sha256.Sum256([]byte("some_token"))
	if want := `[{"token_hash":"` + hex.EncodeToString(
		sum[:],
	) + `","token_type":"some_type","label":"false_positive"}]` + "\n"; got.code != 200 ||
		got.body != want {
		t.Errorf("%d %s", got.code, got.body)
	}
}

// TestSecretsInGitHubsMessagesAreNeverRepeated has a secret in every field, and a store that panics.
func TestSecretsInGitHubsMessagesAreNeverRepeated(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	_, secret := r.mint("u1", "a")
	m := marked{t: t, r: r, secret: secret, marks: markers(t, secret)}
	says := func(what, body string) { m.check(what, fmt.Sprint(h.says(r, "k1", body))) }
	m.panicking(func() { says("panic", messageOf(t, secret)) })
	for _, headers := range [][]string{
		{"Github-Public-Key-Identifier", secret, "Github-Public-Key-Signature", "AAAA"}, {"Github-Public-Key-Identifier", "k1", "Github-Public-Key-Signature", secret},
	} {
		m.check("a forgery", fmt.Sprint(r.rest("POST", githubPath, "", messageOf(t, secret), headers...)))
	}
	says("broken JSON", `[{"token":"`+secret)
	says("all fields", `[{"token":"x","url":"https://x/`+secret+`","source":"`+secret+`","`+secret+`":"`+secret+`"}]`)
	says("ended", `[{"token":"`+secret+`","type":"t","url":"https://x/?`+secret+`","source":"`+secret+`"}]`)
	if d := r.introspect(secret); d != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("the secret is %s", d)
	}
	m.aftermath()
}
