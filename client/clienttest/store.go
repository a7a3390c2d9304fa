package clienttest

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
)

// Token is what a [Server] mints. User and Scopes are as in patd; all else may be left out.
type Token struct {
	User       string
	Name       string
	Scopes     []string // granted
	Audiences  []string
	Networks   []netip.Prefix // where it may be used from; none: everywhere
	Labels     map[string]string
	ExpireTime time.Time // zero: never
	// Prefix of the secret; empty: pat. With pata it is a short-lived access token, with an id of its own.
	Prefix string
}

// state is all that decides about tokens. Frozen, it is what a replica that lags behind would decide by.
type state struct {
	sequence   uint64
	silentOnIP bool              // answers leave out any_client_ip
	records    map[string]record // by secret
	suspended  map[string]bool
	features   map[string][]string // of users whose features were set; others hold what was granted
}

type record struct {
	Token
	id, accessID string
	issued       time.Time
	revoked      bool
}

func (s state) clone() state {
	s.records, s.suspended, s.features = maps.Clone(s.records), maps.Clone(s.suspended), maps.Clone(s.features)
	return s
}

// decide is the decision table of patd.
func (s state) decide(r *patdv1.IntrospectRequest, now time.Time) *patdv1.IntrospectResponse {
	t, ok := s.records[r.GetToken()]
	refuse := func(d patdv1.IntrospectResponse_Decision) *patdv1.IntrospectResponse {
		return &patdv1.IntrospectResponse{Decision: d}
	}
	switch {
	case !ok:
		return refuse(patdv1.IntrospectResponse_NOT_FOUND)
	case t.revoked:
		return refuse(patdv1.IntrospectResponse_REVOKED)
	case !t.ExpireTime.IsZero() && !now.Before(t.ExpireTime):
		return refuse(patdv1.IntrospectResponse_EXPIRED)
	case s.suspended[t.User]:
		return refuse(patdv1.IntrospectResponse_USER_SUSPENDED)
	case r.GetAudience() != "" && len(t.Audiences) > 0 && !slices.Contains(t.Audiences, r.GetAudience()):
		return refuse(patdv1.IntrospectResponse_AUDIENCE_MISMATCH)
	case !within(t.Networks, r.GetClientIp()):
		return refuse(patdv1.IntrospectResponse_IP_NOT_ALLOWED)
	}
	return s.describe(t, r.GetRequiredScopes(), now)
}

func within(networks []netip.Prefix, ip string) bool {
	a, err := netip.ParseAddr(ip)
	return len(networks) == 0 || err == nil && slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (s state) describe(t record, required []string, now time.Time) *patdv1.IntrospectResponse {
	out := &patdv1.IntrospectResponse{
		Active: true, Decision: patdv1.IntrospectResponse_ALLOW, TokenId: t.id, AccessTokenId: t.accessID, User: t.User, Name: t.Name,
		GrantedScopes: slices.Sorted(slices.Values(t.Scopes)), Audiences: t.Audiences, Labels: t.Labels,
		IssueTime: timestamppb.New(t.issued), CacheFor: durationpb.New(0), Sequence: s.sequence,
		AnyClientIp: len(t.Networks) == 0 && !s.silentOnIP,
	}
	held, set := s.features[t.User]
	for _, scope := range out.GetGrantedScopes() {
		if !set || slices.Contains(held, scope) {
			out.Scopes = append(out.Scopes, scope)
		} else {
			out.SuspendedScopes = append(out.SuspendedScopes, scope)
		}
	}
	for _, scope := range slices.Sorted(slices.Values(required)) {
		if !slices.Contains(out.GetScopes(), scope) {
			out.Decision = patdv1.IntrospectResponse_INSUFFICIENT_SCOPE
			out.MissingScopes = append(out.MissingScopes, scope)
		}
	}
	if !t.ExpireTime.IsZero() {
		out.ExpireTime, out.ExpiresIn = timestamppb.New(t.ExpireTime), durationpb.New(t.ExpireTime.Sub(now))
	}
	return out
}
