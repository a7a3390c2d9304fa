package signin

import "time"

// Cause is why a token was refused.
type Cause int

// The causes.
const (
	CauseMalformed   Cause = iota // it is no JWT that can be checked
	CauseIssuer                   // its issuer is not configured
	CauseExpired                  // its time is over
	CauseClaims                   // another claim is missing or wrong
	CauseSignature                // no key of its issuer made the signature
	CauseUnavailable              // the issuer's keys could not be fetched, which says nothing about the token
	causes
)

// String returns the cause's name in the metrics.
func (c Cause) String() string {
	return [causes]string{"malformed", "issuer", "expired", "claims", "signature", "unavailable"}[c]
}

// Refusals calls each with every cause and how many tokens were refused for it.
func (s *SignIn) Refusals(each func(c Cause, total uint64)) {
	for c := range causes {
		each(c, s.refused[c].Load())
	}
}

// KeysFetched returns when the keys of the issuer whose are the oldest were fetched. Zero: an issuer has none yet.
func (s *SignIn) KeysFetched() (oldest time.Time) {
	first := true
	for _, i := range s.issuers {
		keys := i.keys.atHand()
		if keys == nil {
			return time.Time{}
		}
		if first || keys.fetched.Before(oldest) {
			first, oldest = false, keys.fetched
		}
	}
	return oldest
}
