package tokens

import (
	"context"
	"errors"
	"time"

	"patd/tokens/secret"
)

// Authenticate returns the caller that presents a secret: a service, or the bearer of a personal access token. Every
// defect of the secret is the same error, CodeUnauthenticated and CREDENTIAL_INVALID. A secret that has matched, but
// whose token is not active, is CodeUnauthenticated with the reason; its cause is an EndedError. An outage is
// CodeUnavailable.
func (s *Service) Authenticate(ctx context.Context, text Secret, peer Peer) (Actor, error) {
	kind, id, err := s.prefixes.Load().Parse(text)
	if err != nil {
		return Actor{}, secretInvalid(CodeUnauthenticated)
	}
	var a Actor
	switch kind {
	case secret.KindService:
		a, err = s.authenticateService(ctx, text, id)
	case secret.KindPersonal:
		a, err = s.authenticateToken(ctx, text, id, peer)
	default:
		err = secretInvalid(CodeUnauthenticated)
	}
	if err != nil {
		return Actor{}, err
	}
	a.Peer = peer
	return a, nil
}

func (s *Service) authenticateService(ctx context.Context, secret Secret, id ID) (Actor, error) {
	at := s.moment()
	mark := s.serviceMark(&at)
	var p presentedService
	err := s.presentService(ctx, secret, id, &at, &p)
	if errors.Is(err, ErrNotFound) {
		return Actor{}, because(secretInvalid(CodeUnauthenticated), ErrUnknownCredential)
	}
	if err != nil {
		return Actor{}, err
	}
	if !p.matched {
		return Actor{}, secretInvalid(CodeUnauthenticated)
	}
	v := &p.cred.Service
	a := Actor{
		Kind: ServiceActor, Name: v.Name, TokenID: id, Permissions: v.Permissions, Audience: v.Audience,
		Serial: p.secret.Serial, ExpireTime: p.cred.end(&p.secret), mark: mark,
		keys: p.keys,
	}
	if !p.live {
		return Actor{}, s.endedService(&p, a).public(CodeUnauthenticated)
	}
	return a, nil
}

// presentedService is the result of matching a secret against those of a service.
type presentedService struct {
	cred    *ServiceCredential // which others may share
	matched bool
	secret  StoredSecret // the one that matched
	live    bool         // the service is active and accepts the secret
	keys    *Keys        // that it was checked with
}

// presentService looks up the service that a secret belongs to. It returns ErrNotFound for an unknown id; the API
// caller gets the same answer to that as to a wrong secret. A digest under a retiring key is replaced.
func (s *Service) presentService(ctx context.Context, text Secret, id ID, at *moment, p *presentedService) error {
	keys := s.keys.Get()
	p.keys = keys
	if s.memory != nil {
		p.cred = s.memory.RecallService(at.clock, id)
	}
	if p.cred == nil {
		c, err := s.store.LookupService(ctx, id)
		if errors.Is(err, ErrNotFound) {
			_, _ = keys.Match(text, Hash{Key: keys.Current()}) // the cost of a wrong secret
		}
		if err != nil {
			return err
		}
		p.cred = &c
	}
	for _, st := range [...]*StoredSecret{&p.cred.Secret, p.cred.Previous} {
		if st == nil {
			continue
		}
		live := p.cred.Service.accepts(st.Serial, at.now)
		ok, err := s.matches(keys, text, st.Hash, live)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if p.matched, p.secret, p.live = true, *st, live; live {
			if r := rekey(keys, text, st.Hash); r != nil {
				s.store.RecordUse(Usage{ID: id, Kind: secret.KindService, Rekey: r})
			}
		}
		break
	}
	return nil
}

// serviceMark is the store's mark of services; 0: it has none.
func (s *Service) serviceMark(at *moment) uint64 {
	if s.memory == nil {
		return 0
	}
	return s.memory.ServiceMark(at.clock)
}

// unchanged reports whether a service surely has the access that it had when its record was read last, without reading
// it again.
func (s *Service) unchanged(a *Actor, at *moment) bool {
	return a.mark != 0 && a.mark == s.serviceMark(at) && (a.ExpireTime.IsZero() || at.now.Before(a.ExpireTime))
}

