package client

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Checker decides about tokens. [Verifier] and [Static] are Checkers, and so is the fake of package clienttest. [Guard]
// and [UnaryServerInterceptor] need no more than this.
//
// A decision is a value. An error means that nothing is known about the token: the caller's own call must then fail,
// with 503 or UNAVAILABLE, and never pass.
type Checker interface {
	// Verify decides about a token, exactly as the client sent it, for the call at hand. It is safe for concurrent use.
	Verify(ctx context.Context, token string, call Call) (Result, error)
}

// Call is what the call at hand requires of a token. The zero Call requires an active token and no more.
type Call struct {
	// Audience is the caller's own API; empty: that of the Checker's configuration.
	Audience string
	// Scopes are the scopes that the call needs, all of them.
	Scopes []string
	// ClientIP is where the token was presented from. A token bound to networks is refused without it.
	ClientIP netip.Addr
}

// Decision is what was decided about a token.
type Decision int

// The decisions, numbered as on the wire.
const (
	// Allow: active, and every required scope is in effect.
	Allow Decision = iota + 1
	// InsufficientScope: active, but some required scopes are not in effect.
	InsufficientScope
	// NotFound: garbage, another kind of token, an unknown id or a wrong secret.
	NotFound
	// Expired: the token's time is over.
	Expired
	// Revoked: the token was revoked.
	Revoked
	// Superseded: the secret was rotated away.
	Superseded
	// UserSuspended: the token's user is suspended.
	UserSuspended
	// AudienceMismatch: the token is for other audiences.
	AudienceMismatch
	// IPNotAllowed: the token is bound to networks, and the client's address is unknown or in none of them.
	IPNotAllowed
	// PolicyBlocked: the operator has blocked the token, since it exceeds the policy of an audience.
	PolicyBlocked
	// TokenIdle: the token is paused, since it was not used for long. Its owner can resume it.
	TokenIdle
)

var decisionNames = [...]string{
	Allow:             "ALLOW",
	InsufficientScope: "INSUFFICIENT_SCOPE",
	NotFound:          "NOT_FOUND",
	Expired:           "EXPIRED",
	Revoked:           "REVOKED",
	Superseded:        "SUPERSEDED",
	UserSuspended:     "USER_SUSPENDED",
	AudienceMismatch:  "AUDIENCE_MISMATCH",
	IPNotAllowed:      "IP_NOT_ALLOWED",
	PolicyBlocked:     "POLICY_BLOCKED",
	TokenIdle:         "TOKEN_IDLE",
}

// String is the decision's name on the wire.
func (d Decision) String() string {
	if d < Allow || int(d) >= len(decisionNames) {
		return fmt.Sprintf("DECISION_%d", int(d))
	}
	return decisionNames[d]
}

// Active reports whether the decision means an active token.
func (d Decision) Active() bool { return d == Allow || d == InsufficientScope }

// final reports whether a refusal will never be taken back for the same secret.
func (d Decision) final() bool {
	return d == NotFound || d == Expired || d == Revoked || d == Superseded
}

// Result is the answer about a token. The zero Result refuses.
type Result struct {
	// Decision is what was decided.
	Decision Decision
	// Token describes the token; nil unless the decision is Active. It is shared: do not change it.
	Token *Token
	// Missing are the required scopes that are not in effect, sorted.
	Missing []string
	// EndTime is when a token expired, was revoked, or its secret stopped working after a rotation; zero for other
	// decisions, or not known.
	EndTime time.Time
	// ExpireTime is when the secret of a token that is not active stops working, or stopped; zero: never, or not known.
	// An active one's is in Token.
	ExpireTime time.Time
}

// Allowed reports whether the call may go on.
func (r Result) Allowed() bool { return r.Decision == Allow && r.Token != nil }

// Token describes an active token.
type Token struct {
	// ID is the public id of the personal access token; safe to log.
	ID string
	// User is the id of its owner.
	User string
	// Name is the token's name.
	Name string
	// Scopes are those in effect: granted, and held by the user now. Sorted.
	Scopes []string
	// Granted are the scopes as granted. Sorted.
	Granted []string
	// Suspended are the scopes granted, but not held by the user now. Sorted.
	Suspended []string
	// Paused are the scopes granted, but not in effect until the owner resumes them. Sorted.
	Paused []string
	// Audiences of the token; empty: none in particular.
	Audiences []string
	// Labels of the token.
	Labels map[string]string
	// IssueTime is when it was minted.
	IssueTime time.Time
	// ExpireTime is when the presented secret stops working; zero: never.
	ExpireTime time.Time
	// AccessTokenID is the public id of the short-lived access token that was presented; empty: a personal one was.
	AccessTokenID string
	// ClientID is the client that a short-lived access token was given to; empty: it did not name itself.
	ClientID string
	// Stale reports that the source of features does not respond, and that Scopes rest on its last answer.
	Stale bool
}

// decide checks an active token against the scopes that a call needs.
func (t *Token) decide(required []string) Result {
	missing := missingScopes(t.Scopes, required)
	if len(missing) > 0 {
		return Result{Decision: InsufficientScope, Token: t, Missing: missing}
	}
	return Result{Decision: Allow, Token: t}
}

// missingScopes returns the required scopes that are not among the sorted effective ones: sorted, without duplicates.
// It allocates only if there are any.
func missingScopes(effective, required []string) []string {
	var missing []string
	for _, r := range required {
		if _, ok := slices.BinarySearch(effective, r); !ok {
			missing = append(missing, r)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}
