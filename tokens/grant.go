package tokens

import (
	"slices"
	"time"
)

// AccessToken is a stored short-lived access token. It comes from a personal access token and has no more rights. Like
// Token it holds neither secret nor digest.
type AccessToken struct {
	ID      ID
	TokenID ID // the personal access token it came from
	// Serial is that of the personal access token's secret. The access token ends with that secret: what was obtained
	// with a leaked secret ends when the token is rotated.
	Serial     int64
	Family     ID     // of refresh tokens; 0: none
	ClientID   string // as the client named itself; empty: it did not
	Scopes     []string
	Audiences  []string
	IssueTime  time.Time
	ExpireTime time.Time
	Revocation *Revocation
}

// status returns the access token's own state at an instant, regardless of its personal access token.
func (a AccessToken) status(now time.Time) State { return status(a.Revocation, a.ExpireTime, now) }

// AccessCredential is all that introspection needs to know of an access token by itself, read at one instant.
type AccessCredential struct {
	Access AccessToken
	Hash   Hash
	// Sequence is a position in the change feed; this read is at least as new.
	Sequence uint64
}

// Family is a chain of refresh tokens, each issued for the one before (RFC 9700 section 4.14.2), with the upper bounds
// of the access tokens issued on the way.
type Family struct {
	ID         ID
	TokenID    ID    // the personal access token it came from
	Serial     int64 // see AccessToken
	Client     Client
	Scopes     []string
	Audiences  []string // never empty
	IssueTime  time.Time
	ExpireTime time.Time // zero: never
	Revocation *Revocation
}

// status returns the family's own state at an instant, regardless of its personal access token.
func (f Family) status(now time.Time) State { return status(f.Revocation, f.ExpireTime, now) }

// RefreshToken is one of a family. Once used, it is kept only to detect its reuse.
type RefreshToken struct {
	ID        ID
	Family    Family
	Hash      Hash
	IssueTime time.Time
	UseTime   time.Time // zero: not used yet
}

// GrantCount counts the access tokens and families of a personal access token.
type GrantCount struct{ Access, Families int }

// secretOf returns the secret with a serial, and reports whether it is still in force.
func (c *Credential) secretOf(serial int64, now time.Time) (StoredSecret, bool) {
	i := slices.IndexFunc(c.Secrets, func(s StoredSecret) bool { return s.Serial == serial })
	if i < 0 {
		return StoredSecret{}, false
	}
	return c.Secrets[i], i == 0 || c.Secrets[i].InForce(now)
}

// oldestInForce returns the serial of the oldest secret that is still accepted.
func (c Credential) oldestInForce(now time.Time) int64 {
	var oldest int64
	for i, s := range c.Secrets {
		if i == 0 || s.InForce(now) {
			oldest = s.Serial
		}
	}
	return oldest
}

// FactsAt returns the facts of a token by itself, independent of the presented secret and the call. Facts not set
// refuse.
func (c *Credential) FactsAt(now time.Time) Facts {
	f := Facts{
		Revoked: c.Token.Revocation != nil, Expired: expired(c.Token.ExpireTime, now),
		UserSuspended: c.User.State != UserActive || !c.User.DeleteTime.IsZero(),
	}
	if c.Token.BlockedBy != "" {
		f.Blocked, f.Idle = blockedBy(c.Token.BlockedBy)
	}
	return f
}
