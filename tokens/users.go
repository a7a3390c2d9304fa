package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// User returns a user. An unknown or deleted one is CodeNotFound.
func (s *Service) User(ctx context.Context, a Actor, user string) (User, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return User{}, err
	}
	var u User
	err = s.store.View(ctx, func(tx ReadTx) error {
		u, err = known(tx, user)
		return err
	})
	return u, err
}

func known(tx ReadTx, user string) (User, error) {
	u, err := tx.User(user)
	if errors.Is(err, ErrNotFound) {
		return User{}, notFound("user")
	}
	if err != nil {
		return User{}, fmt.Errorf("read user: %w", err)
	}
	return u, nil
}

// UserFilter selects users; zero fields match all.
type UserFilter struct {
	State  UserState
	Begins string // what the id begins with
}

// Users lists the users that patd knows, by id in byte order, and returns the token of the next page.
func (s *Service) Users(ctx context.Context, a Actor, f UserFilter, p Page) ([]User, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	var c checker
	if c.text("q", f.Begins, maxUserID, false); c.err() != nil {
		return nil, "", c.err()
	}
	list := lister{keys: s.keys.Get(), query: framed("users", fmt.Sprint(f.State), f.Begins)}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	var found []User
	err = s.store.View(ctx, func(tx ReadTx) error {
		found, err = tx.Users(UserQuery{State: f.State, Begins: f.Begins, After: after, Limit: limit + 1})
		return err
	})
	if err != nil {
		return nil, "", err
	}
	found, next := cut(list, found, limit, func(u User) string { return u.ID })
	return found, next, nil
}

// SuspendUser makes all of a user's tokens inactive until ResumeUser, and ends the user's sessions of the page. A user
// unknown to patd is added as suspended. Idempotent.
func (s *Service) SuspendUser(ctx context.Context, a Actor, user, reason string) (User, error) {
	return s.changeUser(
		ctx,
		a,
		ActionUserSuspend,
		user,
		reason,
		func(tx Tx, u *User, now time.Time, _ *[]Event) (string, error) {
			if u.State == UserSuspended {
				return "", errUnchanged
			}
			if counts(ctx) {
				n, err := liveCount(tx, *u, now)
				if err != nil {
					return "", err
				}
				if err := expectCount(ctx, n); err != nil {
					return "", err
				}
			}
			u.State = UserSuspended
			return reason, endSessions(tx, user, now)
		},
	)
}

// ResumeUser ends a suspension. Idempotent; an unknown user is CodeNotFound.
func (s *Service) ResumeUser(ctx context.Context, a Actor, user, reason string) (User, error) {
	return s.changeUser(
		ctx,
		a,
		ActionUserResume,
		user,
		reason,
		func(_ Tx, u *User, _ time.Time, _ *[]Event) (string, error) {
			switch {
			case u.Key == 0:
				return "", notFound("user")
			case u.State == UserActive:
				return "", errUnchanged
			}
			u.State = UserActive
			return reason, nil
		},
	)
}

// DeleteUser deletes a user, ends its sessions of the page and revokes all of its tokens for good; it returns how many.
// A user that comes back under the same id starts afresh.
func (s *Service) DeleteUser(ctx context.Context, a Actor, user, reason string) (int, error) {
	return s.deleteUser(ctx, a, user, reason, func(Tx, User) error { return nil })
}

// deleteUser is DeleteUser, unless check returns an error in the transaction.
func (s *Service) deleteUser(
	ctx context.Context,
	a Actor,
	user, reason string,
	check func(Tx, User) error,
) (int, error) {
	n := 0
	_, err := s.changeUser(
		ctx,
		a,
		ActionUserDelete,
		user,
		reason,
		func(tx Tx, u *User, now time.Time, events *[]Event) (string, error) {
			if u.Key == 0 {
				return "", notFound("user")
			}
			if err := check(tx, *u); err != nil {
				return "", err
			}
			why := reason
			if why == "" {
				why = "user deleted"
			}
			ids, err := revokeAll(tx, *u, Revocation{Time: now, By: a.String(), Reason: why})
			if err != nil {
				return "", err
			}
			n = len(ids)
			if err := expectCount(ctx, int64(n)); err != nil {
				return "", err
			}
			*events = a.revoked(now, user, ids, why)
			if err := tx.DeleteProvisioned(u.Key); err != nil {
				return "", fmt.Errorf("forget a provisioned user: %w", err)
			}
			u.DeleteTime, u.Features = now, nil
			return counted(n, reason), endSessions(tx, user, now)
		},
	)
	return n, err
}

// errUnchanged ends a change that would change nothing.
var errUnchanged = errors.New("unchanged")

// changeUser runs one change of a user's record in its transaction. change returns the event's detail, or errUnchanged,
// and may add events that come before it.
func (s *Service) changeUser(ctx context.Context, a Actor, action Action, user, reason string,
	change func(tx Tx, u *User, now time.Time, events *[]Event) (detail string, err error),
) (User, error) {
	if err := s.manager(a); err != nil {
		return User{}, s.refused(ctx, a, Refusal{Action: action, User: user}, err)
	}
	var c checker
	c.user(user)
	c.reason(reason)
	if err := c.err(); err != nil {
		return User{}, s.refused(ctx, a, Refusal{Action: action}, err)
	}
	var u User
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		var err error
		// A record that is not as patd wrote it may be suspended or deleted; the store refuses anything else.
		if u, err = knownOrNew(tx, user, now); toEnd(err) != nil {
			return nil, err
		}
		if action != ActionUserFeatures { // its precondition is about the features
			if err := expectTag(ctx, u); err != nil {
				return nil, err
			}
		}
		var events []Event
		known, had := u.Key != 0, u.Features
		detail, err := change(tx, &u, now, &events)
		if errors.Is(err, errUnchanged) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if u.Key == 0 {
			if c.newUser(user); c.err() != nil {
				return nil, c.err()
			}
			u.Key, err = tx.InsertUser(u)
		} else {
			err = tx.UpdateUser(u)
		}
		if err != nil {
			return nil, fmt.Errorf("write user: %w", err)
		}
		e := a.event(now, action)
		e.User, e.Detail = user, detail
		if _, come := Effective(u.Features, had); action == ActionUserFeatures && known && len(come) == 0 {
			e.Narrows = true
		}
		return append(events, e), nil
	})
	if err != nil {
		return User{}, s.refused(ctx, a, Refusal{Action: action, User: user}, err)
	}
	return u, nil
}

