package call

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"patd/tokens"
)

// RecheckEvery is how often the caller of a stream has to show to be who it was.
const RecheckEvery = time.Second

// Recheck finds out whether a stream's caller is still who it was and may still do what it does. That nobody can tell ends
// nothing: what is asked on the stream meanwhile cannot be answered out of the same store either.
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

// CallerEnded reports whether a caller was found to be let in no more, and not merely could not be looked at.
func CallerEnded(err error) bool {
	var e *tokens.Error
	return errors.As(err, &e) && e.Code == tokens.CodeUnauthenticated
}

// StillIs returns nil if the caller, a service, is still let in: nothing is sent to it after its token has ended here. It costs
// a lookup in memory.
func (c *Chain) StillIs(begun *Call) error {
	actor, err := c.Service.Recheck(begun, begun.Actor)
	if err != nil {
		return err
	}
	begun.Actor = actor
	return nil
}
