package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"patd/tokens/secret"
)

// Mint makes a token for a user. The user must hold all requested scopes at this moment.
//
// Reasons: SCOPES_REQUIRED, SCOPE_NOT_HELD, TTL_ABOVE_MAXIMUM, EXPIRE_TIME_PAST, NEVER_NOT_ALLOWED, NAME_TAKEN,
// TOKEN_LIMIT_REACHED, USER_SUSPENDED, IDEMPOTENCY_KEY_REUSED, SELF_ROTATE_DISABLED, RENEWABLE_UNTIL_INVALID, those of
// malformed fields, and outages.
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

// mint first checks the request by itself. One transaction decides everything else.
func (s *Service) mint(ctx context.Context, a Actor, r MintRequest) (Minted, error) {
	if a.person() {
		return Minted{}, errActsAsUser
	}
	keys := s.keys.Get()
	draft, err := s.draft(r)
	if err != nil {
		return Minted{}, err
	}
	// The fingerprint covers the request and not its result: the same ttl ends at another time.
	seal, err := sealerFor(keys, a, r.IdempotencyKey, []any{draft, r.Lifetime})
	if err != nil {
		return Minted{}, err
	}
	var m Minted
	before, err := s.askAhead(ctx, a, func(tx ReadTx, now time.Time) (u User, done bool, err error) {
		if m, err = replay(tx, seal, now); err != nil || m.Replayed {
			return User{}, true, err
		}
		u, err = s.getOrNewUser(tx, r.User, now)
		return u, false, err
	})
	if err != nil || m.Replayed {
		return m, err
	}
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		m = Minted{}
		if m, err = replay(tx, seal, now); err != nil || m.Replayed {
			return nil, err
		}
		t := draft
		t.IssueTime, t.AsOf = now, now
		u, err := s.getOrNewUser(tx, t.User, now)
		if err != nil {
			return nil, err
		}
		if before.asked && before.user.Key != 0 && before.user.Key != u.Key {
			return nil, notFound("user") // deleted after the source was asked
		}
		if err := s.admit(ctx, tx, u, &t, before, now); err != nil {
			return nil, err
		}
		policy, err := s.policyFor(tx, t.Audiences)
		if err != nil {
			return nil, err
		}
		if t.ExpireTime, err = policy.Expiry(r.Lifetime, now); err != nil {
			return nil, err
		}
		if err := t.renewableAfter(now); err != nil {
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
		if err := seal.keep(tx, m.Token.ID, m.Secret, now, s.rand); err != nil {
			return nil, err
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

// draft returns the requested token without id and user key, or an error with all violations.
func (s *Service) draft(r MintRequest) (Token, error) {
	var c checker
	t := Token{User: r.User, Description: r.Description, Labels: r.Labels}
	t.Name = c.name(r.Name)
	c.description(r.Description)
	t.Scopes = c.scopes("scopes", "TOO_MANY_SCOPES", r.Scopes, s.limits.Scopes)
	t.Audiences = c.newAudiences(r.Audiences, s.limits.Audiences)
	c.labels(r.Labels, s.limits.Labels)
	t.CIDRs = c.cidrs(r.CIDRs, s.limits.CIDRs)
	c.idempotencyKey(r.IdempotencyKey)
	c.lifetime(r.Lifetime)
	t.SelfRotate, t.RenewableUntil = r.SelfRotate, r.RenewableUntil.UTC().Truncate(time.Microsecond)
	if r.RenewableUntil.IsZero() {
		t.RenewableUntil = time.Time{}
	}
	if err := c.err(); err != nil {
		return t, err
	}
	return t, s.maySelfRotate(t)
}

// answered is the result of a feature source from before a transaction. The zero value means that it was not asked.
type answered struct {
	asked    bool
	user     User // the user's record at that time
	features []string
}

// askAhead asks a remote feature source before the transaction, so that the writer never waits for it. look returns the
// user to ask about. When look reports that the call is done, as for a replay, the source is not asked.
func (s *Service) askAhead(
	ctx context.Context,
	a Actor,
	look func(ReadTx, time.Time) (u User, done bool, err error),
) (answered, error) {
	if s.features.Local() {
		return answered{}, nil
	}
	var (
		out  answered
		done bool
	)
	err := s.view(ctx, func(tx ReadTx, now time.Time) error {
		var err error
		out.user, done, err = look(tx, now)
		return err
	})
	if err != nil || done {
		return answered{}, err
	}
	h, err := s.features.Features(ctx, out.user, true)
	if err == nil && h.AsGranted {
		h.Features, err = credentialFeatures(a)
	}
	out.asked, out.features = true, h.Features
	return out, err
}

// heldNow returns the features that a user holds, for a grant inside a transaction. A local source gets the user record
// of the transaction; a remote one was asked just before.
func (s *Service) heldNow(ctx context.Context, u User, before answered) ([]string, error) {
	if !s.features.Local() {
		return before.features, nil
	}
	h, err := s.features.Features(ctx, u, true)
	return h.Features, err
}

// credentialFeatures returns the features named by the caller's own credential. A service's credential names no user's
// features, so the user holds none here. If a signed-in user's credential lacks the claim, or had it left out for its
// size, the features are unknown, which is an error and not an empty list.
func credentialFeatures(a Actor) ([]string, error) {
	switch {
	case a.Kind == TokenActor: // only a token that renews itself comes here
		return nil, Fail(CodePrecondition, "RENEWAL_NOT_ALLOWED",
			"which features the user holds is known only when it signs in: the user renews the token")
	case a.Kind != UserActor:
		return nil, nil
	case a.Features == nil:
		e := Fail(
			CodeUnavailable,
			"FEATURES_UNAVAILABLE",
			"the sign-in token does not say which features you hold: its claim of features is absent, or was left out for its size",
		)
		return nil, e
	}
	return set(a.Features), nil
}

// replay returns the stored result of an idempotent request. A zero Minted means that there is none.
func replay(tx ReadTx, seal *sealer, now time.Time) (Minted, error) {
	r, found, err := seal.find(tx, now)
	if err != nil || !found {
		return Minted{}, err
	}
	t, err := tx.Token(r.TokenID)
	if err != nil {
		return Minted{}, fmt.Errorf("read token %s of a request: %w", r.TokenID, err)
	}
	t.AsOf = now
	m := Minted{Token: t, Replayed: true}
	if r.Sealed != nil && t.Revocation == nil {
		m.Secret, err = seal.open(r)
	}
	return m, err
}

// getOrNewUser returns a user's record, or a new one with Key 0 if patd has none and the id is valid.
func (s *Service) getOrNewUser(tx ReadTx, user string, now time.Time) (User, error) {
	u, err := knownOrNew(tx, user, now)
	switch {
	case err != nil:
		return User{}, err
	case u.Key != 0:
		return u, nil
	}
	var c checker
	c.newUser(user)
	return u, c.err()
}

// knownOrNew is getOrNewUser for any id that a call can name. Before a record with Key 0 is stored, newUser must accept
// its id. With ErrRecordInvalid it returns the user too.
func knownOrNew(tx ReadTx, user string, now time.Time) (User, error) {
	u, err := tx.User(user)
	if errors.Is(err, ErrNotFound) {
		return User{ID: user, State: UserActive, CreateTime: now}, nil
	}
	if err != nil {
		return u, fmt.Errorf("read user: %w", err)
	}
	return u, nil
}

// admit checks a draft against the user's features and live tokens, inside the transaction that inserts it. A draft
// without scopes gets the default ones.
func (s *Service) admit(ctx context.Context, tx ReadTx, u User, t *Token, before answered, now time.Time) error {
	if u.State != UserActive {
		return errUserSuspended
	}
	held, err := s.heldNow(ctx, u, before)
	if err != nil {
		return err
	}
	if len(t.Scopes) == 0 {
		if t.Scopes, err = byDefault(tx, held); err != nil {
			return err
		}
		if len(t.Scopes) > s.limits.Scopes {
			return Invalid(
				"TOO_MANY_SCOPES",
				"scopes",
				fmt.Sprintf("at most %d, and the defaults are more; name some", s.limits.Scopes),
			)
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
		return Fail(
			CodeExhausted,
			"TOKEN_LIMIT_REACHED",
			fmt.Sprintf("the user has %d active tokens, which is the limit; revoke one", len(live)),
		)
	}
	return nil
}

// scopesHeld returns one error that names all scopes the user does not hold.
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
		e.Violations = append(
			e.Violations,
			Violation{Field: "scopes", Description: "the user does not hold " + l, Reason: e.Reason},
		)
	}
	return e
}

// nameFree returns an error if another live token of the user has this name.
func nameFree(live []LiveToken, name string, self ID) error {
	k := NameKey(name)
	for _, l := range live {
		if l.ID != self && NameKey(l.NameKey) == k { // the stored key may be a FormerNameKey
			return &Error{
				Code: CodeExists, Reason: "NAME_TAKEN", Metadata: map[string]string{"token_id": l.ID.String()},
				Message: "another live token of the user has this name: " + l.ID.String(),
			}
		}
	}
	return nil
}

// insert gives a draft its id and secret, and stores it. Ids of the same millisecond can collide; then it retries.
func (s *Service) insert(tx Tx, keys *Keys, t Token) (Token, Secret, error) {
	for range 8 {
		var err error
		if t.ID, err = secret.NewID(t.IssueTime, s.rand); err != nil {
			return Token{}, Secret{}, err
		}
		text, err := secret.Mint(s.prefixes.Load().Current(), t.ID, s.rand)
		if err != nil {
			return Token{}, Secret{}, err
		}
		err = tx.InsertToken(t, keys.Digest(text))
		if errors.Is(err, ErrTaken) {
			continue
		}
		if err != nil {
			return Token{}, Secret{}, fmt.Errorf("add token: %w", err)
		}
		return t, text, nil
	}
	return Token{}, Secret{}, errors.New("add token: no free id in this millisecond")
}
