package server_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"patd/internal/longtest"
	"patd/tokens"
	"patd/tokens/secret"
)

// mayCall is the table of rights written down a second time: which permissions let a service in, "pat" for the
// bearer of a personal access token, "own" for a signed-in user about its own things, "anyone" for everybody. Admin is
// in every row of a service and not written.
var mayCall = map[string]string{
	"TokenService/CreateToken":    "tokens own",
	"TokenService/GetToken":       "tokens own",
	"TokenService/ListTokens":     "tokens own",
	"TokenService/UpdateToken":    "tokens own",
	"TokenService/RotateToken":    "tokens own",
	"TokenService/CancelRotation": "tokens own",
	"TokenService/NarrowToken":    "tokens own",
	"TokenService/ResumeScopes":   "tokens own",
	"TokenService/ResumeToken":    "tokens own",
	"TokenService/RevokeToken":    "tokens own",
	"TokenService/RevokeTokens":   "tokens own",

	"InventoryService/SearchTokens":     "tokens",
	"InventoryService/BulkRevokeTokens": "tokens",
	"InventoryService/BulkNarrowTokens": "tokens",
	"InventoryService/GetIdlePreview":   "tokens",

	"SelfService/GetSelf":    "pat",
	"SelfService/RevokeSelf": "pat",
	"SelfService/RotateSelf": "pat",

	"IntrospectionService/Introspect":         "introspect",
	"IntrospectionService/BatchIntrospect":    "introspect",
	"IntrospectionService/IntrospectStream":   "introspect",
	"IntrospectionService/WatchInvalidations": "introspect",
	"IntrospectionService/ReportUses":         "introspect",

	"IntrospectionService/AcknowledgeInvalidations": "introspect",

	"UserService/GetUser":            "users tokens own",
	"UserService/ListUsers":          "users",
	"UserService/SuspendUser":        "users",
	"UserService/ResumeUser":         "users",
	"UserService/DeleteUser":         "users",
	"UserService/GetUserFeatures":    "users tokens catalog own",
	"UserService/SetUserFeatures":    "users",
	"UserService/UpdateUserFeatures": "users",
	"UserService/RefreshUser":        "users",

	"CatalogService/CreateFeature":    "catalog",
	"CatalogService/GetFeature":       "catalog",
	"CatalogService/ReplaceFeature":   "catalog",
	"CatalogService/DeleteFeature":    "catalog",
	"CatalogService/ListFeatures":     "catalog",
	"CatalogService/GetFeatureImpact": "catalog users",
	"CatalogService/CreateAudience":   "catalog",
	"CatalogService/GetAudience":      "catalog",
	"CatalogService/ReplaceAudience":  "catalog",
	"CatalogService/DeleteAudience":   "catalog",
	"CatalogService/ListAudiences":    "catalog",
	"CatalogService/CheckAudience":    "catalog",
	"CatalogService/BlockTokens":      "catalog",
	"CatalogService/UnblockTokens":    "catalog",

	"ServiceAccountService/CreateService": "admin",
	"ServiceAccountService/ListServices":  "admin",
	"ServiceAccountService/RotateService": "admin",
	"ServiceAccountService/RevokeService": "admin",

	"WebhookService/CreateWebhook":         "admin",
	"WebhookService/GetWebhook":            "admin",
	"WebhookService/ReplaceWebhook":        "admin",
	"WebhookService/DeleteWebhook":         "admin",
	"WebhookService/ListWebhooks":          "admin",
	"WebhookService/RotateWebhookSecret":   "admin",
	"WebhookService/TestWebhook":           "admin",
	"WebhookService/ListWebhookDeliveries": "admin",
	"WebhookService/GetWebhookDelivery":    "admin",
	"WebhookService/RedeliverWebhook":      "admin",

	"AuditService/ListEvents": "audit",

	"PageService/CreatePageSession": "tokens",

	"LeakService/ReportLeaks": "anyone",

	"SignInService/GetSignIn": "anyone",
	"SignInService/WhoAmI":    "introspect tokens users catalog audit own stranger none",
}

var permissionNames = []string{"introspect", "tokens", "users", "catalog", "audit", "admin"}