// Still returns a service that Authenticate has returned for a secret as it would be returned now for the same secret.
// False: it must be authenticated again, since a service, or a key of digests, may have changed, or its time is over.
func (s *Service) Still(a *Actor, peer Peer) (Actor, bool) {
	at := s.moment()
	if a.Kind != ServiceActor || a.keys != s.keys.Get() || !s.unchanged(a, &at) {
		return Actor{}, false
	}
	same := *a
	same.Peer = peer
	return same, true
}

// Recheck reads again what an authenticated service may do, for calls that last long. A caller that is no longer
// accepted is CodeUnauthenticated. An outage is CodeUnavailable and says nothing about the actor. Only services can be
// rechecked.
func (s *Service) Recheck(ctx context.Context, a Actor) (Actor, error) {
	if a.Kind != ServiceActor {
		return Actor{}, unauthenticated("the credential is no longer valid")
	}
	at := s.moment()
	if s.unchanged(&a, &at) {
		return a, nil
	}
	mark := s.serviceMark(&at)
	c, err := s.store.LookupService(ctx, a.TokenID)
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return Actor{}, err
	case err != nil, !c.Service.accepts(a.Serial, s.Now()):
		return Actor{}, unauthenticated("the credential is no longer valid")
	}
	a.Name, a.Permissions, a.Audience = c.Service.Name, c.Service.Permissions, c.Service.Audience
	a.ExpireTime, a.mark = c.endOf(a.Serial), mark
	return a, nil
}

func (s *Service) authenticateToken(ctx context.Context, secret Secret, id ID, peer Peer) (Actor, error) {
	p := presented{from: presenter{ip: peer.IP}}
	at := s.moment()
	if err := s.present(ctx, secret, id, &at, &p); err != nil {
		return Actor{}, err
	}
	// The owner's own call to patd is for no audience, and needs no scope.
	f := p.facts
	f.AudienceOK, f.IPOK, f.ScopesOK = true, true, true
	a := Actor{Kind: TokenActor, User: p.cred.Token.User, TokenID: id, Serial: p.secret.Serial, ExpireTime: p.end()}
	switch d := Decide(f); {
	case d == Allow:
		return a, nil
	case d != NotFound:
		return Actor{}, s.ended(&p, d).public(CodeUnauthenticated)
	case p.cred.Token.ID == 0:
		return Actor{}, because(secretInvalid(CodeUnauthenticated), ErrUnknownCredential)
	default:
		return Actor{}, secretInvalid(CodeUnauthenticated)
	}
}

// presented is the result of matching a secret against what is stored under its id.
type presented struct {
	cred   Credential
	secret StoredSecret // the stored one that matched, or the one that the presented access token came from
	facts  Facts        // Match, Revoked, Expired, UserSuspended and Blocked are set; the rest refuse
	now    time.Time
	from   presenter
	// access is the presented access token; nil if the personal access token itself was presented.
	access *AccessToken
	room   *Lists // for the lists of cred; nil: none
}

// present looks up a token, finds which of its secrets was presented, and fills in p, which must be zero but for from and room.
// An unknown id and a wrong secret get the same result at the same cost. A digest under a retiring key is replaced.
func (s *Service) present(ctx context.Context, text Secret, id ID, at *moment, p *presented) (err error) {
	keys := s.keys.Get()
	p.now = at.now
	known := false
	if s.memory != nil {
		p.cred, known = s.memory.Recall(at.clock, id, p.room)
	}
	if !known {
		at.past = true
		p.cred, err = s.store.Lookup(ctx, id)
		if errors.Is(err, ErrNotFound) {
			_, _ = keys.Match(text, Hash{Key: keys.Current()}) // the cost of a wrong secret
			p.cred = Credential{}
			return nil
		}
		if err != nil {
			return err
		}
	}
	live := status(p.cred.Token.Revocation, p.cred.Token.ExpireTime, p.now) == StateActive
	for i := range p.cred.Secrets {
		st := &p.cred.Secrets[i]
		inForce := i == 0 || st.InForce(p.now)
		ok, err := s.matches(keys, text, st.Hash, live && inForce)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		p.secret, p.facts = *st, p.cred.FactsAt(p.now)
		if p.facts.Match = MatchLive; !inForce {
			p.facts.Match = MatchSuperseded
			s.noteSuperseded(p) // here, so that no way to present a secret passes it by
		}
		if r := rekey(keys, text, st.Hash); r != nil {
			s.store.RecordUse(Usage{ID: id, Rekey: r})
		}
		break
	}
	return nil
}

