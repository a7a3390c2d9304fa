package tokens

import (
	"context"
	"fmt"
	"slices"
)

// Introspect decides about a presented secret. A decision is a value; an error means that patd cannot tell, and says
// nothing about the secret.
func (s *Service) Introspect(ctx context.Context, a Actor, r IntrospectRequest) (out Introspection, err error) {
	err = s.introspect(ctx, &a, &r, &out)
	return out, err
}

// introspect is Introspect into a zero Introspection: of the records that it goes through none is copied more than once.
// After an error out says nothing.
func (s *Service) introspect(ctx context.Context, a *Actor, r *IntrospectRequest, out *Introspection) error {
	id, ok := s.personal(r.Secret)
	if !ok {
		out.Decision = NotFound
		return nil
	}
	var p presented
	if err := s.present(ctx, r.Secret, id, &p); err != nil {
		return err
	}
	t := &p.cred.Token
	p.facts.AudienceOK = forAudience(t, a.Audience) && forAudience(t, r.Audience)
	p.facts.IPOK = addressAllowed(t.CIDRs, r.ClientIP)
	if d := Decide(p.facts); d != InsufficientScope {
		out.Decision = d
		return nil
	}
	// All that is left to know is the scopes; only now does the source of features matter.
	held, err := s.features.Features(ctx, p.cred.User, false)
	if err != nil {
		return err
	}
	s.describe(&p, out)
	out.Stale = held.Stale
	out.Effective, out.Suspended = inEffect(t, held)
	out.Missing = Missing(r.Required, out.Effective)
	p.facts.ScopesOK = len(out.Missing) == 0
	out.Decision = Decide(p.facts)
	if out.Decision == Allow {
		s.store.Touch(Seen{ID: id, Use: Use{Time: p.now, IP: r.ClientIP.Unmap().WithZone("")}})
	}
	return nil
}

// inEffect splits a token's scopes by what its user holds.
func inEffect(t *Token, h Held) (effective, suspended []string) {
	if h.AsGranted {
		return t.Scopes, none
	}
	return Effective(t.Scopes, h.Features)
}

// personal reads the id out of a personal access token. Nothing else can be introspected: garbage, which needs no
// look at the store, and other kinds of token are not found.
func (s *Service) personal(secret Secret) (ID, bool) {
	kind, id, err := s.prefixes.Load().Parse(secret)
	return id, err == nil && kind == KindPersonal
}

// describe tells what an active answer tells apart from scopes.
func (s *Service) describe(p *presented, out *Introspection) {
	out.Token, out.CacheFor, out.Sequence = p.cred.Token, s.cacheFor, p.cred.Sequence
	out.ExpireTime = p.cred.Token.ExpireTime
	if at := p.secret.ExpireTime; !at.IsZero() {
		out.ExpireTime = earliest(at, out.ExpireTime)
	}
	if !out.ExpireTime.IsZero() {
		out.ExpiresIn = out.ExpireTime.Sub(p.now)
		out.CacheFor = min(out.CacheFor, out.ExpiresIn)
	}
}

// forAudience tells whether a token is good for an audience: it names it, or none in particular. An empty audience
// asks for nothing.
func forAudience(t *Token, audience string) bool {
	return audience == "" || len(t.Audiences) == 0 || slices.Contains(t.Audiences, audience)
}

// IntrospectBatch decides about up to 1000 secrets and keeps their order. A bad item is a decision like any other; an
// outage fails the batch, for none of it may be taken for an answer.
func (s *Service) IntrospectBatch(ctx context.Context, a Actor, rs []IntrospectRequest) ([]Introspection, error) {
	if len(rs) > MaxBatch {
		return nil, Invalid("BATCH_TOO_LARGE", "requests", fmt.Sprintf("at most %d in a batch", MaxBatch))
	}
	out := make([]Introspection, len(rs))
	room := maxBatchAnswer
	for i := range rs {
		if err := s.introspect(ctx, &a, &rs[i], &out[i]); err != nil {
			return nil, err
		}
		if room -= out[i].Size(); room < 0 {
			return nil, Invalid("BATCH_TOO_LARGE", "requests", fmt.Sprintf("the answers would be over %d MiB; ask in smaller batches", maxBatchAnswer>>20))
		}
	}
	return out, nil
}

// maxBatchAnswer bounds what the answers of one batch hold, in bytes: a small request can name a large token a thousand
// times. It is what gRPC clients take by default.
const maxBatchAnswer = 4 << 20

// Size is about how many bytes an answer holds.
func (in *Introspection) Size() int {
	n := 64
	for _, list := range [...][]string{in.Effective, in.Suspended, in.Missing, in.Token.Scopes, in.Token.Audiences} {
		for _, s := range list {
			n += len(s) + 4
		}
	}
	for k, v := range in.Token.Labels {
		n += len(k) + len(v) + 8
	}
	return n + len(in.Token.User) + len(in.Token.Name)
}
