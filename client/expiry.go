package client

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"patd/tokens/refusal"
)

const (
	// expiryNotice is how long before the service token expires the log warns.
	expiryNotice = 30 * 24 * time.Hour
	// warnAgain is how often it does.
	warnAgain = 24 * time.Hour
)

// serviceExpiry is when the program's own service token expires, as the server's answers say.
type serviceExpiry struct {
	mu     sync.Mutex
	at     time.Time // zero: never, or not known yet
	warned time.Time
}

// learn takes the expiry from the headers of a stream.
func (e *serviceExpiry) learn(md metadata.MD) {
	var at time.Time
	if values := md.Get(refusal.HeaderExpiresAt); len(values) > 0 {
		at, _ = time.Parse(time.RFC3339, values[0]) // zero: the server's answer is not understood
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !at.Equal(e.at) {
		e.at, e.warned = at, time.Time{}
	}
}

func (e *serviceExpiry) get() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at
}

// warn logs once a day that the token expires soon.
func (e *serviceExpiry) warn(ctx context.Context, now time.Time, log *slog.Logger) {
	e.mu.Lock()
	due := !e.at.IsZero() && !now.Before(e.at.Add(-expiryNotice)) &&
		(e.warned.IsZero() || now.Sub(e.warned) >= warnAgain)
	if due {
		e.warned = now
	}
	at := e.at
	e.mu.Unlock()
	if due {
		log.LogAttrs(
			ctx,
			slog.LevelWarn,
			"the service token of this program expires soon; rotate it: patd service rotate NAME",
			slog.Time("expires", at),
		)
	}
}
