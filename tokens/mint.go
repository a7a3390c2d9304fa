package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Mint makes a token of a user, with the scopes asked for, all of which the user must hold at this moment.
//
// Reasons: SCOPES_REQUIRED, SCOPE_NOT_HELD, TTL_ABOVE_MAXIMUM, EXPIRE_TIME_PAST, NEVER_NOT_ALLOWED, NAME_TAKEN,
// TOKEN_LIMIT_REACHED, USER_SUSPENDED, IDEMPOTENCY_KEY_REUSED, those of malformed fields, and outages.
func (s *Service) Mint(ctx context.Context, a Actor, r MintRequest) (Minted, error) {
	user, err := s.owner(a, r.User)
	if err != nil {
		return Minted{}, s.refused(ctx, a, Refusal{Action: ActionTokenCreate, User: r.User}, err)
	}
	r.User = user
	m, err := s.mint(ctx, a, r)
	if err != nil {
		return Minted{}, s.refused(ctx, a, Refusal{Action: ActionTokenCreate, User: user}, err)
	}
	return m, nil
}

// mint checks the request by itself, then opens the one transaction in which everything else is decided.
func (s *Service) mint(ctx context.Context, a Actor, r MintRequest) (Minted, error) {
	now, keys := s.Now(), s.keys.Get()
	draft, err := s.draft(r, now)
	if err != nil {
		return Minted{}, err
	}
	var seal *sealer
	if r.IdempotencyKey != "" {
		// The fingerprint is of what was asked, not of what it came to: the same ttl ends at another instant.
		asked := draft
		asked.IssueTime = time.Time{}
		if seal, err = newSealer(keys, a.String(), r.IdempotencyKey, []any{asked, r.Lifetime}); err != nil {
			return Minted{}, err
		}
	}
	held, done, err := s.askAhead(ctx, a, r.User, seal, now)
	if err != nil || done.Replayed {
		return done, err
	}
	var m Minted
	err = s.store.Update(ctx, func(tx Tx) ([]Event, error) {
		m = Minted{}
		if seal != nil {
			if m, err = replay(tx, seal, now); err != nil || m.Replayed {
				return nil, err
			}
		}
		t := draft
		u, err := s.meet(tx, t.User, now)
		if err != nil {
			return nil, err
		}
		if err := s.admit(ctx, tx, u, &t, held, now); err != nil {
			return nil, err
		}
		policy, err := s.policyFor(tx, t.Audiences)
		if err != nil {
			return nil, err
		}
		if t.ExpireTime, err = policy.Expiry(r.Lifetime, now); err != nil {
			return nil, err
		}
		if u.Key == 0 {
			if u.Key, err = tx.InsertUser(u); err != nil {
				return nil, fmt.Errorf("add user: %w", err)
			}
		}
		t.UserKey = u.Key
		if m.Token, m.Secret, err = s.insert(tx, keys, t); err != nil {
			return nil, err
		}
		if seal != nil {
			q, err := seal.request(m.Token.ID, m.Secret, now, s.rand)
			if err != nil {
				return nil, err
			}
			if err := tx.PutRequest(q, now); err != nil {
				return nil, fmt.Errorf("keep request: %w", err)
			}
		}
		e := a.event(now, ActionTokenCreate)
		e.User, e.TokenID = t.User, m.Token.ID
		return []Event{e}, nil
	})
	if err != nil {
		return Minted{}, err
	}
	return m, nil
}

// draft is the token that a request asks for, without id and owner's key, or everything that is wrong with it.
func (s *Service) draft(r MintRequest, now time.Time) (Token, error) {
	var c checker
	t := Token{User: r.User, IssueTime: now, Description: r.Description, Labels: r.Labels}
	t.Name = c.name(r.Name)
	c.description(r.Description)
	t.Scopes = c.scopes("scopes", "TOO_MANY_SCOPES", r.Scopes, s.limits.Scopes)
	t.Audiences = c.audiences(r.Audiences, s.limits.Audiences)
	c.labels(r.Labels, s.limits.Labels)
	t.CIDRs = c.cidrs(r.CIDRs, s.limits.CIDRs)
	if r.IdempotencyKey != "" {
		checkIdempotencyKey(&c, r.IdempotencyKey)
	}
	c.lifetime(r.Lifetime)
	return t, c.err()
}

// askAhead asks a feature source that is not local before the transaction, so that the writer never waits for it; and
// before that looks for a replay, which needs no source.
func (s *Service) askAhead(ctx context.Context, a Actor, user string, seal *sealer, now time.Time) ([]string, Minted, error) {
	if s.features.Local() {
		return nil, Minted{}, nil
	}
	var m Minted
	u := User{ID: user, State: UserActive}
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		if seal != nil {
			if m, err = replay(tx, seal, now); err != nil || m.Replayed {
				return err
			}
		}
		u, err = s.meet(tx, user, now)
		return err
	})
	if err != nil || m.Replayed {
		return nil, m, err
	}
	h, err := s.features.Features(ctx, u, true)
	if err == nil && h.AsGranted {
		h.Features, err = credentialFeatures(a)
	}
	return h.Features, Minted{}, err
}