// UserFeatures returns the features that a user holds now, with the catalogue's entries. An unknown user holds none,
// which is a result.
func (s *Service) UserFeatures(ctx context.Context, a Actor, user string) (HeldFeatures, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return HeldFeatures{}, err
	}
	var u User
	err = s.store.View(ctx, func(tx ReadTx) error {
		u, err = s.getOrNewUser(tx, user, s.Now())
		return err
	})
	if err != nil {
		return HeldFeatures{}, err
	}
	h, err := s.readFeatures(ctx, u)
	if err != nil {
		return HeldFeatures{}, err
	}
	if h.AsGranted {
		if h.Features, err = credentialFeatures(a); err != nil {
			return HeldFeatures{}, err
		}
	}
	out := HeldFeatures{Stale: h.Stale}
	err = s.store.View(ctx, func(tx ReadTx) error {
		out.Features, err = entries(tx, h.Features)
		return err
	})
	if err == nil && s.features.Local() {
		out.ETag = featuresTag(u, out.Features)
	}
	return out, err
}

// maxFeatureReads limits concurrent reads of features. They have the lowest priority: introspections ask the same
// source, and reads that hang must not take their places there.
const maxFeatureReads = 128

// readFeatures asks the source, for display. Past maxFeatureReads it returns an outage at once.
func (s *Service) readFeatures(ctx context.Context, u User) (Held, error) {
	if s.featureReads.Add(1) > maxFeatureReads && !s.features.Local() {
		s.featureReads.Add(-1)
		return Held{}, FeaturesUnavailable("read features", errors.New("too many reads wait for the source"))
	}
	defer s.featureReads.Add(-1)
	return s.features.Features(ctx, u, false)
}

// SetUserFeatures replaces a user's features, and returns them. FEATURES_READ_ONLY if another source has them.
func (s *Service) SetUserFeatures(ctx context.Context, a Actor, user string, features []string) (HeldFeatures, error) {
	var c checker
	want := c.scopes("features", "TOO_MANY_FEATURES", features, s.limits.Features)
	return s.changeFeatures(ctx, a, user, c.err(), func([]string) []string { return want })
}

// UpdateUserFeatures adds and removes features, and returns the result. A name in both is rejected.
func (s *Service) UpdateUserFeatures(
	ctx context.Context,
	a Actor,
	user string,
	add, remove []string,
) (HeldFeatures, error) {
	var c checker
	add = c.scopes("add", "TOO_MANY_FEATURES", add, s.limits.Features)
	remove = c.storedScopes("remove", "TOO_MANY_FEATURES", remove, s.limits.Features)
	if both, _ := Effective(add, remove); len(both) > 0 {
		c.add("remove", "FEATURE_IN_BOTH", "a feature is both to add and to remove")
	}
	return s.changeFeatures(ctx, a, user, c.err(), func(has []string) []string {
		_, kept := Effective(has, remove)
		return set(append(kept, add...))
	})
}

func (s *Service) changeFeatures(
	ctx context.Context,
	a Actor,
	user string,
	bad error,
	to func(has []string) []string,
) (HeldFeatures, error) {
	if bad != nil {
		return HeldFeatures{}, s.refused(ctx, a, Refusal{Action: ActionUserFeatures, User: user}, bad)
	}
	if !s.features.Local() {
		return HeldFeatures{}, Fail(
			CodePrecondition,
			"FEATURES_READ_ONLY",
			"features come from another source and are changed there",
		)
	}
	var out HeldFeatures
	u, err := s.changeUser(
		ctx,
		a,
		ActionUserFeatures,
		user,
		"",
		func(tx Tx, u *User, _ time.Time, _ *[]Event) (string, error) {
			err := expect(ctx, func() (string, error) {
				held, err := entries(tx, u.Features)
				return featuresTag(*u, held), err
			})
			if err != nil {
				return "", err
			}
			want := to(u.Features)
			if len(want) > s.limits.Features {
				return "", Invalid("TOO_MANY_FEATURES", "features", fmt.Sprintf("at most %d", s.limits.Features))
			}
			if out.Features, err = entries(tx, want); err != nil {
				return "", err
			}
			if u.Key != 0 && slices.Equal(want, u.Features) {
				return "", errUnchanged
			}
			detail := difference(u.Features, want)
			u.Features = want
			return detail, nil
		},
	)
	if err != nil {
		return HeldFeatures{}, err
	}
	out.ETag = featuresTag(u, out.Features)
	return out, nil
}

// difference describes the changes of a list of names, in about 2000 bytes at most.
func difference(from, to []string) string {
	_, gone := Effective(from, to)
	_, come := Effective(to, from)
	var b strings.Builder
	left := 0
	for _, part := range []struct {
		sign  string
		names []string
	}{{"+", come}, {"-", gone}} {
		for _, n := range part.names {
			if b.Len() > 1800 {
				left++
				continue
			}
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(part.sign + n)
		}
	}
	if left > 0 {
		fmt.Fprintf(&b, " and %d more", left)
	}
	return b.String()
}
