package tokens_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"patd/tokens"
)

// TestDecisionTable walks every combination of facts and finds the answer a second way: the first row of the order in
// introspection.proto whose condition holds.
func TestDecisionTable(t *testing.T) {
	rows := []struct {
		d    tokens.Decision
		when func(tokens.Facts) bool
	}{
		{tokens.NotFound, func(f tokens.Facts) bool { return f.Match == tokens.MatchNone }},
		{tokens.Revoked, func(f tokens.Facts) bool { return f.Revoked }},
		{tokens.Expired, func(f tokens.Facts) bool { return f.Expired }},
		{tokens.Superseded, func(f tokens.Facts) bool { return f.Match == tokens.MatchSuperseded }},
		{tokens.UserIsSuspended, func(f tokens.Facts) bool { return f.UserSuspended }},
		{tokens.PolicyBlocked, func(f tokens.Facts) bool { return f.Blocked }},
		{tokens.TokenIdle, func(f tokens.Facts) bool { return f.Idle }},
		{tokens.AudienceMismatch, func(f tokens.Facts) bool { return !f.AudienceOK }},
		{tokens.IPNotAllowed, func(f tokens.Facts) bool { return !f.IPOK }},
		{tokens.InsufficientScope, func(f tokens.Facts) bool { return !f.ScopesOK }},
		{tokens.Allow, func(tokens.Facts) bool { return true }},
	}
	bit := func(n, i int) bool { return n&(1<<i) != 0 }
	seen := map[tokens.Decision]int{}
	for _, m := range []tokens.SecretMatch{tokens.MatchNone, tokens.MatchLive, tokens.MatchSuperseded} {
		for n := range 256 {
			f := tokens.Facts{
				Match: m, Revoked: bit(n, 0), Expired: bit(n, 1), UserSuspended: bit(n, 2),
				AudienceOK: bit(n, 3), IPOK: bit(n, 4), ScopesOK: bit(n, 5), Blocked: bit(n, 6), Idle: bit(n, 7),
			}
			want := rows[slices.IndexFunc(rows, func(r struct {
				d    tokens.Decision
				when func(tokens.Facts) bool
			}) bool {
				return r.when(f)
			})].d
			got := tokens.Decide(f)
			seen[got]++
			if got != want {
				t.Errorf("%+v: %v, want %v", f, got, want)
			}
			if got.Active() != (got == tokens.Allow || got == tokens.InsufficientScope) {
				t.Errorf("%v: active %v", got, got.Active())
			}
		}
	}
	if len(seen) != len(rows) {
		t.Errorf("only %d of %d decisions were seen", len(seen), len(rows))
	}
	if d := tokens.Decide(tokens.Facts{}); d != tokens.NotFound {
		t.Errorf("nothing known: %v", d)
	}
	if d := tokens.Decide(tokens.Facts{Match: tokens.MatchLive}); d.Active() {
		t.Errorf("nothing known but the secret: %v", d)
	}
}

func TestScopeAlgebra(t *testing.T) {
	names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"}), rapid.ID[string])
	rapid.Check(t, func(t *rapid.T) {
		granted, held, required := names.Draw(t, "granted"), names.Draw(t, "held"), names.Draw(t, "required")
		slices.Sort(granted)
		slices.Sort(held)
		effective, suspended := tokens.Effective(granted, held)
		missing := tokens.Missing(required, effective)
		for _, x := range []string{"a", "b", "c", "d", "e", "f", "g"} {
			g, h, r := slices.Contains(granted, x), slices.Contains(held, x), slices.Contains(required, x)
			if got := slices.Contains(effective, x); got != (g && h) {
				t.Errorf("%s: granted %v, held %v, effective %v", x, g, h, got)
			}
			if got := slices.Contains(suspended, x); got != (g && !h) {
				t.Errorf("%s: granted %v, held %v, suspended %v", x, g, h, got)
			}
			if got := slices.Contains(missing, x); got != (r && (!g || !h)) {
				t.Errorf("%s: required %v, granted %v, held %v, missing %v", x, r, g, h, got)
			}
		}
		if len(effective)+len(suspended) != len(granted) || !slices.IsSorted(effective) || !slices.IsSorted(missing) {
			t.Errorf("%v, %v, %v", effective, suspended, missing)
		}
	})
}
