package tokens

import (
	"slices"
	"time"
)

// Decision is the answer of introspection: a value, never an error.
type Decision int

// The decisions, in the order in which proto/patd/v1/introspection.proto lists them: the first that applies is the answer.
const (
	NotFound Decision = iota + 1
	Revoked
	Expired
	Superseded
	UserIsSuspended
	PolicyBlocked
	AudienceMismatch
	IPNotAllowed
	InsufficientScope
	Allow
)

// Active reports whether a decision means an active token.
func (d Decision) Active() bool { return d == Allow || d == InsufficientScope }

// SecretMatch says which of a token's secrets was presented.
type SecretMatch int

// What a presented secret can be.
const (
	MatchNone       SecretMatch = iota
	MatchLive                   // the current one, or one in its grace
	MatchSuperseded             // rotated away, and its grace is over
)

// Facts are what a decision rests on.
type Facts struct {
	Match         SecretMatch
	Revoked       bool
	Expired       bool
	UserSuspended bool
	Blocked       bool
	AudienceOK    bool
	IPOK          bool
	ScopesOK      bool
}

// Decide is the decision table. The zero Facts are NotFound, and every fact
// that is not known to be good refuses.
func Decide(f Facts) Decision {
	switch {
	case f.Match == MatchNone:
		return NotFound
	case f.Revoked:
		return Revoked
	case f.Expired:
		return Expired
	case f.Match != MatchLive:
		return Superseded
	case f.UserSuspended:
		return UserIsSuspended
	case f.Blocked:
		return PolicyBlocked
	case !f.AudienceOK:
		return AudienceMismatch
	case !f.IPOK:
		return IPNotAllowed
	case !f.ScopesOK:
		return InsufficientScope
	default:
		return Allow
	}
}

// Introspection is the answer about a presented secret. When Decision is not Active, only Decision may be told.
type Introspection struct {
	Decision Decision
	// Token is the personal access token: the one that was presented, or that the presented access token came from.
	Token      Token
	AccessID   ID     // of the presented access token; 0: a personal access token was presented
	ClientID   string // that the access token was given to, as it named itself
	Granted    []string
	Audiences  []string
	IssueTime  time.Time
	Effective  []string // granted ∩ held now
	Suspended  []string // granted, not held now
	Missing    []string // required, not effective
	ExpireTime time.Time
	ExpiresIn  time.Duration // 0 with a zero ExpireTime
	CacheFor   time.Duration
	Sequence   uint64
	// Stale says that the features are the last known, served during an outage of their source.
	Stale bool
}

// AnyAddress reports whether an active answer holds wherever the token is presented from: no network binds it.
func (in *Introspection) AnyAddress() bool { return len(in.Token.CIDRs) == 0 }

// none is the empty list that answers share.
var none = []string{}

// Effective splits granted scopes into those in effect and those suspended, by what the user holds now. Granted and
// held are sorted; so are the answers, which may share granted's array.
func Effective(granted, held []string) (effective, suspended []string) {
	if holdsAll(held, granted) {
		return granted[:len(granted):len(granted)], none // the common case leaves no garbage behind
	}
	effective, suspended = make([]string, 0, len(granted)), []string{}
	for _, g := range granted {
		if holds(held, g) {
			effective = append(effective, g)
		} else {
			suspended = append(suspended, g)
		}
	}
	return effective, suspended
}

// holdsAll tells whether a sorted list has all entries of another: by one walk through both, unless it is much longer.
func holdsAll(sorted, entries []string) bool {
	if len(sorted) > 8*len(entries) {
		return !slices.ContainsFunc(entries, func(s string) bool { return !holds(sorted, s) })
	}
	i := 0
	for _, s := range entries {
		for i < len(sorted) && sorted[i] < s {
			i++
		}
		if i == len(sorted) || sorted[i] != s {
			return false
		}
	}
	return true
}

// holds reports whether a sorted list has an entry.
func holds(sorted []string, s string) bool {
	_, ok := slices.BinarySearch(sorted, s)
	return ok
}

// Missing lists the required scopes that are not effective, sorted and without duplicates. Effective is sorted.
func Missing(required, effective []string) []string {
	missing := none
	for _, r := range required {
		if !holds(effective, r) {
			missing = append(missing, r)
		}
	}
	if len(missing) == 0 {
		return none
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}
