package tokens

import (
	"net/netip"
	"time"
)

// MaxSources is how many addresses and asking services are kept of a token.
const MaxSources = 5

// ScopeUses says what is known of the uses of a token: of each scope that a service required, and where it was used
// from. It is saved in the background, as the last use is. Uses that another server has not saved yet are missing.
type ScopeUses struct {
	// Since is when recording began, if that was after the token was issued; zero: all uses were recorded.
	Since time.Time
	// Scopes are those that were used, sorted.
	Scopes []ScopeUse
	// Unscoped are the uses whose service did not say what it required, so that they may be of any scope.
	Unscoped ScopeUse
	// Sources are the latest, newest first, at most MaxSources.
	Sources []UseSource
}

// ScopeUse is the use of one scope.
type ScopeUse struct {
	Scope string
	Day   time.Time // of the last use, in UTC; zero: never
	Count int64     // about how often
}

// UseSource is an address and the service that asked about a token used from there.
type UseSource struct {
	IP      netip.Addr // invalid: not known
	Service string
	Time    time.Time // of the last use that is known
}

// Of returns the use of a scope; its Day is zero if it was never used.
func (u *ScopeUses) Of(scope string) ScopeUse {
	for _, one := range u.Scopes {
		if one.Scope == scope {
			return one
		}
	}
	return ScopeUse{Scope: scope}
}

// before reports whether the scope was not used since a time; the zero time: never. Of the last use only the day is
// known, so that it counts until that is over.
func (u ScopeUse) before(cutoff time.Time) bool {
	return u.Day.IsZero() || !cutoff.IsZero() && !u.Day.Add(Day).After(cutoff)
}
