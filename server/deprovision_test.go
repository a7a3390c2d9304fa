package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"patd/client"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/tokens"
)

// TestADeactivatedUserIsRefusedEverywhere has a provider deactivate a user by SCIM, and tries every way in which a
// token, or one that was exchanged for it, is checked; again after a reactivation, and after a deletion.
func TestADeactivatedUserIsRefusedEverywhere(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t)
	provider := r.service("okta", "users")
	r.audience(tokens.AudienceEntry{ID: "api", Resource: "https://api.example", AccessFormat: tokens.AccessOpaque})
	secrets := map[string]string{}
	_, secrets["a token"] = r.pat(tokens.MintRequest{User: "u1", Name: "laptop", Audiences: []string{"api"}}, "a")
	came := r.exchange(secrets["a token"], "audience", "api")
	if secrets["an exchanged token"] = came.text("access_token"); secrets["an exchanged token"] == "" {
		t.Fatalf("exchange: %d %s", came.code, came.body)
	}
	ways := r.ways(t)
	memory := r.library(t, r.service("lib", "introspect"))
	remembered := client.Call{Audience: "api"}
	waittest.Until(t, "the client library answers from memory", func() bool {
		before := memory.Stats().Hits
		got, err := memory.Verify(t.Context(), secrets["a token"], remembered)
		return err == nil && got.Allowed() && memory.Stats().Hits > before
	})
	page := r.signedIn("u1", time.Hour, "")
	page.get("/").wants(http.StatusOK)
	id := r.provision(provider, "u1")
	step := func(what string, good bool, method, body string) {
		t.Helper()
		if got, _ := r.scim(method, "/Users/"+id, provider, body); got.code >= 300 {
			t.Fatalf("%s: %d %s", what, got.code, got.body)
		}
		for name, secret := range secrets {
			for _, way := range ways {
				if got := way.good(secret); got != good {
					t.Errorf("%s: %s, %s is good: %t", what, way.name, name, got)
				}
			}
			waittest.Until(t, what+": the memory of the client library follows", func() bool {
				got, err := memory.Verify(t.Context(), secret, remembered)
				return err == nil && got.Allowed() == good
			})
		}
		if got := r.exchange(secrets["a token"], "audience", "api"); (got.code == 200) != good {
			t.Errorf("%s: an exchange: %d", what, got.code)
		}
	}
	patch := func(active string) string {
		return `{"Operations": [{"op": "replace", "path": "active", "value": ` + active + `}]}`
	}
	step("deactivated", false, http.MethodPatch, patch("false"))
	page.get("/").wants(http.StatusUnauthorized)
	step("reactivated", true, http.MethodPatch, patch("true"))
	step("deleted", false, http.MethodDelete, "")
}