// caller is one kind of caller: what its authorization metadata is, and what it is known as in mayCall.
type caller struct {
	name   string
	header func() []string
	kind   string // "" nobody, "bad", "pat", "own", "stranger", or a permission
	user   string // whom it asks about; empty: target
}

// about is whom the caller asks about.
func (c caller) about() string {
	if c.user == "" {
		return "target"
	}
	return c.user
}

func bearer(secret string) func() []string {
	return func() []string { return []string{"Bearer " + secret} }
}

// callers makes one of each kind. Personal tokens are minted for each call, since some calls end them.
func callers(r *rig) []caller {
	minted := 0
	freshPAT := func(user string) func() []string {
		return func() []string {
			minted++
			_, secret := r.mint(fmt.Sprintf("%s%d", user, minted), "t")
			return []string{"Bearer " + secret}
		}
	}
	ctx, op := context.Background(), tokens.Operator()
	ttl := time.Hour
	expiring, err := r.svc.CreateService(
		ctx,
		op,
		tokens.ServiceRequest{Name: "expiring", Permissions: permissionNames, TTL: &ttl},
	)
	must(r.t, err)
	r.features("old", "reports.read")
	expiringPAT, err := r.svc.Mint(ctx, op, tokens.MintRequest{
		User: "old", Name: "t", Scopes: []string{"reports.read"}, Lifetime: tokens.Lifetime{TTL: &ttl},
	})
	must(r.t, err)
	r.wait(2 * time.Hour)
	revoked := r.service("revoked", permissionNames...)
	_, err = r.svc.RevokeService(ctx, op, "revoked", "")
	must(r.t, err)
	revokedID, revokedPAT := r.mint("gone", "t")
	_, err = r.svc.Revoke(ctx, op, "gone", revokedID, "")
	must(r.t, err)
	_, suspendedPAT := r.mint("suspended", "t")
	_, err = r.svc.SuspendUser(ctx, op, "suspended", "")
	must(r.t, err)
	other, err := secret.Mint(secret.PrefixService, 12345<<22, zeros{})
	must(r.t, err)
	access, err := secret.Mint(secret.PrefixAccess, 12345<<22, zeros{})
	must(r.t, err)

	signedIn := func(user string) func() []string {
		return func() []string { return []string{"Bearer " + r.idp.jwt(r.t, user)} }
	}
	all := []caller{
		{name: "nobody", header: func() []string { return nil }},
		{name: "garbage", header: bearer("garbage"), kind: "bad"},
		{name: "empty token", header: bearer(""), kind: "bad"},
		{name: "no space", header: func() []string { return []string{"Bearer" + r.admin} }, kind: "bad"},
		{name: "trailing space", header: bearer(r.admin + " x"), kind: "bad"},
		{name: "changed character", header: bearer(r.admin[:len(r.admin)-1] + "!"), kind: "bad"},
		{name: "unknown service", header: bearer(other.Reveal()), kind: "bad"},
		{name: "another kind of token", header: bearer(access.Reveal()), kind: "bad"},
		{name: "basic scheme", header: func() []string { return []string{"Basic " + r.admin} }, kind: "bad"},
		{name: "no scheme", header: func() []string { return []string{r.admin} }, kind: "bad"},
		{
			name:   "two headers",
			header: func() []string { return []string{"Bearer " + r.admin, "Bearer " + r.admin} },
			kind:   "bad",
		},
		{name: "revoked service", header: bearer(revoked), kind: "bad"},
		{name: "expired service", header: bearer(expiring.Secret.Reveal()), kind: "bad"},
		{name: "revoked PAT", header: bearer(revokedPAT), kind: "bad"},
		{name: "expired PAT", header: bearer(expiringPAT.Secret.Reveal()), kind: "bad"},
		{name: "suspended user's PAT", header: bearer(suspendedPAT), kind: "bad"},
		{name: "PAT of the target", header: freshPAT("target"), kind: "pat"},
		{name: "PAT of another user", header: freshPAT("other"), kind: "pat"},
		{
			name:   "expired JWT",
			header: bearer(r.idp.jwt(r.t, "target", claim{"exp", r.now().Add(-time.Minute).Unix()})),
			kind:   "bad",
		},
		{
			name:   "JWT for another audience",
			header: bearer(r.idp.jwt(r.t, "target", claim{"aud", "other"})),
			kind:   "bad",
		},
		{
			name:   "JWT of another issuer",
			header: bearer(r.idp.jwt(r.t, "target", claim{"iss", "https://other.example"})),
			kind:   "bad",
		},
		{name: "unsigned JWT", header: bearer(unsigned(r.idp.jwt(r.t, "target"))), kind: "bad"},
		{name: "JWT of a user called me", header: bearer(r.idp.jwt(r.t, "me")), kind: "bad"},
		{name: "signed-in user about itself", header: signedIn("alice"), kind: "own", user: "alice"},
		{name: "signed-in user about me", header: signedIn("alice"), kind: "own", user: "me"},
		{name: "signed-in user about another", header: signedIn("alice"), kind: "stranger"},
		{name: "signed-in user about nobody there", header: signedIn("alice"), kind: "stranger", user: "never-met"},
	}
	for _, p := range permissionNames {
		secret := r.service("may-"+p, p)
		all = append(all, caller{name: "service with " + p, header: bearer(secret), kind: p})
		operator := bearer(r.idp.jwt(r.t, "op-"+p, claim{"groups", []string{"others", "may-" + p}}))
		all = append(all, caller{name: "operator with " + p, header: operator, kind: "operator " + p})
		if p == "admin" {
			all = append(
				all,
				caller{
					name:   "lower case scheme",
					header: func() []string { return []string{"bearer " + secret} },
					kind:   p,
				},
			)
		}
	}
	return all
}

