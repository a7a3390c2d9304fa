package store

import (
	"context"
	"database/sql"
	"math"
	"time"

	"patd/tokens"
)

// keepChanges is how long entries of the change feed are kept, and the bounds of what is pruned in one go.
const (
	keepChanges = time.Hour
	pruneLimit  = 1000
)

const insertChange = `INSERT INTO changes (time_us, token_id, user, service) VALUES (?, ?, ?, ?)`

// change writes the entry of one event: what it names is no longer as it was.
func (t *tx) change(e tokens.Event, nowUS int64) (uint64, error) {
	const op = "write to the change feed"
	var id, user, service any
	switch {
	case e.TokenID != 0:
		id = int64(e.TokenID)
	case e.User != "":
		user = e.User
	case e.Service != "":
		service = e.Service
	}
	r, err := t.run(op, insertChange, nowUS, id, user, service)
	if err != nil {
		return 0, err
	}
	seq, err := r.LastInsertId()
	if err != nil {
		return 0, t.fail(op, err)
	}
	return uint64(seq), nil
}

const selectChanges = `SELECT seq, token_id, user, service FROM changes WHERE seq > ? ORDER BY seq LIMIT ?`

// Changes implements tokens.LogReader.
func (t *readTx) Changes(after uint64, limit int) ([]tokens.Change, error) {
	list := []tokens.Change{}
	err := t.each("read the change feed", selectChanges, func(rows *sql.Rows) error {
		var seq int64
		var id sql.NullInt64
		var user, service sql.NullString
		err := rows.Scan(&seq, &id, &user, &service)
		list = append(list, tokens.Change{Seq: uint64(seq), TokenID: tokens.ID(id.Int64), User: user.String, Service: service.String})
		return err
	}, int64(min(after, math.MaxInt64)), limit)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Sequence is a position in the change feed: everything up to it is on disk and seen by every read that begins from
// now on. It may be behind what another process wrote, never ahead of what a reader sees.
func (s *Store) Sequence() uint64 { return s.sequence.Load() }

// advance moves the sequence forward, after the commit that it stands for.
func (s *Store) advance(seq uint64) {
	for {
		have := s.sequence.Load()
		if seq <= have || s.sequence.CompareAndSwap(have, seq) {
			return
		}
	}
}

const selectSequence = `SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)`

// catchUp moves the sequence to the newest committed entry, whoever wrote it.
func (s *Store) catchUp(ctx context.Context) error {
	var seq int64
	err := s.lookup(ctx, "read the position of the change feed", func(ctx context.Context, c *conn) error {
		return c.one(ctx, selectSequence, []any{&seq})
	})
	if err != nil {
		return err
	}
	s.advance(uint64(seq))
	return nil
}

const (
	hasPrunable = `
SELECT EXISTS (SELECT 1 FROM changes WHERE seq = (SELECT min(seq) FROM changes) AND time_us < ?1 AND seq < (SELECT max(seq) FROM changes))
    OR EXISTS (SELECT 1 FROM requests WHERE expire_us <= ?2)`

	// The newest entry stays, so that a position can always be told from one of another history.
	pruneChanges = `
DELETE FROM changes WHERE seq IN (SELECT seq FROM changes ORDER BY seq LIMIT ?2) AND time_us < ?1
   AND seq < (SELECT max(seq) FROM changes)`

	pruneRequests = `
DELETE FROM requests WHERE key IN (SELECT key FROM requests WHERE expire_us <= ?1 ORDER BY expire_us LIMIT ?2)`
)

// prune drops old entries of the change feed and expired idempotent requests, a bounded number, and touches the
// writer only when there are any.
func (s *Store) prune(ctx context.Context) error {
	const op = "prune the change feed and expired requests"
	now := s.options.Now()
	before, expired := micros(now.Add(-keepChanges)), micros(now)
	var due bool
	err := s.lookup(ctx, op, func(ctx context.Context, c *conn) error {
		return c.one(ctx, hasPrunable, []any{&due}, before, expired)
	})
	if err != nil || !due {
		return err
	}
	return s.transact(ctx, op, func(t *tx) error {
		if _, err := t.exec(op, pruneChanges, before, pruneLimit); err != nil {
			return err
		}
		_, err := t.exec(op, pruneRequests, expired, pruneLimit)
		return err
	})
}
