package server_test

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
)

// goodRequest is one that the method would carry out if the store were there.
func goodRequest(r *rig, name, id, secret string) proto.Message {
	r.t.Helper()
	switch name {
	case "TokenService/CreateToken":
		return &patdv1.CreateTokenRequest{User: "u1", Name: "new", Scopes: []string{"reports.read"}}
	case "TokenService/GetToken":
		return &patdv1.GetTokenRequest{User: "u1", TokenId: id}
	case "TokenService/ListTokens":
		return &patdv1.ListTokensRequest{User: "u1"}
	case "TokenService/UpdateToken":
		return &patdv1.UpdateTokenRequest{User: "u1", TokenId: id, Token: &patdv1.Token{Name: "b"}, UpdateMask: "name"}
	case "TokenService/RotateToken":
		return &patdv1.RotateTokenRequest{User: "u1", TokenId: id}
	case "TokenService/ResumeToken":
		return &patdv1.ResumeTokenRequest{User: "u1", TokenId: id}
	case "TokenService/CancelRotation":
		return &patdv1.CancelRotationRequest{User: "u1", TokenId: cmp.Or(r.rotating, id)}
	case "TokenService/NarrowToken":
		return &patdv1.NarrowTokenRequest{User: "u1", TokenId: id, Scopes: []string{"reports.read"}}
	case "TokenService/ResumeScopes":
		return &patdv1.ResumeScopesRequest{User: "u1", TokenId: id}
	case "TokenService/RevokeToken":
		return &patdv1.RevokeTokenRequest{User: "u1", TokenId: id}
	case "TokenService/RevokeTokens":
		return &patdv1.RevokeTokensRequest{User: "u1"}
	case "SelfService/GetSelf":
		return &patdv1.GetSelfRequest{}
	case "SelfService/RevokeSelf":
		return &patdv1.RevokeSelfRequest{}
	case "SelfService/RotateSelf":
		return &patdv1.RotateSelfRequest{}
	case "IntrospectionService/Introspect":
		return &patdv1.IntrospectRequest{Token: secret}
	case "IntrospectionService/BatchIntrospect":
		return &patdv1.BatchIntrospectRequest{
			Requests: []*patdv1.IntrospectRequest{{Token: "garbage"}, {Token: secret}},
		}
	case "IntrospectionService/IntrospectStream":
		return &patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{Token: secret}}
	case "IntrospectionService/WatchInvalidations":
		return &patdv1.WatchInvalidationsRequest{}
	case "IntrospectionService/AcknowledgeInvalidations":
		return &patdv1.AcknowledgeInvalidationsRequest{WatchId: "ended", Sequence: 1}
	case "IntrospectionService/ReportUses":
		return &patdv1.ReportUsesRequest{
			Uses: []*patdv1.ReportUsesRequest_Use{{TokenId: id, Time: timestamppb.New(r.now()), ClientIp: "192.0.2.1"}},
		}
	case "UserService/GetUser":
		return &patdv1.GetUserRequest{User: "u1"}
	case "UserService/ListUsers":
		return &patdv1.ListUsersRequest{}
	case "UserService/SuspendUser":
		return &patdv1.SuspendUserRequest{User: "u1"}
	case "UserService/ResumeUser":
		return &patdv1.ResumeUserRequest{User: "u1"}
	case "UserService/DeleteUser":
		return &patdv1.DeleteUserRequest{User: "u1"}
	case "UserService/GetUserFeatures":
		return &patdv1.GetUserFeaturesRequest{User: "u1"}
	case "UserService/SetUserFeatures":
		return &patdv1.SetUserFeaturesRequest{User: "u1", Features: []string{"x"}}
	case "UserService/UpdateUserFeatures":
		return &patdv1.UpdateUserFeaturesRequest{User: "u1", Add: []string{"x"}}
	case "ServiceAccountService/CreateService":
		return &patdv1.CreateServiceRequest{Name: "s", Permissions: []string{"audit"}}
	case "ServiceAccountService/ListServices":
		return &patdv1.ListServicesRequest{}
	case "ServiceAccountService/RotateService":
		return &patdv1.RotateServiceRequest{Name: "victim", Force: true}
	case "ServiceAccountService/RevokeService":
		return &patdv1.RevokeServiceRequest{Name: "victim"}
	case "AuditService/ListEvents":
		return &patdv1.ListEventsRequest{}
	case "InventoryService/SearchTokens":
		return &patdv1.SearchTokensRequest{}
	case "InventoryService/BulkRevokeTokens":
		q := &patdv1.BulkRevokeTokensRequest{Filter: &patdv1.TokenFilter{User: "bulk", Q: "none of these"}}
		plan, err := r.svc.PlanRevocation(
			context.Background(),
			tokens.Operator(),
			tokens.Filter{User: "bulk", NameHas: "none of these"},
		)
		if err == nil { // it is asked for during outages, too
			q.Plan = plan.Plan
		} else {
			q.DryRun = true
		}
		return q
	case "InventoryService/BulkNarrowTokens":
		q := &patdv1.BulkNarrowTokensRequest{Filter: &patdv1.TokenFilter{User: "bulk", Q: "none of these"}}
		plan, err := r.svc.PlanNarrowing(context.Background(), tokens.Operator(), tokens.NarrowManyRequest{
			Filter: tokens.Filter{User: "bulk", NameHas: "none of these"},
		})
		if err == nil {
			q.Plan = plan.Plan.Plan
		} else {
			q.DryRun = true
		}
		return q
	case "LeakService/ReportLeaks":
		return &patdv1.ReportLeaksRequest{Secrets: []string{"garbage", secret}}
	case "SignInService/GetSignIn":
		return &patdv1.GetSignInRequest{}
	case "SignInService/WhoAmI":
		return &patdv1.WhoAmIRequest{}
	case "PageService/CreatePageSession":
		return &patdv1.CreatePageSessionRequest{User: "u1"}
	case "UserService/RefreshUser":
		return &patdv1.RefreshUserRequest{User: "u1"}
	}
	if req := goodCatalogRequest(name); req != nil {
		return req
	}
	if req := goodWebhookRequest(r, name); req != nil {
		return req
	}
	r.t.Fatalf("no good request of %s: add one, so that an outage under it is tested", name)
	return nil
}

