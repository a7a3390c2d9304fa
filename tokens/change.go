package tokens

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// change is a TokenChange whose fields are well formed.
type change struct {
	TokenChange
	cidrs []netip.Prefix
}

// checked normalizes a change, and refuses a malformed one.
func (s *Service) checked(in TokenChange) (change, error) {
	var c checker
	out := change{TokenChange: in}
	if in.Name != nil {
		name := c.name(*in.Name)
		out.Name = &name
	}
	if in.Description != nil {
		c.description(*in.Description)
	}
	if in.Labels != nil {
		c.labels(*in.Labels, s.limits.Labels)
	}
	if in.CIDRs != nil {
		out.cidrs = c.cidrs(*in.CIDRs, s.limits.CIDRs)
	}
	if in.Scopes != nil {
		if len(*in.Scopes) == 0 {
			c.add("scopes", "SCOPES_REQUIRED", "a token keeps at least one scope; revoke it instead")
		}
		scopes := c.storedScopes("scopes", "TOO_MANY_SCOPES", *in.Scopes, s.limits.Scopes)
		out.Scopes = &scopes
	}
	if in.ExpireTime != nil {
		at := in.ExpireTime.UTC().Truncate(time.Microsecond)
		out.ExpireTime = &at
	}
	if in.RenewableUntil != nil && !in.RenewableUntil.IsZero() {
		at := in.RenewableUntil.UTC().Truncate(time.Microsecond)
		out.RenewableUntil = &at
	}
	return out, c.err()
}

// apply makes the change to a token and returns which fields it changed, without those that already had the requested
// value. A change that would widen the token is refused.
func (c change) apply(t *Token, now time.Time) ([]string, error) {
	var changed []string
	ended := t.ExpireTime
	if c.Scopes != nil {
		granted := t.GrantedScopes(now)
		_, more := Effective(*c.Scopes, granted)
		if len(more) > 0 {
			return nil, &Error{
				Code:     CodeInvalid,
				Reason:   "SCOPES_WIDENED",
				Message:  "scopes: a token's scopes can only become fewer; not granted: " + strings.Join(more, " "),
				Metadata: map[string]string{"scopes": strings.Join(more, " ")},
				Violations: []Violation{
					{Field: "scopes", Description: "not granted: " + strings.Join(more, " "), Reason: "SCOPES_WIDENED"},
				},
			}
		}
		if _, gone := Effective(granted, *c.Scopes); len(gone) > 0 {
			t.Scopes, _ = Effective(t.Scopes, *c.Scopes) // paused ones stay paused
			t.dropPaused(func(p Pause) bool { return slices.Contains(gone, p.Scope) })
			changed = append(changed, changedScopes+strings.Join(gone, " -"))
		}
	}
	if c.ExpireTime != nil && !c.ExpireTime.Equal(t.ExpireTime) {
		at := *c.ExpireTime
		switch {
		case at.IsZero() || !t.ExpireTime.IsZero() && at.After(t.ExpireTime):
			return nil, Invalid(
				"EXPIRE_TIME_LATER",
				"expire_time",
				"the expiry can only become earlier; rotate the token to extend it",
			)
		case !at.After(now):
			return nil, Invalid(
				"EXPIRE_TIME_PAST",
				"expire_time",
				"must be in the future; revoke the token to end it now",
			)
		}
		t.ExpireTime, t.EndSetTime = at, now
		changed = append(changed, changedExpiry+at.UTC().Format(time.RFC3339Nano)) // a replay reads it
	}
	self, err := c.applySelf(t, !t.ExpireTime.Equal(ended), now)
	if err != nil {
		return nil, err
	}
	changed = append(changed, self...)
	if c.Name != nil && *c.Name != t.Name {
		t.Name = *c.Name
		changed = append(changed, "name")
	}
	if c.Description != nil && *c.Description != t.Description {
		t.Description = *c.Description
		changed = append(changed, "description")
	}
	if c.Labels != nil && !maps.Equal(*c.Labels, t.Labels) {
		t.Labels = *c.Labels
		changed = append(changed, "labels")
	}
	if c.CIDRs != nil && !slices.Equal(c.cidrs, t.CIDRs) {
		t.CIDRs = c.cidrs
		changed = append(changed, changedCIDRs+networks(t.CIDRs))
	}
	return changed, nil
}
