package tokensource

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens/secret"
)

// Defaults of a Config.
const (
	DefaultBefore = 7 * 24 * time.Hour
	DefaultPoll   = 10 * time.Second
)

const (
	// lookEvery is how often patd is asked about the token although nothing is due: its owner may have changed it.
	lookEvery = time.Hour
	// callTimeout limits each call, and what follows a rotation that has begun when the program is asked to end.
	callTimeout = 30 * time.Second
)

// Config configures a Source. API and Store are required.
type Config struct {
	API   API
	Store Store
	// Before is how long before its end the token is renewed, or gets its last secret; 0: DefaultBefore. A token with a
	// shorter life is renewed when a third of it is left.
	Before time.Duration
	// Every makes the token get a new secret this often, whatever its end; 0: only before its end.
	Every time.Duration
	// KeepExpiry leaves the end of the token as it is, even if the token may renew itself.
	KeepExpiry bool
	// Grace is how long a secret works on after the next one was made; 0: what patd gives, 24 h. RetireOnFirstUse ends
	// it as soon as the next one is used, which suits tokens that one program alone uses.
	Grace            time.Duration
	RetireOnFirstUse bool
	// Poll is how often the Store is looked at for a secret that somebody else has put there; 0: DefaultPoll.
	Poll time.Duration
	// Logger receives what is done, and what fails; nil: slog.Default. No secret is logged.
	Logger *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Source gives the current secret of a token, and rotates the token; see the package's description. It is safe for
// concurrent use.
type Source struct {
	config Config
	log    *slog.Logger
	now    func() time.Time

	working sync.Mutex // held by Step
	// What Step knows, under working.
	known   *Self                      // of the current secret; nil: not asked yet
	next    secret.Secret              // not empty: made by a rotation, and not stored yet
	made    *patdv1.RotateSelfResponse // what it came with
	spread  float64                    // the random part of this secret's due time, 0 to 1
	replays bool                       // the current secret may be one that was rotated already, and whose successor was not stored
	spent   time.Time                  // the end that renewing could not move
	askAt   time.Time                  // not earlier, after an error or an answer
	failed  int                        // in a row
	warned  time.Time                  // of the end
	force   bool                       // to rotate although it is not due

	mu      sync.Mutex
	current Stored
	loaded  bool
	state   Status
}

// Status is what a Source knows about its token.
type Status struct {
	TokenID string
	// ExpireTime is the end of the token, and RenewableUntil how far it can move that by itself. Zero: there is none.
	ExpireTime, RenewableUntil time.Time
	// SelfRotate reports that the owner lets the token rotate itself.
	SelfRotate bool
	// Due is when the next rotation is due; zero: never, or not known yet.
	Due time.Time
	// Rotations counts the rotations of this Source.
	Rotations int
	// Err is why the last step failed; nil: it did not.
	Err error
}

// New makes a Source. It sends no request yet: Run or Step does, and Secret reads the Store.
func New(c Config) (*Source, error) {
	switch {
	case c.API == nil || c.Store == nil:
		return nil, errors.New("make a token source: it needs an API and a Store")
	case c.Before < 0 || c.Every < 0 || c.Grace < 0 || c.Poll < 0:
		return nil, errors.New("make a token source: its durations must not be negative")
	case c.Grace > 0 && c.Grace < time.Minute:
		return nil, errors.New(
			"make a token source: the grace must be 1m at least, so that a lost answer can be asked for again",
		)
	case c.Every > 0 && c.Every < time.Minute:
		return nil, errors.New("make a token source: it rotates once a minute at most")
	}
	if c.Before == 0 {
		c.Before = DefaultBefore
	}
	if c.Poll == 0 {
		c.Poll = DefaultPoll
	}
	s := &Source{config: c, log: c.Logger, now: c.Now}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now //nolint:forbidigo // the default, as Config says
	}
	return s, nil
}

// Status returns what is known about the token.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Run follows the Store and rotates the token until ctx ends. It returns ctx's error. What fails is logged, stands in
// Status, and is tried again.
func (s *Source) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		_ = s.Step(ctx) // it is logged
		timer.Reset(s.Wait())
	}
}

// Wait returns how long to wait before the next Step.
func (s *Source) Wait() time.Duration {
	s.working.Lock()
	defer s.working.Unlock()
	wait := s.config.Poll
	if until := s.wakeAt().Sub(s.now()); until < wait {
		wait = max(until, 100*time.Millisecond)
	}
	return wait
}

// wakeAt returns when there is something to ask.
func (s *Source) wakeAt() time.Time {
	due := s.Status().Due
	if !due.IsZero() && due.Before(s.askAt) && s.failed == 0 && s.known != nil {
		return due
	}
	return s.askAt
}

// Step looks at the Store, asks patd about the token if that is due, and rotates it if that is due. Its error is that
// of what it tried, or of an earlier Step that is not to be tried again yet.
func (s *Source) Step(ctx context.Context) error {
	s.working.Lock()
	defer s.working.Unlock()
	stored, err := s.config.Store.Load(ctx)
	if err != nil {
		s.finish(ctx, err)
		return err
	}
	s.adopt(ctx, stored)
	if !s.force && s.now().Before(s.wakeAt()) {
		return s.Status().Err
	}
	err = s.work(ctx)
	s.finish(ctx, err)
	return err
}

// RotateNow is Step, but the token is rotated although that is not due: to try whether all is set up, or when a secret
// may be known to others.
func (s *Source) RotateNow(ctx context.Context) error {
	s.working.Lock()
	s.force, s.askAt = true, time.Time{}
	s.working.Unlock()
	err := s.Step(ctx)
	s.working.Lock()
	s.force = false
	s.working.Unlock()
	return err
}

