package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"patd/tokens/secret"
)

// Token returns one of a user's tokens. Another user's id is CodeNotFound, the same as an id that never existed.
func (s *Service) Token(ctx context.Context, a Actor, user, id string) (Token, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return Token{}, err
	}
	var t Token
	err = s.view(ctx, func(tx ReadTx, now time.Time) error {
		if _, t, err = owned(tx, user, id); err != nil {
			return err
		}
		t.AsOf = now
		uses, err := usesOf(tx, t)
		t.Uses = &uses
		return err
	})
	if err != nil {
		return Token{}, err
	}
	list := []Token{t}
	s.effects(ctx, list)
	return list[0], nil
}

// owned returns a user and one of the user's tokens.
func owned(tx ReadTx, user, id string) (User, Token, error) {
	u, t, err := ownedToEnd(tx, user, id)
	if err != nil {
		return User{}, Token{}, err
	}
	return u, t, nil
}

// ownedActive is owned for a change, which only an active token takes, and only in the state that the caller names.
func ownedActive(ctx context.Context, tx ReadTx, user, id string, now time.Time) (User, Token, error) {
	u, t, err := owned(tx, user, id)
	if err != nil {
		return User{}, Token{}, err
	}
	if err := expectTag(ctx, t); err != nil {
		return User{}, Token{}, err
	}
	t.AsOf = now
	return u, t, mustBeActive(t, now)
}

// ownedToEnd is owned for what ends the token: with ErrRecordInvalid it returns both, too.
func ownedToEnd(tx ReadTx, user, id string) (User, Token, error) {
	tid, err := secret.ParseID(id)
	if err != nil {
		return User{}, Token{}, notFound("token")
	}
	u, err := tx.User(user)
	if errors.Is(err, ErrNotFound) {
		return User{}, Token{}, notFound("token")
	}
	if toEnd(err) != nil {
		return User{}, Token{}, fmt.Errorf("read user: %w", err)
	}
	t, terr := tx.Token(tid)
	if errors.Is(terr, ErrNotFound) || toEnd(terr) == nil && t.UserKey != u.Key {
		return User{}, Token{}, notFound("token")
	}
	if terr != nil {
		return u, t, fmt.Errorf("read token %s: %w", tid, terr)
	}
	return u, t, err
}

// Tokens lists a user's tokens, newest first, and returns the token of the next page, empty after the last.
func (s *Service) Tokens(ctx context.Context, a Actor, f TokenFilter, p Page) ([]Token, string, error) {
	user, err := s.owner(a, f.User)
	if err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("tokens", user, fmt.Sprint(f.State), f.NameHas, f.Audience)}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	q := TokenQuery{State: f.State, NameHas: f.NameHas, Audience: f.Audience, Now: s.Now(), Limit: limit + 1}
	if after != "" {
		if q.Before, err = secret.ParseID(after); err != nil {
			return nil, "", errPageToken
		}
	}
	var found []Token
	err = s.store.View(ctx, func(tx ReadTx) error {
		u, err := tx.User(user)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if toEnd(err) != nil { // lists show what is stored
			return fmt.Errorf("read user: %w", err)
		}
		q.UserKey = u.Key
		found, err = tx.Tokens(q)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	found, next := cut(list, found, limit, func(t Token) string { return t.ID.String() })
	asOf(found, q.Now)
	s.effects(ctx, found)
	return found, next, nil
}

// UpdateToken changes some fields of an active token. It can only remove scopes and only make the expiry earlier.
//
// Reasons: TOKEN_NOT_ACTIVE, SCOPES_WIDENED, SCOPES_REQUIRED, EXPIRE_TIME_LATER, EXPIRE_TIME_PAST, NAME_TAKEN,
// SELF_ROTATE_DISABLED, RENEWABLE_UNTIL_INVALID, those of malformed fields, and outages.
func (s *Service) UpdateToken(ctx context.Context, a Actor, user, id string, c TokenChange) (Token, error) {
	t, err := s.update(ctx, a, user, id, c)
	if err != nil {
		return Token{}, s.refused(ctx, a, Refusal{Action: ActionTokenUpdate, User: user, TokenID: id}, err)
	}
	return t, nil
}

func (s *Service) update(ctx context.Context, a Actor, user, id string, c TokenChange) (Token, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return Token{}, err
	}
	ch, err := s.checked(c)
	if err != nil {
		return Token{}, err
	}
	var t Token
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		var u User
		if u, t, err = ownedActive(ctx, tx, user, id, now); err != nil {
			return nil, err
		}
		could := t
		changed, err := ch.apply(&t, now)
		if err != nil || len(changed) == 0 {
			return nil, err
		}
		if err := s.mayLetRotate(a, could, t); err != nil {
			return nil, err
		}
		if err := s.unblock(tx, &t, now); err != nil {
			return nil, err
		}
		if slices.Contains(changed, "name") {
			live, err := tx.LiveTokens(u.Key, now)
			if err != nil {
				return nil, fmt.Errorf("read live tokens: %w", err)
			}
			if err := nameFree(live, t.Name, t.ID); err != nil {
				return nil, err
			}
		}
		if err := tx.UpdateToken(t); err != nil {
			return nil, fmt.Errorf("write token %s: %w", t.ID, err)
		}
		e := a.event(now, ActionTokenUpdate)
		e.User, e.TokenID, e.Detail = t.User, t.ID, strings.Join(changed, ", ")
		e.Narrows = !slices.ContainsFunc(changed, func(what string) bool {
			return !strings.HasPrefix(what, changedExpiry) && what != changedSelfOff && what != changedRenewalLess &&
				!strings.HasPrefix(what, changedScopes)
		})
		return []Event{e}, nil
	})
	return t, err
}

func mustBeActive(t Token, now time.Time) error {
	switch t.Status(now) {
	case StateRevoked:
		return Fail(CodePrecondition, "TOKEN_NOT_ACTIVE", "the token is revoked")
	case StateExpired:
		return Fail(CodePrecondition, "TOKEN_NOT_ACTIVE", "the token has expired")
	}
	return nil
}
