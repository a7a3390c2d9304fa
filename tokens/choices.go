package tokens

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"patd/tokens/secret"
)

// Choices is what a user may put into a new token: what a page with checkboxes needs.
type Choices struct {
	HeldFeatures
	Policy    Policy // of a token that names no audience
	Audiences []AudienceChoice
	MaxScopes int // of one token
}

// AudienceChoice is an audience with the lifetime policy of the tokens that name it.
type AudienceChoice struct {
	ID, DisplayName string
	Policy          Policy
}

// maxChoices is how many audiences Choices lists. A token may name others, too.
const maxChoices = 100

// ServerPolicy returns the policy of tokens that name no audience.
func (s *Service) ServerPolicy() Policy { return s.policy.withDefaults() }

// MintChoices returns what a user may put into a new token now.
func (s *Service) MintChoices(ctx context.Context, a Actor, user string) (Choices, error) {
	held, err := s.UserFeatures(ctx, a, user)
	if err != nil {
		return Choices{}, err
	}
	out := Choices{HeldFeatures: held, Policy: s.ServerPolicy(), MaxScopes: s.limits.Scopes}
	err = s.store.View(ctx, func(tx ReadTx) error {
		found, err := tx.Audiences(AudienceQuery{Limit: maxChoices})
		for _, e := range found {
			out.Audiences = append(out.Audiences, AudienceChoice{e.ID, e.DisplayName, e.policy(s.policy)})
		}
		return err
	})
	return out, err
}

// UserEvents lists the events about a user, or about one of its tokens if tokenID is not empty, newest first. It also
// returns the names of the tokens in them, by id, and the token of the next page.
func (s *Service) UserEvents(
	ctx context.Context,
	a Actor,
	user, tokenID string,
	p Page,
) ([]Event, map[ID]string, string, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return nil, nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("user events", user, tokenID)}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, nil, "", err
	}
	q := EventQuery{User: user, Limit: limit + 1}
	if after != "" {
		if q.Before, err = strconv.ParseUint(after, 10, 64); err != nil {
			return nil, nil, "", errPageToken
		}
	}
	if tokenID != "" {
		if q.TokenID, err = secret.ParseID(tokenID); err != nil {
			return nil, nil, "", notFound("token")
		}
	}
	var found []Event
	names := map[ID]string{}
	err = s.store.View(ctx, func(tx ReadTx) error {
		if found, err = tx.Events(q); err != nil {
			return err
		}
		for _, e := range found {
			if _, known := names[e.TokenID]; known || e.TokenID == 0 {
				continue
			}
			t, err := tx.Token(e.TokenID)
			if toEnd(err) != nil && !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("read token %s: %w", e.TokenID, err)
			}
			if err == nil && t.User == user {
				names[e.TokenID] = t.Name
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, "", err
	}
	found, next := cut(list, found, limit, func(e Event) string { return strconv.FormatUint(e.Seq, 10) })
	return found, names, next, nil
}

// HeldNow returns the features that a user holds now, without the catalogue's entries. An unknown user holds none.
func (s *Service) HeldNow(ctx context.Context, a Actor, user string) (Held, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return Held{}, err
	}
	var u User
	err = s.store.View(ctx, func(tx ReadTx) error {
		u, err = s.getOrNewUser(tx, user, s.Now())
		return err
	})
	if err != nil {
		return Held{}, err
	}
	return s.readFeatures(ctx, u)
}

// DescribeScopes returns the catalogue's entries of scopes, which are sorted, for a user who may see them.
func (s *Service) DescribeScopes(ctx context.Context, a Actor, user string, scopes []string) ([]FeatureEntry, error) {
	if _, err := s.owner(a, user); err != nil {
		return nil, err
	}
	var found []FeatureEntry
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		found, err = entries(tx, scopes)
		return err
	})
	return found, err
}