// credentialFeatures is what a caller's own credential says that it holds. A service's says nothing of any user, who
// then holds nothing here. A signed-in user's that does not have the claim, or had it left out for its size, leaves
// unknown what the user holds: nothing is not the answer.
func credentialFeatures(a Actor) ([]string, error) {
	switch {
	case a.Kind != UserActor:
		return nil, nil
	case a.Features == nil:
		e := Fail(CodeUnavailable, "FEATURES_UNAVAILABLE",
			"the sign-in token does not say which features you hold: its claim of features is absent, or was left out for its size")
		return nil, e
	}
	return set(a.Features), nil
}

// replay answers an idempotent request that was answered before. A zero Minted: it was not.
func replay(tx ReadTx, seal *sealer, now time.Time) (Minted, error) {
	for _, k := range seal.marks {
		r, err := tx.Request(k.lookup, now)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return Minted{}, fmt.Errorf("read request: %w", err)
		}
		if !k.sameBody(r) {
			return Minted{}, Fail(CodeAborted, "IDEMPOTENCY_KEY_REUSED", "this idempotency key was used for another request; use a fresh one")
		}
		t, err := tx.Token(r.TokenID)
		if err != nil {
			return Minted{}, fmt.Errorf("read token %s of a request: %w", r.TokenID, err)
		}
		m := Minted{Token: t, Replayed: true}
		if r.Sealed == nil || t.Revocation != nil {
			return m, nil
		}
		if m.Secret, err = seal.open(r); err != nil {
			return Minted{}, err
		}
		return m, nil
	}
	return Minted{}, nil
}

// meet reads a user, or makes the record of one that patd has not met; such a one has Key 0.
func (s *Service) meet(tx ReadTx, user string, now time.Time) (User, error) {
	u, err := tx.User(user)
	if errors.Is(err, ErrNotFound) {
		return User{ID: user, State: UserActive, CreateTime: now}, nil
	}
	if err != nil {
		return User{}, fmt.Errorf("read user: %w", err)
	}
	return u, nil
}

// admit checks a draft against what the user holds and has, inside the transaction that inserts it. A draft without
// scopes gets the default ones.
func (s *Service) admit(ctx context.Context, tx ReadTx, u User, t *Token, held []string, now time.Time) error {
	if u.State != UserActive {
		return Fail(CodePrecondition, "USER_SUSPENDED", "the user is suspended")
	}
	if s.features.Local() {
		h, err := s.features.Features(ctx, u, true)
		if err != nil {
			return err
		}
		held = h.Features
	}
	if len(t.Scopes) == 0 {
		var err error
		if t.Scopes, err = byDefault(tx, held); err != nil {
			return err
		}
		if len(t.Scopes) > s.limits.Scopes {
			return Invalid("TOO_MANY_SCOPES", "scopes", fmt.Sprintf("at most %d, and the defaults are more; name some", s.limits.Scopes))
		}
	}
	if err := scopesHeld(t.Scopes, held); err != nil {
		return err
	}
	if u.Key == 0 {
		return nil
	}
	live, err := tx.LiveTokens(u.Key, now)
	if err != nil {
		return fmt.Errorf("read live tokens: %w", err)
	}
	if err := nameFree(live, t.Name, 0); err != nil {
		return err
	}
	if len(live) >= s.limits.ActiveTokens {
		return Fail(CodeExhausted, "TOKEN_LIMIT_REACHED", fmt.Sprintf("the user has %d active tokens, which is the limit; revoke one", len(live)))
	}
	return nil
}

// scopesHeld refuses all scopes that are not held, together.
func scopesHeld(scopes, held []string) error {
	_, lacking := Effective(scopes, held)
	if len(lacking) == 0 {
		return nil
	}
	e := &Error{
		Code: CodeInvalid, Reason: "SCOPE_NOT_HELD", Metadata: map[string]string{"scopes": strings.Join(lacking, " ")},
		Message: "the user does not hold: " + strings.Join(lacking, " "),
	}
	for _, l := range lacking {
		e.Violations = append(e.Violations, Violation{Field: "scopes", Description: "the user does not hold " + l, Reason: e.Reason})
	}
	return e
}

// nameFree refuses a name that another live token of the user has.
func nameFree(live []LiveToken, name string, self ID) error {
	k := NameKey(name)
	for _, l := range live {
		if l.NameKey == k && l.ID != self {
			return &Error{
				Code: CodeExists, Reason: "NAME_TAKEN", Metadata: map[string]string{"token_id": l.ID.String()},
				Message: "another live token of the user has this name: " + l.ID.String(),
			}
		}
	}
	return nil
}

// insert gives a draft its id and secret, and stores it. Ids of one millisecond can meet; then it tries another.
func (s *Service) insert(tx Tx, keys *Keys, t Token) (Token, Secret, error) {
	for range 8 {
		var err error
		if t.ID, err = NewID(t.IssueTime, s.rand); err != nil {
			return Token{}, Secret{}, err
		}
		secret, err := Mint(s.prefixes.Load().Personal(), t.ID, s.rand)
		if err != nil {
			return Token{}, Secret{}, err
		}
		err = tx.InsertToken(t, keys.Digest(secret))
		if errors.Is(err, ErrTaken) {
			continue
		}
		if err != nil {
			return Token{}, Secret{}, fmt.Errorf("add token: %w", err)
		}
		return t, secret, nil
	}
	return Token{}, Secret{}, errors.New("add token: no free id in this millisecond")
}
