package tokens_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/tokens"
)

func (h *house) describe(e tokens.FeatureEntry) tokens.FeatureEntry {
	h.t.Helper()
	out, err := h.CreateFeature(ctx, admin, e)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func TestDefaultFeaturesAreTakenWhenNoScopeIsNamed(t *testing.T) {
	h := newHouse(t)
	h.describe(tokens.FeatureEntry{Name: "a", Default: true})
	h.describe(tokens.FeatureEntry{Name: "b", Default: true, Consent: tokens.ConsentRequired})
	h.describe(tokens.FeatureEntry{Name: "c", Default: true, Consent: tokens.ConsentFlexible})
	h.describe(tokens.FeatureEntry{Name: "d", Default: true})
	h.describe(tokens.FeatureEntry{Name: "e"})
	h.give("u1", "a", "b", "c", "e", "f")
	h.give("u2", "b", "e", "f")
	m := h.mint("u1", "n")
	if d := cmp.Diff([]string{"a", "c"}, m.Token.Scopes); d != "" {
		t.Errorf("default features that the user holds, and that need not be asked for by name: %s", d)
	}
	for _, user := range []string{"u2", "stranger"} {
		_, err := h.Mint(ctx, admin, tokens.MintRequest{User: user, Name: "n"})
		wantReason(t, err, "SCOPES_REQUIRED", user)
	}
	if m := h.mint("u1", "by name", "b", "f"); len(m.Token.Scopes) != 2 {
		t.Errorf("by name, one without an entry: %v", m.Token.Scopes)
	}
}

func TestCatalogueEntries(t *testing.T) {
	h := newHouse(t)
	a := h.describe(tokens.FeatureEntry{Name: "reports/read", DisplayName: "Read Reports", Description: "all of them"})
	if a.Consent != tokens.ConsentImplicit {
		t.Errorf("consent %v", a.Consent)
	}
	_, err := h.CreateFeature(ctx, admin, tokens.FeatureEntry{Name: "reports/read"})
	wantReason(t, err, "FEATURE_EXISTS", "a second of its name")
	a.Default, a.DisplayName = true, "Reports"
	if got, err := h.ReplaceFeature(ctx, admin, a); err != nil || got != a {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := h.Feature(ctx, admin, "reports/read"); err != nil || got != a {
		t.Errorf("%+v, %v", got, err)
	}
	h.describe(tokens.FeatureEntry{Name: "sys", System: true, Published: true})
	_, err = h.ReplaceFeature(ctx, admin, tokens.FeatureEntry{Name: "sys"})
	wantReason(t, err, "FEATURE_SYSTEM", "replace a system entry")
	wantReason(t, h.DeleteFeature(ctx, admin, "sys"), "FEATURE_SYSTEM", "delete a system entry")
	if names, err := h.PublishedFeatures(ctx); err != nil || strings.Join(names, " ") != "sys" {
		t.Errorf("published: %v, %v", names, err)
	}
	h.give("u1", "reports/read", "plain")
	held, err := h.UserFeatures(ctx, admin, "u1")
	want := []tokens.FeatureEntry{{Name: "plain", Consent: tokens.ConsentImplicit}, a}
	if d := cmp.Diff(want, held.Features); d != "" || err != nil {
		t.Error(d, err)
	}
	m := h.mint("u1", "n", "reports/read")
	if err := h.DeleteFeature(ctx, admin, "reports/read"); err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.Allow, "its feature has no entry any more")
	for name, err := range map[string]error{
		"delete":  h.DeleteFeature(ctx, admin, "reports/read"),
		"get":     func() error { _, err := h.Feature(ctx, admin, "reports/read"); return err }(),
		"replace": func() error { _, err := h.ReplaceFeature(ctx, admin, a); return err }(),
	} {
		wantReason(t, err, "NOT_FOUND", name)
	}
	_, err = h.CreateFeature(ctx, admin, tokens.FeatureEntry{Name: "two words", DisplayName: strings.Repeat("x", 101)})
	wantReason(t, err, "SCOPE_INVALID", "malformed")
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "feature.delete"}, tokens.Page{})
	if err != nil || len(events) < 2 || events[len(events)-1].Reason != "FEATURE_SYSTEM" {
		t.Errorf("events: %+v, %v", events, err)
	}
}

