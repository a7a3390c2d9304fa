package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/server"
	"patd/tokens"
)

// TestSignedInUserManagesItsOwnTokens goes through the life of tokens as the user's page would.
func TestSignedInUserManagesItsOwnTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const user = "auth0|a/b"
	r.features(user, "reports.read", "reports.write")
	jwt := r.idp.jwt(t, user)
	for i, who := range []string{"me", url.PathEscape(user)} {
		base := "/v1/users/" + who
		got := r.rest("GET", base+"/features", jwt, "")
		if got.code != 200 || !strings.Contains(got.body, "reports.write") {
			t.Errorf("features: %d %s", got.code, got.body)
		}
		got = r.rest("POST", base+"/tokens", jwt, fmt.Sprintf(`{"name":"t%d","scopes":["reports.read"]}`, i))
		var made struct {
			Token  struct{ User, TokenID string }
			Secret string
		}
		must(t, json.Unmarshal([]byte(strings.ReplaceAll(got.body, "token_id", "tokenid")), &made))
		if got.code != 200 || made.Token.User != user || r.introspect(made.Secret) != patdv1.IntrospectResponse_ALLOW {
			t.Fatalf("mint: %d %s", got.code, got.body)
		}
		path := base + "/tokens/" + made.Token.TokenID
		for _, c := range []struct{ verb, path, body string }{
			{"GET", base, ""}, {"GET", path, ""}, {"GET", base + "/tokens", ""}, {"PATCH", path, `{"token":{"name":"n"},"update_mask":"name"}`},
			{"POST", path + ":rotate", ""}, {"DELETE", path, ""}, {"POST", base + "/tokens:revoke", ""},
		} {
			if got := r.rest(c.verb, c.path, jwt, c.body); got.code != 200 {
				t.Errorf("%s %s: %d %s", c.verb, c.path, got.code, got.body)
			}
		}
		for _, c := range []struct{ verb, path, body string }{
			{"PUT", base + "/features", `{"features":["admin"]}`}, {"PATCH", base + "/features", `{"add":["admin"]}`}, {"POST", base + ":refresh", ""},
			{"POST", base + ":resume", ""}, {"DELETE", base, ""},
		} {
			if got := r.rest(c.verb, c.path, jwt, c.body); got.code != http.StatusForbidden {
				t.Errorf("%s %s: %d %s", c.verb, c.path, got.code, got.body)
			}
		}
	}
	resp, err := patdv1.NewTokenServiceClient(r.conn).
		CreateToken(as(jwt), &patdv1.CreateTokenRequest{User: "me", Name: "g", Scopes: []string{"reports.write"}})
	must(t, err)
	if d := r.introspect(resp.GetSecret()); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("minted over gRPC: %s", d)
	}
	_, err = patdv1.NewTokenServiceClient(r.conn).
		CreateToken(as(jwt), &patdv1.CreateTokenRequest{User: "me", Name: "x", Scopes: []string{"admin"}})
	if reason, _ := grpcReason(err); reason != "SCOPE_NOT_HELD" {
		t.Errorf("a scope that the user does not hold: %v", err)
	}
	events := r.rest("GET", "/v1/events?action=token.create&user="+url.QueryEscape(user), r.admin, "").body
	if strings.Count(events, `"actor":"user:auth0|a/b"`) != 4 || strings.Count(events, `"SUCCESS"`) != 3 {
		t.Errorf("the audit log does not name the user: %s", events)
	}
}