// catalogue makes the entries that goodCatalogRequest is about.
func (r *rig) catalogue() {
	r.t.Helper()
	_, err := r.svc.CreateFeature(context.Background(), tokens.Operator(), tokens.FeatureEntry{Name: "reports.read"})
	must(r.t, err)
	_, err = r.svc.CreateAudience(context.Background(), tokens.Operator(), tokens.AudienceEntry{ID: "api"})
	must(r.t, err)
	_, err = r.svc.CreateWebhook(
		context.Background(),
		tokens.Operator(),
		tokens.WebhookRequest{ID: "chat", URL: "https://hooks.example.com/", Enabled: true},
	)
	must(r.t, err)
	d, err := r.svc.TestWebhook(context.Background(), tokens.Operator(), "chat")
	must(r.t, err)
	r.delivery = d.ID.String()
}

func goodCatalogRequest(name string) proto.Message {
	switch name {
	case "CatalogService/CreateFeature":
		return &patdv1.CreateFeatureRequest{Feature: &patdv1.Feature{Name: "new"}}
	case "CatalogService/GetFeature":
		return &patdv1.GetFeatureRequest{Name: "reports.read"}
	case "CatalogService/ReplaceFeature":
		return &patdv1.ReplaceFeatureRequest{Name: "reports.read", Feature: &patdv1.Feature{DisplayName: "Reports"}}
	case "CatalogService/DeleteFeature":
		return &patdv1.DeleteFeatureRequest{Name: "reports.read"}
	case "CatalogService/ListFeatures":
		return &patdv1.ListFeaturesRequest{}
	case "CatalogService/CreateAudience":
		return &patdv1.CreateAudienceRequest{Audience: &patdv1.Audience{Id: "new"}}
	case "CatalogService/GetAudience":
		return &patdv1.GetAudienceRequest{Id: "api"}
	case "CatalogService/ReplaceAudience":
		return &patdv1.ReplaceAudienceRequest{Id: "api", Audience: &patdv1.Audience{DisplayName: "API"}}
	case "CatalogService/DeleteAudience":
		return &patdv1.DeleteAudienceRequest{Id: "api"}
	case "CatalogService/ListAudiences":
		return &patdv1.ListAudiencesRequest{}
	case "InventoryService/GetIdlePreview":
		return &patdv1.GetIdlePreviewRequest{IdleTtl: durationpb.New(time.Hour)}
	case "CatalogService/GetFeatureImpact":
		return &patdv1.GetFeatureImpactRequest{Lose: []string{"a"}, All: true}
	case "CatalogService/CheckAudience":
		return &patdv1.CheckAudienceRequest{Id: "api"}
	case "CatalogService/BlockTokens":
		return &patdv1.BlockTokensRequest{Id: "api"}
	case "CatalogService/UnblockTokens":
		return &patdv1.UnblockTokensRequest{Id: "api"}
	}
	return nil
}

