package server_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/server"
	"patd/tokens"
)

// oneOfEach allows each caller one mint, one change, one revocation and one report, and the next in a day.
func oneOfEach(c *server.Config) {
	const daily = 1.0 / 86400
	c.MintRate, c.MintBurst, c.ServiceMintRate, c.ServiceMintBurst = daily, 1, daily, 1
	c.ChangeRate, c.ChangeBurst, c.ServiceChangeRate, c.ServiceChangeBurst = daily, 1, daily, 1
	c.LeakRate, c.LeakBurst = daily, 1
}

// readers are all methods that change nothing. Any other spends.
var readers = []string{
	"TokenService/GetToken",
	"TokenService/ListTokens",
	"SelfService/GetSelf",
	"IntrospectionService/Introspect",
	"IntrospectionService/BatchIntrospect",
	"IntrospectionService/IntrospectStream",
	"IntrospectionService/WatchInvalidations",
	"IntrospectionService/AcknowledgeInvalidations",
	"UserService/GetUser",
	"UserService/ListUsers",
	"UserService/GetUserFeatures",
	"CatalogService/GetFeature",
	"CatalogService/ListFeatures",
	"CatalogService/GetAudience",
	"CatalogService/ListAudiences",
	"CatalogService/CheckAudience",
	"CatalogService/GetFeatureImpact",
	"ServiceAccountService/ListServices",
	"AuditService/ListEvents",
	"InventoryService/SearchTokens",
	"InventoryService/GetIdlePreview",
	"SignInService/GetSignIn",
	"SignInService/WhoAmI",
	"WebhookService/GetWebhook",
	"WebhookService/ListWebhooks",
	"WebhookService/ListWebhookDeliveries",
	"WebhookService/GetWebhookDelivery",
}

// TestEveryMutationSpendsFromItsCallersBudget calls every method of the table of rights as everybody who may, each with
// a budget of one: the second call of what changes something is refused, and says when to come back. What only reads is
// not.
func TestEveryMutationSpendsFromItsCallersBudget(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t, oneOfEach)
	n := 0
	credential := func(kind string) string {
		n++
		switch kind {
		case "pat":
			_, secret := r.mint(fmt.Sprint("bearer", n), "t")
			return secret
		case "own", "stranger", "none":
			return r.idp.jwt(t, fmt.Sprint("owner", n))
		case "anyone":
			return ""
		default:
			return r.service(fmt.Sprint("s", n), kind)
		}
	}
	for name, m := range served(t, r) {
		for kind := range strings.FieldsSeq(mayCall[name]) {
			ctx := as(credential(kind))
			if name == "SelfService/RevokeSelf" { // so that the bearer can call again
				ctx = metadata.AppendToOutgoingContext(ctx, "if-match", `"none"`)
			}
			var err error
			var trailer metadata.MD
			for call := range 2 {
				err = r.invoke(ctx, m, request(t, m, "me"), answerFor(t, m), grpc.Trailer(&trailer))
				if reason, _ := grpcReason(err); call == 0 && reason == "RATE_LIMITED" {
					t.Errorf("%s by %s: the first call is refused", name, kind)
				}
			}
			if slices.Contains(readers, name) {
				if reason, _ := grpcReason(err); reason == "RATE_LIMITED" {
					t.Errorf("%s by %s reads, and is refused: %v", name, kind, err)
				}
				continue
			}
			wantLimitedByTheDay(t, name+" by "+kind, err, trailer)
		}
	}
}

func wantLimitedByTheDay(t *testing.T, what string, err error, trailer metadata.MD) {
	t.Helper()
	wantLimitedGRPC(t, what, err, trailer, 24*time.Hour, "86400")
}

// TestBudgetsAreInTheMetricsFromTheStart, by what they are of.
func TestBudgetsAreInTheMetricsFromTheStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, kind := range []string{"mint", "change", "revocation", "exchange", "authentication", "catalog", "leaks"} {
		wantMetric(t, r, `patd_rate_limited_total{limit="`+kind+`"} 0`)
	}
	wantMetric(t, r, "patd_refusals_unrecorded_total 0")
}

