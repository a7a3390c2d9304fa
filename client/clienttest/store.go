package clienttest

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Token describes a token that a [Server] mints. User and Scopes are as in patd; all else may be left out.
type Token struct {
	User       string
	Name       string
	Scopes     []string // granted
	Audiences  []string
	Networks   []netip.Prefix // where it may be used from; none: everywhere
	Labels     map[string]string
	ExpireTime time.Time // zero: never
	// Prefix of the secret; empty: pat. Prefix pata makes it a short-lived access token, with an id of its own.
	Prefix string
}

// state is all data that decisions depend on. A frozen copy stands for a replica that lags behind.
type state struct {
	sequence   uint64
	silentOnIP bool // answers leave out any_client_ip
	secrets    map[string]presented
	tokens     map[string]tokens.Token // by public id
	users      map[string]tokens.User  // those that were suspended or resumed; others are active
	features   map[string][]string     // of users whose features were set; others hold what was granted
	named      map[string]bool         // audiences that tokens must name
}

// presented is the token that a secret belongs to.
type presented struct {
	tokenID  string
	accessID string              // of a short-lived access token
	stored   tokens.StoredSecret // without a digest
}

func newState() state {
	return state{
		sequence: 100,
		secrets:  map[string]presented{},
		tokens:   map[string]tokens.Token{},
		users:    map[string]tokens.User{},
		features: map[string][]string{},
		named:    map[string]bool{},
	}
}

func (s state) clone() state {
	s.secrets, s.tokens, s.users = maps.Clone(s.secrets), maps.Clone(s.tokens), maps.Clone(s.users)
	s.features, s.named = maps.Clone(s.features), maps.Clone(s.named)
	return s
}

// goodFor reports whether a token is good for an audience; empty: for any.
func (s state) goodFor(t *tokens.Token, audience string) bool {
	return tokens.GoodFor(t.Audiences, t.Audiences, audience, s.named[audience])
}

// decide collects the facts about a secret, and lets package tokens decide, as patd does. bound is the audience that
// the caller is bound to; empty: none.
func (s state) decide(r *patdv1.IntrospectRequest, bound string, now time.Time) (*patdv1.IntrospectResponse, error) {
	client, err := netip.ParseAddr(r.GetClientIp())
	if r.GetClientIp() != "" && (err != nil || client.Zone() != "") {
		return nil, status.Error(codes.InvalidArgument, "client_ip must be an IPv4 or IPv6 address")
	}
	p, known := s.secrets[r.GetToken()]
	c := tokens.Credential{Token: s.tokens[p.tokenID]}
	c.User = s.user(c.Token.User)
	f := c.FactsAt(now)
	switch {
	case known && p.stored.InForce(now):
		f.Match = tokens.MatchLive
	case known:
		f.Match = tokens.MatchSuperseded
	}
	f.AudienceOK = s.goodFor(&c.Token, bound) && s.goodFor(&c.Token, r.GetAudience())
	f.IPOK = tokens.AddressAllowed(c.Token.CIDRs, client)
	held, set := s.features[c.Token.User]
	if !set {
		held = c.Token.Scopes
	}
	var in tokens.Introspection
	in.Effective, in.Suspended = tokens.Effective(c.Token.Scopes, held)
	in.Missing = tokens.Missing(r.GetRequiredScopes(), in.Effective)
	f.ScopesOK = len(in.Missing) == 0
	in.Decision = tokens.Decide(f)
	return s.describe(&in, &c.Token, p, bound, now), nil
}

func (s state) user(id string) tokens.User {
	if u, ok := s.users[id]; ok {
		return u
	}
	return tokens.User{ID: id, State: tokens.UserActive}
}

