package server_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// TestAnswersToAServiceSayWhenItsTokenExpires asks by every way that a service calls, with the current secret and with
// the one in its grace, for successes and for errors.
func TestAnswersToAServiceSayWhenItsTokenExpires(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ttl := 60 * tokens.Day
	first, err := r.svc.CreateService(
		context.Background(),
		tokens.Operator(),
		tokens.ServiceRequest{Name: "gate", Permissions: []string{"admin"}, TTL: &ttl},
	)
	must(t, err)
	second, err := r.svc.RotateService(
		context.Background(),
		tokens.Operator(),
		tokens.RotateServiceRequest{Name: "gate"},
	)
	must(t, err)
	_, token := r.mint("u1", "a")
	for _, c := range []struct {
		what, secret string
		end          time.Time
	}{{"the current secret", second.Secret.Reveal(), second.Service.ExpireTime}, {"the previous secret", first.Secret.Reveal(), second.PreviousUntil}} {
		want := c.end.UTC().Truncate(time.Second).Format(time.RFC3339)
		for _, q := range []struct{ method, path, body string }{
			{"GET", "/v1/users/u1/tokens", ""},
			{"POST", "/v1/introspect", `{"token":"` + token + `"}`},
			{"POST", "/v1/introspect:batch", `{"requests":[]}`},
			{"GET", "/v1/users/u1/tokens/nothing", ""},
			{"GET", "/v1/self", ""},
			{"POST", "/v1/introspect", `{"token":"x","client_ip":"no address"}`},
		} {
			if got := r.rest(q.method, q.path, c.secret, q.body); got.header.Get("Patd-Token-Expires-At") != want {
				t.Errorf(
					"%s, %s %s: %d, %q, want %q",
					c.what,
					q.method,
					q.path,
					got.code,
					got.header.Get("Patd-Token-Expires-At"),
					want,
				)
			}
		}
		form := r.rest(
			"POST",
			"/oauth2/introspect",
			c.secret,
			"token="+token,
			"Content-Type",
			"application/x-www-form-urlencoded",
		)
		if form.code != 200 || form.header.Get("Patd-Token-Expires-At") != want {
			t.Errorf("%s, OAuth: %d %q %s", c.what, form.code, form.header.Get("Patd-Token-Expires-At"), form.body)
		}
		rpc := patdv1.NewIntrospectionServiceClient(r.conn)
		var md metadata.MD
		_, err := rpc.Introspect(as(c.secret), &patdv1.IntrospectRequest{Token: token}, grpc.Header(&md))
		if got := md.Get("patd-token-expires-at"); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s, over gRPC: %v, %v", c.what, got, err)
		}
		_, err = patdv1.NewTokenServiceClient(r.conn).
			GetToken(as(c.secret), &patdv1.GetTokenRequest{User: "u1", TokenId: "x"}, grpc.Header(&md))
		if got := md.Get("patd-token-expires-at"); err == nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s, an error over gRPC: %v, %v", c.what, got, err)
		}
		ctx, cancel := context.WithCancel(as(c.secret))
		stream, err := rpc.WatchInvalidations(ctx, &patdv1.WatchInvalidationsRequest{})
		must(t, err)
		_, err = stream.Recv()
		must(t, err)
		md, err = stream.Header()
		if got := md.Get("patd-token-expires-at"); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s, on a stream: %v, %v", c.what, got, err)
		}
		cancel()
	}
	if got := r.rest("GET", "/v1/self", "no credential", "").header["Patd-Token-Expires-At"]; got != nil {
		t.Errorf("to a stranger: %q", got)
	}
}

func TestAServiceIsRotatedOverREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	secret := r.service("gate", "introspect")
	path := "/v1/services/gate:rotate"
	if got := r.rest("POST", path, secret, "{}"); got.code != 403 {
		t.Errorf("a service that is not admin: %d %s", got.code, got.body)
	}
	if got := r.rest("POST", path, r.admin, `{"grace":"2592001s"}`); got.code != 400 {
		t.Errorf("a grace over the limit: %d %s", got.code, got.body)
	}
	first := r.rest("POST", path, r.admin, `{"grace":"3600s"}`, "Idempotency-Key", "0123456789abcdef")
	again := r.rest("POST", path, r.admin, `{"grace":"3600s"}`, "Idempotency-Key", "0123456789abcdef")
	if first.code != 200 || again.body != first.body || again.header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("%d %s\n%s", first.code, first.body, again.body)
	}
	rotated := objectOf(t, first.body)
	fresh, _ := rotated["secret"].(string)
	service, _ := rotated["service"].(map[string]any)
	want := r.now().Add(time.Hour).UTC().Format(time.RFC3339)[:16]
	if got, _ := rotated["previous_secret_expire_time"].(string); len(got) < 16 || got[:16] != want ||
		service["previous_secret_expire_time"] != got ||
		service["rotate_time"] == nil {
		t.Errorf("%s, want %s", first.body, want)
	}
	for what, s := range map[string]string{"old": secret, "new": fresh} {
		if got := r.rest("POST", "/v1/introspect", s, `{"token":"x"}`); got.code != 200 {
			t.Errorf("the %s secret in the grace: %d %s", what, got.code, got.body)
		}
	}
	if got := r.rest("POST", path, r.admin, "{}"); got.code != 400 {
		t.Errorf("a second rotation: %d", got.code)
	} else if reason, _ := got.reason(); reason != "ROTATION_IN_PROGRESS" {
		t.Errorf("a second rotation: %s", got.body)
	}
	r.wait(time.Hour)
	if got := r.rest("POST", "/v1/introspect", secret, `{"token":"x"}`); got.code != 401 {
		t.Errorf("the old secret after its grace: %d %s", got.code, got.body)
	}
	listed := r.rest("GET", "/v1/services", r.admin, "").body
	for _, one := range objectOf(t, listed)["services"].([]any) {
		if v := one.(map[string]any); v["name"] == "gate" &&
			(v["previous_secret_expire_time"] != nil || v["rotate_time"] == nil) {
			t.Errorf("after the grace: %v", v)
		}
	}
}

// objectOf reads a JSON object.
func objectOf(t *testing.T, text string) (out map[string]any) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), &out))
	return out
}