// TestNoFloodOfChangesKeepsACallerFromRevoking has a signed-in user and a service use up their changes, mints and calls
// to the catalogue: they can still revoke, suspend, delete and block.
func TestNoFloodOfChangesKeepsACallerFromRevoking(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		oneOfEach(c)
		c.ChangeBurst, c.ServiceChangeBurst = 5, 5
	})
	id, _ := r.mint("u1", "a")
	other, _ := r.mint("u1", "b")
	r.audience(tokens.AudienceEntry{ID: "api"})
	user := r.idp.jwt(t, "u1")
	for _, who := range []string{user, r.admin} {
		limited := 0
		for i := range 20 {
			got := r.rest(
				"PATCH",
				"/v1/users/u1/tokens/"+id,
				who,
				fmt.Sprintf(`{"token":{"description":"%d"},"update_mask":"description"}`, i),
			)
			if got.code == http.StatusTooManyRequests {
				wantLimited(t, "a change", got, "86400")
				limited++
			} else if got.code != http.StatusOK {
				t.Fatalf("%d %s", got.code, got.body)
			}
			r.rest("POST", "/v1/users/u1/tokens", who, `{}`)
		}
		if limited != 15 {
			t.Errorf("%d of 20 changes are refused, want 15", limited)
		}
	}
	for range 1001 {
		r.rest("GET", "/v1/features/x", r.admin, "")
	}
	for _, c := range [][3]string{
		{"DELETE", "/v1/users/u1/tokens/" + id, user}, {"POST", "/v1/users/me/tokens:revoke", user}, {"DELETE", "/v1/users/u1/tokens/" + other, r.admin},
		{"POST", "/v1/users/u1:suspend", r.admin}, {"POST", "/v1/audiences/api:block", r.admin}, {"DELETE", "/v1/users/u1", r.admin},
	} {
		if got := r.rest(c[0], c[1], c[2], ""); got.code != http.StatusOK {
			t.Errorf("%s %s: %d %s", c[0], c[1], got.code, got.body)
		}
	}
	wantMetric(t, r, `patd_rate_limited_total{limit="change"} 30`)
	wantMetric(t, r, `patd_rate_limited_total{limit="revocation"} 0`)
}

// TestRefreshesSpendTheirTokensExchanges, so that the holder of one token adds no more to the audit log by one than by
// the other. A refresh that is refused for that does not use its token up.
func TestRefreshesSpendTheirTokensExchanges(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.ExchangeRate, c.ExchangeBurst, c.RefusalRate, c.RefusalBurst = 1, 4, 0.001, 5
	})
	r.audience(tokens.AudienceEntry{ID: "api", AllowOffline: true})
	token, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a", Audiences: []string{"api"}}, "x")
	last := r.exchange(secret, "scope", "x offline_access").text("refresh_token")
	for i := range 3 {
		for range 4 { // each refresh token tries for more than it may have, and is refused once the limit says so
			if got := r.refresh(last, "scope", "x y"); got.code == http.StatusOK {
				t.Fatalf("%d %s", got.code, got.body)
			}
			r.wait(time.Second)
		}
		got := r.refresh(last)
		if got.code != http.StatusOK {
			t.Fatalf("refresh %d: %d %s", i, got.code, got.body)
		}
		last = got.text("refresh_token")
		r.wait(time.Second)
	}
	for range 4 {
		r.exchange(secret)
	}
	for _, got := range []oauthAnswer{r.exchange(secret), r.refresh(last)} {
		if got.want(
			t,
			"past the limit",
			http.StatusTooManyRequests,
			"temporarily_unavailable",
		); got.header.Get(
			"Retry-After",
		) != "1" {
			t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
		}
	}
	r.wait(time.Second)
	if got := r.refresh(last); got.code != http.StatusOK {
		t.Errorf("when there is room again: %d %s", got.code, got.body)
	}
	refused := r.rest("GET", "/v1/events?action=token.refresh&page_size=200", r.admin, "").body
	if n := strings.Count(refused, `"REFUSED"`); n != 5 {
		t.Errorf("%d refused refreshes of token %s are recorded, want 5, whatever refresh tokens it had", n, token.ID)
	}
	wantMetric(t, r, "patd_refusals_unrecorded_total 7")
}

// TestRevokingByPossessionIsBoundedPerCaller goes by the address of who shows no credential, and by the service that
// does.
func TestRevokingByPossessionIsBoundedPerCaller(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.ServiceChangeRate, c.ServiceChangeBurst = 1, 3 })
	revoke := func(headers ...string) oauthAnswer {
		_, secret := r.mint("u1", "a")
		return r.oauth("/oauth2/revoke", formOf("token", secret), headers...)
	}
	for i := range 3 {
		if got := revoke(); got.code != http.StatusOK {
			t.Fatalf("%d: %d %s", i, got.code, got.body)
		}
		r.rest("PATCH", "/v1/users/u1/features", r.admin, `{"add":["y"]}`)
	}
	got := revoke()
	if got.want(
		t,
		"past the limit",
		http.StatusTooManyRequests,
		"temporarily_unavailable",
	); got.header.Get(
		"Retry-After",
	) != "1" {
		t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
	}
	_, err := r.svc.RevokeAll(context.Background(), tokens.Operator(), "u1", "")
	must(t, err)
	if got := revoke(basic("admin", r.admin)...); got.code != http.StatusOK {
		t.Errorf("a service pays for its address, or its revocations with its changes: %d %s", got.code, got.body)
	}
	wantMetric(t, r, `patd_rate_limited_total{limit="revocation"} 1`)
}

