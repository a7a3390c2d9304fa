package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"patd/tokens"
)

// scim makes a SCIM request, and returns the answer with its body.
func (r *rig) scim(method, path, secret, body string, headers ...string) (answerOf, object) {
	r.t.Helper()
	if body != "" {
		headers = append(headers, "Content-Type", "application/scim+json")
	}
	got := r.rest(method, "/scim/v2"+path, secret, body, headers...)
	var o object
	if got.body != "" {
		if kind := got.header.Get("Content-Type"); kind != "application/scim+json" {
			r.t.Errorf("%s %s: Content-Type %q", method, path, kind)
		}
		if err := json.Unmarshal([]byte(got.body), &o); err != nil {
			r.t.Errorf("%s %s: %v: %s", method, path, err, got.body)
		}
		if got.code >= http.StatusBadRequest && o["status"] != strconv.Itoa(got.code) {
			r.t.Errorf("%s %s: %d, and the body says %v", method, path, got.code, o["status"])
		}
	}
	return got, o
}

// provision adds a user, and returns the id of its record.
func (r *rig) provision(secret, user string) string {
	r.t.Helper()
	got, o := r.scim(
		http.MethodPost,
		"/Users",
		secret,
		fmt.Sprintf(`{"userName": %q, "externalId": %q}`, user+"@example.com", user),
	)
	id, _ := o["id"].(string)
	if got.code != http.StatusCreated || got.header.Get("Location") != r.srv.Issuer()+"/scim/v2/Users/"+id {
		r.t.Fatalf("%d %s", got.code, got.body)
	}
	return id
}

// member returns a member of a document by a path such as Resources.0.id; "" if there is none.
func member(v any, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		switch of := v.(type) {
		case object:
			v = of[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(of) {
				return ""
			}
			v = of[i]
		}
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// state is the state of a user; "-" if there is none.
func (r *rig) state(user string) string {
	r.t.Helper()
	u, err := r.svc.User(context.Background(), tokens.Operator(), user)
	var e *tokens.Error
	if errors.As(err, &e) && e.Code == tokens.CodeNotFound {
		return "-"
	}
	must(r.t, err)
	return map[tokens.UserState]string{tokens.UserActive: "ACTIVE", tokens.UserSuspended: "SUSPENDED"}[u.State]
}
