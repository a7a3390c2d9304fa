package tokens_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/internal/longtest"
	"patd/tokens"
	"patd/tokens/refusal"
)

// market is a world in which tokens are exchanged too. The oracle for what came of a secret is that secret itself,
// asked about at the same instant.
type market struct {
	*world
	access   []*accessModel
	families []*familyModel
}

// accessModel is what is known of one access token.
type accessModel struct {
	secret tokens.Secret
	from   tokens.Secret // the personal access token's secret that it came of
	scopes []string
	end    time.Time
	ended  bool
	family *familyModel
}

// familyModel is what is known of one family.
type familyModel struct {
	chain  []tokens.Secret // newest last
	from   tokens.Secret
	scopes []string
	end    time.Time
	ended  bool
}

func (m *market) told(t *rapid.T, s tokens.Secret) tokens.Introspection {
	in, err := m.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: s})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// granted checks an access token against what it came of when it was made, and remembers it.
func (m *market) granted(t *rapid.T, g tokens.Granted, from tokens.Secret, f *familyModel) {
	in := m.told(t, from)
	if !in.Decision.Active() {
		t.Fatalf("granted by a secret that is %v", in.Decision)
	}
	if !subset(g.Scopes, in.Effective) || len(g.Scopes) == 0 || f != nil && !subset(g.Scopes, f.scopes) {
		t.Fatalf("granted %v of %v", g.Scopes, in.Effective)
	}
	limit := m.now().Add(time.Hour)
	if g.ExpireTime.After(limit) || g.ExpireTime.After(in.ExpireTime) || f != nil && g.ExpireTime.After(f.end) {
		t.Fatalf("until %s; the secret ends %s, the hour %s", g.ExpireTime, in.ExpireTime, limit)
	}
	m.access = append(
		m.access,
		&accessModel{secret: g.Access, from: from, scopes: g.Scopes, end: g.ExpireTime, family: f},
	)
}

func (m *market) exchangeOne(t *rapid.T) {
	from := rapid.SampledFrom(m.pick(t).secrets).Draw(t, "secret")
	r := tokens.ExchangeRequest{Subject: from, Audiences: []string{"api"}, Offline: rapid.Bool().Draw(t, "offline")}
	if rapid.Bool().Draw(t, "ask for scopes") {
		r.Scopes = some.Draw(t, "scopes")
	}
	g, err := m.Exchange(ctx, r)
	if err != nil {
		if r := reason(
			err,
		); !slices.Contains([]string{refusal.Superseded, refusal.Revoked, refusal.Expired, refusal.UserSuspended, refusal.PolicyBlocked}, r) &&
			r != "SCOPE_INVALID" {
			t.Fatal(err)
		}
		return
	}
	if r.Scopes != nil && len(g.Scopes) > len(r.Scopes) {
		t.Fatalf("asked for %v, granted %v", r.Scopes, g.Scopes)
	}
	var f *familyModel
	if r.Offline {
		f = &familyModel{
			chain:  []tokens.Secret{g.Refresh},
			from:   from,
			scopes: g.Scopes,
			end:    m.told(t, from).ExpireTime,
		}
		m.families = append(m.families, f)
	}
	m.granted(t, g, from, f)
}

func (m *market) refreshOne(t *rapid.T) {
	if len(m.families) == 0 {
		t.Skip("no family yet")
	}
	f := rapid.SampledFrom(m.families).Draw(t, "family")
	i := len(f.chain) - 1
	if rapid.IntRange(0, 3).Draw(t, "old") == 0 {
		i = rapid.IntRange(0, i).Draw(t, "which")
	}
	r := tokens.RefreshRequest{Token: f.chain[i]}
	if rapid.Bool().Draw(t, "ask for scopes") {
		r.Scopes = some.Draw(t, "scopes")
	}
	ended := f.ended || !m.now().Before(f.end)
	g, err := m.Refresh(ctx, r)
	switch {
	case err == nil && (ended || i < len(f.chain)-1):
		t.Fatalf("refreshed: ended %v, token %d of %d", ended, i, len(f.chain))
	case err == nil:
		f.chain = append(f.chain, g.Refresh)
		m.granted(t, g, f.from, f)
	case reason(err) != "GRANT_INVALID" && reason(err) != "SCOPE_INVALID":
		t.Fatal(err)
	case !ended && i < len(f.chain)-1: // reused
		f.ended = true
	case !ended && m.told(t, f.from).Decision.Active() && reason(err) == "GRANT_INVALID":
		t.Fatal("a good refresh token was refused")
	}
}

func (m *market) revokeOne(t *rapid.T) {
	if len(m.access) == 0 {
		t.Skip("no access token yet")
	}
	a := rapid.SampledFrom(m.access).Draw(t, "access")
	secret := a.secret
	whole := a.family != nil && rapid.Bool().Draw(t, "the family")
	if whole {
		secret = rapid.SampledFrom(a.family.chain).Draw(t, "refresh")
	}
	if err := m.RevokeSecret(ctx, tokens.Actor{}, secret); err != nil {
		t.Fatal(err)
	}
	if whole {
		a.family.ended = a.family.ended || m.now().Before(a.family.end)
	} else {
		a.ended = a.ended || m.now().Before(a.end)
	}
}

