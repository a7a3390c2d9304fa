package signin_test

import (
	"testing"

	"patd/internal/oidctest"
	"patd/server/signin"
	"patd/tokens/secret"
)

// TestKeysOfSecurityEventsAreFound by either discovery document, or where the operator says they are.
func TestKeysOfSecurityEventsAreFound(t *testing.T) {
	t.Parallel()
	clock := newClock()
	for name, c := range map[string]struct {
		issuer, document string
		at               string // of --security-event-keys-url
	}{
		"OpenID":                     {"", oidctest.Discovery, ""},
		"shared signals":             {"", "/.well-known/ssf-configuration", ""},
		"shared signals with a path": {"/tenant", "/.well-known/ssf-configuration/tenant", ""},
		"no document":                {"", "", "/jwks"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, clock)
			p.Describe(c.document, p.URL+c.issuer)
			issuer := signin.EventIssuer{URL: p.URL + c.issuer, Audiences: []string{audience}}
			if c.at != "" {
				issuer.KeysURL = p.URL + c.at
			}
			events, err := signin.NewEvents(signin.EventsConfig{Issuers: []signin.EventIssuer{issuer}, Now: clock.now})
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			set := p.Key().Sign(t, claims{"kid": "k0", "typ": "secevent+jwt"}, claims{
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
