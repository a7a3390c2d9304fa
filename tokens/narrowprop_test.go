package tokens_test

import (
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"patd/tokens"
)

// scopeState is what a model knows of a scope that is granted.
type scopeState struct {
	paused time.Time // zero: in effect as far as the user holds it
	used   bool
}

// narrowed is a model of the scopes of one token: those that are granted, and what a cancellation brings back.
type narrowed struct {
	*house
	m       tokens.Minted
	secret  tokens.Secret
	granted map[string]scopeState
	held    []string
	dropped []string // by the newest rotation; nil: none can be canceled
	before  tokens.Secret
	cancels bool
}

var allScopes = []string{"a", "b", "c", "d", "e"}

func (n *narrowed) scopes(paused bool) []string {
	list := []string{}
	for s, is := range n.granted {
		if is.paused.IsZero() != paused {
			list = append(list, s)
		}
	}
	slices.Sort(list)
	return list
}

// expire forgets what was paused for too long.
func (n *narrowed) expire() {
	maps.DeleteFunc(n.granted, func(_ string, is scopeState) bool {
		return !is.paused.IsZero() && !n.now().Before(is.paused.Add(tokens.PauseLife))
	})
}

func (n *narrowed) some(t *rapid.T) []string {
	list := []string{}
	for _, s := range allScopes {
		if rapid.Bool().Draw(t, s) {
			list = append(list, s)
		}
	}
	return list
}

func (n *narrowed) id() string { return n.m.Token.ID.String() }

func (n *narrowed) pause(t *rapid.T) {
	r := tokens.NarrowRequest{User: "u1", TokenID: n.id(), DryRun: rapid.IntRange(0, 3).Draw(t, "dry") == 0}
	if rapid.Bool().Draw(t, "named") {
		r.Scopes = n.some(t)
	}
	want, refuse := []string{}, false
	for _, s := range allScopes {
		is, ok := n.granted[s]
		switch {
		case len(r.Scopes) > 0 && !slices.Contains(r.Scopes, s), ok && !is.paused.IsZero():
		case !ok:
			refuse = refuse || len(r.Scopes) > 0
		case len(r.Scopes) > 0 || !is.used:
			want = append(want, s)
		}
	}
	got, err := n.Narrow(ctx, admin, r)
	if refuse {
		wantReason(t, err, "SCOPES_NOT_GRANTED", "pause what is not granted")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got.Scopes); d != "" {
		t.Fatalf("narrowed:\n%s", d)
	}
	for _, s := range want {
		if is := n.granted[s]; !r.DryRun {
			is.paused = n.now()
			n.granted[s] = is
		}
	}
}