// forPrograms are methods that no operator may call: it could act as a user with what it gets, or they are about a
// presented secret.
var forPrograms = []string{
	"TokenService/CreateToken",
	"TokenService/RotateToken",
	"TokenService/ResumeScopes",
	"PageService/CreatePageSession",
}

// expectedOf is the code that a caller gets for a method by its name.
func expectedOf(kind, name string) codes.Code {
	permission, operator := strings.CutPrefix(kind, "operator ")
	switch {
	case !operator:
		return expected(kind, mayCall[name])
	case slices.Contains(forPrograms, name) || strings.HasPrefix(name, "IntrospectionService/"):
		return codes.PermissionDenied
	case permission == "introspect": // people have no use for it
		permission = "none"
	}
	return expected(permission, mayCall[name])
}

// expected is the code that a caller gets for a method: OK stands for whatever the method itself answers.
func expected(kind, may string) codes.Code {
	switch {
	case may == "anyone":
		return codes.OK
	case kind == "" || kind == "bad":
		return codes.Unauthenticated
	case kind == "admin" && may != "pat", slices.Contains(strings.Fields(may), kind):
		return codes.OK
	default:
		return codes.PermissionDenied
	}
}

// served lists the methods of patd itself, as the server has registered them. Envoy's, whose answers are its own, has
// tests of its own.
func served(t testing.TB, r *rig) map[string]protoreflect.MethodDescriptor {
	t.Helper()
	found := map[string]protoreflect.MethodDescriptor{}
	for name, info := range r.srv.ServiceInfo() {
		if strings.HasPrefix(name, "grpc.") || strings.HasPrefix(name, "envoy.") {
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		must(t, err)
		for _, m := range info.Methods {
			found[strings.TrimPrefix(name, "patd.v1.")+"/"+m.Name] = d.(protoreflect.ServiceDescriptor).Methods().
				ByName(protoreflect.Name(m.Name))
		}
	}
	return found
}

// request is a message for a method about a user's things, as far as it names any.
func request(t testing.TB, m protoreflect.MethodDescriptor, user string) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
	must(t, err)
	msg := mt.New()
	if f := m.Input().Fields().ByName("user"); f != nil {
		msg.Set(f, protoreflect.ValueOfString(user))
	}
	return msg.Interface()
}

func answerFor(t testing.TB, m protoreflect.MethodDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	must(t, err)
	return mt.New().Interface()
}

