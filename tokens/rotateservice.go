package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"patd/tokens/secret"
)

// defaultServiceGrace is longer than that of a user's token: a deployment replaces a service's.
const defaultServiceGrace = 7 * 24 * time.Hour

// RotateService gives a live service a new secret under its name and token id, which lives as long as the current one
// did, unless the request says otherwise. The current secret is accepted for the grace, and never past its own expiry.
// A repeated idempotent request gets the first result; the secret is left out once the service was rotated again or
// revoked.
//
// Reasons: NOT_FOUND, TOKEN_NOT_ACTIVE, ROTATION_IN_PROGRESS while an earlier secret is in its grace and Force is not
// set, GRACE_OUT_OF_RANGE, IDEMPOTENCY_KEY_REUSED, those of a lifetime, and outages.
func (s *Service) RotateService(ctx context.Context, a Actor, r RotateServiceRequest) (RotatedService, error) {
	out, err := s.rotateService(ctx, a, r)
	if err != nil {
		return RotatedService{}, s.refused(ctx, a, Refusal{Action: ActionServiceRotate, Service: r.Name}, err)
	}
	return out, nil
}

func (s *Service) rotateService(ctx context.Context, a Actor, r RotateServiceRequest) (RotatedService, error) {
	if err := s.manager(a); err != nil {
		return RotatedService{}, err
	}
	grace := defaultServiceGrace
	if r.Grace != nil {
		grace = *r.Grace
	}
	if grace < 0 || grace > MaxGrace {
		return RotatedService{}, Invalid("GRACE_OUT_OF_RANGE", "grace", "must be from 0s to "+FormatDuration(MaxGrace))
	}
	var c checker
	if c.idempotencyKey(r.IdempotencyKey); c.err() != nil {
		return RotatedService{}, c.err()
	}
	if !validServiceName(r.Name) {
		return RotatedService{}, notFound("service")
	}
	keys := s.keys.Get()
	seal, err := sealerFor(keys, a, r.IdempotencyKey, []any{"rotate service", r.Name, grace, r.TTL, r.Force})
	if err != nil {
		return RotatedService{}, err
	}
	var out RotatedService
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if out, err = replayServiceRotation(tx, seal, now); err != nil || out.Replayed {
			return nil, err
		}
		v, err := tx.Service(r.Name)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, notFound("service")
		case err != nil:
			return nil, fmt.Errorf("read service: %w", err)
		}
		if out.PreviousUntil, err = v.rotate(grace, r, now); err != nil {
			return nil, err
		}
		if out.Secret, err = secret.Mint(secret.PrefixService, v.ID, s.rand); err != nil {
			return nil, err
		}
		if err := tx.ReplaceServiceSecret(v, keys.Digest(out.Secret)); err != nil {
			return nil, fmt.Errorf("replace the secret of service %s: %w", v.ID, err)
		}
		if err := tx.ForgetSealed(v.ID); err != nil {
			return nil, fmt.Errorf("forget the requests of service %s: %w", v.ID, err)
		}
		out.Service, out.Service.AsOf = v, now
		kept := Rotated{Secret: out.Secret, PreviousUntil: out.PreviousUntil}.seal()
		if err := seal.keep(tx, v.ID, kept, now, s.rand); err != nil {
			return nil, err
		}
		e := a.event(now, ActionServiceRotate)
		e.Service, e.TokenID = v.Name, v.ID
		e.Detail = "previous secret until " + out.PreviousUntil.Format(
			time.RFC3339,
		) + ", expires " + v.ExpireTime.Format(
			time.RFC3339,
		)
		return []Event{e}, nil
	})
	return out, err
}

// rotate counts a rotation of a live service, sets the new times, and returns until when the current secret is
// accepted.
func (s *ServiceAccount) rotate(
	grace time.Duration,
	r RotateServiceRequest,
	now time.Time,
) (until time.Time, err error) {
	switch s.Status(now) {
	case StateRevoked:
		return until, Fail(CodePrecondition, "TOKEN_NOT_ACTIVE", "the service is revoked; create it again")
	case StateExpired:
		return until, Fail(
			CodePrecondition,
			"TOKEN_NOT_ACTIVE",
			"the service's token has expired; create the service again",
		)
	}
	if s.PreviousUntil.After(now) && !r.Force {
		e := Fail(CodePrecondition, "ROTATION_IN_PROGRESS", "the secret before the last rotation is accepted until "+
			s.PreviousUntil.Format(
				time.RFC3339,
			)+", and another rotation ends it at once; force it if no program uses that secret")
		e.Metadata = map[string]string{"previous_secret_expire_time": s.PreviousUntil.Format(time.RFC3339)}
		return until, e
	}
	life := min(s.lifetime(), ServiceMaxTTL)
	if life <= 0 {
		life = serviceDefaultTTL
	}
	until = earliest(now.Add(grace), s.ExpireTime)
	if s.ExpireTime, err = (Policy{DefaultTTL: life, MaxTTL: ServiceMaxTTL}).Expiry(
		Lifetime{TTL: r.TTL},
		now,
	); err != nil {
		return until, err
	}
	until = earliest(until, s.ExpireTime)
	s.RotateTime, s.PreviousUntil = now, until
	if !until.After(now) {
		s.PreviousUntil = time.UnixMicro(0).UTC() // never again, even if the clock is set back
	}
	s.Rotations++
	return until, nil
}

// replayServiceRotation returns the stored result of an idempotent request. A zero RotatedService means that there is
// none. If the service was rotated again or revoked, the result holds only the service.
func replayServiceRotation(tx ReadTx, seal *sealer, now time.Time) (RotatedService, error) {
	r, found, err := seal.find(tx, now)
	if err != nil || !found {
		return RotatedService{}, err
	}
	out := RotatedService{Replayed: true}
	out.Service, err = readService(tx, r.TokenID)
	out.Service.AsOf = now
	if err != nil || r.Sealed == nil || out.Service.Revocation != nil {
		return out, err
	}
	kept, err := seal.open(r)
	if err != nil {
		return RotatedService{}, err
	}
	if out.Secret, out.PreviousUntil, err = unsealRotation(kept); err != nil {
		return RotatedService{}, fmt.Errorf("read the kept answer of a rotation of service %s: %w", out.Service.ID, err)
	}
	return out, nil
}
