package tokens

import (
	"fmt"
	"time"

	"patd/tokens/refusal"
)

// EndedError says that a credential's secret is right, but that it is not active: it has expired, was revoked or
// rotated away, its user is suspended, it is blocked, or it is for another audience or network. It is the private cause
// of the error that the bearer gets, and what logs and metrics read. Its caller is not guessing secrets.
type EndedError struct {
	// Holder is whose credential it is; its TokenID is that of the service or personal access token.
	Holder Actor
	// Refusal is why, with the instants. Zero for the credential of an identity provider, which has its own cause.
	Refusal refusal.Refusal
}

// Error names the holder of the credential, and why it is refused.
func (e *EndedError) Error() string {
	if e.Holder.TokenID == 0 {
		return fmt.Sprintf("the credential of %s is genuine, but has ended", e.Holder)
	}
	text := fmt.Sprintf("the secret is right, but the token %s of %s is not active", e.Holder.TokenID, e.Holder)
	if e.Refusal.Reason != "" {
		text += ": " + e.Refusal.Text()
	}
	return text
}

// public returns the error for the bearer, of a class.
func (e *EndedError) public(code Code) *Error {
	return &Error{
		Code: code, Reason: e.Refusal.Reason, Message: e.Refusal.Text(), Metadata: e.Refusal.Metadata(), Cause: e,
	}
}

// secretInvalid is the one error for garbage, unknown tokens and wrong secrets.
func secretInvalid(code Code) *Error {
	return Fail(code, refusal.NotValid, refusal.Refusal{}.Text())
}

// ended returns why the presented secret, which has matched, is not active by a decision. It is the only place that
// says why.
func (s *Service) ended(p *presented, d Decision) *EndedError {
	e := &EndedError{
		Holder:  Actor{Kind: TokenActor, User: p.cred.Token.User, TokenID: p.cred.Token.ID, Serial: p.secret.Serial},
		Refusal: refusal.Refusal{Reason: refusal.ReasonOf(d.String()), ExpireTime: p.end()},
	}
	e.Refusal.RenewURL = s.RenewURL(e.Refusal.ExpireTime)
	switch d {
	case Revoked:
		if r := p.cred.Token.Revocation; r != nil {
			e.Refusal.Since = r.Time
		}
		if a := p.access; a != nil && a.Revocation != nil {
			e.Refusal.Since = earliest(e.Refusal.Since, a.Revocation.Time)
		}
	case Expired:
		e.Refusal.Since = p.cred.Token.ExpireTime
		if a := p.access; a != nil {
			e.Refusal.Since = earliest(e.Refusal.Since, a.ExpireTime)
		}
	case Superseded:
		if !p.secret.ExpireTime.IsZero() { // else it is so old that its record is gone
			e.Refusal.Since = p.cred.AcceptedUntil(&p.secret)
		}
	}
	return e
}

// endedFor is ended for the caller of an introspection. A service that is bound to another audience than the token's
// learns the decision, and no instants.
func (s *Service) endedFor(p *presented, d Decision, caller *Actor) *EndedError {
	e := s.ended(p, d)
	if caller.Audience != "" && !p.facts.AudienceOK {
		e.Refusal = refusal.Refusal{Reason: e.Refusal.Reason}
	}
	return e
}

// endedService returns why the secret of a service, which has matched, is not active.
func (s *Service) endedService(p *presentedService, a Actor) *EndedError {
	v := p.cred.Service
	r := refusal.Refusal{Reason: refusal.Superseded, Since: p.secret.stopped(), ExpireTime: a.ExpireTime}
	switch v.Status(s.Now()) {
	case StateRevoked:
		r.Reason, r.Since = refusal.Revoked, v.Revocation.Time
	case StateExpired:
		r.Reason, r.Since = refusal.Expired, v.ExpireTime
	default:
		if r.Since.IsZero() { // it had no grace
			r.Since = v.RotateTime
		}
	}
	return &EndedError{Holder: a, Refusal: r}
}

// RenewURL returns where the user renews a token that expires then; empty: it is not due yet, or there is no such page.
func (s *Service) RenewURL(expire time.Time) string {
	if s.renewURL == "" || !refusal.Due(expire, s.Now()) {
		return ""
	}
	return s.renewURL
}

// Refusal returns the error for the bearer of a token that introspection did not allow; required are the scopes of the
// request.
func (s *Service) Refusal(in *Introspection, required []string) *Error {
	switch {
	case in.Ended != nil:
		return in.Ended.public(CodeUnauthenticated)
	case in.Decision == InsufficientScope:
		r := refusal.OfScopes(required, in.Missing, in.Granted, in.Paused...)
		r.ExpireTime, r.RenewURL = in.ExpireTime, s.RenewURL(in.ExpireTime)
		return &Error{Code: CodeDenied, Reason: r.Reason, Message: r.Text(), Metadata: r.Metadata()}
	default:
		return secretInvalid(CodeUnauthenticated)
	}
}

// SubjectID returns the token whose secret has matched, active or not; 0: none has.
func (in *Introspection) SubjectID() ID {
	if in.Ended != nil {
		return in.Ended.Holder.TokenID
	}
	return in.Token.ID
}