func TestFeaturesAreListedByFilter(t *testing.T) {
	h := newHouse(t)
	for _, e := range []tokens.FeatureEntry{
		{Name: "a", DisplayName: "Größe", Default: true}, {Name: "b", Consent: tokens.ConsentRequired, Optional: true},
		{Name: "c", Description: "GRÖSSE too", Published: true}, {Name: "d", System: true},
	} {
		h.describe(e)
	}
	for filter, want := range map[string]string{
		"": "a b c d", `name eq "b"`: "b", `consent eq "REQUIRED"`: "b", `consent eq "IMPLICIT" and system eq false`: "a c",
		"default eq true": "a", "default eq false": "b c d", "optional eq true": "b", `metadata_publish eq "ALL_CLIENTS"`: "c",
		`metadata_publish eq "NO_CLIENTS" and default eq false and optional eq false`: "d", `name eq "zz"`: "",
	} {
		got, _, err := h.Features(ctx, admin, tokens.FeatureFilter{Filter: filter}, tokens.Page{})
		if err != nil || names(got) != want {
			t.Errorf("%s: %s, %v; want %s", filter, names(got), err, want)
		}
	}
	if got, _, err := h.Features(
		ctx,
		admin,
		tokens.FeatureFilter{Q: "gröSSE"},
		tokens.Page{},
	); err != nil ||
		names(got) != "a c" {
		t.Errorf("q: %s, %v", names(got), err)
	}
	var all []string
	for p := (tokens.Page{Size: 1}); ; {
		got, next, err := h.Features(ctx, admin, tokens.FeatureFilter{}, p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names(got))
		if p.Token = next; next == "" {
			break
		}
	}
	if strings.Join(all, " ") != "a b c d" {
		t.Errorf("page by page: %v", all)
	}
}

func names(es []tokens.FeatureEntry) string {
	var out []string
	for _, e := range es {
		out = append(out, e.Name)
	}
	return strings.Join(out, " ")
}

func FuzzFeatureFilter(f *testing.F) {
	f.Add(`name eq "a" and system eq true`)
	f.Add(`consent eq "REQUIRED" and consent eq "REQUIRED"`)
	f.Add(`default eq "true"`)
	f.Add(` and `)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := tokens.ParseFeatureFilter(text)
		if err != nil && reason(err) != "FILTER_INVALID" {
			t.Fatal(err)
		}
		if err == nil && text != "" && q == (tokens.FeatureQuery{}) {
			t.Fatalf("%q selects everything", text)
		}
	})
}

