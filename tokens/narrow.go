package tokens

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"patd/tokens/secret"
)

// Unused says which scopes of a token count as unused.
type Unused struct {
	// For is how long they were not used, in whole days, since only the day of a use is known; 0: never used.
	For time.Duration
}

// cutoff returns the time since which unused scopes were not used; zero: never.
func (u Unused) cutoff(now time.Time) time.Time {
	if u.For == 0 {
		return time.Time{}
	}
	return now.Add(-u.For)
}

func (c *checker) unused(u Unused) {
	if u.For < 0 || u.For > 10*366*Day || u.For%Day != 0 {
		c.add(
			"unused_for",
			"UNUSED_FOR_INVALID",
			"must be whole days, at most ten years, such as 90d; left out: never used",
		)
	}
}

// NarrowRequest asks to pause scopes of a token.
type NarrowRequest struct {
	User, TokenID string
	// Scopes are those to pause, used or not; empty: those that count as unused.
	Scopes []string
	Unused Unused
	DryRun bool
}

// Narrowed says what a narrowing did, or would do.
type Narrowed struct {
	Token  Token    // as it is now: after a dry run, as it was
	Scopes []string // those that were, or would be, paused: sorted
	Uses   ScopeUses
	End    time.Time // until when they can be resumed
}

// unusedScopes returns the scopes of a token in effect that were not used since cutoff; zero: never.
func (u *ScopeUses) unusedScopes(t Token, cutoff time.Time) []string {
	list := []string{}
	for _, s := range t.Scopes {
		if u.Of(s).before(cutoff) {
			list = append(list, s)
		}
	}
	return list
}

// covers reports whether the uses of a token were recorded for so long that a scope without a use since cutoff counts
// as unused.
func (u *ScopeUses) covers(t Token, cutoff time.Time) bool {
	if cutoff.IsZero() {
		return u.Since.IsZero()
	}
	return !t.IssueTime.After(cutoff) && !u.Since.After(cutoff)
}

// withSince returns uses with the time since which they were recorded, where that is after the token's issue.
func (u ScopeUses) withSince(t Token, began time.Time) ScopeUses {
	if began.After(t.IssueTime) {
		u.Since = began
	}
	return u
}

// usesOf reads the uses of one token.
func usesOf(tx ReadTx, t Token) (ScopeUses, error) {
	found, err := tx.ScopeUses([]ID{t.ID})
	if err != nil {
		return ScopeUses{}, fmt.Errorf("read the uses of token %s: %w", t.ID, err)
	}
	began, err := tx.UsesSince()
	if err != nil {
		return ScopeUses{}, fmt.Errorf("read since when uses are recorded: %w", err)
	}
	return found[t.ID].withSince(t, began), nil
}

// saveUses has the uses of tokens that this server knows saved, of nil: of all, as far as its store can.
func (s *Service) saveUses(ctx context.Context, of []ID) error {
	if f, ok := s.store.(UseFlusher); ok {
		if err := f.FlushUses(ctx, of); err != nil {
			return fmt.Errorf("save uses: %w", err)
		}
	}
	return nil
}

// Narrow pauses scopes of an active token: they are granted, and not in effect, until its owner resumes them, which it
// may for PauseLife. Then they are removed for good. A dry run changes nothing.
//
// Reasons: TOKEN_NOT_ACTIVE, SCOPES_NOT_GRANTED for scopes that are not in effect, UNUSED_FOR_INVALID,
// USES_NOT_RECORDED where the uses of the token are not known for so long, and outages.
func (s *Service) Narrow(ctx context.Context, a Actor, r NarrowRequest) (Narrowed, error) {
	out, err := s.narrow(ctx, a, r)
	if err != nil {
		return Narrowed{}, s.refused(ctx, a, Refusal{Action: ActionTokenNarrow, User: r.User, TokenID: r.TokenID}, err)
	}
	return out, nil
}