// decisions are the decisions on the wire.
var decisions = map[tokens.Decision]patdv1.IntrospectResponse_Decision{
	tokens.Allow:             patdv1.IntrospectResponse_ALLOW,
	tokens.InsufficientScope: patdv1.IntrospectResponse_INSUFFICIENT_SCOPE,
	tokens.NotFound:          patdv1.IntrospectResponse_NOT_FOUND,
	tokens.Expired:           patdv1.IntrospectResponse_EXPIRED,
	tokens.Revoked:           patdv1.IntrospectResponse_REVOKED,
	tokens.Superseded:        patdv1.IntrospectResponse_SUPERSEDED,
	tokens.UserIsSuspended:   patdv1.IntrospectResponse_USER_SUSPENDED,
	tokens.PolicyBlocked:     patdv1.IntrospectResponse_POLICY_BLOCKED,
	tokens.TokenIdle:         patdv1.IntrospectResponse_TOKEN_IDLE,
	tokens.AudienceMismatch:  patdv1.IntrospectResponse_AUDIENCE_MISMATCH,
	tokens.IPNotAllowed:      patdv1.IntrospectResponse_IP_NOT_ALLOWED,
}

// describe writes an answer. An inactive one contains nothing but the decision and, for a caller that is not bound to
// another audience, the instants.
func (s state) describe(
	in *tokens.Introspection,
	t *tokens.Token,
	p presented,
	bound string,
	now time.Time,
) *patdv1.IntrospectResponse {
	out := &patdv1.IntrospectResponse{Active: in.Decision.Active(), Decision: decisions[in.Decision]}
	ends := t.ExpireTime
	if until := p.stored.ExpireTime; !until.IsZero() && (ends.IsZero() || until.Before(ends)) {
		ends = until
	}
	if !out.GetActive() {
		if in.Decision != tokens.NotFound && s.goodFor(t, bound) {
			out.ExpireTime, out.EndTime = optional(ends), optional(endOf(in.Decision, t, p))
		}
		return out
	}
	out.TokenId, out.AccessTokenId, out.User, out.Name = p.tokenID, p.accessID, t.User, t.Name
	out.Scopes, out.GrantedScopes, out.SuspendedScopes, out.MissingScopes = in.Effective, t.Scopes, in.Suspended, in.Missing
	out.Audiences, out.Labels, out.IssueTime = t.Audiences, t.Labels, timestamppb.New(t.IssueTime)
	out.CacheFor, out.Sequence = durationpb.New(0), s.sequence
	out.AnyClientIp = len(t.CIDRs) == 0 && !s.silentOnIP
	if !ends.IsZero() {
		out.ExpireTime, out.ExpiresIn = timestamppb.New(ends), durationpb.New(tokens.WholeSeconds(ends.Sub(now)))
	}
	return out
}

// endOf returns when a token or its secret ended, for the decisions that have an instant.
func endOf(d tokens.Decision, t *tokens.Token, p presented) time.Time {
	switch {
	case d == tokens.Expired:
		return t.ExpireTime
	case d == tokens.Revoked && t.Revocation != nil:
		return t.Revocation.Time
	case d == tokens.Superseded:
		return p.stored.ExpireTime
	default:
		return time.Time{}
	}
}

// optional writes a time; nil for the zero time.
func optional(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// holdsVisible reports whether a user holds a live token that a caller bound to an audience may see.
func (s state) holdsVisible(user, bound string, now time.Time) bool {
	for _, t := range s.tokens {
		if t.User == user && t.Status(now) == tokens.StateActive && s.goodFor(&t, bound) {
			return true
		}
	}
	return false
}

// grant returns the token that is minted.
func (t Token) grant(id tokens.ID, now time.Time) tokens.Token {
	return tokens.Token{
		ID:         id,
		User:       t.User,
		Name:       t.Name,
		Labels:     t.Labels,
		Scopes:     slices.Compact(slices.Sorted(slices.Values(t.Scopes))),
		Audiences:  t.Audiences,
		CIDRs:      t.Networks,
		IssueTime:  now,
		ExpireTime: t.ExpireTime,
	}
}
