package client

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Static returns a Checker over a fixed list of secrets and their tokens, for work on a program without a patd. It
// knows scopes, audiences and expiry, but no networks. It is for development only: the secrets stand in the program or
// its configuration.
func Static(known map[string]Token) Checker {
	s := static{known: maps.Clone(known), now: time.Now} //nolint:forbidigo // where the clock comes in
	for secret, t := range s.known {
		t.Scopes = slices.Sorted(slices.Values(t.Scopes))
		s.known[secret] = t
	}
	return s
}

type static struct {
	known map[string]Token
	now   func() time.Time
}

// Verify looks the token up.
func (s static) Verify(_ context.Context, token string, call Call) (Result, error) {
	t, ok := s.known[token]
	switch {
	case !ok:
		return Result{Decision: NotFound}, nil
	case !t.ExpireTime.IsZero() && !s.now().Before(t.ExpireTime):
		return Result{Decision: Expired, EndTime: t.ExpireTime, ExpireTime: t.ExpireTime}, nil
	case call.Audience != "" && len(t.Audiences) > 0 && !slices.Contains(t.Audiences, call.Audience):
		return Result{Decision: AudienceMismatch, ExpireTime: t.ExpireTime}, nil
	}
	return t.decide(call.Scopes), nil
}
