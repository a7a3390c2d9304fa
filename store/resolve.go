package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// How long it is tried to find out whether a commit that was cut off happened, and the first pause between two tries.
const (
	resolveWithin = 6 * time.Second
	resolvePause  = 20 * time.Millisecond
)

// proof is an audit event that shows that a transaction happened: the last that it wrote. Events are not deleted for a
// minute at least. One of the same position in another history, as after a failover to a server that missed the
// transaction, is of another moment.
type proof struct {
	seq   int64
	event tokens.Event
}

const selectProof = `
SELECT count(*) FROM events WHERE seq = ? AND time_us = ? AND actor = ? AND action = ? AND coalesce(token_id, 0) = ?
  AND coalesce("user", '') = ?`

// resolveCommit finds out whether a commit happened in the middle of which the connection broke. The server may not
// have noticed that yet and still be at it; so the proof is looked for in a transaction that begins when no other is
// open. Where there is no proof there is no event, and so only housekeeping, which can be done twice.
func (b *batch) resolveCommit(cause error) {
	if b.proof.seq == 0 {
		b.lose(cause)
		return
	}
	_ = b.c.Discard() // there is one connection for the writer
	ctx, cancel := context.WithTimeout(context.Background(), resolveWithin)
	defer cancel()
	pause := resolvePause
	for {
		happened, err := b.group.happened(ctx, b.proof)
		switch {
		case err == nil && happened:
			return
		case err == nil:
			b.lose(cause)
			return
		}
		select {
		case <-ctx.Done():
			b.err = fmt.Errorf("%w: %w: %w", db.ErrUnknownOutcome, cause, err)
			return
		case <-time.After(pause/2 + rand.N(pause)):
			pause = min(2*pause, time.Second)
		}
	}
}

// happened looks for the proof of a transaction, on a connection of its own.
func (g *group) happened(ctx context.Context, p proof) (bool, error) {
	c, err := g.writer.Fresh(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		c.Rollback()
		_ = c.Discard()
	}()
	if err := c.ExecAll(ctx, c.Dialect().BeginWrite); err != nil {
		return false, err
	}
	var n int64
	e := p.event
	err = c.One(ctx, selectProof, []any{&n}, p.seq, db.Micros(e.Time), e.Actor, string(e.Action), int64(e.TokenID),
		e.User)
	return n > 0, err
}
