package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
)

const leaksPath = "/v1/leaks"

// report reports leaks over REST. Headers come as name, value, ….
func (r *rig) report(found []string, headers ...string) answerOf {
	r.t.Helper()
	body, err := json.Marshal(map[string][]string{"secrets": found})
	must(r.t, err)
	return r.rest("POST", leaksPath, "", string(body), headers...)
}

// wantThanks checks the answer to every report that was taken.
func wantThanks(t *testing.T, what string, got answerOf) {
	t.Helper()
	if got.code != http.StatusOK || got.body != "{}\n" {
		t.Errorf("%s: %d %s, want {} and nothing else", what, got.code, got.body)
	}
}

// TestReportedSecretsOfEveryKindAreEnded reports them over REST, and a second time over gRPC, to the same answer.
func TestReportedSecretsOfEveryKindAreEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "api", AllowOffline: true})
	_, pat := r.pat(tokens.MintRequest{User: "u1", Name: "a"}, "a")
	_, from := r.pat(tokens.MintRequest{User: "u1", Name: "b", Audiences: []string{"api"}}, "a")
	_, other := r.pat(tokens.MintRequest{User: "u1", Name: "c"}, "a")
	access := r.exchange(from).text("access_token")
	family := r.exchange(from, "scope", "a offline_access", "audience", "api")
	service := r.service("leaky", "audit")
	found := []string{
		"garbage",
		"",
		strings.Repeat("x", 50_000),
		pat,
		pat,
		pat + "x",
		"x" + other,
		other + "x",
		other[:20] + " " + other[20:],
		access,
		family.text("refresh_token"),
		service,
	}
	wantThanks(t, "a report", r.report(found))
	for what, secret := range map[string]string{"the token": pat, "the access token": access, "the family's access token": family.text("access_token")} {
		wantInactive(t, what, r.lookAt(secret))
	}
	if got := r.refresh(family.text("refresh_token")); got.text("error") != "invalid_grant" {
		t.Errorf("the refresh token: %d %s", got.code, got.body)
	}
	if got := r.rest("GET", "/v1/events", service, ""); got.code != http.StatusUnauthorized {
		t.Errorf("the service: %d", got.code)
	}
	for what, secret := range map[string]string{"what was not reported": other, "what came of it was": from} {
		if d := r.introspect(secret); d != patdv1.IntrospectResponse_ALLOW {
			t.Errorf("%s: %s", what, d)
		}
	}
	resp, err := patdv1.NewLeakServiceClient(r.conn).
		ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: found})
	if err != nil || resp.String() != "" {
		t.Errorf("again, over gRPC: %v %v", resp, err)
	}
	wantThanks(t, "a report of nothing", r.report(nil))
	wantThanks(t, "a report without a body", r.rest("POST", leaksPath, "", ""))
	events := r.rest("GET", "/v1/events?action=token.revoke", r.admin, "").body
	if strings.Count(events, `"LEAKED"`) != 1 || !strings.Contains(events, `"peer_ip":"127.0.0.1"`) {
		t.Errorf("the events: %s", events)
	}
	if lines := r.logs.find(
		map[string]any{"method": "patd.v1.LeakService/ReportLeaks", "level": "INFO", "code": "OK", "peer": "127.0.0.1"},
	); len(
		lines,
	) != 4 {
		t.Errorf("%d reports are in the log", len(lines))
	}
}

// TestAnybodyMayReport shows credentials that nobody looks at.
func TestAnybodyMayReport(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 0.001, 2 })
	id, pat := r.mint("u1", "a")
	for _, credential := range []string{"", "garbage", "garbage", "garbage", pat, r.admin} {
		headers := []string{"Authorization", "Bearer " + credential}
		if credential == "" {
			headers = nil
		}
		wantThanks(t, "a report", r.report([]string{"garbage"}, headers...))
		if _, err := patdv1.NewLeakServiceClient(r.conn).
			ReportLeaks(as(credential), &patdv1.ReportLeaksRequest{}); err != nil {
			t.Errorf("over gRPC: %v", err)
		}
	}
	wantThanks(t, "by another with the service's token", r.report([]string{pat}, "Authorization", "Bearer "+r.admin))
	tok, err := r.svc.Token(context.Background(), tokens.Operator(), "u1", id)
	must(t, err)
	if rev := tok.Revocation; rev == nil || rev.Reason != "LEAKED" || strings.Contains(rev.By, "admin") {
		t.Errorf("revoked: %+v", rev)
	}
	if got := r.rest("GET", "/v1/users", r.admin, ""); got.code != 200 {
		t.Errorf("what was shown counts as bad credentials: %d", got.code)
	}
}

func TestReportsThatCannotBeReadSayWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, pat := r.mint("u1", "a")
	tooMany := make([]string, 1001)
	tooMany[0] = pat
	text, err := json.Marshal(map[string][]string{"secrets": tooMany})
	must(t, err)
	for _, c := range []struct {
		method, body string
		code         int
		reason       string
	}{
		{"POST", string(text), 400, "LEAKS_TOO_MANY"}, {"POST", `{"secrets":"` + pat + `"}`, 400, "JSON_INVALID"}, {"POST", `{"secrets":["` + pat, 400, "JSON_INVALID"},
		{"POST", `["` + pat + `"]`, 400, "JSON_INVALID"}, {"POST", `{"secret":["` + pat + `"]}`, 400, "FIELD_UNKNOWN"},
		{"POST", `{"secrets":["` + strings.Repeat("x", 1<<20) + `"]}`, 413, "BODY_TOO_LARGE"}, {"GET", "", 405, "METHOD_NOT_ALLOWED"}, {"DELETE", "", 405, "METHOD_NOT_ALLOWED"},
	} {
		got := r.rest(c.method, leaksPath, "", c.body)
		if reason, _ := got.reason(); got.code != c.code || reason != c.reason || strings.Contains(got.body, pat) {
			t.Errorf("%s %.40q: %d %s", c.method, c.body, got.code, got.body)
		}
	}
	if d := r.introspect(pat); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("a report that was refused had an effect: %s", d)
	}
	wantThanks(t, "as many as there may be", r.report(tooMany[:1000]))
	if d := r.introspect(pat); d != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("among a thousand: %s", d)
	}
}

func TestAReportThatCouldNotBeStoredIsNoSuccess(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, pat := r.mint("u1", "a")
	_, other := r.mint("u1", "b")
	for _, fail := range []func(){
		func() { r.faulty.Fail(storetest.Outage()) }, func() { r.faulty.FailOp(storetest.OpLookup, storetest.Outage()) },
		func() { r.faulty.FailOp(storetest.OpCommit, storetest.Full()) },
	} {
		fail()
		got := r.report([]string{pat, other})
		if got.code != http.StatusServiceUnavailable || strings.Contains(got.body, "injected") {
			t.Errorf("%d %s", got.code, got.body)
		}
		_, err := patdv1.NewLeakServiceClient(r.conn).
			ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: []string{pat}})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("over gRPC: %v", err)
		}
		wantThanks(t, "garbage, which needs no store", r.report([]string{"garbage"}))
		r.faulty.Fail(nil)
		if d := r.introspect(pat); d != patdv1.IntrospectResponse_ALLOW {
			t.Errorf("half an effect: %s", d)
		}
	}
	wantThanks(t, "afterwards", r.report([]string{pat, other}))
	if d := r.introspect(other); d != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("afterwards: %s", d)
	}
}

// TestReportsAreLimitedPerAddress has 60 and one a second, also for a proxy that names nobody.
func TestReportsAreLimitedPerAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.LeakRate = 0 // the default
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	_, pat := r.mint("u1", "a")
	leaks := patdv1.NewLeakServiceClient(r.conn)
	for i := range 60 {
		if i%2 == 0 {
			wantThanks(t, fmt.Sprint("report ", i), r.report([]string{"garbage"}))
		} else if _, err := leaks.ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{}); err != nil {
			t.Errorf("report %d: %v", i, err)
		}
	}
	wantLimited(t, "the next", r.report([]string{pat}), "1")
	var trailer metadata.MD
	_, err := leaks.ReportLeaks(
		context.Background(),
		&patdv1.ReportLeaksRequest{Secrets: []string{pat}},
		grpc.Trailer(&trailer),
	)
	wantLimitedGRPC(t, "the next over gRPC", err, trailer, time.Second, "1")
	wantLimited(t, "with a credential", r.report([]string{pat}, "Authorization", "Bearer "+r.admin), "1")
	if d := r.introspect(pat); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("what was limited had an effect: %s", d)
	}
	for i := range 60 {
		wantThanks(t, "from another address", r.report(nil, "X-Forwarded-For", fmt.Sprintf("2001:db8::%x", i+1)))
	}
	wantLimited(t, "from one more address of its /64", r.report(nil, "X-Forwarded-For", "2001:db8::ffff"), "1")
	wantThanks(t, "from a third", r.report([]string{pat}, "X-Forwarded-For", "203.0.113.9"))
	if d := r.introspect(pat); d != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("from a third: %s", d)
	}
	r.wait(time.Second)
	wantThanks(t, "a second later", r.report(nil))
	wantLimited(t, "and again", r.report(nil), "1")
	wantMetric(t, r, `patd_rate_limited_total{limit="leaks"} 5`)
}