// matches compares a secret with a stored digest. A digest whose key is not loaded is skipped if it could not make
// anything active. Otherwise patd cannot decide, which is an outage.
func (s *Service) matches(keys *Keys, secret Secret, stored Hash, live bool) (bool, error) {
	ok, err := keys.Match(secret, stored)
	if err != nil && live {
		return false, &Error{
			Code: CodeUnavailable, Reason: "KEY_UNAVAILABLE",
			Message: "a digest key is missing on this server; the operator must add it to the key file", Cause: err,
		}
	}
	return ok && err == nil, nil
}

func rekey(keys *Keys, secret Secret, stored Hash) *Rekey {
	if stored.Key == keys.Current() || keys.Newer(stored.Key) {
		return nil
	}
	return &Rekey{Old: stored, New: keys.Digest(secret)}
}

// owner returns the user whose tokens a call is about, and refuses a caller that may not manage them: the bearer of a
// token manages none, and a signed-in user only its own. The refusal does not reveal whether the user exists.
func (s *Service) owner(a Actor, user string) (string, error) {
	switch a.Kind {
	case ServiceActor, OperatorActor:
		var c checker
		c.user(user)
		return user, c.err()
	case UserActor:
		if user == "me" || user == a.User {
			return a.User, nil
		}
		return "", denied("a signed-in user reaches only what is its own")
	default:
		return "", denied("this credential does not manage tokens")
	}
}

// manager refuses every caller but services and the operator: only the company itself may do this.
func (s *Service) manager(a Actor) error {
	if a.Kind == ServiceActor || a.Kind == OperatorActor {
		return nil
	}
	return denied("only a service may do this")
}

func denied(text string) *Error { return Fail(CodeDenied, "PERMISSION_DENIED", text) }

// event returns a successful event by a at now; the use case fills in the subject.
func (a Actor) event(now time.Time, action Action) Event {
	return Event{Time: now, Actor: a.String(), Action: action, PeerIP: a.Peer.IP, Outcome: OutcomeSuccess}
}

// RecordRefusal writes the audit event of an attempt that was refused before it reached a use case. Malformed fields
// are left out of the event: input from strangers is not stored. Nothing is written if LimitRefusals' function forbids
// it.
func (s *Service) RecordRefusal(ctx context.Context, a Actor, r Refusal) error {
	return s.recordRefusal(ctx, a, a, r)
}

// recordRefusal records a refusal of a, within the limit of by.
func (s *Service) recordRefusal(ctx context.Context, a, by Actor, r Refusal) error {
	if allow := s.record.Load(); allow != nil && !(*allow)(by) {
		return nil
	}
	e := a.event(s.Now(), r.Action)
	e.Outcome, e.Reason = OutcomeRefused, r.Reason
	var c checker
	if c.user(r.User); c.err() == nil {
		e.User = r.User
	}
	if validServiceName(r.Service) && !secret.ContainsSecret(r.Service) {
		e.Service = r.Service
	}
	e.TokenID, _ = secret.ParseID(r.TokenID)
	return s.ledger.record(ctx, e)
}

// refused records a use case's refusal and returns err. Refusals by policy, rights or state are recorded; malformed
// requests and outages are not. If the event cannot be written, the caller still gets the refusal, and the log its
// cause.
func (s *Service) refused(ctx context.Context, a Actor, r Refusal, err error) error {
	var e *Error
	if !errors.As(err, &e) || !worthRecording(e) {
		return err
	}
	return s.recorded(ctx, a, a, r, e, err)
}

// recorded records e, a refusal of a, within the limit of by, and returns err, which wraps e.
func (s *Service) recorded(ctx context.Context, a, by Actor, r Refusal, e *Error, err error) error {
	r.Reason = e.Reason
	if rerr := s.recordRefusal(ctx, a, by, r); rerr != nil {
		told := *e
		told.Cause = errors.Join(e.Cause, rerr)
		return &told
	}
	return err
}

func worthRecording(e *Error) bool {
	switch e.Code {
	case CodeDenied, CodeNotFound, CodeExists, CodePrecondition, CodeAborted, CodeExhausted:
		return true
	case CodeInvalid:
		switch e.Reason {
		case "SCOPE_NOT_HELD",
			"SCOPES_WIDENED",
			"EXPIRE_TIME_LATER",
			"TTL_ABOVE_MAXIMUM",
			"NEVER_NOT_ALLOWED",
			"SECRET_IN_FIELD":
			return true
		}
	}
	return false
}
