package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}

func labels(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[fmt.Sprint("k", i)] = "v"
	}
	return out
}

// bound is a limit of a mint: what changes the request to stand at it (0) or one past it (1), and how that is refused.
type bound struct {
	name          string
	change        func(q *patdv1.CreateTokenRequest, past int)
	reason, field string
}

var bounds = []bound{
	{
		"name",
		func(q *patdv1.CreateTokenRequest, past int) { q.Name = uniqueName(q, 100+past) },
		"NAME_TOO_LONG",
		"name",
	},
	{
		"no name",
		func(q *patdv1.CreateTokenRequest, past int) { q.Name = strings.Repeat("x", 1-past) },
		"NAME_REQUIRED",
		"name",
	},
	{
		"description",
		func(q *patdv1.CreateTokenRequest, past int) { q.Description = strings.Repeat("ü", 1000+past) },
		"TEXT_TOO_LONG",
		"description",
	},
	{
		"scopes",
		func(q *patdv1.CreateTokenRequest, past int) { q.Scopes = numbered("s", 256+past) },
		"TOO_MANY_SCOPES",
		"scopes",
	},
	{
		"no scopes",
		func(q *patdv1.CreateTokenRequest, past int) { q.Scopes = q.Scopes[past:] },
		"SCOPES_REQUIRED",
		"scopes",
	},
	{
		"a scope",
		func(q *patdv1.CreateTokenRequest, past int) { q.Scopes = []string{strings.Repeat("s", 128+past)} },
		"SCOPE_INVALID",
		"scopes[0]",
	},
	{
		"audiences",
		func(q *patdv1.CreateTokenRequest, past int) { q.Audiences = numbered("a", 32+past) },
		"TOO_MANY_AUDIENCES",
		"audiences",
	},
	{
		"labels",
		func(q *patdv1.CreateTokenRequest, past int) { q.Labels = labels(32 + past) },
		"TOO_MANY_LABELS",
		"labels",
	},
	{"a label's key", func(q *patdv1.CreateTokenRequest, past int) {
		q.Labels = map[string]string{strings.Repeat("k", 63+past): "v"}
	}, "LABEL_INVALID", "labels"},
	{"a label's value", func(q *patdv1.CreateTokenRequest, past int) {
		q.Labels = map[string]string{"k": strings.Repeat("v", 255+past)}
	}, "LABEL_INVALID", "labels"},
	{"networks", func(q *patdv1.CreateTokenRequest, past int) {
		for i := range 32 + past {
			q.AllowedCidrs = append(q.AllowedCidrs, fmt.Sprintf("192.0.2.%d", i))
		}
	}, "TOO_MANY_CIDRS", "allowed_cidrs"},
	{"a network", func(q *patdv1.CreateTokenRequest, past int) {
		q.AllowedCidrs = []string{fmt.Sprint("192.0.2.0/", 32+past)}
	}, "CIDR_INVALID", "allowed_cidrs[0]"},
	{
		"a short idempotency key",
		func(q *patdv1.CreateTokenRequest, past int) { q.RequestId = uniqueKey(q, 16-past) },
		"IDEMPOTENCY_KEY_INVALID",
		"request_id",
	},
	{
		"a long idempotency key",
		func(q *patdv1.CreateTokenRequest, past int) { q.RequestId = uniqueKey(q, 255+past) },
		"IDEMPOTENCY_KEY_INVALID",
		"request_id",
	},
	{"ttl", func(q *patdv1.CreateTokenRequest, past int) {
		q.Ttl = durationpb.New(tokens.MaxTTL + time.Duration(past)*time.Microsecond)
	}, "TTL_ABOVE_MAXIMUM", "ttl"},
	{"an endless ttl", func(q *patdv1.CreateTokenRequest, past int) {
		q.Ttl = &durationpb.Duration{Seconds: 1 + int64(past)*315576000000 - int64(past)}
	}, "TTL_ABOVE_MAXIMUM", "ttl"},
	{"no ttl", func(q *patdv1.CreateTokenRequest, past int) {
		q.Ttl = durationpb.New(time.Duration(1-past) * time.Microsecond)
	}, "EXPIRE_TIME_PAST", "ttl"},
	{"never", func(q *patdv1.CreateTokenRequest, past int) {
		q.NeverExpires, q.Audiences = past == 1, []string{"mortal"}
	}, "NEVER_NOT_ALLOWED", "never_expires"},
	{"user", func(q *patdv1.CreateTokenRequest, past int) { q.User = uniqueUser(q, 255+past) }, "USER_INVALID", "user"},
}