func (s *Service) narrow(ctx context.Context, a Actor, r NarrowRequest) (Narrowed, error) {
	user, err := s.owner(a, r.User)
	if err != nil {
		return Narrowed{}, err
	}
	var c checker
	c.unused(r.Unused)
	if len(r.Scopes) > 0 {
		if r.Scopes = c.storedScopes("scopes", "TOO_MANY_SCOPES", r.Scopes, s.limits.Scopes); r.Unused.For != 0 {
			c.add("unused_for", "UNUSED_FOR_INVALID", "give either the scopes, or how long they were not used")
		}
	}
	if err := c.err(); err != nil {
		return Narrowed{}, err
	}
	if id, err := secret.ParseID(r.TokenID); err == nil && len(r.Scopes) == 0 {
		if err := s.saveUses(ctx, []ID{id}); err != nil {
			return Narrowed{}, err
		}
	}
	var out Narrowed
	if r.DryRun {
		err = s.view(ctx, func(tx ReadTx, now time.Time) error {
			_, t, err := ownedActive(ctx, tx, user, r.TokenID, now)
			if err == nil {
				out, err = r.plan(tx, t, now)
			}
			return err
		})
		return out, err
	}
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		_, t, err := ownedActive(ctx, tx, user, r.TokenID, now)
		if err != nil {
			return nil, err
		}
		if out, err = r.plan(tx, t, now); err != nil || len(out.Scopes) == 0 {
			return nil, err
		}
		e, err := pause(tx, &out.Token, out.Scopes, now)
		e.Actor, e.PeerIP = a.String(), a.Peer.IP
		return []Event{e}, err
	})
	return out, err
}

// plan says what the request would do to a token.
func (r NarrowRequest) plan(tx ReadTx, t Token, now time.Time) (Narrowed, error) {
	out := Narrowed{Token: t, Scopes: r.Scopes, End: now.Add(PauseLife)}
	var err error
	if out.Uses, err = usesOf(tx, t); err != nil {
		return Narrowed{}, err
	}
	if len(r.Scopes) > 0 {
		out.Scopes, err = toPause(t, r.Scopes, now)
		return out, err
	}
	cutoff := r.Unused.cutoff(now)
	if !out.Uses.covers(t, cutoff) {
		return Narrowed{}, usesNotRecorded(t, out.Uses)
	}
	out.Scopes = out.Uses.unusedScopes(t, cutoff)
	return out, nil
}

// usesNotRecorded says that nothing is known of the uses of a token for as long as was asked.
func usesNotRecorded(t Token, u ScopeUses) error {
	since := t.IssueTime
	if u.Since.After(since) {
		since = u.Since
	}
	return Fail(CodePrecondition, "USES_NOT_RECORDED", "the uses of the token's scopes are known since "+
		since.Format(time.RFC3339)+" only; give an unused_for that is not longer, or name the scopes")
}

// toPause returns which of the named scopes are still to be paused. All must be granted, which one whose pause is over
// is no more, even where it was not removed yet.
func toPause(t Token, scopes []string, now time.Time) ([]string, error) {
	left, paused := []string{}, t.PausedScopes(now)
	for _, s := range scopes {
		switch {
		case slices.Contains(t.Scopes, s):
			left = append(left, s)
		case !slices.Contains(paused, s):
			return nil, Invalid("SCOPES_NOT_GRANTED", "scopes", "not granted: "+s)
		}
	}
	return left, nil
}

// pause pauses scopes of a token, and returns its event without an actor.
func pause(tx Tx, t *Token, scopes []string, now time.Time) (Event, error) {
	gone := t.pause(scopes, now)
	if err := tx.UpdateToken(*t); err != nil {
		return Event{}, fmt.Errorf("write token %s: %w", t.ID, err)
	}
	return Event{
		Time:    now,
		Action:  ActionTokenNarrow,
		User:    t.User,
		TokenID: t.ID,
		Outcome: OutcomeSuccess,
		Detail:  "scopes paused: " + strings.Join(gone, " "),
	}, nil
}

// ResumeScopes has paused scopes of an active token in effect again; no scopes: all. It is a grant: the user must hold
// them now. An operator, who acts as no user, cannot.
//
// Reasons: TOKEN_NOT_ACTIVE, USER_SUSPENDED, SCOPES_NOT_PAUSED, SCOPE_NOT_HELD, and outages.
func (s *Service) ResumeScopes(ctx context.Context, a Actor, user, id string, scopes []string) (Token, error) {
	t, err := s.resumeScopes(ctx, a, user, id, scopes)
	if err != nil {
		return Token{}, s.refused(ctx, a, Refusal{Action: ActionTokenResume, User: user, TokenID: id}, err)
	}
	return t, nil
}

