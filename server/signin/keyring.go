package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"patd/internal/flight"
)

const (
	renewAfter  = 10 * time.Minute // older keys are fetched again
	trustedFor  = 24 * time.Hour   // while that fails, keys stay valid for this long
	retryAfter  = 3 * time.Second  // a failed provider gets no request for this long
	lookEvery   = 5 * time.Second  // fetches for unknown keys, in the long run
	looksAtOnce = 5                // and in a burst
)

// keyring holds the keys of one issuer, and fetches them.
type keyring struct {
	issuer  string
	at      *url.URL // where the keys are; nil: where the issuer's discovery document says
	events  bool     // the issuer is a transmitter of security events, whose document may be another one
	client  *http.Client
	timeout time.Duration
	waiting chan struct{} // has a slot for each call that may wait
	now     func() time.Time
	logger  *slog.Logger
	ctx     context.Context // ends when the keyring is closed
	running sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	keys     *keySet   // the last good ones
	fetching *fetch    // the one under way; nil: none is
	failed   time.Time // when the last fetch failed; zero: it did not
	cause    error     // why it failed
	skipped  string    // unreadable parts of the newest keys
	looks    time.Time // when the full burst of looksAtOnce is allowed again
}

// fetch is a fetch of keys that many callers may wait for.
type fetch = flight.Flight[struct{}, *keySet]

// fetched waits for a fetch and returns its keys. A call without a free slot is rejected at once.
func (r *keyring) fetched(ctx context.Context, f *fetch) (*keySet, error) {
	select {
	case r.waiting <- struct{}{}:
		defer func() { <-r.waiting }()
	default:
		return nil, unavailable(r.issuer, errors.New("too many calls wait for it"))
	}
	if err := f.Wait(ctx); err != nil {
		return nil, fmt.Errorf("wait for the keys of an issuer: %w", err)
	}
	return f.Result()
}

// current returns the cached keys, and waits for a fetch if none of them may still be used.
func (r *keyring) current(ctx context.Context) (*keySet, error) {
	r.mu.Lock()
	keys, now := r.keys, r.now()
	if keys != nil && now.Sub(keys.fetched) <= renewAfter {
		r.mu.Unlock()
		return keys, nil
	}
	f, err := r.fetch(now)
	r.mu.Unlock()
	if keys != nil && now.Sub(keys.fetched) <= trustedFor {
		return keys, nil
	}
	if err != nil {
		return nil, err
	}
	return r.fetched(ctx, f)
}

// atHand returns the last good keys; nil: there are none yet.
func (r *keyring) atHand() *keySet {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys
}

// renewed returns newer keys than those which did not verify a signature. If it is too early for another request to the
// provider, it returns the same ones.
func (r *keyring) renewed(ctx context.Context, than *keySet) (*keySet, error) {
	r.mu.Lock()
	if r.keys != nil && r.keys != than {
		defer r.mu.Unlock()
		return r.keys, nil
	}
	now := r.now()
	// While the provider is failing, retryAfter limits the requests.
	if r.fetching == nil && r.failed.IsZero() && !r.mayLook(now) {
		r.mu.Unlock()
		return than, nil
	}
	f, err := r.fetch(now)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r.fetched(ctx, f)
}

// mayLook uses up one of the fetches for unknown keys, if one is allowed. r.mu is held.
func (r *keyring) mayLook(now time.Time) bool {
	if r.looks.Before(now) {
		r.looks = now
	}
	if r.looks.Sub(now) > (looksAtOnce-1)*lookEvery {
		return false
	}
	r.looks = r.looks.Add(lookEvery)
	return true
}

// fetch joins the fetch under way or starts one. r.mu is held.
func (r *keyring) fetch(now time.Time) (*fetch, error) {
	if r.fetching != nil {
		r.fetching.Join()
		return r.fetching, nil
	}
	if r.closed {
		return nil, unavailable(r.issuer, errors.New("sign-in is closed"))
	}
	if since := now.Sub(r.failed); !r.failed.IsZero() && since >= 0 && since < retryAfter {
		return nil, unavailable(r.issuer, r.cause)
	}
	f := flight.New[struct{}, *keySet](struct{}{})
	f.Join()
	r.fetching = f
	r.running.Go(func() { r.land(f) })
	return f, nil
}

// land fetches the keys and hands them to all waiting calls. It outlives the call that began it.
func (r *keyring) land(f *fetch) {
	ctx, cancel := context.WithTimeout(r.ctx, r.timeout)
	defer cancel()
	keys, skipped, err := r.fetchKeys(ctx)

	r.mu.Lock()
	now, before := r.now(), r.cause
	if err == nil {
		keys.fetched = now
		r.keys, r.failed, r.cause = keys, time.Time{}, nil
		f.Land(keys, nil)
	} else {
		r.failed, r.cause = now, err
		f.Land(nil, unavailable(r.issuer, err))
	}
	inUse, closed := r.keys != nil, r.closed
	odd := strings.Join(skipped, "; ")
	fresh := odd != "" && odd != r.skipped
	r.skipped = odd
	r.fetching = nil
	r.mu.Unlock()

	if closed {
		return
	}
	if fresh {
		r.logger.LogAttrs(r.ctx, slog.LevelWarn, "keys of an issuer cannot be read as they are",
			slog.String("issuer", shown(r.issuer)), slog.String("keys", odd))
	}
	r.report(before, err, inUse)
}

// report logs the outcome of a fetch if it differs from that of the fetch before.
func (r *keyring) report(before, err error, inUse bool) {
	attrs := []slog.Attr{slog.String("issuer", shown(r.issuer))}
	level, text := slog.LevelInfo, "the identity provider answers again"
	switch wrong, was := isMisconfigured(err), isMisconfigured(before); {
	case err == nil && before == nil, err != nil && before != nil && wrong == was:
		return
	case wrong:
		level, text = slog.LevelError, "sign-in is misconfigured: the settings and the identity provider do not go together"
	case err != nil && inUse:
		level, text = slog.LevelWarn, "the keys of an issuer cannot be renewed; the last ones serve"
	case err != nil:
		level, text = slog.LevelWarn, "the identity provider does not answer; until it does nobody of it can sign in"
	}
	if err != nil {
		attrs = append(attrs, slog.String("cause", err.Error()))
	}
	r.logger.LogAttrs(r.ctx, level, text, attrs...)
}

func isMisconfigured(err error) bool {
	var m misconfigured
	return errors.As(err, &m)
}

// status returns how the newest fetch ended.
func (r *keyring) status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.cause == nil && r.keys == nil:
		return StatusUnknown
	case r.cause == nil:
		return StatusGood
	case isMisconfigured(r.cause):
		return StatusMisconfigured
	default:
		return StatusOutage
	}
}

// look starts a fetch without waiting for it.
func (r *keyring) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.fetch(r.now()) // the outcome is logged, and stands in status
}

// close waits for the fetch under way, which the end of r.ctx cuts short.
func (r *keyring) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.running.Wait()
}
