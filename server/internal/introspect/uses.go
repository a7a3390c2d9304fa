package introspect

import (
	"context"
	"net/netip"
	"strconv"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
	"patd/tokens/secret"
)

// ReportUses records uses that the caller accepted from its own cache. One malformed use rejects the whole report: its
// sender is at fault and should know.
func (s *Service) ReportUses(ctx context.Context, r *patdv1.ReportUsesRequest) (*patdv1.ReportUsesResponse, error) {
	if len(r.GetUses()) > tokens.MaxBatch {
		return nil, tokens.Invalid("BATCH_TOO_LARGE", "uses", "at most "+strconv.Itoa(tokens.MaxBatch)+" in a batch")
	}
	uses := make([]tokens.ReportedUse, len(r.GetUses()))
	for i, u := range r.GetUses() {
		var err error
		if uses[i], err = fromUse("uses["+strconv.Itoa(i)+"].", u); err != nil {
			return nil, err
		}
	}
	if err := s.service.ReportUses(ctx, call.ActorOf(ctx), uses); err != nil {
		return nil, err
	}
	return &patdv1.ReportUsesResponse{}, nil
}

func fromUse(field string, u *patdv1.ReportUsesRequest_Use) (out tokens.ReportedUse, err error) {
	if out.TokenID, err = secret.ParseID(u.GetTokenId()); err != nil {
		return out, tokens.Invalid("TOKEN_ID_INVALID", field+"token_id", "must be 11 base62 characters")
	}
	at, err := wire.FromTime(field+"time", u.GetTime())
	switch {
	case err != nil:
		return out, err
	case at == nil:
		return out, tokens.Invalid("TIME_INVALID", field+"time", "must be given")
	}
	out.Time, out.Scopes, out.Unscoped = *at, u.GetScopes(), u.GetUnscoped()
	if u.GetClientIp() == "" {
		return out, nil
	}
	if out.IP, err = netip.ParseAddr(u.GetClientIp()); err != nil || out.IP.Zone() != "" {
		return out, tokens.Invalid("CLIENT_IP_INVALID", field+"client_ip", "must be an IPv4 or IPv6 address")
	}
	return out, nil
}
