package client_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"patd/client"
	"patd/client/clienttest"
)

// TestGuardsSayWhy refuses by every decision, over HTTP and gRPC: both say the same. The real patd says it too, see
// TestEveryEndedStateSaysWhyEverywhere.
func TestGuardsSayWhy(t *testing.T) {
	t.Parallel()
	fake := clienttest.NewFake()
	past := time.Date(2027, 1, 5, 10, 0, 0, 900_000_000, time.UTC)
	fake.Allow(
		"poor",
		client.Token{
			ID:         "x",
			User:       "u",
			Granted:    []string{"held", "lost"},
			Scopes:     []string{"held"},
			Suspended:  []string{"lost"},
			ExpireTime: past,
		},
	)
	for _, d := range []client.Decision{
		client.NotFound, client.Expired, client.Revoked, client.Superseded, client.UserSuspended, client.PolicyBlocked, client.TokenIdle,
		client.AudienceMismatch, client.IPNotAllowed,
	} {
		fake.Refuse(d.String(), d)
	}
	gone := client.Static(map[string]client.Token{"gone": {ID: "x", User: "u", ExpireTime: past}})
	for _, c := range []struct {
		checker             client.Checker
		token, reason, text string
		challenge           string
		missing, suspended  []string
		expires             string
	}{
		{fake, "NOT_FOUND", "CREDENTIAL_INVALID", "the token is not valid", "invalid_token", nil, nil, ""},
		{fake, "EXPIRED", "TOKEN_EXPIRED", "the token has expired", "invalid_token", nil, nil, ""},
		{fake, "REVOKED", "TOKEN_REVOKED", "the token was revoked", "invalid_token", nil, nil, ""},
		{fake, "SUPERSEDED", "TOKEN_SUPERSEDED", "the token was rotated, and this secret has stopped working", "invalid_token", nil, nil, ""},
		{fake, "USER_SUSPENDED", "USER_SUSPENDED", "the user of the token is suspended", "invalid_token", nil, nil, ""},
		{fake, "POLICY_BLOCKED", "POLICY_BLOCKED", "the operator has blocked the token, since it exceeds the policy of an audience", "invalid_token", nil, nil, ""},
		{fake, "TOKEN_IDLE", "TOKEN_IDLE", "the token is paused, since it was not used for long; its owner can resume it", "invalid_token", nil, nil, ""},
		{fake, "AUDIENCE_MISMATCH", "AUDIENCE_MISMATCH", "the token is not for this audience", "invalid_token", nil, nil, ""},
		{fake, "IP_NOT_ALLOWED", "IP_NOT_ALLOWED", "the token is not allowed from this address", "invalid_token", nil, nil, ""},
		{gone, "gone", "TOKEN_EXPIRED", "the token expired at 2027-01-05T10:00:00Z", "invalid_token", nil, nil, "2027-01-05T10:00:00Z"},
		{
			fake, "poor", "SCOPE_INSUFFICIENT", "the token was not granted never; its user does not hold lost now", "insufficient_scope",
			[]string{"never"}, []string{"lost"}, "2027-01-05T10:00:00Z",
		},
	} {
		if c.token == "gone" && time.Now().Before(past) {
			c.reason, c.text = "SCOPE_INSUFFICIENT", "the token was not granted held lost never"
			c.challenge, c.missing = "insufficient_scope", []string{"held", "lost", "never"}
		}
		scopes := []string{"held", "lost", "never"}
		guard := client.NewGuard(
			c.checker,
			client.HTTPConfig{Resource: "https://api.example.com/v1", RenewURL: "https://example.com/renew"},
		)
		r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer "+c.token)
		guard.Require(scopes...)(
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let through") }),
		).ServeHTTP(w, r)
		var body struct {
			Error, Reason string
			Description   string   `json:"error_description"`
			Missing       []string `json:"missing_scopes"`
			Suspended     []string `json:"suspended_scopes"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		challenge := `Bearer error="` + c.challenge + `", error_description="` + c.text + `"`
		if c.challenge == "insufficient_scope" {
			challenge += `, scope="held lost never"`
		}
		challenge += `, resource_metadata="https://api.example.com/.well-known/oauth-protected-resource/v1"`
		if got := w.Header().Get("WWW-Authenticate"); got != challenge {
			t.Errorf("%s: the challenge is %s, want %s", c.token, got, challenge)
		}
		if body.Error != c.challenge || body.Reason != c.reason || body.Description != c.text ||
			!slices.Equal(body.Missing, c.missing) ||
			!slices.Equal(body.Suspended, c.suspended) {
			t.Errorf("%s: %s", c.token, w.Body)
		}
		if got := w.Header().Get("Patd-Token-Expires-At"); got != c.expires {
			t.Errorf("%s: expires at %q, want %q", c.token, got, c.expires)
		}
		intercept := client.UnaryServerInterceptor(c.checker, client.GRPCConfig{Default: scopes})
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("authorization", "Bearer "+c.token))
		_, err := intercept(
			ctx,
			nil,
			&grpc.UnaryServerInfo{FullMethod: "/x/Y"},
			func(context.Context, any) (any, error) { return nil, nil },
		)
		st := status.Convert(err)
		if st.Message() != c.text || len(st.Details()) != 1 {
			t.Fatalf("%s: %v", c.token, err)
		}
		if info, ok := st.Details()[0].(*errdetails.ErrorInfo); !ok || info.GetReason() != c.reason ||
			info.GetDomain() != "patd" ||
			info.GetMetadata()["expire_time"] != c.expires {
			t.Errorf("%s: %v", c.token, st.Details())
		}
	}
}