// adopt makes what the Store holds the current secret.
func (s *Source) adopt(ctx context.Context, stored Stored) {
	s.mu.Lock()
	first, changed := !s.loaded, !s.loaded || !same(s.current.Secret, stored.Secret)
	if changed {
		s.current, s.loaded, s.state = s.dated(stored), true, Status{Rotations: s.state.Rotations}
	}
	s.mu.Unlock()
	if !changed {
		return
	}
	if !first {
		s.log.LogAttrs(ctx, slog.LevelInfo, "the stored token was replaced; going on with the new one")
	}
	s.fresh()
}

// dated returns what is stored as of now at the latest: the clock of the file's machine may be ahead.
func (s *Source) dated(stored Stored) Stored {
	if now := s.now(); now.Before(stored.Since) {
		stored.Since = now
	}
	return stored
}

// fresh forgets what was known about the secret before.
func (s *Source) fresh() {
	s.known, s.next, s.made, s.askAt, s.failed, s.spread = nil, secret.Secret{}, nil, time.Time{}, 0, random()
	s.replays = true
}

// work asks and rotates as long as there is something to do.
func (s *Source) work(ctx context.Context) error {
	for range 4 { // a new secret is asked about at once
		if !s.next.IsEmpty() {
			if err := s.save(ctx); err != nil {
				return err
			}
		}
		if err := s.look(ctx); err != nil {
			return err
		}
		rotated, err := s.rotateIfDue(ctx)
		if err != nil || !rotated {
			return err
		}
	}
	return nil
}

// look asks patd about the token.
func (s *Source) look(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	self, err := s.config.API.Self(call, s.secret())
	if err != nil {
		return &callError{"ask about the token", err}
	}
	first := s.known == nil
	s.known, s.askAt = &self, s.now().Add(lookEvery)
	t := self.Token
	s.mu.Lock()
	s.state.SelfRotate = t.GetSelfRotate()
	s.state.TokenID, s.state.ExpireTime, s.state.RenewableUntil = t.GetTokenId(), timeOf(
		t.GetExpireTime(),
	), timeOf(
		t.GetRenewableUntil(),
	)
	s.mu.Unlock()
	s.plan()
	if first {
		s.log.LogAttrs(ctx, slog.LevelInfo, "following the token", s.about()...)
	}
	s.warn(ctx, t)
	return nil
}

// warn logs once a day what only the owner of the token can mend.
func (s *Source) warn(ctx context.Context, t *patdv1.Token) {
	end, now := timeOf(t.GetExpireTime()), s.now()
	text := ""
	switch {
	case !t.GetSelfRotate():
		text = "the token may not rotate itself; its owner allows that by self_rotate"
	case !end.IsZero() && !s.mayRenew(t) && end.Sub(now) < s.config.Before:
		text = "the token ends soon, and cannot be renewed from here; its owner renews it, or sets renewable_until"
	}
	if text == "" || now.Sub(s.warned) < 24*time.Hour {
		return
	}
	s.warned = now
	s.log.LogAttrs(ctx, slog.LevelWarn, text, s.about()...)
}

// about describes the token for the log.
func (s *Source) about() []slog.Attr {
	st := s.Status()
	attrs := []slog.Attr{slog.String("token_id", st.TokenID)}
	for _, e := range []struct {
		name string
		at   time.Time
	}{{"expires", st.ExpireTime}, {"renewable_until", st.RenewableUntil}, {"next_rotation", st.Due}} {
		if !e.at.IsZero() {
			attrs = append(attrs, slog.Time(e.name, e.at.UTC().Truncate(time.Second)))
		}
	}
	return attrs
}

// finish notes the result of a step, and when to try again.
func (s *Source) finish(ctx context.Context, err error) {
	s.mu.Lock()
	before := s.state.Err
	s.state.Err = err
	s.mu.Unlock()
	if err == nil {
		if s.failed > 0 {
			s.log.LogAttrs(ctx, slog.LevelInfo, "the token is well again", s.about()...)
		}
		s.failed = 0
		return
	}
	if ctx.Err() != nil {
		return
	}
	s.failed++
	again := pause(err, s.failed)
	s.askAt = s.now().Add(again)
	if before == nil || before.Error() != err.Error() {
		s.log.LogAttrs(ctx, slog.LevelWarn, "the token could not be looked after", append(s.about(),
			slog.String("error", err.Error()), slog.Duration("again_in", again.Round(time.Second)))...)
	}
}

// pause returns how long to wait after the nth failure in a row: longer when patd has refused, which waiting does not
// mend.
func pause(err error, n int) time.Duration {
	least, most := time.Second, 5*time.Minute
	switch status.Code(errors.Unwrap(err)) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition, codes.InvalidArgument:
		least, most = 30*time.Second, 30*time.Minute
	}
	wait := most
	if n < 12 {
		wait = min(least<<(n-1), most)
	}
	return time.Duration(float64(wait) * (0.8 + 0.4*random()))
}

// secret returns the current one.
func (s *Source) secret() secret.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.Secret
}

// mayRenew reports whether the token can move its end by itself.
func (s *Source) mayRenew(t *patdv1.Token) bool {
	end, until := timeOf(t.GetExpireTime()), timeOf(t.GetRenewableUntil())
	return !s.config.KeepExpiry && t.GetSelfRotate() && !end.IsZero() && end.Before(until) && !end.Equal(s.spent)
}
