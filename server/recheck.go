package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"patd/tokens"
)

// recheckEvery is how often the caller of a stream has to show to be who it was.
const recheckEvery = time.Second

// recheck finds out whether a stream's caller is still who it was and may still do what it does. That nobody can tell ends
// nothing: what is asked on the stream meanwhile cannot be answered out of the same store either.
func (c *chain) recheck(begun *call, was tokens.Actor) (tokens.Actor, error) {
	ctx, cancel := context.WithTimeout(begun, c.timeout)
	defer cancel()
	actor, err := c.service.Recheck(ctx, was)
	switch {
	case callerEnded(err):
		return was, err
	case err != nil:
		c.logger.LogAttrs(begun, slog.LevelDebug, "the caller of a stream could not be checked again",
			slog.String("request_id", begun.requestID()), slog.String("cause", logText(err.Error())))
		return was, nil
	case !begun.method.allows(actor):
		return was, denied(begun.method.right, actor)
	}
	return actor, nil
}

// callerEnded reports whether a caller was found to be let in no more, and not merely could not be looked at.
func callerEnded(err error) bool {
	var e *tokens.Error
	return errors.As(err, &e) && e.Code == tokens.CodeUnauthenticated
}

// stillIs returns nil if the caller, a service, is still let in: nothing is sent to it after its token has ended here. It costs
// a lookup in memory.
func (c *chain) stillIs(begun *call) error {
	actor, err := c.service.Recheck(begun, begun.actor)
	if err != nil {
		return err
	}
	begun.actor = actor
	return nil
}
