package tokens_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"patd/tokens"
	"patd/tokens/secret"
)

var github = tokens.Partner("github", home)

// leaksOf returns what the events about leaks say, oldest first.
func (h *house) leaksOf() (found []tokens.Leak) {
	h.t.Helper()
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.leaked"}, tokens.Page{Size: 200})
	if err != nil {
		h.t.Fatal(err)
	}
	for i := range events {
		l, ok := tokens.ParseLeak(events[len(events)-1-i].Detail)
		if !ok {
			h.t.Fatalf("not a leak: %s", events[i].Detail)
		}
		found = append(found, l)
	}
	return found
}

// TestALeakSaysWhereItWasFoundAndWhatItCouldDo reports one secret of each kind.
func TestALeakSaysWhereItWasFoundAndWhatItCouldDo(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m, from := h.mintFor("n"), h.mintFor("from", "api")
	g := h.exchange(from.Secret, offline)
	in, err := h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: m.Secret, ClientIP: home.IP})
	if err != nil || in.Decision != tokens.Allow {
		t.Fatal(in.Decision, err)
	}
	if err := h.store.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	h.give("u1", "b")
	svc, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "s", Permissions: []string{"audit", "users"}})
	if err != nil {
		t.Fatal(err)
	}
	at := "https://github.com/o/r/blob/12345600b9cbe38a219f39a9941c9319b600c002/a.txt"
	ours, err := h.ReportFinds(ctx, github, []tokens.Find{{Text: m.Secret, Place: "Commit", URL: at}})
	if err != nil || !ours[0] {
		t.Fatal(ours, err)
	}
	for _, s := range []tokens.Secret{g.Access, g.Refresh, svc.Secret} {
		if err := h.ReportLeaks(ctx, tokens.Actor{Peer: home}, []tokens.Secret{s}); err != nil {
			t.Fatal(err)
		}
	}
	want := []tokens.Leak{
		{
			What:      "token",
			By:        "github",
			Place:     "commit",
			URL:       at,
			Effective: []string{"b"},
			Suspended: []string{"a"},
			LastUsed:  tokens.Use{Time: noon, IP: home.IP},
		},
		{
			What:      "access token",
			Effective: []string{"b"},
			Suspended: []string{"a"},
			LastUsed:  tokens.Use{Time: noon, IP: home.IP},
		},
		{
			What:      "refresh token",
			Effective: []string{"b"},
			Suspended: []string{"a"},
			LastUsed:  tokens.Use{Time: noon, IP: home.IP},
		},
		{What: "service", Effective: []string{"users", "audit"}},
	}
	if d := cmp.Diff(want, h.leaksOf(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	got, err := h.Token(ctx, admin, "u1", m.Token.ID.String())
	if err != nil || got.Revocation == nil || got.Revocation.Reason != "LEAKED" ||
		got.Revocation.By != "partner:github" {
		t.Errorf("%+v, %v", got.Revocation, err)
	}
	if _, _, err := h.Events(ctx, admin, tokens.EventFilter{Actor: "partner:github"}, tokens.Page{}); err != nil {
		t.Errorf("the partner's events: %v", err)
	}
}

// TestASecretThatHasEndedWasOursAndGarbageWasNot changes nothing for either.
func TestASecretThatHasEndedWasOursAndGarbageWasNot(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	revoked, rotated, expired := h.mintFor("revoked"), h.mintFor("rotated"), h.mintFor("expired")
	old := rotated.Secret
	h.rotate(rotated, 0)
	if _, err := h.Revoke(ctx, admin, "u1", revoked.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	h.wait(tokens.DefaultTTL)
	forged, err := secret.Mint("pat", expired.Token.ID, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	before := count(t, h)
	ours, err := h.ReportFinds(ctx, github, []tokens.Find{
		{Text: revoked.Secret}, {Text: old}, {Text: expired.Secret},
		{Text: secret.NewSecret("x " + expired.Secret.Reveal() + " " + forged.Reveal())},
		{Text: forged}, {Text: secret.NewSecret("pat_x")}, {},
	})
	if d := cmp.Diff([]bool{true, true, true, true, false, false, false}, ours); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if n := count(t, h); n != before {
		t.Errorf("%d events about secrets that have ended", n-before)
	}
}

// TestASecretUnderARetiredKeyWasOurs cannot be compared any more, and is live no more.
func TestASecretUnderARetiredKeyWasOurs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.mintFor("n")
	if _, err := h.Revoke(ctx, admin, "u1", m.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	h.ring.Set(parseKeys(t, lineB))
	ours, err := h.ReportFinds(ctx, github, []tokens.Find{{Text: m.Secret}})
	if err != nil || !ours[0] {
		t.Errorf("%v, %v", ours, err)
	}
	h.ring.Set(parseKeys(t, lineA)) // for what the cleanup checks
}

// TestAnOutageOfTheSourceHoldsUpNoRevocationOfALeak says then what was granted.
func TestAnOutageOfTheSourceHoldsUpNoRevocationOfALeak(t *testing.T) {
	t.Parallel()
	src := &source{features: map[string][]string{"u1": {"a", "b"}}}
	h := newHouse(t, func(c *tokens.Config) { c.Features = src })
	m, other := h.mintFor("n"), h.mintFor("other")
	src.features["u1"] = []string{"b"}
	if err := h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{other.Secret}); err != nil {
		t.Fatal(err)
	}
	src.err = tokens.FeaturesUnavailable("ask", errors.New("connection refused"))
	if err := h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{m.Secret}); err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.Revoked, "reported during an outage")
	want := []tokens.Leak{
		{What: "token", Effective: []string{"b"}, Suspended: []string{"a"}},
		{What: "token", Effective: []string{"a", "b"}, Unknown: true},
	}
	if d := cmp.Diff(want, h.leaksOf(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}

// TestOnlyFitTextsOfAReportStandInItsEvent has places and addresses that a partner could send.
func TestOnlyFitTextsOfAReportStandInItsEvent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	s := h.mintFor("another").Secret.Reveal()
	long := strings.Repeat("x", 1000)
	for _, c := range []struct{ place, url, wantPlace, wantURL string }{
		{"Pull_request_title", "https://github.com/o/r/pull/1?x=1#d", "pull_request_title", "https://github.com/o/r/pull/1#d"},
		{"two words", "ftp://x/", "", ""},
		{"é", "https://u:p@x/", "", ""},
		{long, "https://x/" + long, "", ""},
		{s, "https://x/" + s, "", ""},
		{"", "https://x/" + strings.ReplaceAll(s, "_", "%5f"), "", ""},
		{"", "https://x/a b · leaked: y", "", "https://x/a%20b%20%C2%B7%20leaked:%20y"},
		{"", "https://x/\u0000", "", ""}, {"", "://", "", ""},
	} {
		m := h.mintFor("n")
		if _, err := h.ReportFinds(
			ctx,
			github,
			[]tokens.Find{{Text: m.Secret, Place: c.place, URL: c.url}},
		); err != nil {
			t.Fatal(err)
		}
		all := h.leaksOf()
		if got := all[len(all)-1]; got.Place != c.wantPlace || got.URL != c.wantURL || got.What != "token" {
			t.Errorf("%.50q, %.50q: %+v", c.place, c.url, got)
		}
	}
}

// TestARecordOfALeakReadsAsItWasWritten makes records by chance, up to the most scopes that a token has.
func TestARecordOfALeakReadsAsItWasWritten(t *testing.T) {
	t.Parallel()
	scope := rapid.StringMatching(`[!#-\[\]-~]{1,128}`)
	rapid.Check(t, func(t *rapid.T) {
		l := tokens.Leak{
			What: rapid.SampledFrom([]string{"token", "access token", "refresh token", "service"}).Draw(t, "what"),
			By: rapid.SampledFrom([]string{"", "github"}).
				Draw(t, "by"),
			Place: rapid.StringMatching(`[a-z_]{0,20}`).Draw(t, "place"),
			URL:   rapid.SampledFrom([]string{"", "https://x/y;z", "https://x/a:%20b"}).Draw(t, "url"),
			Effective: rapid.SliceOfN(scope, 0, 256).
				Draw(t, "effective"),
			Suspended: rapid.SliceOfN(scope, 0, 256).Draw(t, "suspended"),
			Unknown:   rapid.Bool().Draw(t, "unknown"),
		}
		if rapid.Bool().Draw(t, "used") {
			l.LastUsed = tokens.Use{Time: noon.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "at"))).UTC()}
			l.LastUsed.IP = rapid.SampledFrom([]netip.Addr{{}, home.IP, netip.MustParseAddr("2001:db8::1")}).
				Draw(t, "ip")
		}
		text := l.String()
		got, ok := tokens.ParseLeak(text)
		if !ok || len(text) > 5000 {
			t.Fatalf("%d bytes: %s", len(text), text)
		}
		if n := len(got.Effective) + len(got.Suspended) + got.More; n != len(l.Effective)+len(l.Suspended) {
			t.Fatalf("%d of %d and %d scopes", n, len(l.Effective), len(l.Suspended))
		}
		if len(l.Effective) == 0 {
			l.Unknown = false
			got.Unknown = false
		}
		l.Effective, l.Suspended, l.More = l.Effective[:len(got.Effective)], l.Suspended[:len(got.Suspended)], got.More
		if d := cmp.Diff(l, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Fatal(d)
		}
	})
	for _, text := range []string{"", "LEAKED", "by: github", "leaked: token · x", "leaked: token · last used: yesterday", "leaked: token · more scopes: x"} {
		if l, ok := tokens.ParseLeak(text); ok {
			t.Errorf("%q: %+v", text, l)
		}
	}
}
