package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// TestSettingsOfGatewaysAndLeaksAreInForce starts patd with each setting and without.
func TestSettingsOfGatewaysAndLeaksAreInForce(t *testing.T) {
	data, admin := administer(t)
	var secret string
	for _, c := range []struct {
		args    []string
		forward bool
		reports int // that are taken at once
	}{
		{[]string{"--leak-report-rate", "0.001", "--leak-report-burst", "2"}, false, 2},
		{[]string{"--forward-authorization", "--leak-report-rate", "off"}, true, 100},
		{nil, false, 60},
	} {
		d := serve(t, data, c.args...)
		if secret == "" {
			d.call(t, http.MethodPut, "/v1/users/u/features", admin, `{"features":["a"]}`).want(t, "features", 200)
			minted := d.call(t, http.MethodPost, "/v1/users/u/tokens", admin, `{"name":"n","scopes":["a"]}`).
				want(t, "mint", 200)
			var made struct{ Secret string }
			if err := json.Unmarshal([]byte(minted.body), &made); err != nil {
				t.Fatal(err)
			}
			secret = made.Secret
		}
		if got := d.call(t, http.MethodGet, "/v1/forward-auth?scope=a", secret, "").
			want(t, "forward-auth", 200); got.header.Get(
			"X-Auth-User",
		) != "u" {
			t.Errorf("forward-auth says %v", got.header)
		}
		if removed := d.removed(t, admin, secret); slices.Contains(removed, "authorization") == c.forward {
			t.Errorf("%q: Envoy is to remove %q", c.args, removed)
		}
		for i := range c.reports {
			d.call(t, http.MethodPost, "/v1/leaks", "none", `{"secrets":["x"]}`).
				want(t, fmt.Sprint("report ", i), 200, "{}")
		}
		if c.reports == 2 {
			d.call(t, http.MethodPost, "/v1/leaks", "none", `{"secrets":["x"]}`).
				want(t, "one more", 429, "RATE_LIMITED")
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// removed are the headers that Envoy is to take off a request with a good token.
func (d *daemon) removed(t *testing.T, caller, secret string) []string {
	t.Helper()
	conn, err := grpc.NewClient(d.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+caller)
	resp, err := authv3.NewAuthorizationClient(conn).
		Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			ContextExtensions: map[string]string{"scope": "a"},
			Request: &authv3.AttributeContext_Request{
				Http: &authv3.AttributeContext_HttpRequest{
					Headers: map[string]string{"authorization": "Bearer " + secret},
				},
			},
		}})
	if err != nil || resp.GetStatus().GetCode() != int32(codes.OK) {
		t.Fatalf("%v %v", resp.GetDeniedResponse(), err)
	}
	return resp.GetOkResponse().GetHeadersToRemove()
}
