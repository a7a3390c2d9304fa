package tokensource

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens/secret"
)

// Reasons of patd's, which the Source acts on.
const (
	reasonInProgress = "ROTATION_IN_PROGRESS"
	reasonOther      = "IDEMPOTENCY_KEY_REUSED"
	reasonNoRenewal  = "RENEWAL_NOT_ALLOWED"
)

// jitter is the part of the time before the end by which a rotation may come earlier than it must.
const jitter = 0.1

// plan decides when the next rotation is due.
func (s *Source) plan() {
	t := s.known.Token
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Due = time.Time{}
	if !t.GetSelfRotate() {
		return
	}
	since, end := later(s.current.Since, timeOf(t.GetIssueTime())), timeOf(t.GetExpireTime())
	due := time.Time{}
	switch {
	case s.mayRenew(t):
		window := min(s.config.Before, max(end.Sub(since)/3, 0))
		due = end.Add(-stretch(window, jitter*s.spread))
	case !end.IsZero():
		window := min(s.config.Before, end.Sub(timeOf(t.GetIssueTime()))/3)
		if since.Before(end.Add(-stretch(window, jitter))) { // else this is its last secret already
			due = end.Add(-stretch(window, jitter*s.spread))
		}
	}
	if s.config.Every > 0 {
		due = earlier(due, since.Add(stretch(s.config.Every, -jitter*s.spread)))
	}
	if r := t.GetRotation(); r != nil && !due.IsZero() {
		due = later(due, timeOf(r.GetPreviousSecretExpireTime()).Add(time.Second)) // patd refuses an earlier one
	}
	s.state.Due = due
}

// rotateIfDue rotates the token if that is due, or repeats a rotation whose answer or whose secret was lost. It reports
// whether there is another secret.
func (s *Source) rotateIfDue(ctx context.Context) (bool, error) {
	if s.replays {
		if again, err := s.repeat(ctx); again || err != nil {
			return again, err
		}
		s.replays = false
	}
	due := s.Status().Due
	if !s.force && (due.IsZero() || s.now().Before(due)) {
		return false, nil
	}
	if p, ok := s.config.Store.(Preparer); ok {
		if err := p.Prepare(ctx); err != nil {
			return false, fmt.Errorf("the token is not rotated, since its new secret could not be stored: %w", err)
		}
	}
	renew := s.mayRenew(s.known.Token)
	resp, err := s.rotate(ctx, renew)
	switch reason, _ := infoOf(err); {
	case err == nil:
	case reason == reasonInProgress: // another program that shares the token may have made the same request first
		if err := s.look(ctx); err != nil {
			return false, err
		}
		if again, err := s.repeat(ctx); again || err != nil {
			return again, err
		}
		return false, &callError{"rotate the token, which something else has rotated; put its new secret in place", err}
	default:
		s.replays = true // it may have been done, and the answer lost
		return false, &callError{"rotate the token", err}
	}
	if end := timeOf(resp.GetToken().GetExpireTime()); renew && !end.After(timeOf(s.known.Token.GetExpireTime())) {
		s.spent = end
	}
	return s.take(ctx, resp)
}

// repeat makes the request again that a program has made with the current secret before it was killed, if patd reports
// that this secret is the earlier one of a rotation. Nothing tells whether that request renewed the token, so both are
// tried; the wrong one is refused.
func (s *Source) repeat(ctx context.Context) (bool, error) {
	rotation := s.known.Token.GetRotation()
	if rotation == nil || s.known.ExpireTime.IsZero() ||
		s.known.ExpireTime.After(timeOf(rotation.GetPreviousSecretExpireTime())) {
		return false, nil
	}
	for _, renew := range []bool{true, false} {
		if renew && s.config.KeepExpiry {
			continue
		}
		resp, err := s.rotate(ctx, renew)
		if err == nil {
			s.log.LogAttrs(ctx, slog.LevelInfo, "a rotation whose new secret was not stored is completed", s.about()...)
			return s.take(ctx, resp)
		}
		switch reason, _ := infoOf(err); reason {
		case reasonInProgress, reasonOther, reasonNoRenewal:
		default:
			return false, &callError{"repeat a rotation", err}
		}
	}
	if s.known.ExpireTime.Before(timeOf(s.known.Token.GetExpireTime())) ||
		timeOf(s.known.Token.GetExpireTime()).IsZero() {
		s.log.LogAttrs(
			ctx,
			slog.LevelWarn,
			"something else has rotated the token, or the same with other settings: this secret "+
				"stops working soon; put the new one in place",
			append(s.about(), slog.Time("secret_expires", s.known.ExpireTime))...)
	}
	return false, nil
}