// outage is a way in which a store is gone.
type outage struct {
	name string
	// spared is the method whose first call still works, so that the caller is authenticated.
	spared string
}

func (o outage) hook() func(op string) error {
	spared := false
	return func(op string) error {
		if op == o.spared && !spared {
			spared = true
			return nil
		}
		return tokens.StoreUnavailable(op, errors.New("injected outage"))
	}
}

// TestOutageIsNeverAnAnswer drives every method, by gRPC and by REST, with the store gone before and after the
// caller was authenticated.
func TestOutageIsNeverAnAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	r.service("victim", "audit")
	r.catalogue()
	r.rotating, _ = r.mint("u1", "rotating")
	_, err := r.svc.Rotate(
		context.Background(),
		tokens.Operator(),
		tokens.RotateRequest{User: "u1", TokenID: r.rotating},
	)
	must(t, err)
	rest := map[string][]binding{}
	for _, b := range bindings(t, r) {
		b.path = strings.NewReplacer("target", "u1", "15ODq7pq8Hy", id, "no-such-service", "victim").Replace(b.path)
		rest[b.rpc] = append(rest[b.rpc], b)
	}
	for name, m := range served(t, r) {
		if name == "SignInService/GetSignIn" {
			continue // it rests on no store
		}
		credential, spared := r.admin, "LookupService"
		if strings.HasPrefix(name, "SelfService/") {
			credential, spared = secret, "Lookup"
		}
		for _, o := range []outage{{"the whole store is gone", ""}, {"the store goes after authentication", spared}} {
			if (m.IsStreamingServer() || name == "SignInService/WhoAmI" || name == "IntrospectionService/AcknowledgeInvalidations") &&
				o.spared != "" {
				continue // the credential is all there is to look at; a stream goes on: TestStreamTellsWhatFailedPerRequestAndGoesOn and the feed's own tests have that
			}
			req, resp := goodRequest(r, name, id, secret), answerFor(t, m)
			r.store.set(o.hook())
			err := r.invoke(as(credential), m, req, resp)
			if status.Code(err) != codes.Unavailable {
				t.Errorf("%s while %s: got %v, want UNAVAILABLE", name, o.name, err)
			}
			if reason, _ := grpcReason(err); reason != "STORE_UNAVAILABLE" {
				t.Errorf("%s while %s: reason %q", name, o.name, reason)
			}
			if err != nil && strings.Contains(err.Error(), "injected") {
				t.Errorf("%s while %s: the cause was told: %v", name, o.name, err)
			}
			for _, b := range rest[name] {
				r.store.set(o.hook())
				got := r.rest(b.verb, b.path, credential, b.json(t, req))
				if reason, _ := got.reason(); got.code != http.StatusServiceUnavailable ||
					reason != "STORE_UNAVAILABLE" {
					t.Errorf("%s %s while %s: got %d %s", b.verb, b.path, o.name, got.code, got.body)
				}
			}
			r.store.set(nil)
		}
	}
	for _, fault := range []error{storetest.Outage(), storetest.Full()} {
		checkCommitFails(t, r, fault, id, secret)
	}
	if d := r.introspect(secret); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("after the outages the token is %s: some call had an effect", d)
	}
	if !strings.Contains(r.logs.String(), "injected outage") {
		t.Error("the cause of an outage is not in the log")
	}
}

// checkCommitFails drives every method with a store that takes changes and fails to keep them. Those that only read go
// on.
func checkCommitFails(t *testing.T, r *rig, fault error, id, secret string) {
	t.Helper()
	var want *tokens.Error
	if !errors.As(fault, &want) {
		t.Fatal(fault)
	}
	r.faulty.FailOp(storetest.OpCommit, fault)
	defer r.faulty.Fail(nil)
	for name, m := range served(t, r) {
		credential := r.admin
		if strings.HasPrefix(name, "SelfService/") {
			credential = secret
		}
		before := r.faulty.Calls()[storetest.OpCommit]
		err := r.invoke(as(credential), m, goodRequest(r, name, id, secret), answerFor(t, m))
		wrote := r.faulty.Calls()[storetest.OpCommit] > before
		if reason, _ := grpcReason(err); wrote && (status.Code(err) != codes.Unavailable || reason != want.Reason) {
			t.Errorf("%s with a failing commit: got %v, want %s", name, err, want.Reason)
		}
		if changes := !strings.Contains(name, "/Get") && !strings.Contains(name, "/List") &&
			!strings.Contains(name, "/Check") &&
			!strings.Contains(name, "/Search") &&
			!strings.Contains(name, "/WhoAmI") &&
			!strings.HasPrefix(name, "IntrospectionService/"); changes &&
			!wrote &&
			name != "UserService/ResumeUser" {
			t.Errorf("%s changed nothing, so that its commit could not fail", name)
		} else if !changes &&
			err != nil &&
			name != "SignInService/GetSignIn" { // which is not configured here
			t.Errorf("%s with a failing commit: %v", name, err)
		}
	}
}

