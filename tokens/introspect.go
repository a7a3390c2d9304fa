package tokens

import (
	"context"
	"errors"
	"fmt"

	"patd/tokens/secret"
)

// Introspect decides about a presented secret. A decision is a value; an error means that patd cannot tell, and says
// nothing about the secret. A service that has ended meanwhile is CodeUnauthenticated.
func (s *Service) Introspect(ctx context.Context, a Actor, r IntrospectRequest) (Introspection, error) {
	var out Introspection
	err := s.IntrospectInto(ctx, &a, &r, &out, nil)
	return out, err
}

// IntrospectInto is Introspect that copies nothing: it replaces out by the result, whose lists may be in room, unless
// that is nil. After an error out is zero.
func (s *Service) IntrospectInto(
	ctx context.Context, a *Actor, r *IntrospectRequest, out *Introspection, room *Lists,
) error {
	*out = Introspection{}
	at := s.moment()
	err := s.introspect(ctx, a, r, s.nameOf(r.Secret), &at, room, out)
	if err == nil {
		err = s.callerStands(ctx, a, &at)
	}
	if err != nil {
		*out = Introspection{}
	}
	return err
}

// callerStands refuses a service that has ended since it was authenticated. It is called after the decision, which was
// made at a moment and may have taken long since, and before the decision is returned.
func (s *Service) callerStands(ctx context.Context, a *Actor, at *moment) error {
	if a.Kind != ServiceActor {
		return nil
	}
	if at.past {
		*at = s.moment()
	}
	if s.unchanged(a, at) {
		return nil
	}
	c, err := s.store.LookupService(ctx, a.TokenID)
	switch {
	case errors.Is(err, ErrNotFound):
		return errCaller
	case err != nil:
		return err
	case !c.Service.accepts(a.Serial, s.Now()):
		return errCaller
	}
	return nil
}

// introspect is Introspect of a parsed secret. It fills in out, which must be zero, and copies no record more than
// once. After an error out is undefined. It decides at a moment that has just been read, and notes there if it may have
// taken long.
func (s *Service) introspect(
	ctx context.Context,
	a *Actor,
	r *IntrospectRequest,
	of secretName,
	at *moment,
	room *Lists,
	out *Introspection,
) error {
	var p presented // large: a literal would be copied
	p.from, p.room = presenter{to: a.Name, ip: r.ClientIP}, room
	err := s.presentAny(ctx, r.Secret, of, at, &p)
	if err != nil {
		return err
	}
	granted, audiences := p.grant()
	at.past = at.past || !s.featuresAtHand || a.Audience != "" || r.Audience != "" // an audience may be read
	if p.facts.AudienceOK, err = s.goodForBoth(ctx, &p, audiences, a.Audience, r.Audience); err != nil {
		return err
	}
	p.facts.IPOK = AddressAllowed(p.cred.Token.CIDRs, r.ClientIP)
	if d := Decide(p.facts); d != InsufficientScope {
		if out.Decision = d; d != NotFound {
			out.Ended = s.endedFor(&p, d, a)
		}
		s.decisions[d].Add(1)
		return nil
	}
	// Only the scopes are left to check; only now is the feature source needed.
	held, err := s.features.Features(ctx, p.cred.User, false)
	if err != nil {
		return err
	}
	s.describe(&p, out)
	out.Stale, out.Granted, out.Audiences = held.Stale, granted, audiences
	if s.featuresInRecord && p.cred.HoldsScopes { // what was granted is no more than the token's scopes
		held.AsGranted = true
		out.EffectiveShared = p.cred.SharedScopes && p.access == nil
	}
	out.Effective, out.Suspended = inEffect(granted, held)
	out.Paused = none
	if len(p.cred.Token.Paused) > 0 {
		out.Paused = p.paused()
		out.Granted = union(granted, out.Paused)
	}
	out.Missing = Missing(r.Required, out.Effective)
	p.facts.ScopesOK = len(out.Missing) == 0
	out.Decision = Decide(p.facts)
	s.decisions[out.Decision].Add(1)
	if out.Decision == Allow {
		s.store.RecordUse(Usage{
			ID:      p.cred.Token.ID,
			Use:     Use{Time: p.now, IP: r.ClientIP.Unmap().WithZone("")},
			Scopes:  r.Required,
			Service: a.Name,
		})
	}
	if len(p.cred.Secrets) > 1 {
		if first := p.firstUse(out); first != 0 {
			at.past = true
			s.recordFirstUse(ctx, a, first, out)
		}
	}
	return nil
}

// firstUse returns the serial of the presented secret if an ALLOW result is its first use, else 0. An active result of
// a secret that was not used yet must not be cached: a service that decides from its memory would not report the use.
func (p *presented) firstUse(out *Introspection) int64 {
	if !p.cred.awaitsUse(p.now) || p.secret.Serial != p.cred.Secrets[0].Serial {
		return 0
	}
	out.CacheFor, out.Sequence = 0, 0
	if out.Decision != Allow {
		return 0
	}
	return p.secret.Serial
}

