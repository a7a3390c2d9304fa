package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"patd/tokens/secret"
)

// CredentialKind says what a LiveCredential is.
type CredentialKind string

// The kinds of credentials. What came of a personal access token ends with it, and so is no kind of its own.
const (
	CredentialToken   CredentialKind = "token"
	CredentialService CredentialKind = "service"
	CredentialSession CredentialKind = "session"
)

// LiveCredential is a credential that works, or does when its user is resumed or its block is lifted.
type LiveCredential struct {
	Kind       CredentialKind `json:"kind"`
	ID         string         `json:"id"`
	User       string         `json:"user,omitempty"`
	Name       string         `json:"name,omitempty"`
	IssueTime  time.Time      `json:"issue_time"`
	ExpireTime time.Time      `json:"expire_time,omitzero"` // zero: never
	// PreviousUntil is until when the secret before a rotation works too; zero: there is none.
	PreviousUntil time.Time `json:"previous_secret_expire_time,omitzero"`
	// Suspended says that its user is suspended, and Blocked that it is blocked or paused: it works again when that
	// ends.
	Suspended bool     `json:"suspended"`
	Blocked   bool     `json:"blocked"`
	Scopes    []string `json:"scopes,omitempty"` // of a token, that are not paused; the permissions of a service
	// Access and Refresh count the access tokens and the families of refresh tokens that came of a token.
	Access  int `json:"access_tokens"`
	Refresh int `json:"refresh_tokens"`
}

// credentialPage is how many credentials are read, or ended, in one transaction.
const credentialPage = 200

// LiveCredentials calls each with every live credential of a store: personal access tokens, the oldest first, then
// services and sessions of the page. It returns the first error of each. What is made or ended meanwhile may be missing
// or be there.
func LiveCredentials(ctx context.Context, st Store, now time.Time, each func(LiveCredential) error) error {
	if err := liveTokens(ctx, st, now, each); err != nil {
		return err
	}
	if err := liveServices(ctx, st, now, each); err != nil {
		return err
	}
	return liveSessions(ctx, st, now, each)
}