func TestEveryMethodHasARowOfRights(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	methods := served(t, r)
	for name := range methods {
		if _, ok := mayCall[name]; !ok {
			t.Errorf("%s is served, and no row of this test says who may call it", name)
		}
	}
	for name := range mayCall {
		if _, ok := methods[name]; !ok {
			t.Errorf("%s is in the table and not served", name)
		}
	}
	for name, info := range r.srv.InProcessInfo() {
		if len(r.srv.ServiceInfo()[name].Methods) != len(info.Methods) {
			t.Errorf("%s is not served alike on the network and behind the gateway", name)
		}
	}
}

func TestRightsOverGRPC(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	for _, c := range callers(r) {
		for name, m := range served(t, r) {
			ctx := context.Background()
			for _, h := range c.header() {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", h)
			}
			err := r.invoke(ctx, m, request(t, m, c.about()), answerFor(t, m))
			checkRight(t, name+" by "+c.name, expectedOf(c.kind, name), status.Code(err))
		}
	}
}

// checkRight compares codes; where the caller is let in, anything but a refusal of the caller or a fault will do.
func checkRight(t *testing.T, what string, want, got codes.Code) {
	t.Helper()
	switch {
	case want != codes.OK && got != want,
		want == codes.OK && slices.Contains([]codes.Code{codes.Unauthenticated, codes.PermissionDenied, codes.Internal, codes.Unimplemented, codes.Unavailable}, got):
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

// binding is one REST form of a method.
type binding struct {
	verb, path, rpc string
	body            string // the field that the body is; empty or *: the whole request
}

// bindings lists every REST form of every method, from the annotations, with the path's parameters filled in.
func bindings(t testing.TB, r *rig) []binding {
	t.Helper()
	var found []binding
	fill := strings.NewReplacer(
		"{user}",
		"target",
		"{token_id}",
		"15ODq7pq8Hy",
		"{name}",
		"no-such-service",
		"{id}",
		"no-such-audience",
		"{webhook_id}",
		"no-such-webhook",
		"{delivery_id}",
		"no-such-delivery",
	)
	for name, m := range served(t, r) {
		rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		for _, h := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			for verb, path := range map[string]string{
				"GET": h.GetGet(), "POST": h.GetPost(), "PUT": h.GetPut(), "PATCH": h.GetPatch(), "DELETE": h.GetDelete(),
			} {
				if path != "" {
					found = append(found, binding{verb, fill.Replace(path), name, h.GetBody()})
				}
			}
		}
	}
	return found
}

func TestRightsOverREST(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	want := map[codes.Code]int{
		codes.Unauthenticated:  http.StatusUnauthorized,
		codes.PermissionDenied: http.StatusForbidden,
	}
	for _, c := range callers(r) {
		for _, b := range bindings(t, r) {
			var headers []string
			for _, h := range c.header() {
				headers = append(headers, "Authorization", h)
			}
			b.path = strings.Replace(b.path, "target", c.about(), 1)
			got := r.rest(b.verb, b.path, "", "", headers...)
			exp := expectedOf(c.kind, b.rpc)
			what := b.verb + " " + b.path + " by " + c.name
			if code, refused := want[exp]; refused && got.code != code {
				t.Errorf("%s: got %d, want %d: %s", what, got.code, code, got.body)
			} else if !refused && (got.code == 401 || got.code == 403 || got.code == 405 || got.code >= 500) {
				t.Errorf("%s: got %d: %s", what, got.code, got.body)
			}
			if got.code == http.StatusUnauthorized && !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: 401 without WWW-Authenticate: Bearer", what)
			}
		}
	}
}

func TestRefusedChangesAreRecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, pat := r.mint("u1", "mine")
	got := r.rest("POST", "/v1/users/u1/tokens/"+id+":rotate", pat, "{}")
	if got.code != http.StatusForbidden {
		t.Fatalf("a PAT rotated itself: %d %s", got.code, got.body)
	}
	events := r.rest("GET", "/v1/events?action=token.rotate", r.admin, "")
	for _, want := range []string{`"REFUSED"`, `"PERMISSION_DENIED"`, `"token:` + id + `"`, `"127.0.0.1"`} {
		if !strings.Contains(events.body, want) {
			t.Errorf("the events do not hold %s: %s", want, events.body)
		}
	}
}

// zeros is a source of randomness that is none.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
