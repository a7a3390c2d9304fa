package tokens

import (
	"slices"
	"time"
)

// RetirePrevious says when a rotation ends the previous secret.
type RetirePrevious int

// The choices, in the order of proto/patd/v1/token.proto.
const (
	AfterGrace RetirePrevious = iota + 1
	// OnFirstUse ends the previous secret when the new one is first used, or else after the grace.
	OnFirstUse
)

// ExpiryChange says what a rotation did to the expiry.
type ExpiryChange int

// The changes, in the order of proto/patd/v1/token.proto.
const (
	ExpiryKept ExpiryChange = iota + 1
	ExpiryRenewed
	ExpirySet
	// ExpiryRestored is of a rotation that was canceled. It is in records only.
	ExpiryRestored
)

// Rotation is the newest rotation of a token, and what a cancellation needs in order to put the token back.
type Rotation struct {
	Time time.Time // zero: an earlier version rotated the token, and only PreviousUntil is known
	// PreviousUntil is until when the previous secret is accepted; the Unix epoch if it was ended.
	PreviousUntil time.Time
	Retire        RetirePrevious
	Change        ExpiryChange
	FirstUse      time.Time // of the new secret while the previous one was accepted; zero: there was none
	Dropped       []string  // scopes that the rotation took away, sorted
	Before        BeforeRotation
}

// BeforeRotation is the part of a token that a rotation can change, as it was.
type BeforeRotation struct {
	ExpireTime time.Time // zero: never
	RenewTime  time.Time
	BlockedBy  string
	// SetExpireTime is the expiry that the rotation set. A token that has another one by now was updated since.
	SetExpireTime time.Time
}

// inProgress reports whether the secret before the current one is still accepted. A nil Rotation is not in progress.
func (r *Rotation) inProgress(now time.Time) bool { return r != nil && now.Before(r.PreviousUntil) }

// InProgress returns the newest rotation of an active token while the secret before the current one is accepted, else
// nil.
func (t Token) InProgress(now time.Time) *Rotation {
	if t.Status(now) != StateActive || !t.Rotation.inProgress(now) {
		return nil
	}
	return t.Rotation
}

// lifetime returns how long the token was to live when its expiry was last decided; 0: it never expires.
func (t Token) lifetime() time.Duration {
	switch {
	case t.ExpireTime.IsZero():
		return 0
	case t.RenewTime.IsZero():
		return t.ExpireTime.Sub(t.IssueTime)
	default:
		return t.ExpireTime.Sub(t.RenewTime)
	}
}

// undo puts a token back as it was before its rotation. Whatever an update has taken away since stays away.
func (r *Rotation) undo(t *Token, now time.Time) {
	end := t.ExpireTime
	if t.ExpireTime.Equal(r.Before.SetExpireTime) {
		t.ExpireTime = r.Before.ExpireTime
	} else {
		t.ExpireTime = earliest(t.ExpireTime, r.Before.ExpireTime)
	}
	if !t.ExpireTime.Equal(end) {
		t.EndSetTime = now
	}
	t.RenewTime = r.Before.RenewTime
	t.Scopes = union(t.Scopes, r.Dropped)
	by := t.Blockers()
	for _, before := range (Token{BlockedBy: r.Before.BlockedBy}).Blockers() {
		if !slices.Contains(by, before) {
			by = append(by, before)
		}
	}
	t.setBlockers(by)
}

// union returns the sorted union of two sorted lists.
func union(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// awaitsUse reports whether the first use of the current secret is still to be recorded. It is false for a token whose
// secret before the current one is no longer accepted.
func (c *Credential) awaitsUse(now time.Time) bool {
	return len(c.Secrets) > 1 && !c.Secrets[1].NextUsed && c.Secrets[1].InForce(now)
}
