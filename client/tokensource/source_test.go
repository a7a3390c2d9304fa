package tokensource_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"patd/client/tokensource"
	"patd/tokens/secret"
)

const day = 24 * time.Hour

// follow steps through time as Run does, and checks at each step that the secret in use works.
func follow(t testing.TB, p *patd, s *tokensource.Source, life, step time.Duration) {
	t.Helper()
	for end := p.now().Add(life); p.now().Before(end); p.wait(step) {
		_ = s.Step(t.Context())
		text, err := s.Secret(t.Context())
		if err != nil || !p.works(text) && p.now().Before(p.expire) {
			t.Fatalf("at %s the secret in use does not work, %v", p.now(), err)
		}
	}
}

func TestATokenIsRenewedBeforeItsEndUntilItMayNotBe(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	p.renewableUntil = p.at.Add(100 * day)
	s, log := source(t, p, tokensource.Config{Store: tokensource.NewFile(tokenFile(t, p))})
	follow(t, p, s, 22*day, time.Hour)
	if p.made != 0 {
		t.Errorf("%d rotations a week and a day before the end", p.made)
	}
	follow(t, p, s, day+2*time.Hour, time.Hour)
	if p.made != 1 || !p.expire.After(p.issued.Add(50*day)) {
		t.Errorf("a week before the end: %d rotations, and it ends at %s", p.made, p.expire)
	}
	follow(t, p, s, 76*day, time.Hour)
	if !p.expire.Equal(p.renewableUntil) {
		t.Errorf("it ends at %s, and could at %s", p.expire, p.renewableUntil)
	}
	if p.made < 4 || p.made > 6 {
		t.Errorf("%d rotations in 99 days", p.made)
	}
	if !strings.Contains(log.String(), "cannot be renewed from here") {
		t.Errorf("the log does not say that it ends: %s", log)
	}
}

func TestATokenThatMayNotBeRenewedGetsOneMoreSecret(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	s, _ := source(t, p, tokensource.Config{Store: tokensource.NewFile(tokenFile(t, p)), Before: 3 * day})
	follow(t, p, s, 30*day-time.Hour, time.Hour)
	if p.made != 1 || !p.expire.Equal(p.issued.Add(30*day)) {
		t.Errorf("%d rotations, and it ends at %s", p.made, p.expire)
	}
}

func TestATokenThatMayNotRotateItselfIsOnlyFollowed(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	p.forbidden = true
	s, log := source(t, p, tokensource.Config{Store: tokensource.NewFile(tokenFile(t, p)), Every: time.Hour})
	follow(t, p, s, 5*day, time.Hour)
	if p.rotateCalls != 0 || s.Status().SelfRotate || !s.Status().Due.IsZero() {
		t.Errorf("%d calls, %+v", p.rotateCalls, s.Status())
	}
	if n := strings.Count(log.String(), "may not rotate itself"); n < 1 || n > 6 {
		t.Errorf("the log says so %d times in 5 days", n)
	}
}

// TestShortLivesAreRenewedInTime: a token of an hour, with the default of a week before the end.
func TestShortLivesAreRenewedInTime(t *testing.T) {
	t.Parallel()
	p := newPatd(time.Hour)
	p.renewableUntil = p.at.Add(2 * day)
	s, _ := source(t, p, tokensource.Config{Store: tokensource.NewFile(tokenFile(t, p)), Grace: time.Minute})
	follow(t, p, s, day, time.Minute)
	if p.made < 30 || p.made > 45 { // every 36 to 40 minutes
		t.Errorf("%d rotations in a day", p.made)
	}
}

func TestASecretCanBeReplacedMoreOftenThanItsTokenEnds(t *testing.T) {
	t.Parallel()
	p := newPatd(365 * day)
	s, _ := source(t, p, tokensource.Config{Store: tokensource.NewFile(tokenFile(t, p)), Every: 5 * day})
	follow(t, p, s, 50*day, time.Hour)
	if p.made < 9 || p.made > 12 {
		t.Errorf("%d rotations in 50 days", p.made)
	}
}

