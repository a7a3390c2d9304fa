package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
	"patd/tokens/secret"
)

// pause pauses a token, as one that was not used.
func (r *rig) pause(t *testing.T, id string) {
	t.Helper()
	must(t, r.store.Update(context.Background(), func(tx tokens.Tx) ([]tokens.Event, error) {
		named, err := secret.ParseID(id)
		if err != nil {
			return nil, err
		}
		tok, err := tx.Token(named)
		if err != nil {
			return nil, err
		}
		tok.Pause(r.now())
		e := tokens.Event{
			Time:    r.now(),
			Actor:   "nobody",
			Action:  tokens.ActionTokenPause,
			TokenID: named,
			User:    tok.User,
			Outcome: tokens.OutcomeSuccess,
		}
		return []tokens.Event{e}, tx.SetBlocked(named, tok.BlockedBy)
	}))
}

func TestAPausedTokenIsRefusedEverywhereUntilItIsResumed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, text := r.mint("u1", "n")
	ask := func() string { return restDecision(r, text) }
	if d := ask(); d != "ALLOW" {
		t.Fatalf("before: %s", d)
	}
	r.pause(t, id)
	if d, e := ask(), r.introspect(text); d != "TOKEN_IDLE" || e != patdv1.IntrospectResponse_TOKEN_IDLE {
		t.Errorf("introspection: %s over REST, %s over gRPC", d, e)
	}
	const why = "the token is paused, since it was not used for long; its owner can resume it"
	for _, path := range []string{"/v1/self", "/v1/forward-auth"} {
		got := r.rest("GET", path, text, "")
		if got.code != http.StatusUnauthorized || !strings.Contains(got.body+got.header.Get("WWW-Authenticate"), why) {
			t.Errorf("%s: %d %s %v", path, got.code, got.body, got.header)
		}
	}
	const path = "/v1/users/u1/tokens/"
	if got := compact(
		r.rest("GET", path+id, r.admin, ""),
	); !strings.Contains(got, `"idle_time":"`) ||
		!strings.Contains(got, `"policy_blocked":false`) {
		t.Errorf("the token is %s", got)
	}
	mine := r.idp.jwt(t, "u1")
	if got := r.rest(
		"POST",
		"/v1/users/me/tokens/"+id+":resume",
		mine,
		"",
	); got.code != http.StatusOK ||
		strings.Contains(got.body, `"idle_time":"`) {
		t.Errorf("resume: %d %s", got.code, got.body)
	}
	if d := ask(); d != "ALLOW" {
		t.Errorf("resumed: %s", d)
	}
	if got := r.rest("POST", path+id+":resume", text, ""); got.code != http.StatusForbidden {
		t.Errorf("the token resumes itself: %d %s", got.code, got.body)
	}
	if got := r.rest("POST", path+"15ODq7pq8Hy:resume", r.admin, ""); got.code != http.StatusNotFound {
		t.Errorf("resume no token: %d %s", got.code, got.body)
	}
}