// TestOthersAtAnAddressKeepNobodyFromRevokingByPossession has strangers present far more than the limit allows of what
// is no live secret, from the address of the bearer of one.
func TestOthersAtAnAddressKeepNobodyFromRevokingByPossession(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.ServiceChangeRate, c.ServiceChangeBurst, c.FailureRate, c.FailureBurst = 1, 1, 1, 4
	})
	id, live := r.mint("u1", "live")
	ended, gone := r.mint("u1", "gone")
	must(t, r.revoke("u1", ended))
	for i := range 8 {
		for _, junk := range []string{guess(t, "pat", i), guess(t, "pata", i), guess(t, "patr", i), "garbage"} {
			got := r.oauth("/oauth2/revoke", formOf("token", junk))
			if want := http.StatusOK; got.code != want && got.code != http.StatusTooManyRequests {
				t.Fatalf("%d: %d %s", i, got.code, got.body)
			}
		}
		if got := r.oauth("/oauth2/revoke", formOf("token", gone)); got.code != http.StatusOK {
			t.Fatalf("an ended one: %d %s", got.code, got.body)
		}
	}
	if got := r.oauth("/oauth2/revoke", formOf("token", live)); got.code != http.StatusOK {
		t.Errorf("the live one: %d %s", got.code, got.body)
	}
	if got := r.rest("GET", "/v1/users/u1/tokens/"+id, r.admin, ""); !strings.Contains(got.body, `"state":"REVOKED"`) {
		t.Errorf("it is not revoked: %s", got.body)
	}
}

// TestReportedUsesSpendFromTheService, since they are written.
func TestReportedUsesSpendFromTheService(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.ServiceChangeRate, c.ServiceChangeBurst = 1, 2 })
	uses := patdv1.NewIntrospectionServiceClient(r.conn)
	var err error
	for range 3 {
		_, err = uses.ReportUses(as(r.admin), &patdv1.ReportUsesRequest{})
	}
	if reason, _ := grpcReason(err); reason != "RATE_LIMITED" {
		t.Errorf("the third report: %v", err)
	}
}

// TestSigningInSpendsFromTheUser, and so do forms that are kept for a user whose session has ended.
func TestSigningInSpendsFromTheUser(t *testing.T) {
	t.Parallel()
	r, p := webRigWith(t, func(c *server.Config) { c.ChangeRate, c.ChangeBurst = 1.0/86400, 2 })
	for range 2 {
		newBrowser(r).signIn(p, "alice", "/").wants(http.StatusOK, "alice")
	}
	newBrowser(r).signIn(p, "alice", "/").wants(http.StatusTooManyRequests)
	b := newBrowser(r)
	b.signIn(p, "bob", "/").wants(http.StatusOK, "bob")
	form := b.get("/new").form("")
	r.wait(tokens.PageSessionIdle + 2*time.Minute)
	kept := b.cookies["__Host-patd-session"]
	for range 2 {
		b.cookies["__Host-patd-session"] = kept
		b.once(http.MethodPost, "/new", form).wants(http.StatusSeeOther)
	}
	b.cookies["__Host-patd-session"] = kept
	b.once(http.MethodPost, "/new", form).wants(http.StatusTooManyRequests)
	wantMetric(t, r, `patd_rate_limited_total{limit="change"} 2`)
}

// TestATokenThatRotatesItselfSpendsAsAUser, and not as a service, which may mint a thousand times a second.
func TestATokenThatRotatesItselfSpendsAsAUser(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.MintRate, c.MintBurst = 1.0/86400, 1 })
	_, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a", SelfRotate: true}, "a")
	if got := r.rest("POST", "/v1/self:rotate", secret, `{}`); got.code != http.StatusOK {
		t.Errorf("%d %s", got.code, got.body)
	}
	wantLimited(t, "a second rotation", r.rest("POST", "/v1/self:rotate", secret, `{}`), "86400")
}
