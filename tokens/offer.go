package tokens

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"patd/tokens/secret"
)

// offer holds everything that an access token is made from.
type offer struct {
	cred   Credential   // the personal access token
	secret StoredSecret // the secret of cred that it is derived from
	client Client
	scopes []string
	target target
	family *Family // nil: none
	now    time.Time
}

// end returns when the access token expires: never after anything that it is derived from.
func (o offer) end() time.Time {
	at := earliest(o.now.Add(o.target.ttl), o.cred.Token.ExpireTime)
	at = earliest(at, o.secret.ExpireTime)
	if o.family != nil {
		at = earliest(at, o.family.ExpireTime)
	}
	return at
}

// heldForAccess is the result of a feature source from before the transaction of an exchange or a refresh.
type heldForAccess struct {
	Held
	fresh bool // cached results were not allowed
}

// of returns the granted scopes that are in effect.
func (h heldForAccess) of(granted []string) []string {
	effective, _ := inEffect(granted, h.Held)
	return effective
}

// heldBy asks the feature source. A JWT keeps its scopes until it expires, so for a JWT no cached result is used.
func (s *Service) heldBy(ctx context.Context, u User, t target) (heldForAccess, error) {
	fresh := t.format == AccessJWT
	h, err := s.features.Features(ctx, u, fresh)
	return heldForAccess{h, fresh}, err
}

// scopesFor returns the granted scopes that are in effect and requested, inside the transaction. A local source is
// asked again, about the record as the transaction sees it.
func (s *Service) scopesFor(
	ctx context.Context,
	o offer,
	granted, ask []string,
	before heldForAccess,
) ([]string, error) {
	if s.features.Local() {
		var err error
		if before, err = s.heldBy(ctx, o.cred.User, o.target); err != nil {
			return nil, err
		}
	}
	if o.target.format == AccessJWT && !before.fresh {
		return nil, Fail(
			CodeUnavailable,
			"AUDIENCE_CHANGED",
			"an audience was changed while the call was under way; try again",
		)
	}
	return s.narrowed(ask, before.of(granted))
}

// grant makes the access token and returns the detail for the event.
func (s *Service) grant(tx Tx, keys *Keys, o offer, g *Granted) (detail string, err error) {
	g.TokenID = o.cred.Token.ID
	g.Format, g.Scopes, g.ExpireTime = o.target.format, o.scopes, o.end()
	var id ID
	if g.Format == AccessJWT {
		id, err = s.claim(o, g)
	} else {
		id, err = s.insertAccess(tx, keys, o, g)
	}
	if err != nil {
		return "", err
	}
	g.ExpiresIn = max(g.ExpireTime.Sub(o.now), 0)
	return o.detail(id), nil
}

// claim makes the claims of a JWT. Its times are whole seconds, so the expiry is rounded down.
func (s *Service) claim(o offer, g *Granted) (ID, error) {
	id, err := secret.NewID(o.now, s.rand)
	g.ExpireTime = g.ExpireTime.Truncate(time.Second)
	g.Claims = AccessClaims{
		ID: id, User: o.cred.Token.User, ClientID: o.client.ID, Audiences: o.target.audiences, Scopes: o.scopes,
		IssueTime: o.now, ExpireTime: g.ExpireTime, TokenID: o.cred.Token.ID,
	}
	return id, err
}

func (s *Service) insertAccess(tx Tx, keys *Keys, o offer, g *Granted) (ID, error) {
	n, err := tx.CountGrants(o.cred.Token.ID, o.cred.oldestInForce(o.now), o.now)
	if err != nil {
		return 0, fmt.Errorf("count access tokens: %w", err)
	}
	if n.Access >= s.limits.AccessTokens {
		return 0, Fail(
			CodeExhausted,
			"ACCESS_LIMIT_REACHED",
			fmt.Sprintf(
				"the token has %d live access tokens, which is the limit; revoke one, or wait for it to expire",
				n.Access,
			),
		)
	}
	a := AccessToken{
		TokenID:    o.cred.Token.ID,
		Serial:     o.secret.Serial,
		ClientID:   o.client.ID,
		Scopes:     o.scopes,
		Audiences:  o.target.audiences,
		IssueTime:  o.now,
		ExpireTime: g.ExpireTime,
	}
	if o.family != nil {
		a.Family = o.family.ID
	}
	err = s.withID("access token", o.now, func(id ID) error {
		a.ID = id
		var err error
		if g.Access, err = secret.Mint(secret.PrefixAccess, id, s.rand); err != nil {
			return err
		}
		return tx.InsertAccess(a, keys.Digest(g.Access))
	})
	return a.ID, err
}

