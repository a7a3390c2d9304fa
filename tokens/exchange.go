package tokens

import (
	"context"
	"fmt"
	"time"

	"patd/tokens/secret"
)

// Client is the caller of the token endpoint. The zero Client did not identify itself.
type Client struct {
	ID string
	// Authenticated says that the client presented its service token, so that ID is its name as a service.
	Authenticated bool
}

// ExchangeRequest presents a personal access token in exchange for a short-lived access token with no more rights.
type ExchangeRequest struct {
	Subject   Secret
	Client    Client
	Scopes    []string // nil: all that are in effect; empty: none, which is refused
	Audiences []string // none here and in Resources: the token's own
	Resources []string // RFC 8707
	Offline   bool     // also asks for a refresh token
	// Format is the required form; zero: the form that the audiences set.
	Format AccessFormat
	// Caller is the client if it presented a credential of its own, else Nobody.
	Caller Actor
	Peer   Peer
}

// RefreshRequest presents a refresh token in exchange for the next one and an access token.
type RefreshRequest struct {
	Token     Secret
	Client    Client
	Scopes    []string // nil: all that are in effect
	Audiences []string // none here and in Resources: all of the family
	Resources []string
	Caller    Actor // as in ExchangeRequest
	Peer      Peer
	// Admit, if not nil, is called with the holder of the personal access token that the refresh token came from, once
	// that is known to be valid and before any change. Its error is returned.
	Admit func(context.Context, Actor) error
}

// Granted is the outcome of an exchange or a refresh.
type Granted struct {
	TokenID    ID // of the personal access token
	Format     AccessFormat
	Access     Secret       // of AccessOpaque
	Claims     AccessClaims // of AccessJWT; the server signs them
	Scopes     []string
	ExpireTime time.Time
	ExpiresIn  time.Duration
	Refresh    Secret // empty: none
	// SubjectExpireTime is when the presented personal access token's secret stops working; zero: never, or another
	// token was presented.
	SubjectExpireTime time.Time
}

// AccessClaims are the claims of a JWT (RFC 9068 section 2.2). A JWT is not stored: only its expiry ends it.
type AccessClaims struct {
	ID         ID // of the JWT
	User       string
	ClientID   string
	Audiences  []string
	Scopes     []string
	IssueTime  time.Time
	ExpireTime time.Time
	TokenID    ID // of the personal access token
}

// Exchange issues a short-lived access token for a personal access token (RFC 8693), with no more rights than that has
// now: scopes and audiences only narrow, and the lifetime is the shortest of the audiences', bounded by the end of the
// secret that was presented. An opaque one ends with that secret, whatever ends it. A JWT, which is not stored, ends
// only at its expiry.
//
// Reasons: CREDENTIAL_INVALID for any defect of the subject, those of package refusal for one that has matched but is
// not active, all CodeInvalid; SCOPE_INVALID, TARGET_INVALID, ACCESS_LIMIT_REACHED, CLIENT_ID_INVALID, FORMAT_INVALID,
// and outages.
func (s *Service) Exchange(ctx context.Context, r ExchangeRequest) (Granted, error) {
	p, err := s.subject(ctx, r.Subject, r.Peer)
	if err != nil {
		return Granted{}, err
	}
	a := holder(p.cred.Token.User, p.cred.Token.ID, r.Peer)
	g, err := s.exchange(ctx, a, p, r)
	if err != nil {
		return Granted{}, s.refusedGrant(ctx, a, ActionTokenExchange, p.cred.Token, err)
	}
	g.SubjectExpireTime = p.end()
	use := Usage{ID: p.cred.Token.ID, Use: Use{Time: p.now, IP: r.Peer.IP.Unmap().WithZone("")}}
	if g.Format == AccessJWT {
		use.Scopes = g.Scopes // a JWT is not introspected
	}
	s.store.RecordUse(use)
	return g, nil
}

// subject checks the subject token against the store. It must be a personal access token that is active from the
// bearer's address. Anything but a secret that has matched is the same error.
func (s *Service) subject(ctx context.Context, text Secret, peer Peer) (presented, error) {
	kind, id, err := s.prefixes.Load().Parse(text)
	if err != nil || kind != secret.KindPersonal {
		return presented{}, secretInvalid(CodeInvalid)
	}
	p := presented{from: presenter{ip: peer.IP}}
	at := s.moment()
	if err := s.present(ctx, text, id, &at, &p); err != nil {
		return presented{}, err
	}
	return p, s.subjectActive(&p, peer)
}

