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

// openSource is a source that keeps answers and holds something open.
type openSource interface {
	tokens.FeatureSource
	tokens.Forgetter
	io.Closer
}

// openFeatureSource opens the chosen source. A database that cannot be reached is waited for in the background, so that patd does not
// depend on what starts first; one that answers, but not as it should, is an error.
func openFeatureSource(ctx context.Context, s *config.SourceSettings, log *slog.Logger) (tokens.FeatureSource, io.Closer, error) {
	var none io.Closer = closer(func() error { return nil })
	switch s.Kind {
	case config.SourceTable:
		return nil, none, nil
	case config.SourceClaim:
		return tokens.CredentialFeatures{}, none, nil
	}
	s.Config.Cache.Logger = log
	if s.Kind == config.SourceCallback { // is not asked anything before somebody needs it
		cached, err := features.Open(ctx, s.Config)
		if err != nil {
			return nil, none, err
		}
		return cached, cached, nil
	}
	l := &latecomer{config: s.Config, log: log}
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

// latecomerEvery is how often a database that was not there at the start is looked for.
const latecomerEvery = time.Second

// errNotYet is the cause of every outage until a latecomer is there.
var errNotYet = errors.New("it has not been reached since the start")

// latecomer is a database that could not be reached when patd started. Until it can be, it is an outage.
type latecomer struct {
	config features.Config
	log    *slog.Logger
	opened atomic.Pointer[features.Cached]
	stop   context.CancelFunc
	search sync.WaitGroup
}

var _ openSource = (*latecomer)(nil)

// wait looks for the source in the background until it is found or the latecomer is closed. What keeps it away is logged
// whenever it changes: complaint is what was logged already.
func (l *latecomer) wait(ctx context.Context, complaint string) {
	ctx, l.stop = context.WithCancel(ctx)
	l.search.Go(func() {
		tick := time.NewTicker(latecomerEvery)
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
				l.log.Info("the source of features is there")
				return
			case ctx.Err() == nil && err.Error() != complaint:
				complaint = err.Error()
				l.log.Error("the source of features still does not answer as it should", "error", err)
			}
		}
	})
}

// attempt opens the source. away tells that nobody answered, so that it may be well configured and only late.
func (l *latecomer) attempt(ctx context.Context) (cached *features.Cached, away bool, err error) {
	// A little less than the source allows itself, so that running out of time can be told by the context.
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

// Features asks the source, once it is there.
func (l *latecomer) Features(ctx context.Context, u tokens.User, fresh bool) (tokens.Held, error) {
	if source := l.opened.Load(); source != nil {
		return source.Features(ctx, u, fresh)
	}
	return tokens.Held{}, tokens.FeaturesUnavailable("find out the features of a user", errNotYet)
}

// Local returns false: features change without patd.
func (*latecomer) Local() bool { return false }

// Forget drops what is known of a user, which is nothing before the source is there.
func (l *latecomer) Forget(user string) {
	if source := l.opened.Load(); source != nil {
		source.Forget(user)
	}
}

// ForgetAll drops what is known of every user.
func (l *latecomer) ForgetAll() {
	if source := l.opened.Load(); source != nil {
		source.ForgetAll()
	}
}

// Close ends the search, and closes the source if it was found.
func (l *latecomer) Close() error {
	l.stop()
	l.search.Wait()
	if source := l.opened.Load(); source != nil {
		return source.Close()
	}
	return nil
}