func (n *narrowed) resume(t *rapid.T) {
	ask := n.some(t)
	paused := n.scopes(true)
	back := paused
	for _, s := range ask {
		if _, ok := n.granted[s]; !ok {
			_, err := n.ResumeScopes(ctx, admin, "u1", n.id(), ask)
			wantReason(t, err, "SCOPES_NOT_PAUSED", "resume what is gone")
			return
		}
	}
	if len(ask) > 0 {
		back = slices.DeleteFunc(slices.Clone(paused), func(s string) bool { return !slices.Contains(ask, s) })
	}
	_, err := n.ResumeScopes(ctx, admin, "u1", n.id(), ask)
	if slices.ContainsFunc(back, func(s string) bool { return !slices.Contains(n.held, s) }) {
		wantReason(t, err, "SCOPE_NOT_HELD", "resume what the user does not hold")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range back {
		n.granted[s] = scopeState{used: n.granted[s].used}
	}
}

func (n *narrowed) update(t *rapid.T) {
	keep := n.some(t)
	_, err := n.UpdateToken(ctx, admin, "u1", n.id(), tokens.TokenChange{Scopes: &keep})
	switch {
	case len(keep) == 0:
		wantReason(t, err, "SCOPES_REQUIRED", "keep nothing")
		return
	case slices.ContainsFunc(keep, func(s string) bool { _, ok := n.granted[s]; return !ok }):
		wantReason(t, err, "SCOPES_WIDENED", "widen")
		return
	case err != nil:
		t.Fatal(err)
	}
	maps.DeleteFunc(n.granted, func(s string, _ scopeState) bool { return !slices.Contains(keep, s) })
}

func (n *narrowed) rotate(t *rapid.T) {
	r := tokens.RotateRequest{Force: true, DropUnheld: rapid.Bool().Draw(t, "drop")}
	got, err := n.turn(n.m, r)
	in := n.scopes(false)
	kept := slices.DeleteFunc(slices.Clone(in), func(s string) bool { return !slices.Contains(n.held, s) })
	if r.DropUnheld && len(in) > 0 && len(kept) == 0 {
		wantReason(t, err, "SCOPE_NOT_HELD", "drop all")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	n.before, n.secret, n.dropped, n.cancels = n.secret, got.Secret, nil, true
	if r.DropUnheld {
		for _, s := range in {
			if !slices.Contains(kept, s) {
				n.dropped = append(n.dropped, s)
				delete(n.granted, s)
			}
		}
	}
}

func (n *narrowed) undo(t *rapid.T) {
	if !n.cancels {
		return
	}
	if _, err := n.cancel(n.m); err != nil {
		return // the grace is over, or the secret was used
	}
	for _, s := range n.dropped {
		n.granted[s] = scopeState{}
	}
	n.secret, n.cancels = n.before, false
}

func (n *narrowed) use(t *rapid.T) {
	s := rapid.SampledFrom(allScopes).Draw(t, "used")
	in := n.ask(n.secret, s)
	is, ok := n.granted[s]
	if good := ok && is.paused.IsZero() && slices.Contains(n.held, s); good != (in.Decision == tokens.Allow) {
		t.Fatalf("%s is granted: %v %+v; held: %v; decided %v", s, ok, is, n.held, in.Decision)
	} else if good {
		is.used = true
		n.granted[s] = is
	}
}

// check compares what patd says with the model.
func (n *narrowed) check(t *rapid.T) {
	n.expire()
	now, tok, in := n.now(), n.stored(n.m), n.ask(n.secret)
	empty := cmpopts.EquateEmpty()
	all := slices.Sorted(maps.Keys(n.granted))
	if d := cmp.Diff(all, tok.GrantedScopes(now), empty) + cmp.Diff(all, in.Granted, empty); d != "" {
		t.Fatalf("granted:\n%s", d)
	}
	if d := cmp.Diff(
		n.scopes(true),
		tok.PausedScopes(now),
		empty,
	) + cmp.Diff(
		n.scopes(true),
		in.Paused,
		empty,
	); d != "" {
		t.Fatalf("paused:\n%s", d)
	}
	effective, suspended := tokens.Effective(n.scopes(false), n.held)
	if d := cmp.Diff(effective, in.Effective, empty) + cmp.Diff(suspended, in.Suspended, empty); d != "" {
		t.Fatalf("in effect:\n%s", d)
	}
}

// TestPausesNeverWidenAToken pauses and resumes scopes of a token among all else that changes them: what is in effect
// is what was granted, and neither taken away nor paused; and what was removed for good never comes back.
func TestPausesNeverWidenAToken(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "narrow")
		if err != nil {
			t.Fatal(err)
		}
		n := &narrowed{house: newHouseIn(t, dir), granted: map[string]scopeState{}, held: allScopes}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		n.give("u1", allScopes...)
		n.m, err = n.Mint(
			ctx,
			admin,
			tokens.MintRequest{User: "u1", Name: "n", Scopes: allScopes, Lifetime: tokens.Lifetime{TTL: days(366)}},
		)
		if err != nil {
			t.Fatal(err)
		}
		n.secret = n.m.Secret
		for _, s := range allScopes {
			n.granted[s] = scopeState{}
		}
		steps := map[string]func(*rapid.T){
			"pause":  n.pause,
			"resume": n.resume,
			"update": n.update,
			"rotate": n.rotate,
			"cancel": n.undo,
			"use":    n.use,
			"wait": func(t *rapid.T) {
				if n.now().Sub(noon) < 300*tokens.Day {
					n.wait(time.Duration(rapid.IntRange(1, 20).Draw(t, "days")) * tokens.Day)
				}
			},
			"hold": func(t *rapid.T) {
				n.held = n.some(t)
				n.give("u1", n.held...)
			},
			"remove": func(t *rapid.T) {
				if err := n.RemovePausedScopes(ctx); err != nil {
					t.Fatal(err)
				}
			},
			"": n.check,
		}
		t.Repeat(steps)
	})
}
