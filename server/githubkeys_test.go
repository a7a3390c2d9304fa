package server_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/server"
)

// TestGitHubsAuthoritiesMustBeReadable refuses a file of which no authority can be trusted, when the server is made.
func TestGitHubsAuthoritiesMustBeReadable(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t)
	dir := t.TempDir()
	noPEM := filepath.Join(dir, "no.pem")
	must(t, os.WriteFile(noPEM, []byte("not a certificate"), 0o600))
	for file, says := range map[string]string{
		filepath.Join(dir, "missing.pem"): "no such file", noPEM: "holds no certificate in PEM form",
	} {
		_, err := server.New(server.Config{
			Service: r.svc, HTTPAddr: freeAddress(t), GRPCAddr: "127.0.0.1:0",
			GitHubLeaks: server.GitHubLeaks{KeysURL: h.server.URL, CAFile: file},
		})
		if err == nil || !strings.Contains(err.Error(), "--github-leak-ca-file") ||
			!strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// freeAddress returns an address of this machine at which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, lis.Close())
	return lis.Addr().String()
}

// TestMessagesOfGitHubWaitForOneFetchOfTheKeys has many arrive while the keys are on their way. Those past a bound are
// an outage at once; none is called a forgery.
func TestMessagesOfGitHubWaitForOneFetchOfTheKeys(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.slow(func() {
		once.Do(func() { close(asked) })
		<-answer
	})
	const messages = 80
	body := messageOf(t, "garbage")
	headers := h.signature("k1", body)
	got := make(chan answerOf, messages)
	say := func() { got <- r.rest("POST", githubPath, "", body, headers...) }
	go say()
	<-asked
	for range messages - 1 {
		go say()
	}
	for range messages - 65 { // one fetches and 64 wait
		if a := <-got; a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("a message too many: %d %s", a.code, a.body)
		} else if reason, _ := a.reason(); reason != "GITHUB_KEYS_UNAVAILABLE" {
			t.Errorf("a message too many: %s", a.body)
		}
	}
	close(answer)
	for range 65 {
		wantLabels(t, "a message that waited", <-got, []string{"garbage"}, "false")
	}
	if n := h.fetches(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// TestGitHubsKeysAreNotTakenFromStrangeDocuments has too many of them, and one that is no key beside a good one.
func TestGitHubsKeysAreNotTakenFromStrangeDocuments(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	r := newRig(t, h.configure)
	body := messageOf(t, "garbage")
	for range 100 {
		h.extra += `{"key_identifier":"x","key":"y"},`
	}
	if a := h.says(r, "k1", body); a.code != http.StatusServiceUnavailable {
		t.Errorf("more than a hundred keys: %d %s", a.code, a.body)
	}
	if n := len(r.logs.find(map[string]any{
		"msg":   "the keys of GitHub cannot be fetched; those at hand serve for a day",
		"cause": "read the keys: there are 101, more than 100",
	})); n != 1 {
		t.Errorf("the cause was logged %d times", n)
	}
	none, err := json.Marshal("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
	must(t, err)
	h.extra = `{"key_identifier":"k0","key":` + string(none) + `},`
	r.wait(time.Minute)
	wantLabels(t, "a good key beside a bad one", h.says(r, "k1", body), []string{"garbage"}, "false")
	if a := r.rest(
		"POST",
		githubPath,
		"",
		body,
		append(
			h.signature("k1", body),
			"Idempotency-Key",
			strings.Repeat("k", 16),
		)...); a.code != http.StatusBadRequest {
		t.Errorf("with an idempotency key: %d %s", a.code, a.body)
	}
	// What cannot be reached at all is an outage, and the log says of what without repeating the address.
	h.server.Close()
	r.wait(26 * time.Hour)
	if a := h.says(r, "k1", body); a.code != http.StatusServiceUnavailable {
		t.Errorf("unreachable: %d %s", a.code, a.body)
	}
	if logs := r.logs.String(); !strings.Contains(logs, "connection refused") || strings.Contains(logs, h.server.URL) {
		t.Error("the log does not say why the keys cannot be fetched, or has the address")
	}
}