func (h *house) audience(e tokens.AudienceEntry) tokens.AudienceEntry {
	h.t.Helper()
	out, err := h.CreateAudience(ctx, admin, e)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func TestStrictestAudienceRules(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Policy = tokens.Policy{MaxTTL: 730 * tokens.Day, AllowNever: true} })
	h.give("u1", "a")
	h.audience(tokens.AudienceEntry{ID: "year", MaxTTL: 366 * tokens.Day, AllowNever: true})
	h.audience(
		tokens.AudienceEntry{ID: "long", MaxTTL: 730 * tokens.Day, DefaultTTL: 400 * tokens.Day, AllowNever: true},
	)
	h.audience(tokens.AudienceEntry{ID: "never", AllowNever: true})
	h.audience(tokens.AudienceEntry{ID: "short", MaxTTL: tokens.Day})
	day, long, longer := tokens.Day, 700*tokens.Day, 731*tokens.Day
	over := tokens.Day + time.Microsecond
	for i, c := range []struct {
		audiences []string
		l         tokens.Lifetime
		want      time.Time
		reason    string
	}{
		{nil, tokens.Lifetime{TTL: &longer}, time.Time{}, "TTL_ABOVE_MAXIMUM"},
		{[]string{"long"}, tokens.Lifetime{TTL: &long}, noon.Add(long), ""},
		{[]string{"long"}, tokens.Lifetime{}, noon.Add(400 * tokens.Day), ""},
		{[]string{"long"}, tokens.Lifetime{Never: true}, time.Time{}, ""},
		{[]string{"long", "never"}, tokens.Lifetime{Never: true}, time.Time{}, ""},
		{[]string{"long", "year"}, tokens.Lifetime{TTL: &long}, time.Time{}, "TTL_ABOVE_MAXIMUM"},
		{[]string{"long", "without-entry"}, tokens.Lifetime{Never: true}, time.Time{}, ""},
		{[]string{"without-entry"}, tokens.Lifetime{}, noon.Add(tokens.DefaultTTL), ""},
		{[]string{"long", "short"}, tokens.Lifetime{}, noon.Add(day), ""},
		{[]string{"short", "long"}, tokens.Lifetime{TTL: &day}, noon.Add(day), ""},
		{[]string{"short"}, tokens.Lifetime{TTL: &over}, time.Time{}, "TTL_ABOVE_MAXIMUM"},
		{[]string{"short", "never"}, tokens.Lifetime{Never: true}, time.Time{}, "NEVER_NOT_ALLOWED"},
	} {
		m, err := h.Mint(
			ctx,
			admin,
			tokens.MintRequest{
				User:      "u1",
				Name:      string(rune('a' + i)),
				Scopes:    []string{"a"},
				Audiences: c.audiences,
				Lifetime:  c.l,
			},
		)
		if reason(err) != c.reason || !m.Token.ExpireTime.Equal(c.want) {
			t.Errorf("%v %+v: %s, %v; want %s, %q", c.audiences, c.l, m.Token.ExpireTime, err, c.want, c.reason)
		}
	}
}

