package client

import (
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
)

// errNonsense reports that an answer contradicts itself. It is a fault: nothing is known about the token.
var errNonsense = status.Error(codes.Internal, "the answer of patd contradicts itself")

// read makes an entry of an answer. It is good until the token expires by the server's clock, counted from when the
// request was sent. It holds only for the address of the request, unless the answer says otherwise; a final refusal is
// decided before any address is checked.
func (v *Verifier) read(k keys, t ticket, r *patdv1.IntrospectResponse) (*entry, error) {
	d := Decision(r.GetDecision())
	if d <= 0 || d.Active() != r.GetActive() {
		return nil, errNonsense
	}
	e := &entry{key: k.here, decision: d}
	if r.GetAnyClientIp() || d.final() {
		e.key = k.everywhere
	}
	sent := v.memory.mono(t.sent)
	if !d.Active() {
		e.endTime, e.expireTime = toTime(r.GetEndTime()), toTime(r.GetExpireTime())
		if d.final() {
			e.until = sent + refusalAge
		}
		return e, nil
	}
	if r.GetTokenId() == "" || r.GetUser() == "" {
		return nil, errNonsense
	}
	e.token = toToken(r)
	e.usage = &usage{tokenID: e.token.ID}
	e.expire = e.token.ExpireTime
	e.until = sent + spread(v.config.MaxAge, e.key)
	if r.GetExpiresIn() != nil {
		e.until = min(e.until, sent+r.GetExpiresIn().AsDuration())
	}
	return e, nil
}

// spread shortens an age by up to a tenth, so that answers fetched together do not expire together.
func spread(age time.Duration, k key) time.Duration {
	return age - age/10*time.Duration(k[15])/256
}

func toToken(r *patdv1.IntrospectResponse) *Token {
	return &Token{
		ID: r.GetTokenId(), User: r.GetUser(), Name: r.GetName(),
		Scopes: sorted(r.GetScopes()), Granted: r.GetGrantedScopes(), Suspended: r.GetSuspendedScopes(),
		Paused:    r.GetPausedScopes(),
		Audiences: r.GetAudiences(), Labels: r.GetLabels(),
		IssueTime: toTime(r.GetIssueTime()), ExpireTime: toTime(r.GetExpireTime()),
		AccessTokenID: r.GetAccessTokenId(), ClientID: r.GetClientId(), Stale: r.GetStale(),
	}
}

// sorted ensures the order that the binary search for a scope needs.
func sorted(list []string) []string {
	if !slices.IsSorted(list) {
		slices.Sort(list)
	}
	return list
}

func toTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
