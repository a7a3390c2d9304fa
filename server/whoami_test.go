package server_test

import (
	"context"
	"net/http"
	"testing"

	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/tokens"
)

// TestCallersLearnWhoTheyAre asks as every kind of caller that may.
func TestCallersLearnWhoTheyAre(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "api"})
	made, err := r.svc.CreateService(
		context.Background(),
		tokens.Operator(),
		tokens.ServiceRequest{Name: "bound", Permissions: []string{"introspect"}, Audience: "api"},
	)
	must(t, err)
	for credential, want := range map[string]*patdv1.WhoAmIResponse{
		r.idp.jwt(t, "alice"): {User: "alice"},
		r.idp.jwt(t, "olga", claim{"groups", []string{"may-tokens"}}): {User: "olga", Permissions: []string{"tokens"}},
		made.Secret.Reveal(): {Service: "bound", Permissions: []string{"introspect"}, Audience: "api"},
	} {
		got, err := patdv1.NewSignInServiceClient(r.conn).WhoAmI(as(credential), &patdv1.WhoAmIRequest{})
		must(t, err)
		if want.GetService() != "" {
			if !got.GetExpireTime().AsTime().After(r.now()) {
				t.Errorf("the service expires at %v", got.GetExpireTime())
			}
			got.ExpireTime = nil
		}
		if !proto.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	_, pat := r.mint("u1", "t")
	if got := r.rest("GET", "/v1/whoami", pat, ""); got.code != http.StatusForbidden {
		t.Errorf("the bearer of a personal access token: %d %s", got.code, got.body)
	}
}

// TestTheServerNamesTheProviderOfTheCommandLine asks without a credential, with a bad one, and where there is none.
func TestTheServerNamesTheProviderOfTheCommandLine(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.CLISignIn = &server.CLISignIn{
			Issuer:       "https://login.example.com/",
			ClientID:     "cli",
			Scopes:       []string{"openid", "offline_access"},
			Audiences:    []string{"api"},
			Parameters:   map[string]string{"audience": "api"},
			RedirectPort: 8400,
		}
	})
	const want = `{"issuer":"https://login.example.com/","client_id":"cli","scopes":["openid","offline_access"],"audiences":["api"],` +
		`"parameters":{"audience":"api"},"redirect_port":8400}` + "\n"
	for _, credential := range []string{"", "garbage"} {
		if got := r.rest("GET", "/v1/sign-in", credential, ""); got.code != http.StatusOK || got.body != want {
			t.Errorf("with the credential %q: %d %s", credential, got.code, got.body)
		}
	}
	none := newRig(t).rest("GET", "/v1/sign-in", "", "")
	if reason, _ := none.reason(); none.code != http.StatusNotFound || reason != "SIGNIN_NOT_CONFIGURED" {
		t.Errorf("without a client: %d %s", none.code, none.body)
	}
}