func TestAudienceEntries(t *testing.T) {
	h := newHouse(t)
	e := h.audience(tokens.AudienceEntry{ID: "https://api.example/v1", Resource: "https://api.example/v1"})
	if e.AccessTTL != tokens.DefaultAccessTTL || e.AccessFormat != tokens.AccessOpaque {
		t.Errorf("%+v", e)
	}
	_, err := h.CreateAudience(ctx, admin, e)
	wantReason(t, err, "AUDIENCE_EXISTS", "a second of its id")
	e.AccessTTL, e.AllowOffline, e.AccessFormat = tokens.MaxAccessTTL, true, tokens.AccessJWT
	if _, err := h.ReplaceAudience(ctx, admin, e); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Audience(ctx, admin, e.ID); err != nil || got != e {
		t.Errorf("%+v, %v", got, err)
	}
	for name, bad := range map[string]tokens.AudienceEntry{
		"AUDIENCE_INVALID": {ID: "a b"}, "RESOURCE_INVALID": {ID: "a", Resource: "api"}, "TTL_OUT_OF_RANGE": {ID: "a", AccessTTL: tokens.MaxAccessTTL + 1},
	} {
		_, err := h.CreateAudience(ctx, admin, bad)
		wantReason(t, err, name, name)
	}
	for name, bad := range map[string]tokens.AudienceEntry{
		"fragment": {ID: "a", Resource: "https://a/#x"}, "negative": {ID: "a", MaxTTL: -1}, "default over max": {ID: "a", DefaultTTL: 2 * time.Hour, MaxTTL: time.Hour}, "below a second": {ID: "a", MaxTTL: 1},
	} {
		if _, err := h.CreateAudience(ctx, admin, bad); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := h.DeleteAudience(ctx, admin, e.ID); err != nil {
		t.Fatal(err)
	}
	wantReason(t, h.DeleteAudience(ctx, admin, e.ID), "NOT_FOUND", "delete again")
}

func TestPolicyBlocksAreFoundSetAndLifted(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Policy = tokens.Policy{AllowNever: true} })
	h.give("u1", "a")
	api := h.audience(tokens.AudienceEntry{ID: "api", AllowNever: true})
	mint := func(name string, l tokens.Lifetime, audiences ...string) tokens.Minted {
		t.Helper()
		h.wait(time.Millisecond) // ids of one millisecond are in no order
		m, err := h.Mint(
			ctx,
			admin,
			tokens.MintRequest{User: "u1", Name: name, Scopes: []string{"a"}, Audiences: audiences, Lifetime: l},
		)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	short, month := tokens.Day, 30*tokens.Day
	within := mint("within", tokens.Lifetime{TTL: &short}, "api")
	never := mint("never", tokens.Lifetime{Never: true}, "api")
	long := mint("long", tokens.Lifetime{}, "other", "api")
	revoked := mint("revoked", tokens.Lifetime{}, "api")
	other := mint("other", tokens.Lifetime{}, "api2", "xapi")
	if _, err := h.Revoke(ctx, admin, "u1", revoked.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	ids := func(ts []tokens.Token) string {
		var out []string
		for _, x := range ts {
			out = append(out, x.Name)
		}
		return strings.Join(out, " ")
	}
	got, _, err := h.CheckAudience(ctx, admin, "api", &tokens.Policy{MaxTTL: month}, false, tokens.Page{})
	if err != nil || got.Count != 2 || ids(got.Tokens) != "never long" {
		t.Errorf("dry run: %d, %s, %v", got.Count, ids(got.Tokens), err)
	}
	if got, _, err := h.CheckAudience(ctx, admin, "api", nil, false, tokens.Page{}); err != nil || got.Count != 0 {
		t.Errorf("the present policy: %d, %v", got.Count, err)
	}
	api.MaxTTL, api.AllowNever = month, false
	if _, err := h.ReplaceAudience(ctx, admin, api); err != nil {
		t.Fatal(err)
	}
	h.wants(long.Secret, tokens.Allow, "a stricter policy alone")
	if n, left, err := h.BlockTokens(ctx, admin, "api", "new policy"); n != 2 || left != 0 || err != nil {
		t.Fatalf("%d, %d, %v", n, left, err)
	}
	for s, want := range map[*tokens.Secret]tokens.Decision{&within.Secret: tokens.Allow, &never.Secret: tokens.PolicyBlocked, &long.Secret: tokens.PolicyBlocked, &other.Secret: tokens.Allow} {
		h.wants(*s, want, "after the block")
	}
	if _, err := h.Authenticate(ctx, long.Secret, tokens.Peer{}); reason(err) != "POLICY_BLOCKED" {
		t.Errorf("a blocked token authenticates: %v", err)
	}
	if n, _, err := h.BlockTokens(ctx, admin, "api", ""); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	soon := h.now().Add(month)
	if _, err := h.UpdateToken(
		ctx,
		admin,
		"u1",
		long.Token.ID.String(),
		tokens.TokenChange{ExpireTime: &soon},
	); err != nil {
		t.Fatal(err)
	}
	h.wants(long.Secret, tokens.Allow, "its expiry is within the policy")
	if n, left, err := h.UnblockTokens(ctx, admin, "api", ""); n != 1 || left != 0 || err != nil {
		t.Errorf("unblock: %d, %d, %v", n, left, err)
	}
	h.wants(never.Secret, tokens.Allow, "unblocked")
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.block"}, tokens.Page{})
	if err != nil || len(events) != 2 || events[0].TokenID == 0 || events[0].Detail != "audience api: new policy" {
		t.Errorf("%+v, %v", events, err)
	}
}

func TestCredentialFeaturesAreTakenAtMint(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Features = tokens.CredentialFeatures{} })
	u1 := tokens.Actor{Kind: tokens.UserActor, User: "u1", Features: []string{"b", "a"}}
	m, err := h.Mint(ctx, u1, tokens.MintRequest{User: "me", Name: "n", Scopes: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if in := h.ask(
		m.Secret,
		"a",
	); in.Decision != tokens.Allow || strings.Join(in.Effective, " ") != "a" ||
		len(in.Suspended) != 0 {
		t.Errorf("%+v", in)
	}
	_, err = h.Mint(ctx, u1, tokens.MintRequest{User: "me", Name: "n2", Scopes: []string{"c"}})
	wantReason(t, err, "SCOPE_NOT_HELD", "not in the claim")
	_, err = h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n3", Scopes: []string{"a"}})
	wantReason(t, err, "SCOPE_NOT_HELD", "minted by a service, which has no claim")
	if f, err := h.UserFeatures(ctx, u1, "me"); err != nil || names(f.Features) != "a b" {
		t.Errorf("%v, %v", f, err)
	}
	// A credential without the claim does not say that nothing is held.
	silent := tokens.Actor{Kind: tokens.UserActor, User: "u1"}
	_, err = h.Mint(ctx, silent, tokens.MintRequest{User: "me", Name: "n4", Scopes: []string{"a"}})
	wantReason(t, err, "FEATURES_UNAVAILABLE", "minted with a credential that does not say")
	_, err = h.UserFeatures(ctx, silent, "me")
	wantReason(t, err, "FEATURES_UNAVAILABLE", "read with a credential that does not say")
	empty := tokens.Actor{Kind: tokens.UserActor, User: "u1", Features: []string{}}
	if f, err := h.UserFeatures(ctx, empty, "me"); err != nil || names(f.Features) != "" {
		t.Errorf("%v, %v", f, err)
	}
}

func TestRefreshForgets(t *testing.T) {
	src := &forgetful{source: source{features: map[string][]string{}}}
	h := newHouse(t, func(c *tokens.Config) { c.Features = src })
	if err := h.RefreshUser(ctx, admin, "u1"); err != nil || strings.Join(src.forgot, " ") != "u1" {
		t.Errorf("%v, %v", src.forgot, err)
	}
	wantReason(
		t,
		h.RefreshUser(ctx, tokens.Actor{Kind: tokens.UserActor, User: "u1"}, "u1"),
		"PERMISSION_DENIED",
		"by a signed-in user",
	)
}

type forgetful struct {
	source
	mu     sync.Mutex
	forgot []string
}

func (f *forgetful) Forget(user string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = append(f.forgot, user)
}

func (f *forgetful) ForgetAll() { f.Forget("everybody") }

func (f *forgetful) forgotten() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.forgot, " ")
}

