package tokens

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SecurityAction is what a security event does to the tokens of its user: a set of bits. An event of any set is in the
// audit log; with none of the bits that is all.
type SecurityAction int

// The actions.
const (
	SecuritySuspend     SecurityAction = 1 << iota // suspend the user
	SecurityRevoke                                 // revoke the user's tokens for good
	SecurityDelete                                 // delete the user, which revokes its tokens too
	SecurityEndSessions                            // end the user's sessions of the page
)

// MaxSecurityEventAge is how old a security event may be when it arrives, for a transmitter that tries again for days.
// So long its id is remembered.
const MaxSecurityEventAge = 7 * Day

// MaxSecurityEventSkew is how far the clock of a transmitter may be ahead.
const MaxSecurityEventSkew = 5 * time.Minute

// SecurityEvent is a security event token (RFC 8417) whose signature was verified.
type SecurityEvent struct {
	Issuer, ID string    // iss and jti, which name it
	IssueTime  time.Time // iat
	User       string
	Types      []string // the names of its events, such as account-disabled
	Action     SecurityAction
}

// TakeSecurityEvent does what an event says, in one transaction with the record of its id. It is EVENT_REPLAYED if that
// id was taken before, and EVENT_TIME_INVALID if the event is too old, or from the future: nothing is done then. For a
// user unknown to patd, a suspension adds the user, and nothing else is done.
func (s *Service) TakeSecurityEvent(ctx context.Context, peer Peer, e SecurityEvent) error {
	a := Actor{Kind: IssuerActor, Name: e.Issuer, Peer: peer}
	refusal := Refusal{Action: ActionUserSecurityEvent, User: e.User}
	var c checker
	if c.newUser(e.User); c.err() != nil {
		return s.refused(ctx, a, Refusal{Action: ActionUserSecurityEvent}, c.err())
	}
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if age := now.Sub(e.IssueTime); age > MaxSecurityEventAge || age < -MaxSecurityEventSkew {
			return nil, Invalid("EVENT_TIME_INVALID", "iat", "the event is older than 7 days, or from the future")
		}
		err := tx.RememberSecurityEvent(e.digest(), e.IssueTime.Add(MaxSecurityEventAge))
		if errors.Is(err, ErrTaken) {
			return nil, errReplayed
		}
		if err != nil {
			return nil, fmt.Errorf("remember a security event: %w", err)
		}
		u, err := knownOrNew(tx, e.User, now)
		if toEnd(err) != nil {
			return nil, err
		}
		told := a.event(now, ActionUserSecurityEvent)
		told.User, told.Detail, told.Narrows = e.User, e.detail(), true
		return a.carryOut(tx, e, &u, now, []Event{told})
	})
	return s.refused(ctx, a, refusal, err)
}

var errReplayed = Fail(
	CodeExists,
	"EVENT_REPLAYED",
	"a security event with this iss and jti was taken before, and did what it says",
)

// detail is what the audit log says of an event: its types, and what it does.
func (e SecurityEvent) detail() string {
	return strings.Join(e.Types, ", ") + ": " + strings.Join(e.Action.words(), ", ")
}

// SecurityEventOf reads what the event user.security_event says: the types of the event that came, and the actions that
// it had; none where an earlier version wrote it.
func SecurityEventOf(e Event) (types, actions []string) {
	text, did, known := strings.Cut(e.Detail, ": ")
	if known {
		actions = strings.Split(did, ", ")
	}
	return strings.Split(text, ", "), actions
}

// digest names an event among those of all issuers.
func (e SecurityEvent) digest() [32]byte {
	return sha256.Sum256([]byte(framed("security event", e.Issuer, e.ID)))
}

// carryOut does what an event says, and adds the events.
func (a Actor) carryOut(tx Tx, e SecurityEvent, u *User, now time.Time, events []Event) (_ []Event, err error) {
	reason := "security event: " + strings.Join(e.Types, ", ")
	if u.Key == 0 && e.Action&SecuritySuspend != 0 {
		if u.Key, err = tx.InsertUser(*u); err != nil {
			return nil, fmt.Errorf("write user: %w", err)
		}
	}
	if u.Key == 0 {
		return events, nil
	}
	if e.Action&(SecurityRevoke|SecurityDelete) != 0 {
		ids, err := revokeAll(tx, *u, Revocation{Time: now, By: a.String(), Reason: reason})
		if err != nil {
			return nil, err
		}
		events = append(events, a.revoked(now, u.ID, ids, reason)...)
		if e.Action&SecurityDelete != 0 {
			return a.purge(tx, u, len(ids), reason, now, events)
		}
		all := a.event(now, ActionTokenRevokeAll)
		all.User, all.Detail = u.ID, counted(len(ids), reason)
		events = append(events, all)
	}
	if e.Action&SecuritySuspend != 0 {
		return a.suspend(tx, u, now, reason, events)
	}
	if e.Action&SecurityEndSessions != 0 {
		return events, endSessions(tx, u.ID, now)
	}
	return events, nil
}

// purge deletes a user whose tokens are revoked, and adds the event.
func (a Actor) purge(tx Tx, u *User, revoked int, reason string, now time.Time, events []Event) ([]Event, error) {
	if err := tx.DeleteProvisioned(u.Key); err != nil {
		return nil, fmt.Errorf("forget a provisioned user: %w", err)
	}
	u.DeleteTime, u.Features = now, nil
	if err := tx.UpdateUser(*u); err != nil {
		return nil, fmt.Errorf("write user: %w", err)
	}
	e := a.event(now, ActionUserDelete)
	e.User, e.Detail = u.ID, counted(revoked, reason)
	return append(events, e), endSessions(tx, u.ID, now)
}

// words returns the words of an action, as ParseSecurityAction reads them. The end of the sessions of the page is no
// word.
func (a SecurityAction) words() []string {
	var words []string
	for _, one := range []struct {
		bit  SecurityAction
		word string
	}{{SecuritySuspend, "suspend"}, {SecurityRevoke, "revoke"}, {SecurityDelete, "delete"}} {
		if a&one.bit != 0 {
			words = append(words, one.word)
		}
	}
	if words == nil {
		return []string{"notify"}
	}
	return words
}

// ParseSecurityAction reads an action: the words suspend, revoke, delete and notify, with + between several.
func ParseSecurityAction(text string) (a SecurityAction, err error) {
	words := strings.Split(text, "+")
	for i, word := range words {
		if slices.Contains(words[:i], word) {
			return 0, fmt.Errorf("%q is there twice", word)
		}
		switch word {
		case "notify":
		case "suspend":
			a |= SecuritySuspend
		case "revoke":
			a |= SecurityRevoke | SecurityEndSessions
		case "delete":
			a |= SecurityDelete
		default:
			return 0, fmt.Errorf("%q is no action; there are suspend, revoke, delete and notify", word)
		}
	}
	return a, nil
}
