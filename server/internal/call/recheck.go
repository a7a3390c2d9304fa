package call

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"patd/tokens"
)

// RecheckEvery is how often the caller of a stream is checked again.
const RecheckEvery = time.Second

// Recheck reports whether a stream's caller is still the same and still has its rights. An outage does not end the
// stream: its requests cannot be served from the same store meanwhile either.
func (c *Chain) Recheck(begun *Call, was tokens.Actor) (tokens.Actor, error) {
	ctx, cancel := context.WithTimeout(begun, c.Timeout)
	defer cancel()
	actor, err := c.Service.Recheck(ctx, was)
	switch {
	case CallerEnded(err):
		return was, err
	case err != nil:
		c.logger.LogAttrs(begun, slog.LevelDebug, "the caller of a stream could not be checked again",
			slog.String("request_id", begun.RequestID()), slog.String("cause", LogText(err.Error())))
		return was, nil
	case !begun.Method.Allows(actor):
		return was, Denied(begun.Method.Right, actor)
	}
	return actor, nil
}

// CallerEnded reports whether err means that the caller has lost its access, not merely that the check failed.
func CallerEnded(err error) bool {
	var e *tokens.Error
	return errors.As(err, &e) && e.Code == tokens.CodeUnauthenticated
}

// StillIs returns nil if the caller, a service, still has access: nothing is sent to it after its token has ended here.
// It costs a lookup in memory.
func (c *Chain) StillIs(begun *Call) error {
	actor, err := c.Service.Recheck(begun, begun.Actor)
	if err != nil {
		return err
	}
	begun.Actor = actor
	return nil
}