// json is a request as the body of a REST form.
func (b binding) json(t *testing.T, req proto.Message) string {
	t.Helper()
	if f := req.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(b.body)); f != nil {
		req = req.ProtoReflect().Get(f).Message().Interface()
	}
	return restBody(t, b.verb, req)
}

// restBody is a request as JSON, for the verbs that take a body. What the path holds may stand in it too.
func restBody(t *testing.T, verb string, req proto.Message) string {
	t.Helper()
	if verb == http.MethodGet || verb == http.MethodDelete {
		return ""
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(req)
	must(t, err)
	return string(text)
}

func TestDeadlineIsNotAnOutageAndNotAnAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.RequestTimeout = 50 * time.Millisecond })
	_, secret := r.mint("u1", "a")
	slow := make(chan struct{})
	r.store.set(func(op string) error {
		if op == "Lookup" {
			<-slow
			return context.DeadlineExceeded
		}
		return nil
	})
	release := time.AfterFunc(100*time.Millisecond, func() { close(slow) })
	defer release.Stop()
	got := r.rest("POST", "/v1/introspect", r.admin, `{"token":"`+secret+`"}`)
	if reason, _ := got.reason(); got.code != http.StatusGatewayTimeout || reason != "DEADLINE_EXCEEDED" {
		t.Errorf("got %d %s, want 504 DEADLINE_EXCEEDED", got.code, got.body)
	}
	got = r.rest("POST", "/v1/introspect", r.admin, `{"token":"`+secret+`"}`, "Grpc-Timeout", "1n")
	if got.code != http.StatusGatewayTimeout {
		t.Errorf("with a caller's deadline: got %d %s", got.code, got.body)
	}
}

func TestPanicIsAnInternalErrorAndTheServerGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	r.store.set(func(op string) error {
		if op == "Lookup" {
			panic("holding " + secret)
		}
		return nil
	})
	_, err := patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret})
	if status.Code(err) != codes.Internal || status.Convert(err).Message() != "internal error" {
		t.Errorf("over gRPC: %v", err)
	}
	got := r.rest("POST", "/v1/introspect", r.admin, `{"token":"`+secret+`"}`, "X-Request-Id", "find-me")
	if got.code != http.StatusInternalServerError || !strings.Contains(got.body, `"find-me"`) {
		t.Errorf("over REST: %d %s", got.code, got.body)
	}
	if n := len(r.logs.find(map[string]any{"msg": "panic", "request_id": "find-me"})); n != 1 {
		t.Errorf("the panic was logged %d times", n)
	}
	if n := len(r.logs.find(map[string]any{"msg": "call", "request_id": "find-me", "code": "INTERNAL"})); n != 1 {
		t.Errorf("the call was logged %d times", n)
	}
	if strings.Contains(r.logs.String(), secret) {
		t.Error("the panic's value is in the log")
	}
	r.store.set(nil)
	if d := r.introspect(secret); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("after the panic: %s", d)
	}
}

func TestProbesTellAnOutage(t *testing.T) {
	t.Parallel()
	var fail error
	r := newRig(t, func(c *server.Config) { c.Ready = func(context.Context) error { return fail } })
	if got := r.rest("GET", "/readyz", "", ""); got.code != http.StatusOK {
		t.Errorf("ready: %d %s", got.code, got.body)
	}
	fail = errors.New("no store: the cause")
	got := r.rest("GET", "/readyz", "", "")
	if got.code != http.StatusServiceUnavailable || strings.Contains(got.body, "cause") {
		t.Errorf("not ready: %d %s", got.code, got.body)
	}
	if got := r.rest("GET", "/healthz", "", ""); got.code != http.StatusOK {
		t.Errorf("alive: %d %s", got.code, got.body)
	}
}
