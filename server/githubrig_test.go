package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patd/server"
)

const githubPath = "/v1/leaks/github"

// hub is a fake GitHub: it publishes keys and signs messages.
type hub struct {
	t      testing.TB
	server *httptest.Server
	ca     string

	mu    sync.Mutex
	keys  map[string]*ecdsa.PrivateKey
	extra string // further keys, as JSON
	asked int
	same  int // how often nothing had changed
	fault http.HandlerFunc
	wait  func() // before each answer
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{t: t, keys: map[string]*ecdsa.PrivateKey{}}
	h.server = httptest.NewTLSServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.server.Close)
	h.ca = filepath.Join(t.TempDir(), "ca.pem")
	must(
		t,
		os.WriteFile(
			h.ca,
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.server.Certificate().Raw}),
			0o600,
		),
	)
	h.rotate("k1")
	return h
}

// rotate adds a key.
func (h *hub) rotate(id string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(h.t, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys[id] = key
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	wait := h.wait
	h.mu.Unlock()
	if wait != nil {
		wait()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if h.fault != nil {
		h.fault(w, r)
		return
	}
	tag := fmt.Sprintf(`"%d"`, len(h.keys))
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		h.same++
		w.WriteHeader(http.StatusNotModified)
		return
	}
	all := []map[string]any{}
	for id, key := range h.keys {
		all = append(
			all,
			map[string]any{"key_identifier": id, "key": publicPEM(h.t, &key.PublicKey), "is_current": id == "k1"},
		)
	}
	text, err := json.Marshal(all)
	must(h.t, err)
	fmt.Fprintf(w, `{"public_keys":%s}`, strings.Replace(string(text), "[", "["+h.extra, 1))
}

func publicPEM(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// fails has GitHub respond in another way; nil: as it should.
func (h *hub) fails(with http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = with
}

// slow has GitHub wait before each answer.
func (h *hub) slow(wait func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wait = wait
}

func (h *hub) fetches() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// signature returns the headers of a message.
func (h *hub) signature(id, body string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := sha256.Sum256([]byte(body))
	text, err := ecdsa.SignASN1(rand.Reader, h.keys[id], sum[:])
	must(h.t, err)
	return []string{
		"Github-Public-Key-Identifier",
		id,
		"Github-Public-Key-Signature",
		base64.StdEncoding.EncodeToString(text),
		"Content-Type",
		"application/json",
	}
}

// configure has a server take its messages.
func (h *hub) configure(c *server.Config) {
	c.GitHubLeaks = server.GitHubLeaks{KeysURL: h.server.URL, CAFile: h.ca}
	c.LeakRate = 0 // the default
}

// says sends a message that GitHub has signed.
func (h *hub) says(r *rig, id, body string) answerOf {
	h.t.Helper()
	return r.rest("POST", githubPath, "", body, h.signature(id, body)...)
}

// messageOf is a message about these tokens.
func messageOf(t testing.TB, tokens ...string) string {
	t.Helper()
	var items []map[string]string
	for _, text := range tokens {
		items = append(
			items,
			map[string]string{
				"token":  text,
				"type":   "patd_token",
				"url":    "https://github.com/o/r/blob/1/f",
				"source": "content",
			},
		)
	}
	body, err := json.Marshal(items)
	must(t, err)
	return string(body)
}

// wantLabels checks an answer to a message.
func wantLabels(t *testing.T, what string, got answerOf, sent []string, want ...string) {
	t.Helper()
	var labels, wanted []map[string]string
	if err := json.Unmarshal([]byte(got.body), &labels); err != nil || got.code != http.StatusOK {
		t.Errorf("%s: %d %s", what, got.code, got.body)
		return
	}
	for i, text := range sent {
		sum := sha256.Sum256([]byte(text))
		wanted = append(
			wanted,
			map[string]string{
				"token_hash": hex.EncodeToString(sum[:]),
				"token_type": "patd_token",
				"label":      want[i] + "_positive",
			},
		)
	}
	if d := cmp.Diff(wanted, labels); d != "" {
		t.Errorf("%s:\n%s", what, d)
	}
}
