package tokens

import "time"

// UserState reports whether a user's tokens can be active.
type UserState int

// The states of a user.
const (
	UserAny UserState = iota // in a query: no filter
	UserActive
	UserSuspended
)

// User owns tokens. It has an id, a state, and the features of the built-in source.
type User struct {
	Key        int64  // the store's key; 0: not stored yet
	ID         string // the company's own id
	State      UserState
	Features   []string // of the built-in source; sorted, without duplicates
	CreateTime time.Time
	// DeleteTime, when not zero, is when the user was deleted. A deleted user appears only in its old, revoked tokens.
	DeleteTime time.Time
}