func uniqueName(q *patdv1.CreateTokenRequest, n int) string {
	return q.GetName() + strings.Repeat("ü", n-len(q.GetName()))
}

func uniqueKey(q *patdv1.CreateTokenRequest, n int) string {
	return (q.GetUser() + strings.Repeat("k", n))[:n]
}

func uniqueUser(q *patdv1.CreateTokenRequest, n int) string {
	return (q.GetUser() + strings.Repeat("u", n))[:n]
}

func TestLimitsOfAMintAtAndPastEachBound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "mortal"})
	held := append(numbered("s", 257), strings.Repeat("s", 128))
	for i, b := range bounds {
		for past := range 2 {
			for _, way := range []string{"g", "r"} {
				q := &patdv1.CreateTokenRequest{
					User:   fmt.Sprintf("%s%02d-%d", way, i, past),
					Name:   fmt.Sprint(way, i, past),
					Scopes: []string{"s1"},
				}
				b.change(q, past)
				if len(q.GetUser()) <= 255 {
					r.features(q.GetUser(), held...)
				}
				reason, field, ok := mintBy(r, way, q)
				switch {
				case past == 0 && !ok:
					t.Errorf("%s by %s: at the bound it was refused: %s %s", b.name, way, reason, field)
				case past == 1 && (ok || reason != b.reason || field != b.field):
					t.Errorf(
						"%s by %s: past the bound: ok %v, %s of %s; want %s of %s",
						b.name,
						way,
						ok,
						reason,
						field,
						b.reason,
						b.field,
					)
				}
			}
		}
	}
}

// mintBy mints over gRPC (g) or REST (r).
func mintBy(r *rig, way string, q *patdv1.CreateTokenRequest) (reason, field string, ok bool) {
	r.t.Helper()
	if way == "g" {
		_, err := patdv1.NewTokenServiceClient(r.conn).CreateToken(as(r.admin), q)
		reason, field = grpcReason(err)
		return reason, field, err == nil
	}
	body := proto.CloneOf(q)
	body.User = ""
	text := restBody(r.t.(*testing.T), http.MethodPost, body)
	got := r.rest("POST", "/v1/users/"+url.PathEscape(q.GetUser())+"/tokens", r.admin, text)
	reason, field = got.reason()
	return reason, field, got.code == http.StatusOK
}

func TestLimitOfActiveTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "s1")
	var last string
	for i := range 100 {
		resp, err := patdv1.NewTokenServiceClient(r.conn).
			CreateToken(as(r.admin), &patdv1.CreateTokenRequest{User: "u1", Name: fmt.Sprint(i), Scopes: []string{"s1"}})
		must(t, err)
		last = resp.GetToken().GetTokenId()
	}
	q := &patdv1.CreateTokenRequest{User: "u1", Name: "one more", Scopes: []string{"s1"}}
	for _, way := range []string{"g", "r"} {
		if reason, _, ok := mintBy(r, way, q); ok || reason != "TOKEN_LIMIT_REACHED" {
			t.Errorf("the 101st token by %s: %v %s", way, ok, reason)
		}
	}
	if got := r.rest(
		"POST",
		"/v1/users/u1/tokens",
		r.admin,
		`{"name":"x","scopes":["s1"]}`,
	); got.code != http.StatusTooManyRequests {
		t.Errorf("the 101st token: %d", got.code)
	}
	for _, c := range []struct {
		size, want int
	}{{0, 50}, {1, 1}, {200, 100}, {201, 100}, {1 << 30, 100}} {
		resp, err := patdv1.NewTokenServiceClient(r.conn).
			ListTokens(as(r.admin), &patdv1.ListTokensRequest{User: "u1", PageSize: int32(c.size)})
		must(t, err)
		if len(resp.GetTokens()) != c.want {
			t.Errorf("page_size %d: %d tokens", c.size, len(resp.GetTokens()))
		}
	}
	must(t, r.revoke("u1", last))
	if reason, _, ok := mintBy(r, "g", q); !ok {
		t.Errorf("after one was revoked: %s", reason)
	}
}

