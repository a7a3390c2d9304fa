package tokens

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// token takes away from a token once more.
func (a *application) token(tx Tx, id ID, t *takenToken, now time.Time) ([]Event, error) {
	held, err := tx.Token(id)
	switch {
	case errors.Is(err, ErrNotFound):
		a.count(&a.done.Absent)
		return nil, nil
	case toEnd(err) != nil:
		return nil, fmt.Errorf("read token %s: %w", id, err)
	case held.Revocation != nil:
		return nil, nil
	}
	e, why := t.revoked, ""
	switch {
	case e != nil:
		why = reasonAgain(*e, e.Detail)
	case t.ended != nil:
		e, why = t.ended, reasonAgain(*t.ended, "the event "+string(t.ended.Action)+" does not say what was taken away")
	case err != nil: // a record that is not as patd wrote it is refused, and can only be revoked
		return nil, nil //nolint:nilerr // see above
	}
	if e == nil {
		events, left, err := a.narrowToken(tx, held, t, now)
		if err != nil || left {
			if len(events) > 0 {
				a.count(&a.done.Tokens)
			}
			return events, err
		}
		last := *t.lastNarrowing()
		e, why = &last, reasonAgain(last, "no scope is left")
	}
	by := e.Actor
	held.Revocation = &Revocation{Time: e.Time, By: by, Reason: why}
	if err := tx.UpdateToken(held); err != nil {
		return nil, fmt.Errorf("revoke token %s: %w", id, err)
	}
	if err := tx.ForgetSealed(id); err != nil {
		return nil, fmt.Errorf("forget the requests of token %s: %w", id, err)
	}
	a.count(&a.done.Tokens)
	out := again(*e, now, why)
	out.Action, out.User, out.TokenID = ActionTokenRevoke, held.User, id
	return []Event{out}, nil
}

// lastNarrowing returns the newest event that took scopes away for good.
func (t *takenToken) lastNarrowing() *Event {
	var last *Event
	for _, e := range t.scopes {
		if last == nil || e.Seq > last.Seq {
			last = e
		}
	}
	for _, r := range t.rotations {
		if last == nil || r.event.Seq > last.Seq {
			last = r.event
		}
	}
	return last
}

// narrowToken takes away a part of what a token may do. It returns false, and has written nothing, if no scope is left.
func (a *application) narrowToken(
	tx Tx,
	held Token,
	t *takenToken,
	now time.Time,
) (events []Event, left bool, err error) {
	gone := map[string]*Event{}
	maps.Copy(gone, t.scopes)
	for _, r := range t.rotations {
		for _, s := range r.gone {
			gone[s] = r.event
		}
	}
	was := held
	var changed []string
	out := func(s string) bool { return gone[s] != nil }
	granted := held.GrantedScopes(now)
	held.Scopes = slices.DeleteFunc(slices.Clone(held.Scopes), out)
	held.dropPaused(func(p Pause) bool { return out(p.Scope) })
	if len(held.Scopes) == 0 && len(held.Paused) == 0 {
		return nil, false, nil
	}
	if _, lost := Effective(granted, held.GrantedScopes(now)); len(lost) > 0 {
		changed = append(changed, changedScopes+strings.Join(lost, " -"))
	}
	if !t.expire.IsZero() && !earliest(held.ExpireTime, t.expire).Equal(held.ExpireTime) {
		held.ExpireTime, held.EndSetTime = t.expire, now
		changed = append(changed, changedExpiry+t.expire.UTC().Format(time.RFC3339Nano))
	}
	if t.networks != nil {
		if held.CIDRs = within(was.CIDRs, t.cidrs); !slices.Equal(held.CIDRs, was.CIDRs) {
			changed = append(changed, changedCIDRs+networks(held.CIDRs))
		}
	}
	if t.selfOff != nil && held.SelfRotate {
		held.SelfRotate = false
		changed = append(changed, changedSelfOff)
	}
	if (t.selfOff != nil || t.renewLess != nil) && !held.RenewableUntil.IsZero() {
		held.RenewableUntil = time.Time{}
		changed = append(changed, changedRenewalLess)
	}
	if len(changed) > 0 {
		e := Operator().event(now, ActionTokenUpdate)
		e.Detail, e.Narrows = strings.Join(changed, ", "), true
		events = append(events, e)
	}
	events = append(events, t.block(&held, now)...)
	if names := slices.Sorted(maps.Keys(t.paused)); len(names) > 0 {
		if gone := held.pause(names, now); len(gone) > 0 {
			events = append(events, again(*t.paused[gone[0]], now, "scopes paused: "+strings.Join(gone, " ")))
		}
	}
	if len(events) > 0 {
		if err := tx.UpdateToken(held); err != nil {
			return nil, true, fmt.Errorf("write token %s: %w", held.ID, err)
		}
	}
	made, err := a.secrets(tx, held, t, now)
	events = append(events, made...)
	for i := range events {
		events[i].User, events[i].TokenID = held.User, held.ID
	}
	return events, true, err
}

