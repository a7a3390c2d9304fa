package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"patd/tokens/secret"
)

// replayBatch is how many records one transaction of a replay changes.
const replayBatch = 100

// Replayed says what a replay did.
type Replayed struct {
	From   uint64 `json:"from"` // the first and the last position that were read; 0: none was
	To     uint64 `json:"to"`
	Events int    `json:"events"`
	// What something was taken from, once more. What had no more to lose does not count.
	Tokens   int `json:"tokens"`
	Users    int `json:"users"`
	Services int `json:"services"`
	Grants   int `json:"grants"` // access tokens and families of refresh tokens
	Others   int `json:"others"` // webhooks, and entries of the catalogue
	// Absent counts the records that are not in the store: they were made after the backup.
	Absent int `json:"absent"`
	// Lost names tokens and services whose secret was replaced after the backup. The new one is not in the store, and
	// the one before ends when it would have: they must be rotated, or made anew.
	Lost []string `json:"lost"`
	// Review lists what an operator must look at, since the events do not say enough to do it again.
	Review []string `json:"review"`
}

// step takes something away once more, and returns its events; none if it had been taken.
type step func(tx Tx, now time.Time) ([]Event, error)

// application is an Apply at work.
type application struct {
	*Replay
	keys *Keys
	done Replayed
	tell []func() // what a transaction that was committed counts
}

// Apply takes away from a store what the events took away. It does so in several transactions; when it fails, it can be
// repeated. now is called for each of them. Each change has its audit event, by the operator.
func (r *Replay) Apply(ctx context.Context, st Store, keys *Keys, now func() time.Time) (Replayed, error) {
	a := &application{
		Replay: r,
		keys:   keys,
		done:   Replayed{From: r.from, To: r.last, Events: r.events, Lost: []string{}, Review: []string{}},
	}
	a.done.Review = append(a.done.Review, r.review...)
	for _, action := range slices.Sorted(maps.Keys(r.underway)) {
		a.done.Review = append(
			a.done.Review,
			fmt.Sprintf("%s had not ended, of %s: run it again", action, r.underway[action].Detail),
		)
	}
	for batch := range slices.Chunk(a.steps(), replayBatch) {
		err := st.Update(ctx, func(tx Tx) ([]Event, error) {
			a.tell = a.tell[:0]
			var events []Event
			for _, one := range batch {
				made, err := one(tx, now())
				if err != nil {
					return nil, err
				}
				events = append(events, made...)
			}
			return events, nil
		})
		if err != nil {
			return a.done, fmt.Errorf("apply again what was taken away: %w", err)
		}
		for _, f := range a.tell {
			f()
		}
	}
	slices.Sort(a.done.Lost)
	return a.done, nil
}

// count counts one when the transaction is committed.
func (a *application) count(n *int) { a.counts(n, 1) }

func (a *application) counts(n *int, more int) { a.tell = append(a.tell, func() { *n += more }) }

// steps returns what to do, in an order that does not change. Users are deleted before those that came back are
// suspended.
func (a *application) steps() (list []step) {
	add := func(s step) { list = append(list, s) }
	for _, id := range slices.Sorted(maps.Keys(a.users)) {
		add(func(tx Tx, now time.Time) ([]Event, error) { return a.user(tx, id, *a.users[id], now) })
	}
	for _, id := range slices.Sorted(maps.Keys(a.access)) {
		add(func(tx Tx, now time.Time) ([]Event, error) { return a.accessToken(tx, id, *a.access[id], now) })
	}
	for _, id := range slices.Sorted(maps.Keys(a.families)) {
		add(func(tx Tx, now time.Time) ([]Event, error) { return a.family(tx, id, *a.families[id], now) })
	}
	for _, id := range slices.Sorted(maps.Keys(a.tokens)) {
		if !a.created[id] {
			add(func(tx Tx, now time.Time) ([]Event, error) { return a.token(tx, id, a.tokens[id], now) })
		}
	}
	for _, id := range slices.Sorted(maps.Keys(a.services)) {
		if !a.created[id] {
			add(func(tx Tx, now time.Time) ([]Event, error) { return a.service(tx, id, a.services[id], now) })
		}
	}
	for _, id := range slices.Sorted(maps.Keys(a.webhooks)) {
		add(func(tx Tx, now time.Time) ([]Event, error) { return a.webhook(tx, id, *a.webhooks[id], now) })
	}
	for _, name := range slices.Sorted(maps.Keys(a.features)) {
		add(func(tx Tx, now time.Time) ([]Event, error) {
			return a.entry(tx.DeleteFeature(name), *a.features[name], now)
		})
	}
	for _, id := range slices.Sorted(maps.Keys(a.audiences)) {
		add(func(tx Tx, now time.Time) ([]Event, error) {
			return a.entry(tx.DeleteAudience(id), *a.audiences[id], now)
		})
	}
	return list
}

