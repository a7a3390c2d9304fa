package tokens

import (
	"context"
	"errors"
	"time"

	"patd/tokens/secret"
)

// presentAccess looks up an access token and then its personal access token, and fills in p, which must be zero. Each
// read is at least as new as the call, so that whatever ended the personal access token has ended this one too. A wrong
// secret and an unknown id get the same answer at the same cost, before anything else is read.
func (s *Service) presentAccess(ctx context.Context, secret Secret, id ID, now time.Time, p *presented) error {
	p.now = now
	a, err := s.knownAccess(ctx, secret, id, p.now)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p.cred, err = s.store.Lookup(ctx, a.Access.TokenID)
	if errors.Is(err, ErrNotFound) {
		p.cred = Credential{}
		return nil
	}
	if err != nil {
		return err
	}
	p.cred.Sequence = min(p.cred.Sequence, a.Sequence)
	p.access, p.facts = &a.Access, p.cred.FactsAt(p.now)
	p.facts.Revoked = p.facts.Revoked || a.Access.Revocation != nil
	p.facts.Expired = p.facts.Expired || expired(a.Access.ExpireTime, p.now)
	p.facts.Match = MatchSuperseded
	var inForce bool
	if p.secret, inForce = p.cred.secretOf(a.Access.Serial, p.now); inForce {
		p.facts.Match = MatchLive
	}
	return nil
}

// knownAccess returns the access token that a secret belongs to, or ErrNotFound. A digest under a retiring key is
// replaced.
func (s *Service) knownAccess(ctx context.Context, text Secret, id ID, now time.Time) (AccessCredential, error) {
	keys := s.keys.Get()
	a, err := s.store.LookupAccess(ctx, id)
	if errors.Is(err, ErrNotFound) {
		_, _ = keys.Match(text, Hash{Key: keys.Current()}) // the cost of a wrong secret
	}
	if err != nil {
		return AccessCredential{}, err
	}
	ok, err := s.matches(keys, text, a.Hash, a.Access.status(now) == StateActive)
	if err != nil {
		return AccessCredential{}, err
	}
	if !ok {
		return AccessCredential{}, ErrNotFound
	}
	if r := rekey(keys, text, a.Hash); r != nil {
		s.store.RecordUse(Usage{ID: id, Kind: secret.KindAccess, Rekey: r})
	}
	return a, nil
}

// grant returns what the presented credential was granted. An access token never has more than its personal access
// token has now, which may have been narrowed since.
func (p *presented) grant() (scopes, audiences []string) {
	if p.access == nil {
		return p.cred.Token.Scopes, p.cred.Token.Audiences
	}
	scopes, _ = Effective(p.access.Scopes, p.cred.Token.Scopes)
	return scopes, p.access.Audiences
}

// paused returns the scopes of the presented credential that are paused.
func (p *presented) paused() []string {
	paused := p.cred.Token.PausedScopes(p.now)
	if p.access != nil {
		paused, _ = Effective(p.access.Scopes, paused)
	}
	return paused
}

// end returns when the presented credential ends; the zero time means never.
func (p *presented) end() time.Time {
	at := earliest(p.cred.AcceptedUntil(&p.secret), p.cred.Token.ExpireTime)
	if p.access != nil {
		at = earliest(at, p.access.ExpireTime)
	}
	return at
}
