package store

import (
	"context"
	"database/sql"
	"math"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// The audit log is shortened in two steps. A change releases the oldest events, up to a position, and has its own
// event. What is released is deleted afterwards, some at a time, by any server; triggers hold that nothing else is. The
// event of the release is above what it releases, so the newest position of the log never goes down.

const (
	selectReleased = `SELECT coalesce(max(seq), 0), coalesce(max(before_us), 0) FROM released`

	selectOldestEvents = eventColumns + `
WHERE seq > ? ORDER BY seq LIMIT ?`

	// A release begins where the one before ended, so that two at once do not count the same events.
	release = `
INSERT INTO released (one, seq, before_us)
SELECT 1, CAST(?2 AS BIGINT), CAST(?3 AS BIGINT) WHERE CAST(?1 AS BIGINT) = (SELECT coalesce(max(seq), 0) FROM released)
ON CONFLICT (one) DO UPDATE SET seq = excluded.seq,
  before_us = CASE WHEN excluded.before_us > released.before_us THEN excluded.before_us ELSE released.before_us END`

	hasReleased = `
SELECT EXISTS (SELECT 1 FROM events WHERE seq <= (SELECT coalesce(max(seq), 0) FROM released))`

	deleteReleased = `
DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq <= (SELECT coalesce(max(seq), 0) FROM released)
  ORDER BY seq LIMIT ?)`
)

// Released implements tokens.LogReader.
func (t *readTx) Released() (seq uint64, before time.Time, err error) {
	var at, us int64
	if err := t.one("read what of the audit log is released", selectReleased, []any{&at, &us}); err != nil {
		return 0, time.Time{}, err
	}
	if at == 0 {
		return 0, time.Time{}, nil
	}
	return uint64(at), db.Instant(us), nil
}

// OldestEvents implements tokens.LogReader.
func (t *readTx) OldestEvents(after uint64, limit int) ([]tokens.Event, error) {
	events := []tokens.Event{}
	err := t.each("read the oldest audit events", selectOldestEvents, func(rows *sql.Rows) error {
		e, err := scanEvent(rows)
		events = append(events, e)
		return err
	}, int64(min(after, math.MaxInt64)), limit)
	if err != nil {
		return nil, err
	}
	return events, nil
}

// ReleaseEvents implements tokens.LogWriter.
func (t *tx) ReleaseEvents(after, upTo uint64, before time.Time) error {
	return t.mustExec("release audit events", tokens.ErrTaken, release, int64(after), int64(upTo), db.Micros(before))
}

// DeleteReleased deletes what of the audit log is released, up to limit events (0: all), in small transactions that
// give way to changes, and returns how many it deleted. What it does not come to is deleted by the next call, or by a
// server on this store within seconds.
func (s *Store) DeleteReleased(ctx context.Context, limit int64) (deleted int64, err error) {
	const op = "delete released audit events"
	for limit <= 0 || deleted < limit {
		due, err := s.due(ctx, op, hasReleased)
		if err != nil || !due {
			return deleted, err
		}
		var n int64
		err = s.transact(ctx, op, func(t *tx) error {
			t.ends = true
			n, err = t.exec(op, deleteReleased, pruneLimit)
			return err
		})
		if err != nil || n == 0 {
			return deleted, err
		}
		s.deletedEvents.Add(uint64(n))
		deleted += n
	}
	return deleted, nil
}

// pruneEvents deletes some of what is released.
func (s *Store) pruneEvents(ctx context.Context) error {
	_, err := s.DeleteReleased(ctx, pruneRounds*pruneLimit)
	return err
}

// EventsDeleted returns how many events of the audit log this Store has deleted.
func (s *Store) EventsDeleted() uint64 { return s.deletedEvents.Load() }
