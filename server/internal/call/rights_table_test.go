package call

import (
	"slices"
	"strings"
	"testing"

	"patd/tokens"
)

// TestSignedInUsersReachTheirOwnThingsOnly looks at the table itself.
func TestSignedInUsersReachTheirOwnThingsOnly(t *testing.T) {
	var reached []string
	for method, r := range Rights() {
		if r.Allows(tokens.Actor{Kind: tokens.UserActor, User: "u1"}) {
			reached = append(reached, method)
		}
		if !r.Open && r.Allows(tokens.Actor{}) {
			t.Errorf("nobody reaches %s", method)
		}
		if r.Allows(tokens.Actor{Kind: tokens.ServiceActor}) {
			t.Errorf("a service without permissions reaches %s", method)
		}
	}
	for _, m := range reached {
		if !strings.HasPrefix(m, "/patd.v1.TokenService/") && m != "/patd.v1.UserService/GetUser" && m != "/patd.v1.UserService/GetUserFeatures" &&
			m != "/patd.v1.SignInService/WhoAmI" {
			t.Errorf("a signed-in user reaches %s", m)
		}
	}
	if len(reached) != 14 || !slices.Contains(reached, "/patd.v1.TokenService/CreateToken") {
		t.Errorf("a signed-in user reaches %q", reached)
	}
	if (Right{}).Allows(tokens.Actor{Kind: tokens.ServiceActor, Permissions: tokens.PermAdmin}) {
		t.Error("admin reaches a method without a row")
	}
}

// TestNoChangeIgnoresAnIdempotencyKey looks at the table itself: what changes something honours a key or refuses it.
func TestNoChangeIgnoresAnIdempotencyKey(t *testing.T) {
	for method, r := range Rights() {
		changes := r.action != "" || strings.HasSuffix(method, "/ReportUses") || strings.HasSuffix(method, "/ReportLeaks")
		if changes == r.Reads || r.keyed && r.Reads {
			t.Errorf("%s: changes %v, reads %v, keyed %v", method, changes, r.Reads, r.keyed)
		}
		makes := []string{"CreateToken", "RotateToken", "RotateSelf", "CreateService", "RotateService"}
		if secret := slices.Contains(makes, method[strings.LastIndexByte(method, '/')+1:]); secret != r.keyed {
			t.Errorf("%s makes a secret %v, and is keyed %v", method, secret, r.keyed)
		}
	}
}
