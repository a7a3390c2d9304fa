package features

import (
	"context"
	"errors"
	"fmt"
	"time"

	"patd/tokens"
)

// Kind names a source that Open can make.
type Kind string

// The kinds of source. The built-in one is not listed: it is a part of the token service.
const (
	KindSQL      Kind = "sql"
	KindCallback Kind = "callback"
)

// Config chooses a source and its cache. Only the part of the chosen kind is used.
type Config struct {
	Kind     Kind
	SQL      SQLConfig
	Callback CallbackConfig
	// Cache configures the cache. A zero Timeout is derived from the source's.
	Cache CacheConfig
}

// landing is the additional time of a flight beyond the time limit of its source, so that the source reports the cause.
const landing = 500 * time.Millisecond

// Open makes the source with its cache. A database must already be reachable, and is asked once; an endpoint is not.
func Open(ctx context.Context, c Config) (*Cached, error) {
	var source interface {
		tokens.FeatureSource
		Close() error
	}
	var limit time.Duration
	switch c.Kind {
	case KindSQL:
		s, err := NewSQL(ctx, c.SQL)
		if err != nil {
			return nil, err
		}
		source, limit = s, s.config.Timeout
		c.Cache.Quick, c.Cache.Slow = s.config.MaxConns/4, s.config.MaxConns/4 // two kinds of request
	case KindCallback:
		s, err := NewCallback(c.Callback)
		if err != nil {
			return nil, err
		}
		source, limit = s, s.config.Timeout
	default:
		return nil, fmt.Errorf("open the source of features: unknown kind; there are %s and %s", KindSQL, KindCallback)
	}
	if c.Cache.Timeout == 0 {
		c.Cache.Timeout = limit + landing
	}
	cached, err := NewCached(source, c.Cache)
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	return cached, nil
}
