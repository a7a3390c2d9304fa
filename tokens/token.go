package tokens

import (
	"net/netip"
	"time"
)

// State is the state of a token's own record at an instant. The user's state is not part of it.
type State int

// The states of a token or of a service.
const (
	StateAny State = iota // in a query: no filter
	StateActive
	StateExpired
	StateRevoked
)

// Token is a grant: one user, a name, scopes, audiences, an expiry. It holds neither secret nor digest.
//
// Slices and maps belong to the holder of the Token; stores return fresh ones.
type Token struct {
	ID          ID
	UserKey     int64  // the store's key of the owner; a user deleted and added again has another
	User        string // the owner's id
	Name        string
	Description string
	Labels      map[string]string
	Scopes      []string // as granted, without those that are paused: sorted, without duplicates; empty if all are paused
	Audiences   []string // sorted, without duplicates; empty: none in particular
	CIDRs       []netip.Prefix
	IssueTime   time.Time
	ExpireTime  time.Time // zero: never
	Revocation  *Revocation
	LastUsed    Use
	// BlockedBy says why the token is blocked, one reason a line: audiences whose policies made operators block it, see
	// Blockers, and the pause of a token that was not used, see IdleTime. Empty: it is not blocked.
	BlockedBy string
	// InEffect says which scopes are in effect; nil: not asked for, or the source of features does not answer. Only the
	// methods that read tokens set it, see Service.effects.
	InEffect *InEffect
	// Rotations is how often the secret was replaced. Lookup does not set it: see the current secret's Serial.
	Rotations int64
	// RenewTime is when a rotation last gave the token its lifetime; zero: it has that of its issue. Lookup does not
	// set it.
	RenewTime time.Time
	// EndSetTime is when an update, a rotation or a cancellation last set ExpireTime; zero: none has, or an earlier
	// version did. Lookup does not set it.
	EndSetTime time.Time `json:",omitzero"` // earlier versions did not know it, see the fingerprint of a mint
	// Rotation is the newest rotation; nil: there was none. Lookup does not set it.
	Rotation *Rotation
	// SelfRotate says that the bearer may rotate the token, and RenewableUntil until when it may renew it at most;
	// zero: it may not. Lookup does not set them.
	SelfRotate     bool      `json:",omitempty"` // earlier versions did not know it, see the fingerprint of a mint
	RenewableUntil time.Time `json:",omitzero"`
	// Paused are scopes that were granted and are not in effect, sorted; none of them is in Scopes. The owner may
	// resume them for PauseLife.
	Paused []Pause `json:",omitempty"`
	// Uses says what is known of the uses of the token by scope. Only the method Token of a Service sets it.
	Uses *ScopeUses `json:"-"`
	// AsOf is the instant of the call that returned the token: the one time that the caller shows its state by. Only
	// the methods of a Service set it.
	AsOf time.Time `json:"-"`
}

// asOf sets AsOf of tokens.
func asOf(ts []Token, now time.Time) {
	for i := range ts {
		ts[i].AsOf = now
	}
}

// Revocation says when, by whom and why a token or service was revoked. It is final.
type Revocation struct {
	Time   time.Time
	By     string
	Reason string
}

// Use is one successful use of a token. The zero Use means never.
type Use struct {
	Time time.Time
	IP   netip.Addr // invalid: not known
}

// Status returns the token's state at an instant. Revoked wins over expired.
func (t Token) Status(now time.Time) State { return status(t.Revocation, t.ExpireTime, now) }

// expired reports whether what ends at an instant has ended: it is active while now < expire_time, without leeway.
func expired(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

func status(r *Revocation, expire, now time.Time) State {
	switch {
	case r != nil:
		return StateRevoked
	case expired(expire, now):
		return StateExpired
	default:
		return StateActive
	}
}

// StoredSecret is the stored part of a secret: its keyed digest, and until when the secret is accepted.
type StoredSecret struct {
	Hash Hash
	// ExpireTime ends a secret that was rotated away. Zero on the current secret, which lives as long as its token.
	ExpireTime time.Time
	// EndTime is when a secret stopped that was ended before its ExpireTime, which is then the Unix epoch; zero: it was
	// not, or an earlier version ended it.
	EndTime time.Time
	// NextUsed reports that the secret after this one has been used.
	NextUsed bool
	// Serial counts the secrets of a token from 0. Tokens derived from a secret name it by this, see AccessToken.
	Serial int64
}

// InForce reports whether the secret is accepted by its own expiry. The token's state is not part of it.
func (s StoredSecret) InForce(now time.Time) bool { return !expired(s.ExpireTime, now) }

// stopped returns when a secret that was rotated away stops working, or stopped, by itself; zero: never, or it is not
// known, since an earlier version ended the secret before its time.
func (s *StoredSecret) stopped() time.Time {
	switch {
	case !s.EndTime.IsZero():
		return s.EndTime
	case s.ExpireTime.Unix() <= 0:
		return time.Time{}
	default:
		return s.ExpireTime
	}
}

// AcceptedUntil returns until when one of the token's secrets is accepted, or was: the instant at which it stopped
// working. It is the only function that says so. The zero time means never, or for a secret that is not in force that
// the instant is not known. Revocation and suspension are not part of it.
func (c *Credential) AcceptedUntil(s *StoredSecret) time.Time {
	at := s.stopped()
	if at.IsZero() && !s.ExpireTime.IsZero() {
		return time.Time{}
	}
	return earliest(at, c.Token.ExpireTime)
}

// Credential is everything that introspection needs of a token, read at one instant.
type Credential struct {
	Token Token
	User  User
	// Secrets holds the current secret first, then those rotated away, newest first.
	Secrets []StoredSecret
	// Sequence is a position in the change feed. The Credential includes all changes up to it.
	Sequence uint64
	// HoldsScopes says that each of Token.Scopes is one of User.Features; false: that is not known. Only Recall sets it.
	HoldsScopes bool
	// SharedScopes says that tokens share the list Token.Scopes, and that nobody changes it. Only Recall sets it.
	SharedScopes bool
}
