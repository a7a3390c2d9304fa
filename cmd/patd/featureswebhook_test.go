package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/waittest"
)

// TestAChangeAtAnotherSystemReachesAWebhook takes a feature from a user in the system that a callback asks, and waits
// for the message at an endpoint: what was suspended, and in how many tokens. Then the feature comes back.
func TestAChangeAtAnotherSystemReachesAWebhook(t *testing.T) {
	t.Parallel()
	const key = "a key of at least thirty-two bytes, for tests"
	var features atomic.Value
	features.Store(`["a","b"]`)
	system := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var question struct{ User string }
		_ = json.NewDecoder(r.Body).Decode(&question)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"user":"`+question.User+`","features":`+features.Load().(string)+`}`)
	}))
	t.Cleanup(system.Close)
	type message struct{ body, fault string }
	var verify atomic.Pointer[standardwebhooks.Webhook]
	got := make(chan message, 16)
	var seen sync.Map // a message may come twice
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = verify.Load().Verify(text, r.Header)
		}
		m := message{body: string(text)}
		if err != nil {
			m.fault = err.Error()
		}
		if _, again := seen.LoadOrStore(r.Header.Get("Webhook-Id"), true); !again {
			got <- m
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(endpoint.Close)
	data, admin := administer(t)
	d := serve(t, data, "--features-source", "callback", "--features-callback-url", system.URL,
		"--features-callback-key-file", written(t, "key", key), "--features-ttl", "1s")
	a := connect(t, d, admin)
	made, err := patdv1.NewWebhookServiceClient(a.conn).
		CreateWebhook(t.Context(), &patdv1.CreateWebhookRequest{Webhook: &patdv1.Webhook{
			WebhookId: "chat", Url: endpoint.URL, EventTypes: []string{"user.features_changed"},
		}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := standardwebhooks.NewWebhook(made.GetWebhook().GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	verify.Store(v)
	secret := a.mint(t, "alice", "one", "a", "b")
	a.mint(t, "alice", "two", "b")
	next := func(what, want string) {
		t.Helper()
		var m message
		waittest.Until(t, what, func() bool {
			_, _, _ = a.may(t, secret) // the system is asked when a token is used
			select {
			case m = <-got:
				return true
			default:
				return false
			}
		})
		if m.fault != "" || !strings.Contains(m.body, `"type":"user.features_changed"`) ||
			!strings.Contains(m.body, `"actor":"source","user":"alice"`) ||
			!strings.Contains(m.body, want) {
			t.Errorf("%s: %s %s; want %s", what, m.fault, m.body, want)
		}
	}
	features.Store(`["a"]`)
	next("the loss", `"suspended":[{"scope":"b","tokens":2}],"restored":[]`)
	features.Store(`["a","b","c"]`)
	next("the return", `"suspended":[],"restored":[{"scope":"b","tokens":2}]`)
}