// TestAnotherUsersThingsAnswerAlike compares the answers about a user with tokens and about one that never was.
func TestAnotherUsersThingsAnswerAlike(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	r.mint("alice", "a")
	jwt := r.idp.jwt(t, "alice")
	for name, m := range served(t, r) {
		if m.Input().Fields().ByName("user") == nil || name == "AuditService/ListEvents" {
			continue
		}
		var told []string
		for _, user := range []string{"u1", "never-met"} {
			req := goodRequest(r, name, id, secret)
			f := m.Input().Fields().ByName("user")
			req.ProtoReflect().Set(f, protoreflect.ValueOfString(user))
			err := r.conn.Invoke(as(jwt), "/patd.v1."+name, req, answerFor(t, m))
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s about %s: %v", name, user, err)
			}
			told = append(told, withoutRequestID(err))
		}
		if told[0] != told[1] {
			t.Errorf("%s tells whether a user exists:\n%s\n%s", name, told[0], told[1])
		}
	}
	for _, b := range bindings(t, r) {
		if !strings.Contains(b.path, "target") {
			continue
		}
		var told []string
		for _, user := range []string{"u1", "never-met"} {
			path := strings.NewReplacer("target", user, "15ODq7pq8Hy", id).Replace(b.path)
			got := r.rest(b.verb, path, jwt, "", "X-Request-Id", "same")
			told = append(told, fmt.Sprint(got.code, got.body))
		}
		if told[0] != told[1] || !strings.HasPrefix(told[0], "403") {
			t.Errorf("%s %s tells whether a user exists:\n%s\n%s", b.verb, b.path, told[0], told[1])
		}
	}
	if d := r.introspect(secret); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("the other user's token is %s", d)
	}
}

func withoutRequestID(err error) string {
	p := proto.CloneOf(status.Convert(err).Proto())
	p.Details = p.GetDetails()[:1]
	return protojson.Format(p)
}

// TestProviderOutageIsNotABadCredential needs keys that were never fetched.
func TestProviderOutageIsNotABadCredential(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 1, 1 })
	r.idp.SetDown(true)
	jwt := r.idp.jwt(t, "alice")
	for range 3 { // an outage is no bad credential either to the limit of those
		got := r.rest("GET", "/v1/users/me/features", jwt, "")
		if reason, _ := got.reason(); got.code != http.StatusServiceUnavailable || reason != "SIGNIN_UNAVAILABLE" {
			t.Errorf("over REST: %d %s", got.code, got.body)
		}
		_, err := patdv1.NewUserServiceClient(r.conn).
			GetUserFeatures(as(jwt), &patdv1.GetUserFeaturesRequest{User: "me"})
		if reason, _ := grpcReason(err); status.Code(err) != codes.Unavailable || reason != "SIGNIN_UNAVAILABLE" {
			t.Errorf("over gRPC: %v", err)
		}
	}
	if got := r.rest("GET", "/v1/users", r.admin, ""); got.code != 200 {
		t.Errorf("a service while the provider is down: %d %s", got.code, got.body)
	}
	r.idp.SetDown(false)
	r.wait(time.Minute)
	if got := r.rest("GET", "/v1/users/me/features", jwt, ""); got.code != 200 {
		t.Errorf("after the outage: %d %s", got.code, got.body)
	}
}

func TestWithoutSignInAJWTIsABadToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.SignIn = nil })
	got := r.rest("GET", "/v1/users/me/features", r.idp.jwt(t, "alice"), "")
	if reason, _ := got.reason(); got.code != http.StatusUnauthorized || reason != "CREDENTIAL_INVALID" {
		t.Errorf("%d %s", got.code, got.body)
	}
}

// TestFeaturesOfTheCredentialAreGranted mints with no other source of features than the claim.
func TestFeaturesOfTheCredentialAreGranted(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, tokens.CredentialFeatures{})
	jwt := r.idp.jwt(t, "alice", claim{idpFeatures, []string{"a", "b"}})
	for _, c := range []struct {
		jwt, name, scope string
		code             int
	}{
		{jwt, "n1", "a", 200}, {jwt, "n2", "c", 400}, {r.idp.jwt(t, "alice"), "n3", "a", 503}, // it does not say what alice holds
		{r.idp.jwt(t, "alice", claim{idpFeatures, []string{}}), "n4", "a", 400},
		{r.idp.jwt(t, "alice", claim{idpFeatures, 5}), "n5", "a", 401},
	} {
		got := r.rest("POST", "/v1/users/me/tokens", c.jwt, `{"name":"`+c.name+`","scopes":["`+c.scope+`"]}`)
		if got.code != c.code {
			t.Errorf("%s: %d %s, want %d", c.name, got.code, got.body, c.code)
		}
		if c.code == 200 && r.introspect(secretIn(t, got)) != patdv1.IntrospectResponse_ALLOW {
			t.Error("the token is invalid")
		}
	}
	got := r.rest("POST", "/v1/users/alice/tokens", r.admin, `{"name":"n6","scopes":["a"]}`)
	if reason, _ := got.reason(); got.code != http.StatusBadRequest || reason != "SCOPE_NOT_HELD" {
		t.Errorf("a service, whose token says nothing of a user: %d %s", got.code, got.body)
	}
	got = r.rest("GET", "/v1/users/me/features", jwt, "")
	if !strings.Contains(got.body, `"name":"a"`) || !strings.Contains(got.body, `"name":"b"`) {
		t.Errorf("features: %s", got.body)
	}
	if got := r.rest("PUT", "/v1/users/alice/features", r.admin, `{"features":["a"]}`); got.code != 400 {
		t.Errorf("features were written: %d %s", got.code, got.body)
	}
}

