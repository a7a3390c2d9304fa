package call

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

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
		if !strings.HasPrefix(m, "/patd.v1.TokenService/") && m != "/patd.v1.UserService/GetUser" &&
			m != "/patd.v1.UserService/GetUserFeatures" &&
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
		changes := r.action != "" || strings.HasSuffix(method, "/ReportUses") ||
			strings.HasSuffix(method, "/ReportLeaks")
		if changes == r.Reads || r.keyed && r.Reads {
			t.Errorf("%s: changes %v, reads %v, keyed %v", method, changes, r.Reads, r.keyed)
		}
		if secret := makesSecret(t, method); secret != r.keyed {
			t.Errorf("%s makes a secret %v, and is keyed %v", method, secret, r.keyed)
		}
	}
}

// makesSecret reports whether a method makes a secret: it creates or rotates something that has one, and returns it.
func makesSecret(t *testing.T, method string) bool {
	t.Helper()
	name := protoreflect.FullName(strings.ReplaceAll(method[1:], "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	if !strings.HasPrefix(string(name.Name()), "Create") && !strings.HasPrefix(string(name.Name()), "Rotate") {
		return false
	}
	fields := found.(protoreflect.MethodDescriptor).Output().Fields()
	if fields.ByName("secret") != nil {
		return true
	}
	for i := range fields.Len() { // or in what was made
		if made := fields.Get(i).Message(); made != nil && made.Fields().ByName("secret") != nil {
			return true
		}
	}
	return false
}