// narrowOne makes the scopes or the lifetime of a personal access token less.
func (m *market) narrowOne(t *rapid.T) {
	g, c := m.pick(t), tokens.TokenChange{}
	if scopes := g.granted[:rapid.IntRange(1, len(g.granted)).Draw(t, "scopes")]; len(scopes) < len(g.granted) {
		c.Scopes = &scopes
	} else {
		at := m.now().Add(rapid.SampledFrom([]time.Duration{time.Minute, 90 * time.Minute}).Draw(t, "expire"))
		c.ExpireTime = &at
	}
	if got, err := m.UpdateToken(ctx, admin, g.user, g.id, c); err == nil {
		g.granted, g.latest = got.Scopes, got.ExpireTime
	}
}

// checkGrants holds every access token against the secret that it came of.
func (m *market) checkGrants(t *rapid.T) {
	m.check(t)
	for _, a := range m.access {
		in, of := m.told(t, a.secret), m.told(t, a.from)
		alive := !a.ended && m.now().Before(a.end) && (a.family == nil || !a.family.ended) && of.Decision.Active()
		if in.Decision.Active() != alive {
			t.Fatalf(
				"an access token is %v; ended %v, until %s, now %s, family %+v, its secret %v",
				in.Decision,
				a.ended,
				a.end,
				m.now(),
				a.family,
				of.Decision,
			)
		}
		if !alive {
			continue
		}
		if !subset(in.Effective, a.scopes) || !subset(in.Effective, of.Effective) || !subset(in.Granted, of.Granted) {
			t.Fatalf("effective %v; granted %v, of the token %v", in.Effective, a.scopes, of.Effective)
		}
		if in.ExpireTime.After(a.end) || in.ExpireTime.After(of.ExpireTime) || in.Token.ID != of.Token.ID {
			t.Fatalf("until %s; its own end %s, the token's %s", in.ExpireTime, a.end, of.ExpireTime)
		}
	}
}

// TestNothingEscalatesByExchange drives random calls against the invariants: an access token never has more than its
// personal access token has now, lives only while that, the secret and the family do, and a used refresh token ends all
// that came of its family.
func TestNothingEscalatesByExchange(t *testing.T) {
	longtest.Slow(t)
	rapid.Check(t, func(t *rapid.T) {
		m := &market{
			world: &world{house: newHouseIn(t, tempDir(t)), held: map[string][]string{}, gone: map[string]bool{}},
		}
		m.api("api")
		for _, u := range []string{"u1", "u2"} {
			m.held[u] = []string{"a", "b", "c", "d"}
			m.give(u, m.held[u]...)
			got := m.mint(u, "n", m.held[u]...)
			m.grants = append(m.grants, &grant{
				user:    u,
				id:      got.Token.ID.String(),
				secrets: []tokens.Secret{got.Secret},
				granted: got.Token.Scopes,
				latest:  got.Token.ExpireTime,
			})
		}
		t.Repeat(map[string]func(*rapid.T){
			"": m.checkGrants, "narrow": m.narrowOne, "exchange": m.exchangeOne, "exchange more": m.exchangeOne,
			"refresh": m.refreshOne, "refresh more": m.refreshOne, "end": m.revokeOne,
			"rotate": func(t *rapid.T) {
				g := m.pick(t)
				grace := rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour}).Draw(t, "grace")
				got, err := m.Rotate(
					ctx,
					admin,
					tokens.RotateRequest{User: g.user, TokenID: g.id, Grace: &grace, Force: true},
				)
				if err == nil {
					g.secrets = append(g.secrets, got.Secret)
				}
			},
			"features": func(t *rapid.T) {
				user := people.Draw(t, "user")
				m.held[user] = some.Draw(t, "features")
				m.give(user, m.held[user]...)
			},
			"revoke": func(t *rapid.T) {
				g := m.pick(t)
				if _, err := m.Revoke(ctx, admin, g.user, g.id, ""); err == nil {
					g.revoked = true
				}
			},
			"suspend": func(t *rapid.T) {
				user := people.Draw(t, "user")
				if _, err := m.SuspendUser(ctx, admin, user, ""); err != nil {
					t.Fatal(err)
				}
				m.gone[user] = true
			},
			"resume": func(t *rapid.T) {
				user := people.Draw(t, "user")
				if _, err := m.ResumeUser(ctx, admin, user, ""); err == nil {
					m.gone[user] = false
				}
			},
			"wait": func(t *rapid.T) {
				m.wait(
					rapid.SampledFrom([]time.Duration{-time.Minute, time.Microsecond, time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour}).
						Draw(t, "d"),
				)
			},
		})
	})
}
