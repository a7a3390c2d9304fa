package tokens

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// MaxFilterLabels is how many labels a filter may name.
const MaxFilterLabels = 4

// Filter selects tokens of any user. Zero fields match all. Matches says what it means; a store finds the same tokens.
type Filter struct {
	User     string // the owner's id; a deleted user has no tokens here
	State    State
	Scope    string // among those granted, also ones that are paused and can be resumed
	Audience string // among those named
	Labels   map[string]string
	// ExpiresBefore selects tokens that end before it, and none that never end.
	ExpiresBefore time.Time
	// UnusedSince selects tokens whose last use, or issue if they were never used, was before it.
	UnusedSince   time.Time
	CreatedBefore time.Time
	// NameHas is contained in the name, both folded by NameKey. Where it is the id of a token, ID is set instead.
	NameHas string
	ID      ID
	// Unrevoked selects tokens that are not revoked: those that a revocation would end.
	Unrevoked bool
}

// stateNames are the states as they are written in a query; any state has none.
var stateNames = [...]string{StateAny: "", StateActive: "ACTIVE", StateExpired: "EXPIRED", StateRevoked: "REVOKED"}

// Empty reports whether the filter selects all tokens.
func (f Filter) Empty() bool {
	return f.User == "" && f.State == StateAny && f.Scope == "" && f.Audience == "" && len(f.Labels) == 0 &&
		f.ExpiresBefore.IsZero() && f.UnusedSince.IsZero() && f.CreatedBefore.IsZero() && f.NameHas == "" && f.ID == 0
}

// Matches reports whether the filter selects a token at an instant. It does not know whether the user was deleted.
func (f Filter) Matches(t Token, now time.Time) bool {
	for k, v := range f.Labels {
		if has, ok := t.Labels[k]; !ok || has != v {
			return false
		}
	}
	used := t.LastUsed.Time
	if used.IsZero() {
		used = t.IssueTime
	}
	return (f.User == "" || t.User == f.User) &&
		(f.State == StateAny || t.Status(now) == f.State) &&
		(!f.Unrevoked || t.Revocation == nil) &&
		(f.Scope == "" || slices.Contains(t.Scopes, f.Scope) || slices.Contains(t.PausedScopes(now), f.Scope)) &&
		(f.Audience == "" || slices.Contains(t.Audiences, f.Audience)) &&
		(f.ExpiresBefore.IsZero() || !t.ExpireTime.IsZero() && t.ExpireTime.Before(f.ExpiresBefore)) &&
		(f.UnusedSince.IsZero() || used.Before(f.UnusedSince)) &&
		(f.CreatedBefore.IsZero() || t.IssueTime.Before(f.CreatedBefore)) &&
		(f.ID == 0 || t.ID == f.ID) &&
		(f.NameHas == "" || strings.Contains(NameKey(t.Name), NameKey(f.NameHas)))
}

// key identifies a filter: two filters with one key select the same tokens.
func (f Filter) key() string {
	labels := make([]string, 0, 2*len(f.Labels))
	for _, k := range slices.Sorted(maps.Keys(f.Labels)) {
		labels = append(labels, k, f.Labels[k])
	}
	return framed(f.User, stateNames[f.State], f.Scope, f.Audience, framed(labels...), instant(f.ExpiresBefore),
		instant(f.UnusedSince), instant(f.CreatedBefore), f.NameHas, f.ID.String())
}

// String describes a filter for people: its fields as they are written in a query.
func (f Filter) String() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	add("user", f.User)
	add("state", stateNames[f.State])
	add("scope", f.Scope)
	add("audience", f.Audience)
	for _, k := range slices.Sorted(maps.Keys(f.Labels)) {
		parts = append(parts, "label."+k+"="+f.Labels[k])
	}
	for _, at := range []struct {
		name string
		time time.Time
	}{{"expires_before", f.ExpiresBefore}, {"unused_since", f.UnusedSince}, {"created_before", f.CreatedBefore}} {
		if !at.time.IsZero() {
			add(at.name, at.time.Format(time.RFC3339Nano))
		}
	}
	add("q", f.NameHas)
	if f.ID != 0 {
		add("q", f.ID.String())
	}
	return strings.Join(parts, " ")
}

// filter checks a filter whose fields have names that begin with at, and normalizes it.
func (c *checker) filter(at string, f Filter) Filter {
	if f.State < StateAny || f.State > StateRevoked {
		c.add(at+"state", "STATE_UNKNOWN", "no such state")
		f.State = StateAny
	}
	if f.User != "" {
		c.user(f.User)
	}
	if f.Scope != "" {
		c.storedScopes(at+"scope", "TOO_MANY_SCOPES", []string{f.Scope}, 1)
	}
	if f.Audience != "" {
		c.audience(at+"audience", f.Audience)
	}
	c.labels(f.Labels, MaxFilterLabels)
	c.text(at+"q", f.NameHas, maxUserID, false)
	for _, t := range []*time.Time{&f.ExpiresBefore, &f.UnusedSince, &f.CreatedBefore} {
		*t = t.UTC().Truncate(time.Microsecond)
	}
	return f
}