// staleSource returns the last that it knew.
type staleSource struct{}

func (staleSource) Features(context.Context, tokens.User, bool) (tokens.Held, error) {
	return tokens.Held{Features: []string{"a"}, Stale: true}, nil
}

func (staleSource) Local() bool { return false }

func TestStaleFeaturesAreMarked(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, staleSource{})
	m, err := r.svc.Mint(
		context.Background(),
		tokens.Operator(),
		tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}},
	)
	must(t, err)
	secret := m.Secret.Reveal()
	for _, path := range []string{"/v1/introspect", "/v1/introspect:batch"} {
		body := `{"token":"` + secret + `"}`
		if strings.HasSuffix(path, "batch") {
			body = `{"requests":[` + body + `]}`
		}
		if got := r.rest("POST", path, r.admin, body); !strings.Contains(got.body, `"stale":true`) {
			t.Errorf("%s: %s", path, got.body)
		}
	}
	if got := r.rest("GET", "/v1/users/u1/features", r.admin, ""); !strings.Contains(got.body, `"stale":true`) {
		t.Errorf("features: %s", got.body)
	}
	resp, err := patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: "garbage"})
	if must(t, err); resp.GetStale() {
		t.Error("an inactive answer tells of the source")
	}
}

// TestJWTIsNeverRepeated drives every method with JWTs, good and bad, as credentials and in wrong places, with a store
// that works and one that panics.
func TestJWTIsNeverRepeated(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	good := r.idp.jwt(t, "u1")
	jwts := []string{
		good,
		r.idp.jwt(t, "u1", claim{"aud", "marked-audience"}),
		r.idp.jwt(t, "u1", claim{"exp", 1}),
		unsigned(good),
		good[:len(good)-4] + "AAAA",
	}
	var marks []string
	for _, j := range jwts {
		parts := strings.Split(j, ".")
		marks = append(marks, j, parts[1], url.QueryEscape(j))
		if len(parts[2]) > 16 {
			marks = append(marks, parts[2][:40])
		}
	}
	m := marked{t: t, r: r, secret: good, marks: append(marks, "marked-audience")}
	for name, method := range served(t, r) {
		for _, j := range jwts {
			m.grpc(name, method, goodRequest(r, name, id, secret), j)
		}
		req := goodRequest(r, name, id, secret)
		m.panicking(func() { m.grpc(name, method, req, good) })
	}
	for _, b := range bindings(t, r) {
		b.path = strings.NewReplacer("target", "u1").Replace(b.path)
		for _, j := range jwts {
			for _, path := range []string{b.path, b.path + "/" + j, b.path + "?" + j + "=1", b.path + "?page_size=1&q=" + j, b.path + "?after=" + j + "&page_token=" + j} {
				m.check(
					b.verb+" "+path,
					fmt.Sprint(r.rest(b.verb, path, j, "", "X-Request-Id", j, "Idempotency-Key", j)),
				)
			}
			for _, header := range []string{"Authorization", "X-Forwarded-For", "Grpc-Timeout", "Cookie"} {
				m.check(
					b.verb+" "+b.path+" with header "+header,
					fmt.Sprint(r.rest(b.verb, b.path, r.admin, "", header, j)),
				)
			}
			if b.verb != http.MethodGet && b.verb != http.MethodDelete {
				for _, body := range []string{j, `{"` + j + `":1}`, `{"ttl":"` + j + `"}`, `{"name":"` + j, `{"update_mask":"` + j + `"}`} {
					m.check(b.verb+" "+b.path+" with a body", fmt.Sprint(r.rest(b.verb, b.path, j, body)))
				}
			}
		}
	}
	m.aftermath()
}
