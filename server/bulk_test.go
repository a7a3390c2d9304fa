package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/store"
	"patd/tokens"
)

type bulkAnswer struct {
	Count, Revoked string
	Plan           string
	Done           bool
	RevokedCount   string `json:"revoked_count"`
}

func (r *rig) bulk(t *testing.T, secret, body string, code int) (a bulkAnswer, got answerOf) {
	t.Helper()
	got = r.rest("POST", "/v1/tokens:revoke", secret, body)
	if got.code != code {
		t.Fatalf("%s: %d %s; want %d", body, got.code, got.body, code)
	}
	if code == http.StatusOK {
		must(t, json.Unmarshal([]byte(got.body), &a))
	}
	return a, got
}

func TestBulkRevocationEndsExactlyThePlan(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ids := inventoried(r)
	ops := r.service("ops", "tokens")
	const filter = `"filter":{"label":{"team":"infra"}},"reason":"team gone"`
	plan, _ := r.bulk(t, ops, `{`+filter+`,"dry_run":true}`, http.StatusOK)
	if plan.Count != "2" || plan.Plan == "" || plan.Done {
		t.Fatalf("the dry run: %+v", plan)
	}
	done, _ := r.bulk(t, ops, `{`+filter+`,"plan":"`+plan.Plan+`"}`, http.StatusOK)
	if done.RevokedCount != "2" || !done.Done {
		t.Errorf("the revocation: %+v", done)
	}
	for name, want := range map[string]string{"a": "REVOKED", "c": "REVOKED", "b": "ACTIVE", "CI deploy": "ACTIVE"} {
		got := r.rest("GET", "/v1/tokens?q="+ids[name], ops, "")
		if !strings.Contains(got.body, `"state":"`+want+`"`) ||
			want == "REVOKED" && !strings.Contains(got.body, `"revoked_by":"service:ops"`) {
			t.Errorf("%s: %s; want %s", name, got.body, want)
		}
	}
	// Repeating it is the same revocation, not another one.
	again, _ := r.bulk(t, ops, `{`+filter+`,"plan":"`+plan.Plan+`"}`, http.StatusOK)
	if again.RevokedCount != "2" || !again.Done {
		t.Errorf("repeated: %+v", again)
	}
	events := r.rest("GET", "/v1/events?action=token.revoke_matching", r.admin, "")
	if strings.Count(events.body, `"event_id"`) != 1 ||
		!strings.Contains(events.body, `2 tokens: label.team=infra: team gone`) {
		t.Errorf("events: %s", events.body)
	}
	for _, name := range []string{"a", "c"} {
		each := r.rest("GET", "/v1/events?action=token.revoke&token_id="+ids[name], r.admin, "")
		if strings.Count(each.body, `"event_id"`) != 1 || !strings.Contains(each.body, `"actor":"service:ops"`) {
			t.Errorf("events of %s: %s", name, each.body)
		}
	}
}

func TestBulkRevocationOfAnOutdatedPlanIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ids := inventoried(r)
	const filter = `"filter":{"label":{"team":"infra"}}`
	ctx, op := t.Context(), tokens.Operator()
	for what, change := range map[string]func(){
		"one more": func() {
			_, err := r.svc.Mint(ctx, op, tokens.MintRequest{User: "u2", Name: "more", Scopes: []string{"queries.read"}, Labels: map[string]string{"team": "infra"}})
			must(t, err)
		},
		"one less": func() { _, err := r.svc.Revoke(ctx, op, "u1", ids["a"], ""); must(t, err) },
		"another instead": func() {
			none := map[string]string{}
			_, err := r.svc.UpdateToken(ctx, op, "u2", ids["c"], tokens.TokenChange{Labels: &none})
			must(t, err)
			_, err = r.svc.Mint(ctx, op, tokens.MintRequest{User: "u2", Name: "other", Scopes: []string{"queries.read"}, Labels: map[string]string{"team": "infra"}})
			must(t, err)
		},
		"an hour later": func() { r.wait(time.Hour + time.Second) },
	} {
		plan, _ := r.bulk(t, r.admin, `{`+filter+`,"dry_run":true}`, http.StatusOK)
		change()
		_, got := r.bulk(t, r.admin, `{`+filter+`,"plan":"`+plan.Plan+`"}`, http.StatusConflict)
		if reason, _ := got.reason(); reason != "PLAN_OUTDATED" {
			t.Errorf("%s: %s", what, got.body)
		}
	}
	if got := r.rest("GET", "/v1/tokens?q="+ids["c"], r.admin, ""); !strings.Contains(got.body, `"state":"ACTIVE"`) {
		t.Errorf("after refusals: %s", got.body)
	}
}

func TestBulkRevocationRefusesMalformedRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	inventoried(r)
	plan, _ := r.bulk(t, r.admin, `{"filter":{"user":"u1"},"dry_run":true}`, http.StatusOK)
	for body, want := range map[string]string{
		`{"dry_run":true}`:                                                    "FILTER_REQUIRED filter",
		`{"filter":{},"dry_run":true}`:                                        "FILTER_REQUIRED filter",
		`{"filter":{"user":"u1"}}`:                                            "PLAN_REQUIRED plan",
		`{"filter":{"user":"u1"},"plan":"x"}`:                                 "PLAN_INVALID plan",
		`{"filter":{"state":"REVOKED"},"plan":"x"}`:                           "FILTER_INVALID filter.state",
		`{"filter":{"usr":"u1"},"dry_run":true}`:                              "FIELD_UNKNOWN usr",
		`{"filter":{"scope":"a b"},"dry_run":true}`:                           "SCOPE_INVALID filter.scope[0]",
		`{"filter":{"user":"u2"},"plan":"` + plan.Plan + `"}`:                 "PLAN_INVALID plan",
		`{"filter":{"user":"u1"},"plan":"` + plan.Plan + `","dry_run":true}`:  "PLAN_REQUIRED plan",
		`{"filter":{"created_before":"0001-01-01T00:00:00Z"},"dry_run":true}`: "TIME_INVALID filter.created_before",
	} {
		_, got := r.bulk(t, r.admin, body, http.StatusBadRequest)
		if reason, field := got.reason(); reason+" "+field != want {
			t.Errorf("%s: %s; want %s", body, got.body, want)
		}
	}
}

// TestBulkRevocationIsCarriedOnByAnyServer begins a revocation that no call carries out: the server does, in the
// background.
func TestBulkRevocationIsCarriedOnByAnyServer(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t)
	r.features("u", "reports.read")
	for i := range 3 {
		r.mint("u", fmt.Sprint(i))
	}
	f := &patdv1.TokenFilter{User: "u"}
	in := patdv1.NewInventoryServiceClient(r.conn)
	plan, err := in.BulkRevokeTokens(as(r.admin), &patdv1.BulkRevokeTokensRequest{Filter: f, DryRun: true})
	must(t, err)
	// The second transaction of the call, which would revoke them, fails.
	r.faulty.FailOp("NextBulkPart", tokens.StoreUnavailable("test", nil))
	_, err = in.BulkRevokeTokens(as(r.admin), &patdv1.BulkRevokeTokensRequest{Filter: f, Plan: plan.GetPlan()})
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("with a store that fails: %v", err)
	}
	r.faulty.FailOp("NextBulkPart", nil)
	r.wait(time.Minute)
	waittest.Until(t, "the revocation is carried on", func() bool {
		resp, err := in.SearchTokens(as(r.admin), &patdv1.SearchTokensRequest{User: "u", State: patdv1.Token_ACTIVE})
		must(t, err)
		return len(resp.GetTokens()) == 0
	})
}

// failsOnce is a store in which the first batch of a bulk revocation fails.
type failsOnce struct {
	tokens.Store
	failed atomic.Bool
}

func (f *failsOnce) Update(ctx context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
	return f.Store.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) { return fn(failsOnceTx{tx, f}) })
}

type failsOnceTx struct {
	tokens.Tx
	of *failsOnce
}

func (t failsOnceTx) NextBulkPart(key tokens.PlanKey) (tokens.BulkPart, error) {
	if !t.of.failed.Swap(true) {
		return tokens.BulkPart{}, tokens.StoreUnavailable("test", nil)
	}
	return t.Tx.NextBulkPart(key)
}

// TestBulkRevocationGoesOnWhenItsCallEnds stops the clock, by which no revocation is ever abandoned: the server of the
// call goes on by itself.
func TestBulkRevocationGoesOnWhenItsCallEnds(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, nil, func(_ *store.Store, behind tokens.Store) tokens.Store { return &failsOnce{Store: behind} })
	r.mint("u", "a")
	f := &patdv1.TokenFilter{User: "u"}
	in := patdv1.NewInventoryServiceClient(r.conn)
	plan, err := in.BulkRevokeTokens(as(r.admin), &patdv1.BulkRevokeTokensRequest{Filter: f, DryRun: true})
	must(t, err)
	if _, err = in.BulkRevokeTokens(
		as(r.admin),
		&patdv1.BulkRevokeTokensRequest{Filter: f, Plan: plan.GetPlan()},
	); status.Code(
		err,
	) != codes.Unavailable {
		t.Fatalf("with a store that fails: %v", err)
	}
	waittest.Until(t, "the revocation goes on", func() bool {
		resp, err := in.SearchTokens(as(r.admin), &patdv1.SearchTokensRequest{User: "u", State: patdv1.Token_ACTIVE})
		must(t, err)
		return len(resp.GetTokens()) == 0
	})
}