// nextRefresh adds a refresh token to a family.
func (s *Service) nextRefresh(tx Tx, keys *Keys, f Family, now time.Time) (Secret, error) {
	var text Secret
	err := s.withID("refresh token", now, func(id ID) error {
		var err error
		if text, err = secret.Mint(secret.PrefixRefresh, id, s.rand); err != nil {
			return err
		}
		return tx.InsertRefresh(RefreshToken{ID: id, Family: f, IssueTime: now}, keys.Digest(text))
	})
	return text, err
}

// withID inserts a record under a free id. Ids of the same millisecond can collide; then it retries.
func (s *Service) withID(what string, now time.Time, insert func(ID) error) error {
	for range 8 {
		id, err := secret.NewID(now, s.rand)
		if err != nil {
			return err
		}
		err = insert(id)
		if errors.Is(err, ErrTaken) {
			continue
		}
		if err != nil {
			return fmt.Errorf("add %s: %w", what, err)
		}
		return nil
	}
	return fmt.Errorf("add %s: no free id in this millisecond", what)
}

// detail describes the grant for the audit log.
func (o offer) detail(id ID) string {
	parts := []string{"access " + id.String()}
	if o.target.format == AccessJWT {
		parts[0] += " (JWT)"
	}
	if o.family != nil {
		parts = append(parts, "family "+o.family.ID.String())
	}
	if o.client.ID != "" {
		parts = append(parts, o.client.detail())
	}
	if len(o.target.audiences) > 0 {
		parts = append(parts, "audiences "+strings.Join(o.target.audiences, " "))
	}
	return strings.Join(append(parts, "scopes "+strings.Join(o.scopes, " ")), ", ")
}

// maxClientDetail limits, in bytes, how much of an unverified client id the audit log repeats.
const maxClientDetail = 64

// detail names a client for the audit log. An authenticated client has the name of a service. Any other name is
// unverified: anyone can choose one that reads like more of the event. It is quoted, cut off at maxClientDetail, and
// marked as unverified.
func (c Client) detail() string {
	if c.Authenticated {
		return "client " + c.ID
	}
	name, more := c.ID, ""
	if len(name) > maxClientDetail {
		name, more = name[:maxClientDetail], "…"
	}
	return "unverified_client_id " + strconv.QuoteToASCII(name) + more
}

// again reads the token, its user and whether the secret is still in force once more, inside the transaction that makes
// something from the secret. If the token no longer exists, it returns a zero presented, which is not active.
func (p presented) again(tx ReadTx, now time.Time) (presented, error) {
	c, err := tx.Credential(p.cred.Token.ID)
	if errors.Is(err, ErrNotFound) {
		return presented{now: now}, nil
	}
	if err != nil {
		return presented{}, err
	}
	return presentedBy(c, p.secret.Serial, now), nil
}

// presentedBy returns a credential as presented by the secret with a serial, or by something derived from that secret.
func presentedBy(c Credential, serial int64, now time.Time) presented {
	p := presented{cred: c, now: now, facts: c.FactsAt(now)}
	p.facts.Match = MatchSuperseded
	var inForce bool
	if p.secret, inForce = c.secretOf(serial, now); inForce {
		p.facts.Match = MatchLive
	}
	return p
}

// mayStillAsk checks a client's authority again, inside the transaction. An unauthenticated client has none.
func (a Actor) mayStillAsk(tx ReadTx, now time.Time) error {
	if a.Kind == Nobody {
		return nil
	}
	return a.stillMay(tx, now)
}

// check rejects a client id that must not be stored: one that is not printable ASCII (RFC 6749 appendix A.1), or that
// holds a credential.
func (c Client) check() error {
	var text string
	switch {
	case len(c.ID) > maxClientID:
		text = fmt.Sprintf("at most %d characters", maxClientID)
	case strings.ContainsFunc(c.ID, func(r rune) bool { return r < 0x20 || r > 0x7e }):
		text = "must be printable ASCII (RFC 6749 appendix A.1)"
	case secret.ContainsSecret(c.ID):
		text = "holds the secret of a token; revoke that token, it may have been seen"
	case c.Authenticated && c.ID == "":
		text = "a client that showed its credential has an id"
	default:
		return nil
	}
	return Invalid("CLIENT_ID_INVALID", "client_id", text)
}

// holder returns the actor of a call by possession: the holder of the token with that id. It has no other authority.
func holder(user string, id ID, peer Peer) Actor {
	return Actor{Kind: TokenActor, User: user, TokenID: id, Peer: peer, presented: true}
}

// refusedGrant records that a good token asked for more than it may have, and returns err.
func (s *Service) refusedGrant(ctx context.Context, a Actor, action Action, t Token, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Reason {
	case "SCOPE_INVALID", "TARGET_INVALID", "ACCESS_LIMIT_REACHED":
		// The refresh token changes with each use; the personal access token stays the same.
		return s.recorded(
			ctx,
			a,
			holder(t.User, t.ID, a.Peer),
			Refusal{Action: action, User: t.User, TokenID: t.ID.String()},
			e,
			err,
		)
	default:
		return err
	}
}
