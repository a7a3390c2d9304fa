package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"patd/cmd/patd/internal/cli/config"
	"patd/features"
	"patd/tokens"
)

// openSource is a source that caches answers and must be closed.
type openSource interface {
	tokens.FeatureSource
	tokens.Forgetter
	io.Closer
}

// openFeatureSource opens the chosen source. An unreachable database is retried in the background, so that patd does
// not depend on the order of starts. A database that responds, but not as it should, is an error.
func openFeatureSource(
	ctx context.Context,
	s *config.SourceSettings,
	log *slog.Logger,
) (tokens.FeatureSource, io.Closer, error) {
	var none io.Closer = closer(func() error { return nil })
	switch s.Kind {
	case config.SourceTable:
		return nil, none, nil
	case config.SourceClaim:
		return tokens.CredentialFeatures{}, none, nil
	}
	s.Config.Cache.Logger = log
	if s.Kind == config.SourceCallback { // not asked before the first use
		cached, err := features.Open(ctx, s.Config)
		if err != nil {
			return nil, none, err
		}
		return cached, cached, nil
	}
	l := &reconnectingSource{config: s.Config, log: log}
	cached, away, err := l.attempt(ctx)
	switch {
	case err == nil:
		return cached, cached, nil
	case away && ctx.Err() == nil:
		log.Warn("the source of features cannot be reached; what needs it is refused until it is there", "error", err)
		l.wait(ctx, err.Error())
		return l, l, nil
	}
	return nil, none, err
}

// closer is a function that closes.
type closer func() error

// Close calls it.
func (c closer) Close() error { return c() }

// reconnectEvery is how often the connection to a database that was unreachable at the start is retried.
const reconnectEvery = time.Second

// errNotYet is the cause of every outage until a reconnectingSource is connected.
var errNotYet = errors.New("it has not been reached since the start")

// reconnectingSource is a database that was unreachable when patd started. Until it is connected, every request is an
// outage.
type reconnectingSource struct {
	config features.Config
	log    *slog.Logger
	opened atomic.Pointer[features.Cached]
	notify atomic.Pointer[func(user string, features []string, asked time.Time) bool] // of the source once it is open
	stop   context.CancelFunc
	search sync.WaitGroup
}

var (
	_ openSource       = (*reconnectingSource)(nil)
	_ tokens.Announcer = (*reconnectingSource)(nil)
)

// wait retries in the background until the source is open or the reconnectingSource is closed. It logs the cause
// whenever it changes; complaint is the one already logged.
func (l *reconnectingSource) wait(ctx context.Context, complaint string) {
	ctx, l.stop = context.WithCancel(ctx)
	l.search.Go(func() {
		tick := time.NewTicker(reconnectEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			cached, _, err := l.attempt(ctx)
			switch {
			case err == nil:
				l.opened.Store(cached)
				if notify := l.notify.Load(); notify != nil {
					cached.Announce(*notify)
				}
				l.log.Info("the source of features is there")
				return
			case ctx.Err() == nil && err.Error() != complaint:
				complaint = err.Error()
				l.log.Error("the source of features still does not answer as it should", "error", err)
			}
		}
	})
}

// attempt opens the source. away reports that the database did not respond, so it may only be late.
func (l *reconnectingSource) attempt(ctx context.Context) (cached *features.Cached, away bool, err error) {
	// A little less than the source's own limit, so that the context shows a timeout.
	ctx, cancel := context.WithTimeout(ctx, l.config.SQL.Timeout*9/10)
	defer cancel()
	cached, err = features.Open(ctx, l.config)
	if err == nil {
		return cached, false, nil
	}
	var network *net.OpError
	var name *net.DNSError
	away = errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.As(err, &network) || errors.As(err, &name) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	return nil, away, err
}

// Features asks the source, once it is open.
func (l *reconnectingSource) Features(ctx context.Context, u tokens.User, fresh bool) (tokens.Held, error) {
	if source := l.opened.Load(); source != nil {
		return source.Features(ctx, u, fresh)
	}
	return tokens.Held{}, tokens.FeaturesUnavailable("find out the features of a user", errNotYet)
}

// Announce implements tokens.Announcer.
func (l *reconnectingSource) Announce(notify func(user string, features []string, asked time.Time) bool) {
	l.notify.Store(&notify)
	if source := l.opened.Load(); source != nil {
		source.Announce(notify)
	}
}

// Local returns false: features change without patd.
func (*reconnectingSource) Local() bool { return false }

// Stats returns the counters of the source; none before it is open.
func (l *reconnectingSource) Stats() features.Stats {
	if cached := l.opened.Load(); cached != nil {
		return cached.Stats()
	}
	return features.Stats{}
}

// Forget drops the cached answer of a user; there is none before the source is open.
func (l *reconnectingSource) Forget(user string) {
	if source := l.opened.Load(); source != nil {
		source.Forget(user)
	}
}

// ForgetAll drops all cached answers.
func (l *reconnectingSource) ForgetAll() {
	if source := l.opened.Load(); source != nil {
		source.ForgetAll()
	}
}

// Close ends the retries, and closes the source if it was opened.
func (l *reconnectingSource) Close() error {
	l.stop()
	l.search.Wait()
	if source := l.opened.Load(); source != nil {
		return source.Close()
	}
	return nil
}
