package server_test

import (
	"context"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// TestNothingThatAStrangerSaysIsLogged puts a text into every place that a caller without a credential fills in. No log
// line holds it, and of the audit log only the detail that says so.
func TestNothingThatAStrangerSaysIsLogged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a"}, "a")
	const said = "STRANGER said, scopes admin"
	everywhere := []string{
		"User-Agent",
		said,
		"X-Request-Id",
		said,
		"X-Forwarded-For",
		said,
		"Forwarded",
		said,
		"Referer",
		said,
		"Idempotency-Key",
		said,
		"Traceparent",
		said,
		"Origin",
		said,
		"Cookie",
		said,
	}
	for _, path := range []string{"/v1/users/STRANGER", "/v1/STRANGER", "/STRANGER?STRANGER=" + "1", "/v1/users?q=STRANGER", "/v1/self"} {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			r.rest(method, path, "", `{"name":"STRANGER","STRANGER":1}`, everywhere...)
		}
		r.rest("GET", path, said, "", everywhere...)
	}
	form := []string{"User-Agent", said, "X-Request-Id", said, "X-Forwarded-For", said}
	for _, name := range []string{"audience", "resource", "scope", "grant_type", "subject_token", "actor_token", "client_id", "client_secret", "token_type_hint", "token", "STRANGER"} {
		for _, path := range []string{"/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"} {
			r.oauth(
				path,
				formOf(
					"grant_type",
					grantExchange,
					"subject_token",
					secret,
					"subject_token_type",
					typeAccess,
					name,
					said,
				),
				form...)
		}
		if name != "subject_token" && name != "grant_type" {
			r.exchange(secret, name, said)
		}
	}
	r.oauth("/oauth2/token", formOf("grant_type", grantExchange), basic("STRANGER", said)...)
	ctx := metadata.AppendToOutgoingContext(
		context.Background(),
		"x-request-id",
		said,
		"x-forwarded-for",
		said,
		"user-agent",
		said,
		"authorization",
		"Bearer "+said,
		"STRANGER",
		said,
	)
	for _, method := range []string{"/STRANGER/STRANGER", "/patd.v1.TokenService/STRANGER", "/patd.v1.UserService/GetUser"} {
		if err := r.conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}); err == nil {
			t.Errorf("%s is served to a stranger", method)
		}
	}
	_, err := patdv1.NewTokenServiceClient(r.conn).CreateToken(ctx, &patdv1.CreateTokenRequest{User: said, Name: said})
	if err == nil {
		t.Error("a stranger made a token")
	}
	e := envoy{r: r, secret: "STRANGER"}
	_, err = authv3.NewAuthorizationClient(r.conn).
		Check(ctx, e.request(routed{client: "fe80::1%STRANGER", headers: map[string][]string{"X-Request-Id": {said}, "Authorization": {"Bearer " + said}}}))
	must(t, err)
	if log := r.logs.String(); strings.Contains(log, "STRANGER") {
		i := strings.Index(log, "STRANGER")
		t.Errorf("in the log: …%s…", log[max(0, i-300):min(len(log), i+100)])
	}
	events, _, err := r.svc.Events(
		context.Background(),
		tokens.Operator(),
		tokens.EventFilter{},
		tokens.Page{Size: 200},
	)
	must(t, err)
	marked := 0
	for _, e := range events {
		whole := e.Detail
		e.Detail = strings.ReplaceAll(whole, `unverified_client_id "`+said+`"`, "")
		if e.Detail != whole {
			marked++
		}
		if strings.Contains(e.Detail+e.Actor+e.User+e.Reason+e.Service, "STRANGER") {
			t.Errorf("in the audit log: %+v", e)
		}
	}
	if marked == 0 {
		t.Error("the exchange by a client with that name is not in the audit log")
	}
}