// BenchmarkFromTheProvidersCallToTheRefusal measures how long a deactivation by SCIM takes, from the provider's call
// until the memory of a client library, which is the last to know, refuses the token.
func BenchmarkFromTheProvidersCallToTheRefusal(b *testing.B) {
	r := newRig(b)
	provider := r.service("okta", "users")
	_, secret := r.mint("u1", "laptop")
	id := r.provision(provider, "u1")
	lib := r.service("lib", "introspect")
	conn, err := client.Dial(
		r.srv.GRPCAddr(),
		client.ServiceToken(func(context.Context) (string, error) { return lib, nil }),
	)
	must(b, err)
	memory, err := client.New(conn, client.Config{})
	must(b, err)
	defer func() { must(b, errors.Join(memory.Close(), conn.Close())) }()
	// A loop without a pause keeps the network waiting: beside it, Go looks at that each 10 ms only.
	pause := time.NewTicker(time.Millisecond)
	defer pause.Stop()
	allowed := func(want bool) {
		for ; ; <-pause.C {
			got, err := memory.Verify(b.Context(), secret, client.Call{})
			must(b, err)
			if got.Allowed() == want {
				return
			}
		}
	}
	var took []time.Duration
	for b.Loop() {
		allowed(true)
		begin := time.Now()
		r.scim(
			http.MethodPatch,
			"/Users/"+id,
			provider,
			`{"Operations": [{"op": "replace", "value": {"active": false}}]}`,
		)
		allowed(false)
		took = append(took, time.Since(begin))
		r.scim(
			http.MethodPatch,
			"/Users/"+id,
			provider,
			`{"Operations": [{"op": "replace", "value": {"active": true}}]}`,
		)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
}

// TestSecretIsNeverRepeatedToProviders puts a live secret everywhere a provider could put one, and looks for it in
// answers, logs, events and metrics.
func TestSecretIsNeverRepeatedToProviders(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := eventRig(t, map[string]string{"account-disabled": "suspend"})
	provider := r.service("okta", "users")
	id := r.provision(provider, "alice")
	_, secret := r.mint("u1", "marked")
	marks := append(markers(t, secret), markers(t, provider)...)
	look := func(what string, got answerOf) {
		t.Helper()
		if form, found := leaks(got.body+fmt.Sprint(got.header), marks); found {
			t.Errorf("%s: the answer has %s: %s", what, form, got.body)
		}
	}
	quoted := `"` + secret + `"`
	bodies := []string{
		`{"userName": ` + quoted + `, "externalId": "b"}`,
		`{"userName": "b", "externalId": ` + quoted + `}`,
		`{"userName": "b", "externalId": "b", "displayName": ` + quoted + `}`,
		`{"userName": "b", "externalId": "b", "id": ` + quoted + `}`,
		`{"userName": "b", "externalId": "b", "active": ` + quoted + `}`,
		`{"schemas": [` + quoted + `], "userName": "b"}`,
		`{` + quoted + `: 1, ` + quoted + `: 2}`,
		quoted,
		`{` + quoted,
		`{"Operations": [{"op": ` + quoted + `}]}`,
		`{"Operations": [{"op": "add", "path": ` + quoted + `, "value": 1}]}`,
		`{"Operations": [{"op": "add", "value": {` + quoted + `: 1}}]}`,
		`{"Operations": [{"op": "add", "path": "externalId", "value": ` + quoted + `}]}`,
		`{"Operations": [{"op": "add", "path": "displayName", "value": ` + quoted + `}]}`,
		`{"filter": ` + quoted + `}`,
		`{"count": ` + quoted + `}`,
	}
	for _, body := range bodies {
		for _, c := range []struct{ method, path string }{
			{http.MethodPost, "/Users"}, {http.MethodPost, "/Users/.search"}, {http.MethodPut, "/Users/" + id}, {http.MethodPatch, "/Users/" + id},
		} {
			got, _ := r.scim(c.method, c.path, provider, body)
			look(c.method+" "+c.path+" "+body, got)
		}
	}
	for _, path := range []string{
		"/Users/" + secret, "/" + secret, "/Schemas/" + secret, "/Users?filter=" + secret, "/Users?filter=userName+eq+%22" + secret + "%22",
		"/Users?count=" + secret, "/Users?attributes=" + secret, "/Users?" + secret + "=1",
	} {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			got, _ := r.scim(method, path, provider, "")
			look(method+" "+path, got)
		}
	}
	good := r.idp.set(t, risc+"account-disabled", "alice", nil)
	for what, set := range map[string]string{
		"a secret": secret, "a jti": r.idp.set(t, risc+"account-disabled", "alice", nil, claim{"jti", secret}),
		"a subject": r.idp.set(t, risc+"account-disabled", secret, nil), "an issuer": r.idp.set(t, risc+"account-disabled", "alice", nil, claim{"iss", secret}),
		"an audience": r.idp.set(t, risc+"account-disabled", "alice", nil, claim{"aud", secret}), "an event": r.idp.set(t, risc+secret, "alice", nil),
		"a good one": good, "a replay": good,
	} {
		look(what, r.rest(http.MethodPost, "/v1/security-events", "", set, "Content-Type", "application/secevent+jwt"))
	}
	events, _, err := r.svc.Events(
		context.Background(),
		tokens.Operator(),
		tokens.EventFilter{},
		tokens.Page{Size: 200},
	)
	must(t, err)
	for where, text := range map[string]string{
		"the log": r.logs.String(), "the audit log": fmt.Sprintf("%+v", events), "the metrics": r.rest(http.MethodGet, "/metrics", "", "").body,
	} {
		if form, found := leaks(text, append(marks, good)); found {
			t.Errorf("%s has %s", where, form)
		}
	}
}
