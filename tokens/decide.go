package tokens

import (
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// Decision is the result of introspection: a value, never an error.
type Decision int

// The decisions: the first that applies is returned. They apply in this order, but for the last.
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
	TokenIdle // after PolicyBlocked
)

var decisionNames = [...]string{
	NotFound:          "NOT_FOUND",
	Revoked:           "REVOKED",
	Expired:           "EXPIRED",
	Superseded:        "SUPERSEDED",
	UserIsSuspended:   "USER_SUSPENDED",
	PolicyBlocked:     "POLICY_BLOCKED",
	AudienceMismatch:  "AUDIENCE_MISMATCH",
	IPNotAllowed:      "IP_NOT_ALLOWED",
	InsufficientScope: "INSUFFICIENT_SCOPE",
	Allow:             "ALLOW",
	TokenIdle:         "TOKEN_IDLE",
}

// String returns the decision's name on the wire; empty for the zero Decision.
func (d Decision) String() string {
	if d < 0 || int(d) >= len(decisionNames) {
		return "DECISION_" + strconv.Itoa(int(d))
	}
	return decisionNames[d]
}

// decisionCounts counts decisions by their number.
type decisionCounts [TokenIdle + 1]atomic.Uint64

// Decisions calls each with every decision and how often introspection has made it since the Service was made, by any
// of its methods. What clients decide from their own cache is not among them.
func (s *Service) Decisions(each func(d Decision, total uint64)) {
	for d := NotFound; d <= TokenIdle; d++ {
		each(d, s.decisions[d].Load())
	}
}

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

// Facts are the input of a decision.
type Facts struct {
	Match         SecretMatch
	Revoked       bool
	Expired       bool
	UserSuspended bool
	Blocked       bool // by an operator
	Idle          bool // paused, because it was not used
	AudienceOK    bool
	IPOK          bool
	ScopesOK      bool
}

// Decide is the decision table. It returns NotFound for the zero Facts, and refuses on every fact that is not known to
// be good.
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
	case f.Idle:
		return TokenIdle
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

// Introspection is the result for a presented secret. If Decision is not Active, the caller may only be sent Decision
// and the instants of Ended.
type Introspection struct {
	Decision Decision
	// Ended says why a token is not active although its secret has matched; nil: it is, or no secret has. Its Holder is
	// for logs.
	Ended *EndedError
	// Token is the personal access token: the presented one, or the one that the presented access token came from.
	Token      Subject
	AccessID   ID     // of the presented access token; 0: a personal access token was presented
	ClientID   string // of the access token's client, as it named itself
	Granted    []string
	Audiences  []string
	IssueTime  time.Time
	Effective  []string // granted ∩ held now
	Suspended  []string // granted, not held now
	Missing    []string // required, not effective
	Paused     []string // granted, and taken out of effect until the owner resumes them
	ExpireTime time.Time
	ExpiresIn  time.Duration // in whole seconds; 0 with a zero ExpireTime
	CacheFor   time.Duration
	Sequence   uint64 // 0: the result must not be kept
	// Stale says that the features are the last known, served during an outage of their source.
	Stale bool
	// EffectiveShared says that Effective is a list that tokens share, and that nobody changes; false: that is not known.
	EffectiveShared bool
}

// Subject is what a result says of the personal access token itself. A batch holds a thousand of them: it is small.
type Subject struct {
	ID         ID
	User, Name string
	Labels     map[string]string
	AnyAddress bool // the token is bound to no network: an active result holds for every client address
}

// none is the empty list that results share.
var none = []string{}

// Effective splits granted scopes into those in effect and those suspended, by what the user holds now. Granted and
// held are sorted; so are the results, which may share granted's array.
func Effective(granted, held []string) (effective, suspended []string) {
	if holdsAll(held, granted) {
		return granted[:len(granted):len(granted)], none // the common case allocates nothing
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

// holdsAll reports whether a sorted list has all entries of another. It walks through both once, unless it is much
// longer.
func holdsAll(sorted, entries []string) bool {
	if len(sorted) > 8*len(entries) {
		return !slices.ContainsFunc(entries, func(s string) bool { return !holds(sorted, s) })
	}
	i := 0
	for _, s := range entries {
		for i < len(sorted) && sorted[i] != s { // not <: most often they are equal, and that is known sooner
			if sorted[i] > s {
				return false
			}
			i++
		}
		if i == len(sorted) {
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
