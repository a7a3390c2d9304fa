package introspect

import (
	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/wire"
	"patd/tokens"
)

// toIntrospection writes a decision. An inactive one contains nothing else but the instants.
func toIntrospection(in *tokens.Introspection) *patdv1.IntrospectResponse {
	out := &patdv1.IntrospectResponse{Active: in.Decision.Active(), Decision: toDecision(in.Decision)}
	if !out.Active {
		if in.Ended != nil {
			out.ExpireTime, out.EndTime = wire.ToTime(in.Ended.Refusal.ExpireTime), wire.ToTime(in.Ended.Refusal.Since)
		}
		return out
	}
	t := &in.Token
	out.TokenId, out.User, out.Name = t.ID.String(), t.User, t.Name
	if in.AccessID != 0 {
		out.AccessTokenId, out.ClientId = in.AccessID.String(), in.ClientID
	}
	out.Scopes, out.EffectiveScopes, out.GrantedScopes = in.Effective, in.Effective, in.Granted
	out.SuspendedScopes, out.MissingScopes, out.PausedScopes = in.Suspended, in.Missing, in.Paused
	out.Audiences, out.Labels = in.Audiences, t.Labels
	out.IssueTime, out.ExpireTime = wire.ToTime(in.IssueTime), wire.ToTime(in.ExpireTime)
	if !in.ExpireTime.IsZero() {
		out.ExpiresIn = durationpb.New(in.ExpiresIn)
	}
	out.CacheFor, out.Sequence, out.Stale = durationpb.New(in.CacheFor), in.Sequence, in.Stale
	out.AnyClientIp = in.Token.AnyAddress
	return out
}

func toDecision(d tokens.Decision) patdv1.IntrospectResponse_Decision {
	switch d {
	case tokens.Allow:
		return patdv1.IntrospectResponse_ALLOW
	case tokens.InsufficientScope:
		return patdv1.IntrospectResponse_INSUFFICIENT_SCOPE
	case tokens.NotFound:
		return patdv1.IntrospectResponse_NOT_FOUND
	case tokens.Expired:
		return patdv1.IntrospectResponse_EXPIRED
	case tokens.Revoked:
		return patdv1.IntrospectResponse_REVOKED
	case tokens.Superseded:
		return patdv1.IntrospectResponse_SUPERSEDED
	case tokens.UserIsSuspended:
		return patdv1.IntrospectResponse_USER_SUSPENDED
	case tokens.PolicyBlocked:
		return patdv1.IntrospectResponse_POLICY_BLOCKED
	case tokens.TokenIdle:
		return patdv1.IntrospectResponse_TOKEN_IDLE
	case tokens.AudienceMismatch:
		return patdv1.IntrospectResponse_AUDIENCE_MISMATCH
	case tokens.IPNotAllowed:
		return patdv1.IntrospectResponse_IP_NOT_ALLOWED
	default:
		return patdv1.IntrospectResponse_DECISION_UNSPECIFIED
	}
}
