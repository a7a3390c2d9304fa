package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"patd/tokens"
)

// Rig has a user, a token and an access token of it, and a service, in a store, and changes them.
type Rig struct {
	User    tokens.User
	Token   tokens.Token
	Access  tokens.AccessToken // of the token
	Service tokens.ServiceAccount

	store tokens.Store
}

// NewRig puts the records into a store, which lookups of the rig go through.
func NewRig(t testing.TB, st tokens.Store) *Rig {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	end := now.Add(time.Hour)
	r := &Rig{
		User: tokens.User{ID: "u", State: tokens.UserActive, Features: []string{"a"}, CreateTime: now},
		Token: tokens.Token{ID: 1 << 40, User: "u", Name: "one", Scopes: []string{"a"}, IssueTime: now,
			ExpireTime: end},
		Access: tokens.AccessToken{ID: 1 << 42, TokenID: 1 << 40, Scopes: []string{"a"}, IssueTime: now,
			ExpireTime: end},
		Service: tokens.ServiceAccount{ID: 1 << 41, Name: "gateway", Permissions: tokens.PermIntrospect,
			IssueTime: now, ExpireTime: end},
		store: st,
	}
	r.Change(t, st, tokens.Event{}, func(tx tokens.Tx) (err error) {
		if err := tx.PutKey(tokens.KeyRecord{Name: "k1", Check: [32]byte{1}, CreateTime: now}); err != nil {
			return err
		}
		if r.User.Key, err = tx.InsertUser(r.User); err != nil {
			return err
		}
		r.Token.UserKey = r.User.Key
		h := tokens.Hash{Key: "k1", Sum: [32]byte{1}}
		return errors.Join(tx.InsertToken(r.Token, h), tx.InsertAccess(r.Access, h), tx.InsertService(r.Service, h))
	})
	return r
}

// Change makes a change through a store, with an event that names what e names.
func (r *Rig) Change(t testing.TB, st tokens.Store, e tokens.Event, fn func(tokens.Tx) error) {
	t.Helper()
	e.Time, e.Actor, e.Action, e.Outcome = time.Now(), "operator", tokens.ActionTokenUpdate, tokens.OutcomeSuccess
	err := st.Update(context.Background(), func(tx tokens.Tx) ([]tokens.Event, error) {
		return []tokens.Event{e}, fn(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Revoke revokes the token through a store.
func (r *Rig) Revoke(t testing.TB, st tokens.Store) {
	t.Helper()
	gone := r.Token
	gone.Revocation = &tokens.Revocation{Time: time.Now(), By: "operator"}
	r.Change(t, st, tokens.Event{TokenID: gone.ID, User: gone.User},
		func(tx tokens.Tx) error { return tx.UpdateToken(gone) })
}

// Suspend suspends the user through a store.
func (r *Rig) Suspend(t testing.TB, st tokens.Store) {
	t.Helper()
	u := r.User
	u.State = tokens.UserSuspended
	r.Change(t, st, tokens.Event{User: u.ID}, func(tx tokens.Tx) error { return tx.UpdateUser(u) })
}

// Active reports whether the token, its access token, its user and the service are all in force.
func (r *Rig) Active(ctx context.Context) (bool, error) {
	c, err := r.store.Lookup(ctx, r.Token.ID)
	if err != nil {
		return false, err
	}
	a, err := r.store.LookupAccess(ctx, r.Access.ID)
	if err != nil {
		return false, err
	}
	s, err := r.store.LookupService(ctx, r.Service.ID)
	return c.Token.Revocation == nil && a.Access.Revocation == nil && c.User.State == tokens.UserActive &&
		s.Service.Revocation == nil, err
}

// WantActive checks Active.
func (r *Rig) WantActive(t testing.TB, what string, want bool) {
	t.Helper()
	got, err := r.Active(t.Context())
	if err != nil || got != want {
		t.Errorf("%s: active %v, %v; want %v", what, got, err, want)
	}
}

// rotation is one that accepts the previous secret until an instant, and changes nothing else.
func (f *fixture) rotation(until time.Time) tokens.Rotation {
	return tokens.Rotation{Time: f.now, PreviousUntil: until, Retire: tokens.AfterGrace, Change: tokens.ExpiryKept}
}
