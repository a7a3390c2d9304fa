package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/oidctest"
)

// TestSecurityEventsDoWhatTheSettingsSay pushes events at a server that takes those of one issuer, whose keys are at an
// address of their own, and whose users are called by their email: what the events do is what the flags say.
func TestSecurityEventsDoWhatTheSettingsSay(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	p := oidctest.New(t, time.Now)
	data, admin := administer(t)
	d := serve(
		t,
		data,
		"--oidc-issuer",
		p.URL,
		"--oidc-audience",
		"https://patd.example.com",
		"--oidc-user-prefix",
		"acme:",
		"--security-event-issuer",
		p.URL,
		"--security-event-audience",
		"patd-events",
		"--security-event-keys-url",
		p.URL+"/jwks",
		"--security-event-user",
		"email",
		"--security-event-actions",
		"account-purged=suspend+revoke",
	)
	a := connect(t, d, admin)
	minted := func(user string) string {
		if _, err := a.users.SetUserFeatures(t.Context(),
			&patdv1.SetUserFeaturesRequest{User: user, Features: []string{"reports.read"}}); err != nil {
			t.Fatal(err)
		}
		return a.mint(t, user, "laptop", "reports.read")
	}
	decision := func(secret string) patdv1.IntrospectResponse_Decision {
		got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: secret})
		if err != nil {
			t.Fatal(err)
		}
		return got.GetDecision()
	}
	push := func(event, email, audience string) int {
		set := p.Key().Sign(t, oidctest.Claims{"kid": p.Key().ID, "typ": "secevent+jwt"}, oidctest.Claims{
			"iss": p.URL, "aud": audience, "iat": time.Now().Unix(), "jti": event + email + audience,
			"sub_id": map[string]string{"format": "email", "email": email},
			"events": map[string]any{"https://schemas.openid.net/secevent/risc/event-type/" + event: map[string]any{}},
		})
		resp, err := http.Post(d.HTTP+"/v1/security-events", "application/secevent+jwt", strings.NewReader(set))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	alice, bob := minted("acme:alice@example.com"), minted("acme:bob@example.com")

	if code := push("account-purged", "bob@example.com", "another"); code != http.StatusBadRequest {
		t.Errorf("an event for another: %d", code)
	}
	if got := decision(bob); got != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("after an event for another bob's token is %s", got)
	}
	if code := push("account-disabled", "bob@example.com", "patd-events"); code != http.StatusAccepted {
		t.Errorf("an event: %d", code)
	}
	if got := decision(bob); got != patdv1.IntrospectResponse_USER_SUSPENDED {
		t.Errorf("the action that is the default: bob's token is %s", got)
	}
	if code := push("account-purged", "alice@example.com", "patd-events"); code != http.StatusAccepted {
		t.Errorf("an event: %d", code)
	}
	if got := decision(alice); got != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("the action of the settings: alice's token is %s", got)
	}
	user, err := a.users.GetUser(t.Context(), &patdv1.GetUserRequest{User: "acme:alice@example.com"})
	if err != nil || user.GetUser().GetState() != patdv1.User_SUSPENDED {
		t.Errorf(
			"the other action of the settings: alice is %s, %v; want her suspended, not deleted",
			user.GetUser().GetState(),
			err,
		)
	}
	if strings.Contains(d.Log.String(), "eyJ") {
		t.Error("an event is in the log")
	}
}