// block blocks a token by the policies of audiences, and pauses it.
func (t *takenToken) block(held *Token, now time.Time) (events []Event) {
	by := held.Blockers()
	for _, audience := range slices.Sorted(maps.Keys(t.blocked)) {
		if !slices.Contains(by, audience) {
			by = append(by, audience)
			e := *t.blocked[audience]
			events = append(events, again(e, now, "audience "+audience+": "+reasonAgain(e, "")))
		}
	}
	held.setBlockers(by)
	if t.idle != nil && held.IdleTime().IsZero() {
		held.Pause(t.idleTime)
		events = append(events, again(*t.idle, now, Notice{PauseTime: t.idleTime}.detail()))
	}
	return events
}

// secrets ends the secrets of a token that rotations, or the cancellation of one, ended.
func (a *application) secrets(tx Tx, held Token, t *takenToken, now time.Time) (events []Event, err error) {
	switch {
	case t.canceled != nil && held.Rotation != nil && held.Rotation.inProgress(now) && held.Rotation.Change != ExpiryRestored:
		if err := tx.RestoreSecret(held.ID, now); err != nil {
			return nil, fmt.Errorf("restore the secret of token %s: %w", held.ID, err)
		}
		events = append(events, again(*t.canceled, now, ""))
	case t.canceled != nil && held.Rotations > 0 && (held.Rotation == nil || held.Rotation.Change != ExpiryRestored):
		// The secret that the cancellation made current again is over in the backup, and the one of the backup was
		// ended.
		t.rotations = append([]replacedSecret{{event: t.canceled, until: t.canceled.Time}}, t.rotations...)
	case t.firstUse != nil:
		done, err := tx.UseSecret(held.ID, held.Rotations, t.firstUse.Time)
		if err != nil {
			return nil, fmt.Errorf("end the secret before of token %s: %w", held.ID, err)
		}
		if done {
			events = append(events, again(*t.firstUse, now, t.firstUse.Detail))
		}
	}
	if len(t.rotations) == 0 || held.Status(now) != StateActive {
		return events, nil
	}
	h, err := a.lostSecret(a.prefix(tx), held.ID)
	if err != nil {
		return nil, err
	}
	rot := Rotation{
		Time:          now,
		PreviousUntil: earliest(endOf(t.rotations), held.ExpireTime),
		Retire:        AfterGrace,
		Change:        ExpiryKept,
		Before: BeforeRotation{
			ExpireTime:    held.ExpireTime,
			RenewTime:     held.RenewTime,
			BlockedBy:     held.BlockedBy,
			SetExpireTime: held.ExpireTime,
		},
	}
	if err := tx.ReplaceSecret(held.ID, h, rot); err != nil {
		return nil, fmt.Errorf("replace the secret of token %s: %w", held.ID, err)
	}
	if err := tx.ForgetSealed(held.ID); err != nil {
		return nil, fmt.Errorf("forget the requests of token %s: %w", held.ID, err)
	}
	a.lose("token "+held.ID.String()+" of "+held.User, rot.PreviousUntil)
	e := again(*t.rotations[0].event, now, rot.detail()+", the new one is lost by a restore")
	e.Action = ActionTokenRotate
	return append(events, e), nil
}

// prefix is any under which secrets were minted: the secret is thrown away.
func (*application) prefix(tx ReadTx) string {
	if known, err := tx.Prefixes(); err == nil && len(known) > 0 {
		return known[0]
	}
	return "pat"
}
