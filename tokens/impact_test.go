package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"patd/tokens"
)

// TestAnImpactIsWhatTheLossThenDoes makes users and tokens by chance, asks, lets the users lose the features, and
// compares with what introspection says of every token before and after.
func TestAnImpactIsWhatTheLossThenDoes(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c", "d"}
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouseIn(rt, tempDir(rt))
		some := func(what string, least int) []string {
			list := rapid.SliceOfNDistinct(rapid.SampledFrom(names), least, len(names), rapid.ID).Draw(rt, what)
			slices.Sort(list)
			return list
		}
		type made struct {
			user     string
			secret   tokens.Secret
			scopes   []string // granted
			used     []string // with what
			unscoped bool     // used, and not known with what
		}
		var all []made
		users := []string{"u1", "u2", "u3"}
		for _, user := range users {
			h.give(user, names...)
			for i := range rapid.IntRange(0, 4).Draw(rt, "tokens") {
				one := made{
					user:     user,
					scopes:   some("scopes", 1),
					used:     some("used", 0),
					unscoped: rapid.IntRange(0, 3).Draw(rt, "unscoped") == 0,
				}
				m := h.mint(user, fmt.Sprint("t", i), one.scopes...)
				one.secret = m.Secret
				switch rapid.IntRange(0, 4).Draw(rt, "state") {
				case 0:
					if _, err := h.Revoke(ctx, admin, user, m.Token.ID.String(), ""); err != nil {
						rt.Fatal(err)
					}
				default:
					for _, scope := range one.used {
						h.ask(m.Secret, scope)
					}
					if one.unscoped {
						h.ask(m.Secret)
					}
				}
				all = append(all, one)
			}
			h.give(user, some("held", 0)...)
		}
		if err := h.store.Flush(ctx); err != nil {
			rt.Fatal(err)
		}
		r := tokens.ImpactRequest{Lose: some("lose", 1), All: rapid.Bool().Draw(rt, "all")}
		if !r.All {
			r.Users = rapid.SliceOfNDistinct(rapid.SampledFrom(append(users, "nobody")), 1, 4, rapid.ID).
				Draw(rt, "users")
		}
		got, next, err := h.FeatureImpact(ctx, admin, r)
		if err != nil || next != "" {
			rt.Fatal(next, err)
		}
		before := map[int][]string{}
		for i, one := range all {
			before[i] = h.ask(one.secret).Effective
		}
		for _, user := range users {
			if r.All || slices.Contains(r.Users, user) {
				if _, err := h.UpdateUserFeatures(ctx, admin, user, nil, r.Lose); err != nil {
					rt.Fatal(err)
				}
			}
		}
		want := tokens.LossCount{}
		byFeature, byUser := map[string]*tokens.LossCount{}, map[string]int64{}
		seen := map[string]bool{}
		for i, one := range all {
			_, lost := tokens.Effective(before[i], h.ask(one.secret).Effective)
			if len(lost) == 0 {
				continue
			}
			want.Tokens++
			if byUser[one.user]++; byUser[one.user] == 1 {
				want.Users++
			}
			used, _ := tokens.Effective(lost, one.used)
			count := func(of *tokens.LossCount, was bool) {
				if was || one.unscoped {
					of.Recent++
				}
				if !was && one.unscoped {
					of.Unknown++
				}
			}
			count(&want, len(used) > 0)
			for _, name := range lost {
				if byFeature[name] == nil {
					byFeature[name] = &tokens.LossCount{}
				}
				byFeature[name].Tokens++
				count(byFeature[name], slices.Contains(used, name))
				if !seen[one.user+name] {
					seen[one.user+name] = true
					byFeature[name].Users++
				}
			}
		}
		if !got.ByScope || !got.RecordedSince.IsZero() {
			rt.Fatalf("by scope: %t, since %v", got.ByScope, got.RecordedSince)
		}
		if d := cmp.Diff(want, got.LossCount); d != "" {
			rt.Fatalf("in all:\n%s", d)
		}
		for _, f := range got.Features {
			of := byFeature[f.Feature]
			if of == nil {
				of = &tokens.LossCount{}
			}
			if d := cmp.Diff(*of, f.LossCount); d != "" {
				rt.Fatalf("%s:\n%s", f.Feature, d)
			}
		}
		if len(got.Features) != len(r.Lose) || len(got.Largest) != len(byUser) {
			rt.Fatalf("%d features, %d users: %+v", len(got.Features), len(got.Largest), got)
		}
		for i, u := range got.Largest {
			if u.Tokens != byUser[u.User] || int64(len(u.First)) != u.Tokens || len(u.Features) == 0 {
				rt.Fatalf("%+v, want %d tokens", u, byUser[u.User])
			}
			if i > 0 &&
				(got.Largest[i-1].Tokens < u.Tokens || got.Largest[i-1].Tokens == u.Tokens && got.Largest[i-1].User > u.User) {
				rt.Fatalf("the order of %+v", got.Largest)
			}
		}
	})
}