// subjectActive returns an error unless the presented credential is active at the token endpoint.
func (s *Service) subjectActive(p *presented, peer Peer) error {
	switch d := p.decidedFrom(peer); d {
	case Allow:
		return nil
	case NotFound:
		return secretInvalid(CodeInvalid)
	default:
		return s.ended(p, d).public(CodeInvalid)
	}
}

// decidedFrom decides whether the presented credential is active for its bearer at patd itself. Audiences and scopes
// are no matter there, or are checked later.
func (p *presented) decidedFrom(peer Peer) Decision {
	f := p.facts
	f.AudienceOK, f.ScopesOK, f.IPOK = true, true, AddressAllowed(p.cred.Token.CIDRs, peer.IP)
	return Decide(f)
}

// suits refuses a request that its target does not allow.
func (r ExchangeRequest) suits(t target) error {
	if r.Format != 0 && r.Format != t.format {
		return Invalid("FORMAT_INVALID", "requested_token_type", "the audiences' access tokens have another form")
	}
	if r.Offline && !t.offline {
		return scopeInvalid("offline_access is not allowed: there is no audience, or one that does not allow it")
	}
	return nil
}

// exchange decides twice: before it calls the feature source, so that a refused request waits for nothing, and again in
// the transaction, on what is stored then.
func (s *Service) exchange(ctx context.Context, a Actor, p presented, r ExchangeRequest) (Granted, error) {
	if err := r.Client.check(); err != nil {
		return Granted{}, err
	}
	ask, keys := asked{r.Audiences, r.Resources}, s.keys.Get()
	first, err := s.target(ctx, ask, boundsOf(p.cred.Token))
	if err != nil {
		return Granted{}, err
	}
	if err := r.suits(first); err != nil {
		return Granted{}, err
	}
	held, err := s.heldBy(ctx, p.cred.User, first)
	if err != nil {
		return Granted{}, err
	}
	if _, err := s.narrowed(r.Scopes, held.of(p.cred.Token.Scopes)); err != nil {
		return Granted{}, err
	}
	var g Granted
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		g = Granted{}
		if err := r.Caller.mayStillAsk(tx, now); err != nil {
			return nil, err
		}
		p, err := p.again(tx, now)
		if err != nil {
			return nil, err
		}
		if err := s.subjectActive(&p, r.Peer); err != nil {
			return nil, err
		}
		o := offer{cred: p.cred, secret: p.secret, client: r.Client, now: now}
		if o.target, err = s.targetIn(tx, ask, boundsOf(p.cred.Token)); err != nil {
			return nil, err
		}
		if err := r.suits(o.target); err != nil {
			return nil, err
		}
		if o.scopes, err = s.scopesFor(ctx, o, p.cred.Token.Scopes, r.Scopes, held); err != nil {
			return nil, err
		}
		if r.Offline {
			if o.family, err = s.begin(tx, o); err != nil {
				return nil, err
			}
			if g.Refresh, err = s.nextRefresh(tx, keys, *o.family, now); err != nil {
				return nil, err
			}
		}
		detail, err := s.grant(tx, keys, o, &g)
		if err != nil {
			return nil, err
		}
		e := a.event(now, ActionTokenExchange)
		e.User, e.TokenID, e.Detail = p.cred.Token.User, p.cred.Token.ID, detail
		used, err := useSecret(tx, a, p.cred, p.secret.Serial, now)
		return append(used, e), err
	})
	return g, err
}

// begin starts a family of refresh tokens. It ends with the personal access token, or with the secret in its grace.
func (s *Service) begin(tx Tx, o offer) (*Family, error) {
	n, err := tx.CountGrants(o.cred.Token.ID, o.cred.oldestInForce(o.now), o.now)
	if err != nil {
		return nil, fmt.Errorf("count families: %w", err)
	}
	if n.Families >= MaxFamilies {
		return nil, Fail(
			CodeExhausted,
			"ACCESS_LIMIT_REACHED",
			fmt.Sprintf("the token has %d live refresh tokens, which is the limit; revoke one", n.Families),
		)
	}
	f := Family{
		TokenID:    o.cred.Token.ID,
		Serial:     o.secret.Serial,
		Client:     o.client,
		Scopes:     o.scopes,
		Audiences:  o.target.audiences,
		IssueTime:  o.now,
		ExpireTime: earliest(o.secret.ExpireTime, o.cred.Token.ExpireTime),
	}
	err = s.withID("family", o.now, func(id ID) error {
		f.ID = id
		return tx.InsertFamily(f)
	})
	return &f, err
}
