package tokens

import (
	"slices"
	"strings"
	"time"
)

// PauseLife is how long a paused scope can be resumed. Then it is removed for good.
const PauseLife = 30 * Day

// Pause is a scope that was granted and is not in effect until it is resumed.
type Pause struct {
	Scope string
	Time  time.Time // when it was paused
}

// End returns when the scope is removed for good.
func (p Pause) End() time.Time { return p.Time.Add(PauseLife) }

// PausedScopes returns the paused scopes that can still be resumed, sorted.
func (t *Token) PausedScopes(now time.Time) []string {
	if len(t.Paused) == 0 {
		return none
	}
	list := make([]string, 0, len(t.Paused))
	for _, p := range t.Paused {
		if now.Before(p.End()) {
			list = append(list, p.Scope)
		}
	}
	return list
}

// GrantedScopes returns all scopes that the token was granted and has not lost: Scopes, and those that are paused. They
// are sorted.
func (t *Token) GrantedScopes(now time.Time) []string { return union(t.Scopes, t.PausedScopes(now)) }

// PausedUntil returns when the first of the paused scopes is removed for good; zero: none can be resumed.
func (t *Token) PausedUntil(now time.Time) time.Time {
	var first time.Time
	for _, p := range t.Paused {
		if end := p.End(); now.Before(end) {
			first = earliest(first, end)
		}
	}
	return first
}

// pause takes scopes out of effect. It leaves alone those that are not in Scopes, and returns the others, sorted.
func (t *Token) pause(scopes []string, now time.Time) []string {
	left, gone := make([]string, 0, len(t.Scopes)), []string{}
	paused := slices.Clone(t.Paused)
	for _, s := range t.Scopes {
		if !slices.Contains(scopes, s) {
			left = append(left, s)
			continue
		}
		gone = append(gone, s)
		paused = append(paused, Pause{Scope: s, Time: now})
	}
	if len(gone) > 0 {
		sortPauses(paused)
		t.Scopes, t.Paused = left, paused
	}
	return gone
}

// resume has paused scopes in effect again, of which the caller knows that they are paused.
func (t *Token) resume(scopes []string) {
	t.Paused = slices.DeleteFunc(slices.Clone(t.Paused), func(p Pause) bool { return slices.Contains(scopes, p.Scope) })
	t.Scopes = union(t.Scopes, scopes)
}

// dropPaused removes the paused scopes that gone selects for good, and returns them, sorted.
func (t *Token) dropPaused(gone func(Pause) bool) []string {
	var dropped []string
	t.Paused = slices.DeleteFunc(slices.Clone(t.Paused), func(p Pause) bool {
		if gone(p) {
			dropped = append(dropped, p.Scope)
			return true
		}
		return false
	})
	return dropped
}

func sortPauses(list []Pause) {
	slices.SortFunc(list, func(a, b Pause) int { return strings.Compare(a.Scope, b.Scope) })
}