// failing is a Store that cannot store.
type failing struct {
	tokensource.Store
	prepare, save error
}

func (f *failing) Prepare(context.Context) error { return f.prepare }

func (f *failing) Save(ctx context.Context, previous, next secret.Secret) error {
	if f.save != nil {
		return f.save
	}
	return f.Store.Save(ctx, previous, next)
}

func TestANewSecretIsStoredBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	full := errors.New("the disk is full")
	store := &failing{Store: tokensource.Memory(start, nil), prepare: full, save: full}
	s, _ := source(t, p, tokensource.Config{Store: store})
	if err := s.RotateNow(t.Context()); !errors.Is(err, full) || p.made != 0 {
		t.Errorf("it was rotated although nothing can be stored: %d times, %v", p.made, err)
	}
	store.prepare = nil
	if err := s.RotateNow(t.Context()); !errors.Is(err, full) || p.made != 1 {
		t.Errorf("%d rotations, %v", p.made, err)
	}
	if text, err := s.Secret(t.Context()); text != start || err != nil {
		t.Errorf("a secret that is not stored is in use: %v", err)
	}
	if s.Status().Err == nil {
		t.Error("the status says nothing")
	}
	store.save = nil
	p.wait(time.Hour)
	if err := s.Step(t.Context()); err != nil {
		t.Error(err)
	}
	if text, err := s.Secret(t.Context()); text != p.current || err != nil || s.Status().Err != nil || p.made != 1 {
		t.Errorf("once it can be stored: %v, %+v", err, s.Status())
	}
}

func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} {
		for _, renewable := range []bool{false, true} {
			p := newPatd(30 * day)
			p.loseAnswers = 1
			if renewable {
				p.renewableUntil = p.at.Add(20 * 365 * day)
			}
			path := tokenFile(t, p)
			s, _ := source(t, p, tokensource.Config{Store: tokensource.NewFile(path)})
			if err := s.RotateNow(t.Context()); status.Code(errors.Unwrap(err)) != codes.Unavailable || p.made != 1 {
				t.Fatalf("%d rotations, %v", p.made, err)
			}
			if restarted {
				s, _ = source(t, p, tokensource.Config{Store: tokensource.NewFile(path)})
			} else {
				p.wait(time.Minute)
			}
			if err := s.Step(t.Context()); err != nil {
				t.Errorf("restarted %v, renewable %v: %v", restarted, renewable, err)
			}
			if get(t, path) != p.current || p.made != 1 {
				t.Errorf(
					"restarted %v, renewable %v: %d rotations, and the file has the newest secret: %v",
					restarted,
					renewable,
					p.made,
					get(t, path) == p.current,
				)
			}
		}
	}
}

func TestTwoSourcesOnOneFileGetOneSecret(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	p.renewableUntil = p.at.Add(365 * day)
	path := tokenFile(t, p)
	var all []*tokensource.Source
	for range 4 {
		s, _ := source(t, p, tokensource.Config{Store: tokensource.NewFile(path)})
		all = append(all, s)
	}
	for range 60 {
		var steps sync.WaitGroup
		var failed atomic.Int64
		for _, s := range all {
			steps.Go(func() {
				if err := s.Step(t.Context()); err != nil {
					failed.Add(1)
				}
			})
		}
		steps.Wait()
		for _, s := range all {
			if text, err := s.Secret(t.Context()); err != nil || !p.works(text) {
				t.Fatalf("a secret in use does not work, %v", err)
			}
		}
		p.wait(day)
	}
	if get(t, path) != p.current || p.made < 2 || p.made > 4 {
		t.Errorf("%d rotations in 60 days, and the file has the newest secret: %v", p.made, get(t, path) == p.current)
	}
}