func (r *rig) revoke(user, id string) error {
	_, err := r.svc.Revoke(context.Background(), tokens.Operator(), user, id, "")
	return err
}

// TestLimitsOfOtherCalls goes through the bounds that are not those of a mint.
func TestLimitsOfOtherCalls(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	many := func(n int) *patdv1.BatchIntrospectRequest {
		q := &patdv1.BatchIntrospectRequest{}
		for range n {
			q.Requests = append(q.Requests, &patdv1.IntrospectRequest{Token: secret})
		}
		return q
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		method, path  string
		good, bad     proto.Message
		reason, field string
	}{
		{"TokenService/RotateToken", "/v1/users/u1/tokens/" + id + ":rotate",
			&patdv1.RotateTokenRequest{User: "u1", TokenId: id, Grace: durationpb.New(30 * day), Force: true},
			&patdv1.RotateTokenRequest{User: "u1", TokenId: id, Grace: durationpb.New(30*day + time.Microsecond)}, "GRACE_OUT_OF_RANGE", "grace"},
		{"TokenService/RotateToken", "/v1/users/u1/tokens/" + id + ":rotate",
			&patdv1.RotateTokenRequest{User: "u1", TokenId: id, Grace: durationpb.New(0), Force: true},
			&patdv1.RotateTokenRequest{User: "u1", TokenId: id, Grace: durationpb.New(-1)}, "GRACE_OUT_OF_RANGE", "grace"},
		{"IntrospectionService/BatchIntrospect", "/v1/introspect:batch", many(1000), many(1001), "BATCH_TOO_LARGE", "requests"},
		{"TokenService/UpdateToken", "",
			&patdv1.UpdateTokenRequest{User: "u1", TokenId: id, Token: &patdv1.Token{Name: "b"}, UpdateMask: "name, description"},
			&patdv1.UpdateTokenRequest{User: "u1", TokenId: id, Token: &patdv1.Token{Name: "b"}}, "UPDATE_MASK_REQUIRED", "update_mask"},
		{"TokenService/UpdateToken", "",
			&patdv1.UpdateTokenRequest{User: "u1", TokenId: id, UpdateMask: "labels,allowed_cidrs,description"},
			&patdv1.UpdateTokenRequest{User: "u1", TokenId: id, UpdateMask: "labels,user"}, "UPDATE_MASK_INVALID", "update_mask"},
		{"TokenService/UpdateToken", "",
			&patdv1.UpdateTokenRequest{User: "u1", TokenId: id, Token: &patdv1.Token{ExpireTime: timestamppb.New(r.now().Add(30 * day))}, UpdateMask: "expire_time"},
			&patdv1.UpdateTokenRequest{User: "u1", TokenId: id, Token: &patdv1.Token{ExpireTime: &timestamppb.Timestamp{Nanos: -1}}, UpdateMask: "expire_time"}, "TIME_INVALID", "token.expire_time"},
		{"TokenService/UpdateToken", "",
			&patdv1.UpdateTokenRequest{User: "u1", TokenId: id, Token: &patdv1.Token{Scopes: []string{"reports.read"}}, UpdateMask: "scopes"},
			&patdv1.UpdateTokenRequest{User: "u1", TokenId: id, UpdateMask: "expire_time"}, "EXPIRE_TIME_LATER", "expire_time"},
		{"UserService/SuspendUser", "/v1/users/u2:suspend",
			&patdv1.SuspendUserRequest{User: "u2", Reason: strings.Repeat("ü", 500)},
			&patdv1.SuspendUserRequest{User: "u2", Reason: strings.Repeat("ü", 501)}, "TEXT_TOO_LONG", "reason"},
		{"ServiceAccountService/CreateService", "/v1/services",
			&patdv1.CreateServiceRequest{Name: strings.Repeat("s", 64), Permissions: []string{"audit"}, Ttl: durationpb.New(tokens.ServiceMaxTTL)},
			&patdv1.CreateServiceRequest{Name: strings.Repeat("s", 65), Permissions: []string{"audit"}}, "SERVICE_NAME_INVALID", "name"},
		{"TokenService/ListTokens", "",
			&patdv1.ListTokensRequest{User: "u1", PageSize: 0}, &patdv1.ListTokensRequest{User: "u1", PageSize: -1}, "PAGE_SIZE_INVALID", "page_size"},
		{"TokenService/ListTokens", "",
			&patdv1.ListTokensRequest{User: "u1", State: 3}, &patdv1.ListTokensRequest{User: "u1", State: 4}, "STATE_UNKNOWN", "state"},
		{"TokenService/RevokeToken", "/v1/users/u1/tokens/" + id + ":revoke",
			&patdv1.RevokeTokenRequest{User: "u1", TokenId: id, Reason: strings.Repeat("r", 500)},
			&patdv1.RevokeTokenRequest{User: "u1", TokenId: id, Reason: strings.Repeat("r", 501)}, "TEXT_TOO_LONG", "reason"},
	} {
		m := served(t, r)[c.method]
		err := r.conn.Invoke(as(r.admin), "/patd.v1."+c.method, c.bad, answerFor(t, m))
		if reason, field := grpcReason(err); reason != c.reason || field != c.field {
			t.Errorf("%s past the bound: %q of %q (%v), want %s of %s", c.method, reason, field, err, c.reason, c.field)
		}
		if c.path != "" {
			got := r.rest("POST", c.path, r.admin, restBody(t, "POST", c.bad))
			if reason, field := got.reason(); got.code != 400 || reason != c.reason || field != c.field {
				t.Errorf("%s past the bound: %d %s", c.path, got.code, got.body)
			}
		}
		if err := r.conn.Invoke(as(r.admin), "/patd.v1."+c.method, c.good, answerFor(t, m)); err != nil {
			t.Errorf("%s at the bound: %v", c.method, err)
		}
	}
}

