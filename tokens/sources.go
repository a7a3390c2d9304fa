package tokens

import (
	"context"
	"time"
)

// FeatureSource returns the features that a user holds now.
//
// An unknown user holds none, which is a result. A source that fails, and has no cached result that is fresh enough,
// returns an *Error of CodeUnavailable (see FeaturesUnavailable), never an empty result.
type FeatureSource interface {
	// Features returns what the user holds: sorted, without duplicates, the caller's to keep but not to change. With
	// fresh, no cached result is used. The user may have no record in the store yet (Key 0).
	Features(ctx context.Context, u User, fresh bool) (Held, error)
	// Local reports whether Features is a pure function of the User record. If so, the service calls it inside the
	// transaction, and features are written through patd.
	Local() bool
}

// Held is the result of a feature source.
type Held struct {
	Features []string
	// Stale reports that this is the last known result, served during an outage of the source.
	Stale bool
	// AsGranted reports that the source knows nothing of users by itself: all granted scopes of a token are held. The
	// signed-in user's credential says what can be granted.
	AsGranted bool
}

// Announcer is a FeatureSource that asks another system.
type Announcer interface {
	// Announce has notify called with each answer that differs from the one before about the user, or of which the one
	// before is not known, and the time when it was asked for. If notify returns false, the answer is announced again
	// when it comes again. notify returns at once, and calls nothing of the source.
	Announce(notify func(user string, features []string, asked time.Time) bool)
}

// Forgetter is a FeatureSource with a cache.
type Forgetter interface {
	// Forget drops the cached features of a user: once it has returned, no result is older than the call.
	Forget(user string)
	// ForgetAll does the same for every user.
	ForgetAll()
}