// inEffect splits granted scopes by what the user holds.
func inEffect(granted []string, h Held) (effective, suspended []string) {
	if h.AsGranted {
		return granted, none
	}
	return Effective(granted, h.Features)
}

// secretName is the kind and id in a secret. The zero secretName stands for garbage.
type secretName struct {
	kind Kind
	id   ID
}

func (s *Service) nameOf(secret Secret) secretName {
	kind, id, err := s.prefixes.Load().Parse(secret)
	if err != nil {
		return secretName{} // not a token: a decision, not an error
	}
	return secretName{kind, id}
}

// presentAny looks up what can be introspected: personal and short-lived access tokens. Garbage, which needs no read of
// the store, and other kinds of token are not found: they leave p unchanged.
func (s *Service) presentAny(ctx context.Context, text Secret, of secretName, at *moment, p *presented) error {
	switch of.kind {
	case secret.KindPersonal:
		return s.present(ctx, text, of.id, at, p)
	case secret.KindAccess:
		at.past = true
		return s.presentAccess(ctx, text, of.id, at.now, p)
	default:
		return nil
	}
}

// describe fills in an active result, except its scopes and audiences.
func (s *Service) describe(p *presented, out *Introspection) {
	t := &p.cred.Token
	out.Token = Subject{ID: t.ID, User: t.User, Name: t.Name, Labels: t.Labels, AnyAddress: len(t.CIDRs) == 0}
	out.IssueTime, out.ExpireTime = t.IssueTime, p.end()
	out.CacheFor, out.Sequence = s.cacheFor, p.cred.Sequence
	if a := p.access; a != nil {
		out.AccessID, out.ClientID, out.IssueTime = a.ID, a.ClientID, a.IssueTime
	}
	if !out.ExpireTime.IsZero() {
		out.ExpiresIn = WholeSeconds(out.ExpireTime.Sub(p.now))
		out.CacheFor = min(out.CacheFor, out.ExpiresIn)
	}
}

// goodForBoth reports whether the presented credential is valid for the audience that the caller is bound to, and for
// the one in its request. A secret that matched nothing is not checked.
func (s *Service) goodForBoth(ctx context.Context, p *presented, granted []string, bound, asked string) (bool, error) {
	if p.facts.Match == MatchNone {
		return false, nil
	}
	ok, err := s.goodFor(ctx, p.cred.Token.Audiences, granted, bound)
	if err != nil || !ok || asked == bound {
		return ok, err
	}
	return s.goodFor(ctx, p.cred.Token.Audiences, granted, asked)
}

// IntrospectEach decides about up to 1000 secrets. It passes each result to each, in their order; each must not keep
// it, nor its lists, and returns how many bytes the result takes where it will be sent. A bad item is a decision like
// any other. An outage fails all of them, since no part of them may be taken for an answer, and a service that has ended
// meanwhile is CodeUnauthenticated: nothing that was passed to each may be sent unless the error is nil.
func (s *Service) IntrospectEach(
	ctx context.Context, a *Actor, rs []IntrospectRequest, each func(*Introspection) int,
) error {
	if len(rs) > MaxBatch {
		return Invalid("BATCH_TOO_LARGE", "requests", fmt.Sprintf("at most %d in a batch", MaxBatch))
	}
	names, ids := make([]secretName, len(rs)), make([]ID, 0, len(rs))
	for i := range rs {
		if names[i] = s.nameOf(rs[i].Secret); names[i].kind == secret.KindPersonal {
			ids = append(ids, names[i].id)
		}
	}
	if p, ok := s.store.(Prefetcher); ok {
		p.Prefetch(ids)
	}
	out, lists, room := new(Introspection), new(Lists), maxBatchAnswer
	at := moment{past: true}
	for i := range rs {
		if at.past || i%atOneMoment == 0 {
			at = s.moment()
		}
		*out = Introspection{}
		if err := s.introspect(ctx, a, &rs[i], names[i], &at, lists, out); err != nil {
			return err
		}
		if room -= each(out); room < 0 {
			return Invalid(
				"BATCH_TOO_LARGE",
				"requests",
				fmt.Sprintf("the answers would be over %d MiB; ask in smaller batches", maxBatchAnswer>>20),
			)
		}
	}
	at.past = true
	return s.callerStands(ctx, a, &at)
}

// atOneMoment is how many decisions of a batch are made at one moment, if none of them may have taken long.
const atOneMoment = 16

// maxBatchAnswer bounds the results of one batch, in bytes: a small request can name a large token a thousand times. It
// is the default limit of gRPC clients.
const maxBatchAnswer = 4 << 20
