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

// The kinds of source. The built-in one is not among them: it is a part of the token service.
const (
	KindSQL      Kind = "sql"
	KindCallback Kind = "callback"
)

// Config chooses a source and how it is cached. Only the part of the chosen kind is looked at.
type Config struct {
	Kind     Kind
	SQL      SQLConfig
	Callback CallbackConfig
	// Cache is how long answers count. When its Timeout is zero, it follows from the source's.
	Cache CacheConfig
}

// landing is what a flight has beyond the time limit of its source, so that the source is the one to say what happened.
const landing = 500 * time.Millisecond

// Open makes the source with its cache. A database must answer by now, and is asked once; an endpoint is not.
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
		c.Cache.Quick, c.Cache.Slow = s.config.MaxConns/4, s.config.MaxConns/4 // of two kinds of question
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