// TestReportedSecretIsNeverRepeated has a secret everywhere but in the list, and there with a store that panics.
func TestReportedSecretIsNeverRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	m := marked{t: t, r: r, secret: secret, marks: markers(t, secret)}
	m.panicking(func() { m.check("panic", fmt.Sprint(r.report([]string{secret, secret + "x"}))) })
	m.restAll(binding{"POST", leaksPath, "LeakService/ReportLeaks", "*"})
	m.check("ended", fmt.Sprint(r.report([]string{"x", secret, secret + "x", " " + secret})))
	m.check("again", fmt.Sprint(r.report([]string{secret})))
	if d := r.introspect(secret); d != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("the secret is %s", d)
	}
	m.aftermath()
}

// TestOneMalformedItemDoesNotSpoilAReport puts items that are no text, or not of Unicode, beside one secret. Those are
// listed, and the secret is ended.
func TestOneMalformedItemDoesNotSpoilAReport(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, c := range []struct{ before, after, want string }{
		{`"\ud800",`, ``, `{"malformed":{"items":[0]}}`},
		{``, `,"\udc00\ud800x"`, `{"malformed":{"items":[1]}}`},
		{`"a\xff\xfeb",` + "\"\xff\",", ``, ``}, // \x is no escape of JSON: the report as a whole is malformed
		{"\"\xff\",\"\xed\xa0\x80\",", ``, `{"malformed":{"items":[0,1]}}`},
		{`1,null,{"secrets":["x"]},["y"],true,`, `,"` + "\ufffd" + `"`, `{"malformed":{"items":[0,1,2,3,4,6]}}`},
		{`"good",`, ``, `{}`},
	} {
		_, secret := r.mint(fmt.Sprintf("u%d", i), "n")
		got := r.rest("POST", leaksPath, "", `{"secrets":[`+c.before+`"`+secret+`"`+c.after+`]}`)
		want, code, decision := c.want+"\n", http.StatusOK, patdv1.IntrospectResponse_REVOKED
		if c.want == "" {
			want, code, decision = got.body, http.StatusBadRequest, patdv1.IntrospectResponse_ALLOW
		}
		if got.code != code || got.body != want {
			t.Errorf("%q: %d %s, want %s", c.before+c.after, got.code, got.body, want)
		}
		if d := r.introspect(secret); d != decision {
			t.Errorf("%q: the secret beside it: %s", c.before+c.after, d)
		}
	}
	for _, body := range []string{
		`{"secrets":["\ud800"],"more":1}`, `{"more":["\ud800"]}`, `{"secrets":["\ud800"]}{}`, `{"secrets":["\ud800"`, `["\ud800"]`, `{"secrets":"\ud800"}`,
		`{"secrets":["\ud800"],"secrets":[]}`,
	} {
		if got := r.rest("POST", leaksPath, "", body); got.code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", body, got.code, got.body)
		}
	}
	_, secret := r.mint("over", "gRPC")
	var wire []byte
	for _, item := range []string{"\xff", secret, "\xed\xa0\x80", "fine"} {
		wire = protowire.AppendString(protowire.AppendTag(wire, 1, protowire.BytesType), item)
	}
	var raw []byte
	must(t, r.conn.Invoke(context.Background(), patdv1.LeakService_ReportLeaks_FullMethodName, wire, &raw, rawCall()))
	var resp patdv1.ReportLeaksResponse
	must(t, proto.Unmarshal(raw, &resp))
	if d := r.introspect(
		secret,
	); d != patdv1.IntrospectResponse_REVOKED ||
		!slices.Equal(resp.GetMalformed().GetItems(), []int32{0, 2}) {
		t.Errorf("over gRPC: %s, %v", d, &resp)
	}
}

// TestASecretIsFoundInTheTextAroundIt reports secrets as they are copied out of files, mails and headers.
func TestASecretIsFoundInTheTextAroundIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, around := range []string{
		" %s", "%s\n", "\t%s\r\n", "\u00a0%s\u3000", "\ufeff%s", "\u200b%s\u200b", `"%s"`, "'%s',", "<%s>", "`%s`.", "Bearer %s", "Authorization: Bearer %s;",
		"PATD_TOKEN=%s # of ci", "https://x:%s@git.example/", `{"token":"%s"}`, "(%s)", "%s…",
	} {
		_, secret := r.mint(fmt.Sprintf("u%d", i), "n")
		text := fmt.Sprintf(around, secret)
		if i%2 == 0 {
			wantThanks(t, around, r.report([]string{text}))
		} else if _, err := patdv1.NewLeakServiceClient(r.conn).ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: []string{text}}); err != nil {
			t.Errorf("%q: %v", around, err)
		}
		if d := r.introspect(secret); d != patdv1.IntrospectResponse_REVOKED {
			t.Errorf("%q: %s", around, d)
		}
	}
	_, secret := r.mint("exact", "n")
	if d := r.introspect(" " + secret); d != patdv1.IntrospectResponse_NOT_FOUND {
		t.Errorf("introspection takes a token with a space: %s", d)
	}
}