// rotate calls patd. The call goes on when ctx ends, so that its answer is not lost without need.
func (s *Source) rotate(ctx context.Context, renew bool) (*patdv1.RotateSelfResponse, error) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	return s.config.API.Rotate(call, s.secret(), s.request(renew))
}

// request returns the request for a rotation of the current secret. The same secret and settings make the same request
// with the same idempotency key.
func (s *Source) request(renew bool) *patdv1.RotateSelfRequest {
	r := &patdv1.RotateSelfRequest{Renew: renew, RetirePrevious: patdv1.Rotation_AFTER_GRACE}
	if s.config.RetireOnFirstUse {
		r.RetirePrevious = patdv1.Rotation_ON_FIRST_USE
	}
	if s.config.Grace > 0 {
		r.Grace = durationpb.New(s.config.Grace)
	}
	h := sha256.New()
	fmt.Fprintf(
		h,
		"patd rotate self\n%t\n%s\n%s\n%s\n",
		renew,
		r.GetRetirePrevious(),
		s.config.Grace,
		s.secret().Reveal(),
	)
	r.RequestId = hex.EncodeToString(h.Sum(nil))
	return r
}

// take stores the secret of a response.
func (s *Source) take(ctx context.Context, resp *patdv1.RotateSelfResponse) (bool, error) {
	if resp.GetSecret() == "" {
		return false, &callError{
			"rotate the token",
			status.Error(
				codes.FailedPrecondition,
				"it was rotated again, or revoked, since; put its new secret in place",
			),
		}
	}
	s.next = secret.NewSecret(resp.GetSecret())
	s.made = resp
	return true, s.save(ctx)
}

// save stores the new secret, and only then makes it the current one.
func (s *Source) save(ctx context.Context) error {
	previous, next, resp := s.secret(), s.next, s.made
	err := s.config.Store.Save(context.WithoutCancel(ctx), previous, next)
	replaced := errors.Is(err, ErrReplaced)
	if err != nil && !replaced {
		return fmt.Errorf("the new secret is not stored, and the earlier one stays in use: %w", err)
	}
	stored, err := s.config.Store.Load(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.current = s.dated(stored)
	if !replaced {
		s.state.Rotations++
	}
	s.mu.Unlock()
	s.fresh()
	s.replays, s.force = replaced, false
	if replaced {
		s.log.LogAttrs(
			ctx,
			slog.LevelInfo,
			"the token was rotated, and something else has stored a secret meanwhile; going on with that",
		)
		return nil
	}
	s.log.LogAttrs(
		ctx,
		slog.LevelInfo,
		"the token was rotated",
		slog.String(
			"token_id",
			resp.GetToken().GetTokenId(),
		),
		slog.String("expiry", resp.GetExpireTimeChange().String()),
		slog.Time("previous_secret_expires", timeOf(resp.GetPreviousSecretExpireTime())),
	)
	return nil
}

func random() float64 { return rand.Float64() } //nolint:gosec // it spreads load, and keeps no secret

// stretch returns d longer by a part of it.
func stretch(d time.Duration, part float64) time.Duration { return d + time.Duration(float64(d)*part) }

// timeOf returns the time of a field; zero: it is absent.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// earlier returns the earlier of two times, where zero stands for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