func TestBlocksOfSeveralAudiencesAreKeptApart(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	a, b := h.audience(tokens.AudienceEntry{ID: "A"}), h.audience(tokens.AudienceEntry{ID: "B"})
	life := 200 * tokens.Day
	m, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{
			User:      "u1",
			Name:      "n",
			Scopes:    []string{"a"},
			Audiences: []string{"A", "B"},
			Lifetime:  tokens.Lifetime{TTL: &life},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	a.MaxTTL, b.MaxTTL = 90*tokens.Day, 30*tokens.Day
	for _, e := range []tokens.AudienceEntry{a, b} {
		if _, err := h.ReplaceAudience(ctx, admin, e); err != nil {
			t.Fatal(err)
		}
		if n, left, err := h.BlockTokens(ctx, admin, e.ID, ""); n != 1 || left != 0 || err != nil {
			t.Fatalf("block by %s: %d, %d, %v", e.ID, n, left, err)
		}
	}
	if n, _, err := h.UnblockTokens(ctx, admin, "A", ""); n != 1 || err != nil {
		t.Fatalf("unblock by A: %d, %v", n, err)
	}
	h.wants(m.Secret, tokens.PolicyBlocked, "A alone has lifted its block")
	if n, _, err := h.BlockTokens(ctx, admin, "A", ""); n != 1 || err != nil {
		t.Fatalf("block by A again: %d, %v", n, err)
	}
	set := func(d time.Duration) {
		t.Helper()
		at := h.now().Add(d)
		if _, err := h.UpdateToken(
			ctx,
			admin,
			"u1",
			m.Token.ID.String(),
			tokens.TokenChange{ExpireTime: &at},
		); err != nil {
			t.Fatal(err)
		}
	}
	set(60 * tokens.Day)
	h.wants(m.Secret, tokens.PolicyBlocked, "within A's policy, over B's")
	set(20 * tokens.Day)
	h.wants(m.Secret, tokens.Allow, "within both")
}