// TestBatchKeepsOrderAndOneBadItemFailsNoOther also sends an address that is none, which counts as absent in a batch.
func TestBatchKeepsOrderAndOneBadItemFailsNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, a := r.mint("u1", "a")
	id, gone := r.mint("u1", "b")
	must(t, r.revoke("u1", id))
	resp, err := patdv1.NewIntrospectionServiceClient(r.conn).
		BatchIntrospect(as(r.admin), &patdv1.BatchIntrospectRequest{Requests: []*patdv1.IntrospectRequest{
			{
				Token: a,
			},
			{Token: "garbage"},
			{Token: gone},
			{Token: a, RequiredScopes: []string{"x"}},
			{Token: a, ClientIp: "nonsense"},
			{Token: strings.Repeat("x", 1000)},
			{},
		}})
	must(t, err)
	var got []string
	for _, item := range resp.GetResponses() {
		got = append(got, item.GetDecision().String())
		if !item.GetActive() && onlyDecision(item) != "" {
			t.Errorf("an inactive answer tells %s", onlyDecision(item))
		}
	}
	if s := strings.Join(got, " "); s != "ALLOW NOT_FOUND REVOKED INSUFFICIENT_SCOPE ALLOW NOT_FOUND NOT_FOUND" {
		t.Errorf("got %s", s)
	}
}

// onlyDecision names a field that an inactive answer holds beside its decision, and beside the end of one that has
// ended.
func onlyDecision(m *patdv1.IntrospectResponse) (told string) {
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		switch ended := m.GetDecision(); {
		case f.Name() == "decision":
		case slices.Contains([]protoreflect.Name{"end_time", "expire_time"}, f.Name()) && slices.Contains(
			[]patdv1.IntrospectResponse_Decision{patdv1.IntrospectResponse_EXPIRED, patdv1.IntrospectResponse_REVOKED, patdv1.IntrospectResponse_SUPERSEDED}, ended):
		default:
			told = string(f.Name())
		}
		return true
	})
	return told
}
