package tokens

import (
	"slices"
	"time"
)

// AccessToken is a short-lived access token that is stored: one that came of a personal access token and can do no more.
// Like Token it holds neither secret nor digest.
type AccessToken struct {
	ID      ID
	TokenID ID // the personal access token it came of
	// Serial is that of the personal access token's secret. When that secret ends, so does this: what was got with a secret
	// that leaked goes when the token is rotated.
	Serial     int64
	Family     ID     // of refresh tokens; 0: none
	ClientID   string // as the client named itself; empty: it did not
	Scopes     []string
	Audiences  []string
	IssueTime  time.Time
	ExpireTime time.Time
	Revocation *Revocation
}

// status is the access token's own state at an instant; that of its personal access token is not part of it.
func (a AccessToken) status(now time.Time) State { return status(a.Revocation, a.ExpireTime, now) }

// AccessCredential is all that introspection needs of an access token by itself, read at one instant.
type AccessCredential struct {
	Access AccessToken
	Hash   Hash
	// Sequence is a position in the change feed that this reading is at least as new as.
	Sequence uint64
}

// Family is a line of refresh tokens, each made by using the one before (RFC 9700 section 4.14.2), with what the access
// tokens made on the way may at most be.
type Family struct {
	ID         ID
	TokenID    ID    // the personal access token it came of
	Serial     int64 // see AccessToken
	Client     Client
	Scopes     []string
	Audiences  []string // never empty
	IssueTime  time.Time
	ExpireTime time.Time // zero: never
	Revocation *Revocation
}

// status is the family's own state at an instant; that of its personal access token is not part of it.
func (f Family) status(now time.Time) State { return status(f.Revocation, f.ExpireTime, now) }

// RefreshToken is one of a family. Once it is used it is good for nothing but to be recognized.
type RefreshToken struct {
	ID        ID
	Family    Family
	Hash      Hash
	IssueTime time.Time
	UseTime   time.Time // zero: not used yet
}

// GrantCount is how much came of a personal access token.
type GrantCount struct{ Access, Families int }

// secretOf finds the secret with a serial; false: it is no longer in force.
func (c *Credential) secretOf(serial int64, now time.Time) (StoredSecret, bool) {
	i := slices.IndexFunc(c.Secrets, func(s StoredSecret) bool { return s.Serial == serial })
	if i < 0 {
		return StoredSecret{}, false
	}
	return c.Secrets[i], i == 0 || c.Secrets[i].InForce(now)
}

// oldestInForce is the serial of the oldest secret that is still accepted.
func (c Credential) oldestInForce(now time.Time) int64 {
	var oldest int64
	for i, s := range c.Secrets {
		if i == 0 || s.InForce(now) {
			oldest = s.Serial
		}
	}
	return oldest
}

// FactsAt returns what is known of a token by itself, whatever was presented for whichever call. What is not set refuses.
func (c *Credential) FactsAt(now time.Time) Facts {
	return Facts{
		Revoked: c.Token.Revocation != nil, Expired: c.Token.expired(now),
		UserSuspended: c.User.State != UserActive || !c.User.DeleteTime.IsZero(),
		Blocked:       c.Token.BlockedBy != "",
	}
}
