package tokens_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/internal/longtest"
	"patd/tokens"
)

// grant is what the model knows of one token.
type grant struct {
	user    string
	id      string
	secrets []tokens.Secret // all that were ever shown, newest last
	granted []string        // never grows
	latest  time.Time       // no expiry may pass it but by a rotation, which sets it anew
	revoked bool
}

// world drives a service by random calls, and keeps the least that must be true.
type world struct {
	*house
	held   map[string][]string
	gone   map[string]bool // suspended
	grants []*grant
}

var (
	people = rapid.SampledFrom([]string{"u1", "u2"})
	some   = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4)
)

func (w *world) pick(t *rapid.T) *grant {
	if len(w.grants) == 0 {
		t.Skip("no token yet")
	}
	return rapid.SampledFrom(w.grants).Draw(t, "token")
}

func (w *world) mintOne(t *rapid.T) {
	user, scopes := people.Draw(t, "user"), some.Draw(t, "scopes")
	ttl := time.Duration(rapid.Int64Range(1, int64(400*tokens.Day)).Draw(t, "ttl"))
	as := rapid.SampledFrom([]tokens.Actor{admin, {Kind: tokens.TokenActor, User: user, TokenID: 1}, {}}).Draw(t, "as")
	m, err := w.Mint(
		ctx,
		as,
		tokens.MintRequest{
			User:     user,
			Name:     rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "name"),
			Scopes:   scopes,
			Lifetime: tokens.Lifetime{TTL: &ttl},
		},
	)
	if err != nil {
		return
	}
	if as.Kind != tokens.ServiceActor {
		t.Fatalf("%v minted a token", as.Kind)
	}
	if len(scopes) == 0 || !subset(scopes, w.held[user]) || w.gone[user] {
		t.Fatalf("minted %v; %s holds %v, suspended %v", scopes, user, w.held[user], w.gone[user])
	}
	if limit := w.now().Add(tokens.MaxTTL); m.Token.ExpireTime.IsZero() || m.Token.ExpireTime.After(limit) {
		t.Fatalf("expires %s, the limit is %s", m.Token.ExpireTime, limit)
	}
	w.grants = append(
		w.grants,
		&grant{
			user:    user,
			id:      m.Token.ID.String(),
			secrets: []tokens.Secret{m.Secret},
			granted: m.Token.Scopes,
			latest:  m.Token.ExpireTime,
		},
	)
}

func (w *world) updateOne(t *rapid.T) {
	g, scopes := w.pick(t), some.Draw(t, "scopes")
	at := w.now().Add(time.Duration(rapid.Int64Range(-int64(tokens.Day), int64(400*tokens.Day)).Draw(t, "expire")))
	c := tokens.TokenChange{}
	if rapid.Bool().Draw(t, "change scopes") {
		c.Scopes = &scopes
	}
	if rapid.Bool().Draw(t, "change expiry") {
		c.ExpireTime = &at
	}
	got, err := w.UpdateToken(ctx, admin, g.user, g.id, c)
	if err != nil {
		return
	}
	if g.revoked || !subset(got.Scopes, g.granted) || len(got.Scopes) == 0 || got.ExpireTime.After(g.latest) ||
		got.ExpireTime.IsZero() {
		t.Fatalf("update made %v until %s of %+v", got.Scopes, got.ExpireTime, g)
	}
	g.granted, g.latest = got.Scopes, got.ExpireTime
}

func (w *world) rotateOne(t *rapid.T) {
	g := w.pick(t)
	r := tokens.RotateRequest{User: g.user, TokenID: g.id, Force: true}
	if rapid.Bool().Draw(t, "new lifetime") {
		ttl := time.Duration(rapid.Int64Range(1, int64(400*tokens.Day)).Draw(t, "ttl"))
		r.Lifetime.TTL = &ttl
	}
	got, err := w.Rotate(ctx, admin, r)
	if err != nil {
		return
	}
	if g.revoked || !subset(got.Token.Scopes, g.granted) || got.Token.ExpireTime.After(w.now().Add(tokens.MaxTTL)) {
		t.Fatalf("rotation made %v until %s of %+v", got.Token.Scopes, got.Token.ExpireTime, g)
	}
	if r.Lifetime.TTL == nil && !got.Token.ExpireTime.Equal(g.latest) {
		t.Fatalf("rotation moved the expiry from %s to %s", g.latest, got.Token.ExpireTime)
	}
	g.secrets, g.latest = append(g.secrets, got.Secret), got.Token.ExpireTime
}

func (w *world) check(t *rapid.T) {
	for _, g := range w.grants {
		live := 0
		for i, s := range g.secrets {
			in, err := w.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: s})
			if err != nil {
				t.Fatal(err)
			}
			if g.revoked && in.Decision != tokens.Revoked {
				t.Fatalf("token %s was revoked and is %v", g.id, in.Decision)
			}
			if !in.Decision.Active() {
				continue
			}
			live++
			if w.gone[g.user] || !w.now().Before(g.latest) || i < len(g.secrets)-2 {
				t.Fatalf(
					"secret %d of %d of %s is active: suspended %v, ends %s, now %s",
					i,
					len(g.secrets),
					g.id,
					w.gone[g.user],
					g.latest,
					w.now(),
				)
			}
			if !subset(in.Effective, g.granted) || !subset(in.Effective, w.held[g.user]) {
				t.Fatalf("effective %v; granted %v, held %v", in.Effective, g.granted, w.held[g.user])
			}
		}
		if live > 2 {
			t.Fatalf("%d live secrets of token %s", live, g.id)
		}
	}
}