// again returns the event of what is done again. Its Detail is of the same form as that of an event of its action.
func again(e Event, now time.Time, detail string) Event {
	out := Operator().event(now, e.Action)
	out.User, out.TokenID, out.Service, out.Detail, out.Narrows = e.User, e.TokenID, e.Service, detail, true
	return out
}

// reasonAgain says who did what is done again, when and why.
func reasonAgain(e Event, reason string) string {
	text := "applied again after a restore, as " + e.Actor + " did at " + e.Time.UTC().Format(time.RFC3339)
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// revocation is that of the event, which was the first.
func revocation(e Event, reason string) Revocation {
	by := e.Actor
	if by == "" {
		by = Operator().String()
	}
	return Revocation{Time: e.Time, By: by, Reason: reasonAgain(e, reason)}
}

func (a *application) user(tx Tx, id string, t takenUser, now time.Time) (events []Event, err error) {
	u, err := tx.User(id)
	switch absent := errors.Is(err, ErrNotFound); {
	case absent && t.suspended == nil:
		a.count(&a.done.Absent)
		return nil, nil
	case absent:
		u = User{ID: id, State: UserActive, CreateTime: now}
	case toEnd(err) != nil:
		return nil, fmt.Errorf("read user: %w", err)
	}
	invalid := err != nil && !errors.Is(err, ErrNotFound)
	if t.sessions != nil {
		n, err := tx.EndPageSessions(id, 0, 0, now)
		if err != nil {
			return nil, fmt.Errorf("end a user's sessions: %w", err)
		}
		if n > 0 {
			e := again(*t.sessions, now, fmt.Sprintf("%d sessions", n))
			e.Action = ActionSessionEnd
			events = append(events, e)
		}
	}
	if u.Key != 0 && t.deleted == nil && t.revoked != nil {
		ids, err := revokeAll(tx, u, revocation(*t.revoked, t.revoked.Detail))
		if err != nil {
			return nil, err
		}
		a.counts(&a.done.Tokens, len(ids))
		events = append(events, Operator().revoked(now, id, ids, reasonAgain(*t.revoked, t.revoked.Detail))...)
	}
	if u.Key != 0 && t.deleted != nil {
		made, err := a.deleteUser(tx, u, *t.deleted, now)
		if err != nil {
			return nil, err
		}
		events = append(events, made...)
		u = User{ID: id, State: UserActive, CreateTime: now}
	}
	changed, made := t.narrow(&u, invalid, now)
	events = append(events, made...)
	switch {
	case changed && u.Key == 0:
		_, err = tx.InsertUser(u)
	case changed:
		err = tx.UpdateUser(u)
	default:
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("write user: %w", err)
	}
	if len(events) > 0 {
		a.count(&a.done.Users)
	}
	return events, nil
}

func (a *application) deleteUser(tx Tx, u User, e Event, now time.Time) ([]Event, error) {
	ids, err := revokeAll(tx, u, revocation(e, "user deleted"))
	if err != nil {
		return nil, err
	}
	if err := tx.DeleteProvisioned(u.Key); err != nil {
		return nil, fmt.Errorf("forget a provisioned user: %w", err)
	}
	u.DeleteTime, u.Features = now, nil
	if err := tx.UpdateUser(u); err != nil {
		return nil, fmt.Errorf("delete user: %w", err)
	}
	a.counts(&a.done.Tokens, len(ids))
	events := Operator().revoked(now, u.ID, ids, reasonAgain(e, "user deleted"))
	return append(events, again(e, now, counted(len(ids), reasonAgain(e, "")))), nil
}

// narrow suspends a user and takes features away, and returns the events. A record that is not as patd wrote it can
// only be suspended.
func (t takenUser) narrow(u *User, invalid bool, now time.Time) (changed bool, events []Event) {
	if t.suspended != nil && u.State != UserSuspended {
		u.State, changed = UserSuspended, true
		events = append(events, again(*t.suspended, now, reasonAgain(*t.suspended, t.suspended.Detail)))
	}
	if invalid || t.deleted != nil || u.Key == 0 {
		return changed, events
	}
	had := u.Features
	u.Features = slices.DeleteFunc(slices.Clone(had), func(f string) bool { return t.lost[f] != nil || t.all != nil })
	if len(u.Features) == len(had) {
		u.Features = had
		return changed, events
	}
	e := Operator().event(now, ActionUserFeatures)
	e.User, e.Detail, e.Narrows = u.ID, difference(had, u.Features), true
	return true, append(events, e)
}

func (a *application) accessToken(tx Tx, id ID, e Event, now time.Time) ([]Event, error) {
	done, err := tx.RevokeAccess(id, revocation(e, ""))
	if err != nil {
		return nil, fmt.Errorf("revoke access token: %w", err)
	}
	if !done {
		return nil, nil
	}
	a.count(&a.done.Grants)
	return []Event{again(e, now, "access "+id.String()+": "+reasonAgain(e, ""))}, nil
}

func (a *application) family(tx Tx, id ID, e Event, now time.Time) ([]Event, error) {
	done, err := tx.RevokeFamily(id, revocation(e, ""))
	if err != nil {
		return nil, fmt.Errorf("revoke refresh tokens: %w", err)
	}
	if !done {
		return nil, nil
	}
	a.count(&a.done.Grants)
	out := again(e, now, "family "+id.String()+": "+reasonAgain(e, ""))
	out.Action = ActionFamilyRevoke
	return []Event{out}, nil
}

func (a *application) service(tx Tx, id ID, t *takenService, now time.Time) ([]Event, error) {
	v, err := readService(tx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		a.count(&a.done.Absent)
		return nil, nil
	case toEnd(err) != nil:
		return nil, err
	case v.Revocation != nil:
		return nil, nil
	}
	if err != nil || t.revoked != nil {
		e := t.revoked
		if e == nil {
			if len(t.rotations) == 0 {
				return nil, nil
			}
			e = t.rotations[0].event // a record that is not as patd wrote it can only be revoked
		}
		v.Revocation = &Revocation{}
		*v.Revocation = revocation(*e, e.Detail)
		if err := tx.RevokeService(id, *v.Revocation); err != nil {
			return nil, fmt.Errorf("revoke service: %w", err)
		}
		out := again(*e, now, v.Revocation.Reason)
		out.Action = ActionServiceRevoke
		a.count(&a.done.Services)
		return []Event{out}, tx.ForgetSealed(id)
	}
	if len(t.rotations) == 0 || v.Status(now) != StateActive {
		return nil, nil
	}
	h, err := a.lostSecret(secret.PrefixService, id)
	if err != nil {
		return nil, err
	}
	until := earliest(endOf(t.rotations), v.ExpireTime)
	v.RotateTime, v.PreviousUntil = now, until
	if !until.After(now) {
		v.PreviousUntil = time.UnixMicro(0).UTC()
	}
	if err := tx.ReplaceServiceSecret(v, h); err != nil {
		return nil, fmt.Errorf("replace the secret of service %s: %w", id, err)
	}
	a.lose("service "+v.Name, until)
	a.count(&a.done.Services)
	e := again(*t.rotations[0].event, now, "previous secret until "+until.UTC().Format(time.RFC3339)+
		", expires "+v.ExpireTime.Format(time.RFC3339)+", the new one is lost by a restore")
	return []Event{e}, tx.ForgetSealed(id)
}

// lostSecret returns the digest of a secret that was never issued.
func (a *application) lostSecret(prefix string, id ID) (Hash, error) {
	text, err := secret.Mint(prefix, id, rand.Reader)
	if err != nil {
		return Hash{}, fmt.Errorf("replace a secret: %w", err)
	}
	return a.keys.Digest(text), nil
}

func (a *application) lose(what string, until time.Time) {
	text := what + ": its secret works until " + until.UTC().Format(time.RFC3339)
	a.tell = append(a.tell, func() { a.done.Lost = append(a.done.Lost, text) })
}

func (a *application) webhook(tx Tx, id string, t takenWebhook, now time.Time) ([]Event, error) {
	w, err := tx.Webhook(id)
	switch {
	case errors.Is(err, ErrNotFound):
		a.count(&a.done.Absent)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read webhook: %w", err)
	}
	if t.deleted != nil {
		if err := tx.DeleteWebhook(w.Num); err != nil {
			return nil, fmt.Errorf("delete webhook %s: %w", id, err)
		}
		if err := tx.ForgetSealed(w.Num); err != nil {
			return nil, fmt.Errorf("forget the requests of webhook %s: %w", id, err)
		}
		a.count(&a.done.Others)
		return []Event{again(*t.deleted, now, id)}, nil
	}
	e := t.changed
	if e == nil {
		e = t.disabled
	} else {
		a.tell = append(a.tell, func() {
			a.done.Review = append(
				a.done.Review,
				"webhook "+id+" was changed: it is again as it was, and disabled; set it anew, then enable it",
			)
		})
	}
	if e == nil || !w.Enabled {
		return nil, nil
	}
	w.Enabled, w.DisableTime, w.DisableReason, w.UpdateTime = false, now, "RESTORED", now
	if err := tx.UpdateWebhook(w); err != nil {
		return nil, fmt.Errorf("disable webhook %s: %w", id, err)
	}
	a.count(&a.done.Others)
	out := again(*e, now, id+" RESTORED")
	out.Action = ActionWebhookDisable
	return []Event{out}, nil
}

// entry is of the deletion of an entry of the catalogue.
func (a *application) entry(err error, e Event, now time.Time) ([]Event, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("delete %s: %w", strings.TrimSuffix(string(e.Action), ".delete"), err)
	}
	a.count(&a.done.Others)
	return []Event{again(e, now, e.Detail)}, nil
}