func (s *Service) resumeScopes(ctx context.Context, a Actor, user, id string, scopes []string) (Token, error) {
	if a.person() {
		return Token{}, errActsAsUser
	}
	user, err := s.owner(a, user)
	if err != nil {
		return Token{}, err
	}
	var c checker
	if len(scopes) > 0 {
		scopes = c.storedScopes("scopes", "TOO_MANY_SCOPES", scopes, s.limits.Scopes)
	}
	if err := c.err(); err != nil {
		return Token{}, err
	}
	before, err := s.askAhead(ctx, a, func(tx ReadTx, now time.Time) (User, bool, error) {
		u, t, err := resumable(ctx, tx, user, id, now)
		if err != nil {
			return User{}, false, err
		}
		back, err := t.toResume(scopes, now)
		return u, len(back) == 0, err
	})
	if err != nil {
		return Token{}, err
	}
	var t Token
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		var u User
		if u, t, err = resumable(ctx, tx, user, id, now); err != nil {
			return nil, err
		}
		back, err := t.toResume(scopes, now)
		if err != nil || len(back) == 0 {
			return nil, err
		}
		held, err := s.heldFor(ctx, u, before)
		if err != nil {
			return nil, err
		}
		if err := scopesHeld(back, held); err != nil {
			return nil, err
		}
		t.resume(back)
		if err := tx.UpdateToken(t); err != nil {
			return nil, fmt.Errorf("write token %s: %w", t.ID, err)
		}
		e := a.event(now, ActionTokenResume)
		e.User, e.TokenID, e.Detail = t.User, t.ID, "scopes resumed: "+strings.Join(back, " ")
		return []Event{e}, nil
	})
	return t, err
}

func resumable(ctx context.Context, tx ReadTx, user, id string, now time.Time) (User, Token, error) {
	u, t, err := ownedActive(ctx, tx, user, id, now)
	if err == nil && u.State != UserActive {
		err = errUserSuspended
	}
	return u, t, err
}

// toResume returns which scopes a call resumes. It leaves out those that are in effect already, so that it can be
// repeated, and refuses those that are neither: they were never granted, or are removed for good.
func (t *Token) toResume(scopes []string, now time.Time) ([]string, error) {
	paused := t.PausedScopes(now)
	if len(scopes) == 0 {
		return paused, nil
	}
	if lacking := Missing(scopes, union(t.Scopes, paused)); len(lacking) > 0 {
		return nil, Fail(
			CodePrecondition,
			"SCOPES_NOT_PAUSED",
			"not paused, or removed for good: "+strings.Join(lacking, " "),
		)
	}
	back, _ := Effective(scopes, paused)
	return back, nil
}

// RemovePausedScopes removes scopes for good whose pause is over, a batch of tokens a transaction. It returns after the
// last.
func (s *Service) RemovePausedScopes(ctx context.Context) error {
	const batch = 200
	for ctx.Err() == nil {
		var ids []ID
		err := s.store.View(ctx, func(tx ReadTx) (err error) {
			ids, err = tx.EndedPauses(s.Now(), batch)
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		progress := false
		err = s.ledger.carryOn(ctx, func(tx Tx, now time.Time) ([]Event, error) {
			var events []Event
			for _, id := range ids {
				t, err := tx.Token(id)
				if toEnd(err) != nil {
					return nil, fmt.Errorf("read token %s: %w", id, err)
				}
				gone := t.dropPaused(func(p Pause) bool { return !now.Before(p.End()) })
				if err != nil || t.Revocation != nil || len(gone) == 0 {
					continue // one that was edited by hand stays as it is, and refused
				}
				if err := tx.UpdateToken(t); err != nil {
					return nil, fmt.Errorf("write token %s: %w", id, err)
				}
				e := Operator().event(now, ActionTokenScopesRemoved)
				e.User, e.TokenID, e.Detail = t.User, id, "scopes -"+strings.Join(gone, " -")
				events = append(events, e)
			}
			progress = len(events) > 0
			return events, nil
		})
		if err != nil || !progress {
			return err
		}
	}
	return nil
}