func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(x string) bool { return !slices.Contains(b, x) })
}

func tempDir(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "patd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestNothingEscalates drives random calls against the invariants: effective ⊆ granted, effective ⊆ held now, no update
// or rotation widens or extends past policy, empty scopes never mint, a token mints nothing, revoked stays revoked.
func TestNothingEscalates(t *testing.T) {
	longtest.Slow(t)
	rapid.Check(t, func(t *rapid.T) {
		w := &world{house: newHouseIn(t, tempDir(t)), held: map[string][]string{}, gone: map[string]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"": w.check, "mint": w.mintOne, "update": w.updateOne, "rotate": w.rotateOne,
			"features": func(t *rapid.T) {
				user := people.Draw(t, "user")
				w.held[user] = some.Draw(t, "features")
				w.give(user, w.held[user]...)
			},
			"revoke": func(t *rapid.T) {
				g := w.pick(t)
				if _, err := w.Revoke(ctx, admin, g.user, g.id, ""); err == nil {
					g.revoked = true
				} else if reason(err) != "NOT_FOUND" {
					t.Fatal(err)
				}
			},
			"suspend": func(t *rapid.T) {
				user := people.Draw(t, "user")
				if _, err := w.SuspendUser(ctx, admin, user, ""); err != nil {
					t.Fatal(err)
				}
				w.gone[user] = true
			},
			"resume": func(t *rapid.T) {
				user := people.Draw(t, "user")
				if _, err := w.ResumeUser(ctx, admin, user, ""); err == nil {
					w.gone[user] = false
				}
			},
			"delete": func(t *rapid.T) {
				user := people.Draw(t, "user")
				if _, err := w.DeleteUser(ctx, admin, user, ""); err != nil {
					return
				}
				w.held[user], w.gone[user] = nil, false
				for _, g := range w.grants {
					g.revoked = g.revoked || g.user == user
				}
			},
			"wait": func(t *rapid.T) {
				w.wait(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(100*tokens.Day)).Draw(t, "d")))
			},
		})
	})
}

// TestMintedScopesAreWhatTheSourceSaidInThatCall lets an outside source answer something else each time it is asked.
// Scopes that nobody named are the default features, and of these only what the source said too.
func TestMintedScopesAreWhatTheSourceSaidInThatCall(t *testing.T) {
	longtest.Slow(t)
	rapid.Check(t, func(t *rapid.T) {
		src := &changing{t: t}
		h := newHouseIn(t, tempDir(t), func(c *tokens.Config) { c.Features = src })
		for _, e := range []tokens.FeatureEntry{{Name: "a", Default: true}, {Name: "b", Default: true, Consent: tokens.ConsentRequired}, {Name: "c", Default: true}} {
			if _, err := h.CreateFeature(ctx, admin, e); err != nil {
				t.Fatal(err)
			}
		}
		byDefault := []string{"a", "c"}
		for i := range rapid.IntRange(1, 8).Draw(t, "calls") {
			scopes := some.Draw(t, "scopes")
			src.said = nil
			m, err := h.Mint(
				ctx,
				admin,
				tokens.MintRequest{User: people.Draw(t, "user"), Name: string(rune('a' + i)), Scopes: scopes},
			)
			if err == nil && (len(src.said) != 1 || !subset(m.Token.Scopes, src.said[0]) || len(m.Token.Scopes) == 0) {
				t.Fatalf("minted %v; asked %d times, the source said %v", m.Token.Scopes, len(src.said), src.said)
			}
			if err == nil && len(scopes) == 0 && !subset(m.Token.Scopes, byDefault) {
				t.Fatalf("minted %v for a request that named nothing", m.Token.Scopes)
			}
			if len(scopes) == 0 && len(src.said) == 1 &&
				(err == nil) == !slices.ContainsFunc(
					byDefault,
					func(f string) bool { return slices.Contains(src.said[0], f) },
				) {
				t.Fatalf("named nothing, the source said %v: %v, %v", src.said[0], m.Token.Scopes, err)
			}
			if err != nil && len(scopes) > 0 && len(src.said) == 1 && subset(scopes, src.said[0]) {
				t.Fatalf("refused %v of %v: %v", scopes, src.said[0], err)
			}
		}
	})
}

// changing returns at random, and remembers what it said when it was asked afresh.
type changing struct {
	t    *rapid.T
	said [][]string
}

func (c *changing) Features(_ context.Context, _ tokens.User, fresh bool) (tokens.Held, error) {
	held := some.Draw(c.t, "held")
	slices.Sort(held)
	held = slices.Compact(held)
	if fresh {
		c.said = append(c.said, held)
	}
	return tokens.Held{Features: held}, nil
}

func (*changing) Local() bool { return false }
