package tokens

import "time"

// TokenQuery selects tokens of one user.
type TokenQuery struct {
	UserKey  int64
	State    State
	NameHas  string // contained in the name, both folded by NameKey; empty: any
	Audience string // empty: any
	Now      time.Time
	Before   ID // only ids below; 0: from the newest
	Limit    int
}

// LiveToken is the part of a token that limits and unique names need.
type LiveToken struct {
	ID      ID
	NameKey string // by NameKey, or by FormerNameKey if an earlier version wrote it
}

// BlockedState selects tokens by their block.
type BlockedState int

// The selections.
const (
	BlockedAny        BlockedState = iota
	BlockedNot                     // not blocked by the query's audience
	BlockedByAudience              // blocked by the query's audience
)

// ExceedQuery selects the live tokens, neither revoked nor expired at Now, that name an audience and end after Limited,
// or never if Never is set. With BlockedByAudience the tokens need not name it, and Limited and Never do not count.
type ExceedQuery struct {
	Audience string
	Now      time.Time
	Limited  time.Time
	Never    bool // tokens that never expire are selected too
	Blocked  BlockedState
	After    ID // only ids above
	Limit    int
}

// FeatureQuery selects entries of the catalogue; zero fields match all.
type FeatureQuery struct {
	Has                                  string // contained in name, display name or description, folded by NameKey
	Name                                 string
	Consent                              Consent
	Default, Optional, Published, System *bool
	After                                string // only names above, in byte order
	Limit                                int
}

// AudienceQuery selects audiences.
type AudienceQuery struct {
	Has      string // contained in id or display name, folded by NameKey
	Resource string // empty: any; RFC 8707, compared by NormalResource. Has does not count then.
	After    string // only ids above, in byte order
	Limit    int
}

// UserQuery selects users.
type UserQuery struct {
	State  UserState
	Begins string // what the id begins with; empty: any
	After  string // only ids above, in byte order
	Limit  int
}

// EventQuery selects events; empty fields match all.
type EventQuery struct {
	User    string
	TokenID ID
	Actor   string
	Action  Action
	Before  uint64 // only positions below; 0: from the newest
	Limit   int
}