func TestAFileThatIsEditedIsFollowed(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	path := tokenFile(t, p)
	s, log := source(t, p, tokensource.Config{Store: tokensource.NewFile(path)})
	if err := s.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.set(func() { p.current = "pat_put_there_by_hand" })
	put(t, path, "pat_put_there_by_hand")
	if err := s.Step(t.Context()); err != nil {
		t.Error(err)
	}
	if text, _ := s.Secret(
		t.Context(),
	); text != "pat_put_there_by_hand" ||
		!strings.Contains(log.String(), "was replaced") {
		t.Errorf("it is not followed: %s", log)
	}
	put(t, path, "two tokens")
	if err := s.Step(t.Context()); err == nil {
		t.Error("a file that holds no token is no error")
	}
	if text, _ := s.Secret(t.Context()); text != "pat_put_there_by_hand" {
		t.Error("the last good secret is not kept")
	}
}

// TestARotationByAnotherIsWaitedFor: the owner has rotated, and the new secret is not here.
func TestARotationByAnotherIsWaitedFor(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	path := tokenFile(t, p)
	p.set(func() { p.previous, p.previousUntil, p.current = start, p.at.Add(day), "pat_of_the_owner" })
	s, log := source(t, p, tokensource.Config{Store: tokensource.NewFile(path)})
	if err := s.Step(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "something else has rotated the token") {
		t.Errorf("the log does not say so: %s", log)
	}
	if err := s.RotateNow(t.Context()); tokensource.Reason(err) != "ROTATION_IN_PROGRESS" {
		t.Error(err)
	}
	put(t, path, "pat_of_the_owner")
	if err := s.Step(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOutagesAreWaitedOutWithGrowingPauses(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	p.fault = status.Error(codes.Unavailable, "no patd")
	s, log := source(t, p, tokensource.Config{Store: tokensource.Memory(start, nil)})
	calls := 0
	for range 600 {
		before := s.Wait()
		if err := s.Step(t.Context()); err == nil {
			t.Fatal("an outage is no error")
		}
		if before <= 0 {
			t.Fatal("it spins")
		}
		calls++
		p.wait(time.Second)
	}
	if n := strings.Count(log.String(), "could not be looked after"); n != 1 {
		t.Errorf("one outage is logged %d times", n)
	}
	p.set(func() { p.fault = nil })
	p.wait(10 * time.Minute)
	if err := s.Step(t.Context()); err != nil || !strings.Contains(log.String(), "well again") {
		t.Errorf("%v: %s", err, log)
	}
}

// TestNoSequenceOfFaultsLosesTheSecret has answers lost, outages, stores that fail, programs that are restarted, and
// time that passes, in any order, as long as no outage lasts longer than the grace.
func TestNoSequenceOfFaultsLosesTheSecret(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		p := newPatd(10 * day)
		p.renewableUntil = p.at.Add(10_000 * day)
		path := tokenFile(t, p)
		store := &failing{Store: tokensource.NewFile(path)}
		config := tokensource.Config{Store: store, KeepExpiry: rapid.Bool().Draw(r, "keep")}
		s, _ := source(t, p, config)
		for range rapid.IntRange(5, 25).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"lose", "outage", "full", "restart", "now", "step"}).Draw(r, "what") {
			case "lose":
				p.set(func() { p.loseAnswers++ })
				_ = s.RotateNow(t.Context())
			case "outage":
				p.set(func() { p.fault = status.Error(codes.Unavailable, "no patd") })
				_ = s.RotateNow(t.Context())
				p.set(func() { p.fault = nil })
			case "full":
				store.save = errors.New("the disk is full")
				_ = s.RotateNow(t.Context())
				store.save = nil
			case "restart":
				s, _ = source(t, p, config)
			case "now":
				_ = s.RotateNow(t.Context())
			case "step":
				_ = s.Step(t.Context())
			}
			p.set(func() { p.loseAnswers = 0 })
			p.wait(time.Duration(rapid.IntRange(0, 20).Draw(r, "hours")) * time.Hour)
			_ = s.Step(t.Context())
			if text := get(t, path); !p.works(text) && p.now().Before(p.expire) {
				r.Fatalf("the file holds a secret that does not work, after %d rotations", p.made)
			}
		}
	})
}
