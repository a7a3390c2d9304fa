package signin_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"patd/server/signin"
	"patd/tokens/secret"
)

// TestKeysOfSecurityEventsAreFound by either discovery document, or where the operator says they are.
func TestKeysOfSecurityEventsAreFound(t *testing.T) {
	t.Parallel()
	clock := newClock()
	public := jose.JSONWebKey{Key: rsaKey(t, 0).Public(), KeyID: "k0", Algorithm: "RS256", Use: "sig"}
	key, err := public.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		issuer, document string
		at               string // of --security-event-keys-url
	}{
		"OpenID":                     {"", "/.well-known/openid-configuration", ""},
		"shared signals":             {"", "/.well-known/ssf-configuration", ""},
		"shared signals with a path": {"/tenant", "/.well-known/ssf-configuration/tenant", ""},
		"no document":                {"", "", "/jwks"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var server *httptest.Server
			server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case c.document:
					_, _ = fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, server.URL+c.issuer, server.URL+"/jwks")
				case "/jwks":
					_, _ = fmt.Fprintf(w, `{"keys": [%s]}`, key)
				default:
					http.NotFound(w, r)
				}
			}))
			defer server.Close()
			issuer := signin.EventIssuer{URL: server.URL + c.issuer, Audiences: []string{audience}}
			if c.at != "" {
				issuer.KeysURL = server.URL + c.at
			}
			events, err := signin.NewEvents(signin.EventsConfig{Issuers: []signin.EventIssuer{issuer}, Now: clock.now})
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			set := sign(t, jose.RS256, rsaKey(t, 0), claims{"kid": "k0", "typ": "secevent+jwt"}, claims{
				"iss": issuer.URL, "aud": audience, "iat": clock.now().Unix(), "jti": "1",
				"sub_id": claims{"format": "opaque", "id": "alice"},
				"events": claims{"https://schemas.openid.net/secevent/risc/event-type/account-disabled": claims{}},
			})
			got, err := events.Verify(t.Context(), secret.NewSecret(set))
			if err != nil || got.User != "alice" {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