func liveTokens(ctx context.Context, st Store, now time.Time, each func(LiveCredential) error) error {
	q := InventoryQuery{
		Filter: Filter{State: StateActive},
		Now:    now,
		Order:  OrderOldest,
		Limit:  credentialPage,
		Within: time.Minute,
	}
	for {
		var page InventoryPage
		var list []LiveCredential
		err := st.View(ctx, func(tx ReadTx) (err error) {
			list = list[:0]
			if page, err = tx.Inventory(q); err != nil {
				return fmt.Errorf("list tokens: %w", err)
			}
			suspended := map[string]bool{}
			for _, t := range page.Tokens {
				if _, known := suspended[t.User]; !known {
					u, err := tx.User(t.User)
					if toEnd(err) != nil && !errors.Is(err, ErrNotFound) {
						return fmt.Errorf("read user: %w", err)
					}
					suspended[t.User] = u.State == UserSuspended
				}
				v := LiveCredential{
					Kind:       CredentialToken,
					ID:         t.ID.String(),
					User:       t.User,
					Name:       t.Name,
					IssueTime:  t.IssueTime,
					ExpireTime: t.ExpireTime,
					Suspended:  suspended[t.User],
					Blocked:    t.BlockedBy != "",
					Scopes:     t.Scopes,
				}
				oldest := t.Rotations
				if t.Rotation.inProgress(now) {
					v.PreviousUntil, oldest = t.Rotation.PreviousUntil, t.Rotations-1
				}
				n, err := tx.CountGrants(t.ID, oldest, now)
				if err != nil {
					return fmt.Errorf("count what came of token %s: %w", t.ID, err)
				}
				v.Access, v.Refresh = n.Access, n.Families
				list = append(list, v)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, v := range list {
			if err := each(v); err != nil {
				return err
			}
		}
		if q.After = page.Next; !page.More {
			return nil
		}
	}
}

func liveServices(ctx context.Context, st Store, now time.Time, each func(LiveCredential) error) error {
	for before := ID(0); ; {
		var page []ServiceAccount
		err := st.View(ctx, func(tx ReadTx) (err error) {
			page, err = tx.Services(before, credentialPage)
			return err
		})
		if err != nil {
			return fmt.Errorf("list services: %w", err)
		}
		for _, s := range page {
			if before = s.ID; s.Status(now) != StateActive {
				continue
			}
			v := LiveCredential{
				Kind:       CredentialService,
				ID:         s.ID.String(),
				Name:       s.Name,
				IssueTime:  s.IssueTime,
				ExpireTime: s.ExpireTime,
				Scopes:     s.Permissions.Names(),
			}
			if now.Before(s.PreviousUntil) {
				v.PreviousUntil = s.PreviousUntil
			}
			if err := each(v); err != nil {
				return err
			}
		}
		if len(page) < credentialPage {
			return nil
		}
	}
}

func liveSessions(ctx context.Context, st Store, now time.Time, each func(LiveCredential) error) error {
	for after := ID(0); ; {
		var page []PageSession
		err := st.View(ctx, func(tx ReadTx) (err error) {
			page, err = tx.AllPageSessions(after, now, credentialPage)
			return err
		})
		if err != nil {
			return fmt.Errorf("list sessions: %w", err)
		}
		for _, s := range page {
			if after = s.ID; !s.live(now) {
				continue
			}
			v := LiveCredential{
				Kind:       CredentialSession,
				ID:         s.ID.String(),
				User:       s.User,
				Name:       s.Agent,
				IssueTime:  s.IssueTime,
				ExpireTime: s.ExpireTime,
			}
			if err := each(v); err != nil {
				return err
			}
		}
		if len(page) < credentialPage {
			return nil
		}
	}
}

// EndCredentials ends credentials that LiveCredentials listed, for good, a page of them a transaction, each with its
// audit event by the operator. It returns how many it ended; those that had ended meanwhile do not count.
func EndCredentials(
	ctx context.Context,
	st Store,
	list []LiveCredential,
	reason string,
	now func() time.Time,
) (ended int, err error) {
	for len(list) > 0 {
		page := list[:min(len(list), credentialPage)]
		list = list[len(page):]
		n := 0
		err := st.Update(ctx, func(tx Tx) (events []Event, err error) {
			n = 0
			at := now()
			for _, v := range page {
				made, err := endCredential(tx, v, reason, at)
				if err != nil {
					return nil, fmt.Errorf("end %s %s: %w", v.Kind, v.ID, err)
				}
				if len(made) > 0 {
					n++
				}
				events = append(events, made...)
			}
			return events, nil
		})
		if err != nil {
			return ended, err
		}
		ended += n
	}
	return ended, nil
}

func endCredential(tx Tx, v LiveCredential, reason string, now time.Time) ([]Event, error) {
	id, err := secret.ParseID(v.ID)
	if err != nil {
		return nil, err
	}
	why := Revocation{Time: now, By: Operator().String(), Reason: reason}
	switch v.Kind {
	case CredentialToken:
		t, err := tx.Token(id)
		if errors.Is(err, ErrNotFound) || toEnd(err) == nil && t.Revocation != nil {
			return nil, nil
		}
		if toEnd(err) != nil {
			return nil, err
		}
		t.Revocation = &why
		if err := tx.UpdateToken(t); err != nil {
			return nil, err
		}
		e := Operator().event(now, ActionTokenRevoke)
		e.User, e.TokenID, e.Detail = t.User, id, reason
		return []Event{e}, tx.ForgetSealed(id)
	case CredentialService:
		s, err := readService(tx, id)
		if errors.Is(err, ErrNotFound) || toEnd(err) == nil && s.Revocation != nil {
			return nil, nil
		}
		if toEnd(err) != nil {
			return nil, err
		}
		_, events, err := revokeAccount(tx, Operator(), s, now, reason)
		return events, err
	case CredentialSession:
		n, err := tx.EndPageSessions(v.User, id, 0, now)
		if err != nil || n == 0 {
			return nil, err
		}
		e := Operator().event(now, ActionSessionEnd)
		e.User, e.Detail = v.User, "session "+v.ID
		return []Event{e}, nil
	}
	return nil, fmt.Errorf("there is no kind %q", v.Kind)
}
