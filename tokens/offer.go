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

// offer is what an access token is made of.
type offer struct {
	cred   Credential   // of the personal access token
	secret StoredSecret // the one that it comes of
	client Client
	scopes []string
	target target
	family *Family // nil: none
	now    time.Time
}

// end is when the access token ends: never after anything that it comes of.
func (o offer) end() time.Time {
	at := earliest(o.now.Add(o.target.ttl), o.cred.Token.ExpireTime)
	at = earliest(at, o.secret.ExpireTime)
	if o.family != nil {
		at = earliest(at, o.family.ExpireTime)
	}
	return at
}

// heldForAccess is what a feature source said before the transaction of an exchange or a refresh.
type heldForAccess struct {
	Held
	fresh bool // no remembered answer was good enough
}

// of is what of granted scopes is in effect.
func (h heldForAccess) of(granted []string) []string {
	effective, _ := inEffect(granted, h.Held)
	return effective
}

// heldBy asks the feature source. What goes into a JWT stays there until its end, so that no remembered answer of the source
// does.
func (s *Service) heldBy(ctx context.Context, u User, t target) (heldForAccess, error) {
	fresh := t.format == AccessJWT
	h, err := s.features.Features(ctx, u, fresh)
	return heldForAccess{h, fresh}, err
}

// scopesFor is what of granted scopes is in effect and asked for, inside the transaction. A local source is asked again, about
// the record as the transaction sees it.
func (s *Service) scopesFor(ctx context.Context, o offer, granted, ask []string, before heldForAccess) ([]string, error) {
	if s.features.Local() {
		var err error
		if before, err = s.heldBy(ctx, o.cred.User, o.target); err != nil {
			return nil, err
		}
	}
	if o.target.format == AccessJWT && !before.fresh {
		return nil, Fail(CodeUnavailable, "AUDIENCE_CHANGED", "an audience was changed while the call was under way; try again")
	}
	return s.narrowed(ask, before.of(granted))
}

// grant makes the access token and returns what the event says of it.
func (s *Service) grant(tx Tx, keys *Keys, o offer, g *Granted) (detail string, err error) {
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

// claim makes the claims of a JWT, whose times are whole seconds: it ends at the last one that is not too late.
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
		return 0, Fail(CodeExhausted, "ACCESS_LIMIT_REACHED", fmt.Sprintf("the token has %d live access tokens, which is the limit; revoke one, or wait for it to expire", n.Access))
	}
	a := AccessToken{
		TokenID: o.cred.Token.ID, Serial: o.secret.Serial, ClientID: o.client.ID, Scopes: o.scopes, Audiences: o.target.audiences,
		IssueTime: o.now, ExpireTime: g.ExpireTime,
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

// nextRefresh makes a refresh token of a family.
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

// withID gives a record an id that is free. Ids of one millisecond can meet; then it tries another.
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

// detail names what was granted, for the audit log.
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

// maxClientDetail bounds, in bytes, what the audit log repeats of a name that a client gave itself.
const maxClientDetail = 64

// detail names a client for the audit log. The name of one that showed its credential is that of a service. Any other name is
// the client's own word, which anybody can choose so that it reads like more of the event: it stands in quotes, is cut off at
// maxClientDetail, and says that it is unverified.
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

// again reads, inside the transaction that makes something of a secret, all that was known of it before: the token, its user and
// whether the secret is still in force. A zero presented, which is not active: there is no such token.
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

// presentedBy is a credential of which the secret with a serial was presented, or something that came of that secret.
func presentedBy(c Credential, serial int64, now time.Time) presented {
	p := presented{cred: c, now: now, facts: c.FactsAt(now)}
	p.facts.Match = MatchSuperseded
	var inForce bool
	if p.secret, inForce = c.secretOf(serial, now); inForce {
		p.facts.Match = MatchLive
	}
	return p
}

// mayStillAsk reads the authority of a client again, inside the transaction. A client that showed no credential has none.
func (a Actor) mayStillAsk(tx ReadTx, now time.Time) error {
	if a.Kind == Nobody {
		return nil
	}
	return a.stillMay(tx, now)
}

// check refuses a client id that may not be stored: one that is not printable ASCII (RFC 6749 appendix A.1), or holds a
// credential.
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

// holder is the actor of a call by possession: who presents the token with that id. It has no other authority.
func holder(user string, id ID, peer Peer) Actor {
	return Actor{Kind: TokenActor, User: user, TokenID: id, Peer: peer, presented: true}
}

// refusedGrant records that a good token asked for more than it may have, and answers err.
func (s *Service) refusedGrant(ctx context.Context, a Actor, action Action, t Token, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Reason {
	case "SCOPE_INVALID", "TARGET_INVALID", "ACCESS_LIMIT_REACHED":
		// A refresh token is another one after each use; the personal access token stays.
		return s.recorded(ctx, a, holder(t.User, t.ID, a.Peer), Refusal{Action: action, User: t.User, TokenID: t.ID.String()}, e, err)
	default:
		return err
	}
}