// TestTheLargestOfAnImpactArePaged reads all users, a few at a time.
func TestTheLargestOfAnImpactArePaged(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var want []string
	for n := 3; n > 0; n-- {
		for _, user := range []string{"x", "y.1", "z"} {
			user = fmt.Sprint(user, n)
			h.give(user, "a")
			for i := range n {
				h.mint(user, fmt.Sprint(i), "a")
			}
			want = append(want, fmt.Sprintf("%s %d", user, n))
		}
	}
	r := tokens.ImpactRequest{Lose: []string{"a", "a", "none"}, All: true, Page: tokens.Page{Size: 2}}
	var got []string
	for {
		page, next, err := h.FeatureImpact(ctx, admin, r)
		if err != nil || page.Tokens != 18 || page.Users != 9 || len(page.Features) != 2 {
			t.Fatalf("%+v, %v", page, err)
		}
		for _, u := range page.Largest {
			got = append(got, fmt.Sprintf("%s %d", u.User, u.Tokens))
		}
		if next == "" {
			break
		}
		r.Page.Token = next
		other := r
		other.Lose = []string{"b"}
		_, _, err = h.FeatureImpact(ctx, admin, other)
		wantReason(t, err, "PAGE_TOKEN_INVALID", "the page of another query")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestAnImpactEndsWithItsCaller cancels one that waits for others, and one under way.
func TestAnImpactEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	var park parked
	h := newHouse(
		t,
		func(c *tokens.Config) { park.Store = c.Store; park.begun = make(chan struct{}, 4); c.Store = &park },
	)
	h.give("u1", "a")
	h.mint("u1", "n", "a")
	r := tokens.ImpactRequest{Lose: []string{"a"}, All: true}
	park.hold.Store(true)
	left, leave := context.WithCancel(ctx)
	errs := make(chan error, 3)
	for range 3 { // two read, and one waits
		go func() { _, _, err := h.FeatureImpact(left, admin, r); errs <- err }()
	}
	<-park.begun
	<-park.begun
	leave()
	for range 3 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	park.hold.Store(false)
	if got, _, err := h.FeatureImpact(ctx, admin, r); err != nil || got.Tokens != 1 {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
}

func TestAnImpactIsAskedInFull(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := []string{"a"}
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprint("u", i)
	}
	for what, c := range map[string]struct {
		r      tokens.ImpactRequest
		reason string
	}{
		"nothing":       {tokens.ImpactRequest{All: true}, "SCOPES_REQUIRED"},
		"no scope":      {tokens.ImpactRequest{Lose: []string{"a b"}, All: true}, "SCOPE_INVALID"},
		"nobody":        {tokens.ImpactRequest{Lose: a}, "USERS_REQUIRED"},
		"both":          {tokens.ImpactRequest{Lose: a, All: true, Users: []string{"u"}}, "USERS_REQUIRED"},
		"many users":    {tokens.ImpactRequest{Lose: a, Users: many}, "TOO_MANY_USERS"},
		"many features": {tokens.ImpactRequest{Lose: many[:65], All: true}, "TOO_MANY_FEATURES"},
		"no user":       {tokens.ImpactRequest{Lose: a, Users: []string{"x", "\x00"}}, "USER_INVALID"},
		"long ago":      {tokens.ImpactRequest{Lose: a, All: true, Within: 367 * tokens.Day}, "DURATION_OUT_OF_RANGE"},
		"no time":       {tokens.ImpactRequest{Lose: a, All: true, Within: -1}, "DURATION_OUT_OF_RANGE"},
	} {
		_, _, err := h.FeatureImpact(ctx, admin, c.r)
		wantReason(t, err, c.reason, what)
	}
	got, _, err := h.FeatureImpact(ctx, admin, tokens.ImpactRequest{Lose: a, Users: many[:1000]})
	if err != nil || got.Tokens != 0 || len(got.Features) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestAnImpactCountsUsesLately has uses of different ages.
func TestAnImpactCountsUsesLately(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	old, late := h.mint("u1", "old", "a"), h.mint("u1", "late", "a")
	h.mint("u1", "never", "a")
	h.ask(old.Secret)
	h.wait(10 * tokens.Day)
	h.ask(late.Secret)
	if err := h.store.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	h.wait(25 * tokens.Day)
	for within, want := range map[time.Duration]int64{0: 1, 24 * tokens.Day: 0, 25 * tokens.Day: 1, 60 * tokens.Day: 2} {
		got, _, err := h.FeatureImpact(
			ctx,
			admin,
			tokens.ImpactRequest{Lose: []string{"a"}, Users: []string{"u1"}, Within: within},
		)
		if err != nil || got.Tokens != 3 || got.Recent != want || got.Largest[0].Recent != want {
			t.Errorf("within %v: %+v, %v; want %d", within, got, err, want)
		}
	}
}

// TestAnImpactSaysWhereUsesAreNotKnownByScope has tokens from before uses were recorded by scope: each use of them
// counts, as long as it was within the time that is asked about, and is said to be unknown.
func TestAnImpactSaysWhereUsesAreNotKnownByScope(t *testing.T) {
	t.Parallel()
	began := make(chan time.Time, 1)
	h := newHouse(t, func(c *tokens.Config) { c.Store = recordedSince{c.Store, began} })
	h.give("u1", "a", "b")
	old := h.mint("u1", "old", "a", "b")
	h.wait(2 * tokens.Day)
	began <- h.now()
	h.wait(2 * tokens.Day)
	young := h.mint("u1", "young", "a", "b")
	for _, m := range []tokens.Minted{old, young} {
		h.ask(m.Secret, "b")
	}
	h.wait(tokens.Day)
	if err := h.store.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for within, want := range map[time.Duration]struct {
		tokens.LossCount
		byScope bool
	}{
		4 * tokens.Day:  {tokens.LossCount{Tokens: 2, Users: 1, Recent: 1, Unknown: 1}, false},
		3 * tokens.Day:  {tokens.LossCount{Tokens: 2, Users: 1}, true},
		20 * time.Hour:  {tokens.LossCount{Tokens: 2, Users: 1}, true},
		30 * tokens.Day: {tokens.LossCount{Tokens: 2, Users: 1, Recent: 1, Unknown: 1}, false},
	} {
		got, _, err := h.FeatureImpact(ctx, admin, tokens.ImpactRequest{Lose: []string{"a"}, All: true, Within: within})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(
			want.LossCount,
			got.LossCount,
		); d != "" || got.ByScope != want.byScope ||
			got.RecordedSince.IsZero() != want.byScope {
			t.Errorf("within %v, by scope %t since %v:\n%s", within, got.ByScope, got.RecordedSince, d)
		}
		if first := got.Largest[0].First; first[0].Unknown != !want.byScope || first[1].Recent {
			t.Errorf("within %v: %+v", within, first)
		}
		used, _, err := h.FeatureImpact(
			ctx,
			admin,
			tokens.ImpactRequest{Lose: []string{"b"}, All: true, Within: within},
		)
		if recent := int64(2); err != nil || within > tokens.Day && (used.Recent != recent || used.Unknown != 0) {
			t.Errorf("within %v, of what was used: %+v, %v", within, used.LossCount, err)
		}
	}
}

// recordedSince is a store that has recorded uses by scope since a time only.
type recordedSince struct {
	tokens.Store
	began chan time.Time
}

func (r recordedSince) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	return r.Store.View(ctx, func(tx tokens.ReadTx) error { return fn(recordedSinceTx{tx, r.began}) })
}

type recordedSinceTx struct {
	tokens.ReadTx
	began chan time.Time
}

func (r recordedSinceTx) UsesSince() (time.Time, error) {
	select {
	case at := <-r.began:
		r.began <- at
		return at, nil
	default:
		return time.Time{}, nil
	}
}

// parked is a store whose reads of granted tokens wait for the end of their call.
type parked struct {
	tokens.Store
	hold  atomic.Bool
	begun chan struct{}
}

func (p *parked) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	return p.Store.View(ctx, func(tx tokens.ReadTx) error { return fn(parkedTx{tx, ctx, p}) })
}

type parkedTx struct {
	tokens.ReadTx
	ctx context.Context
	of  *parked
}

func (p parkedTx) Granted(q tokens.GrantedQuery) ([]tokens.Token, error) {
	if p.of.hold.Load() {
		p.of.begun <- struct{}{}
		<-p.ctx.Done()
	}
	return p.ReadTx.Granted(q)
}
