package store

import (
	"context"
	"database/sql"
	"math"
	"time"

	"patd/store/feed"
	"patd/store/internal/db"
	"patd/tokens"
)

// keepChanges is how long entries of the change feed are kept.
const keepChanges = time.Hour

const insertChange = `
INSERT INTO changes (seq, time_us, token_id, "user", service)
VALUES (NULL /* next changes.seq */, ?, ?, ?, ?) RETURNING seq`

// change writes the entry of one event: what it names is no longer as it was. It sets seq to its position.
func (t *tx) change(e tokens.Event, nowUS int64, seq *uint64) error {
	const op = "write to the change feed"
	c := feed.ChangeOf(e)
	args := []any{nowUS, db.NullID(c.TokenID), db.NullText(c.User), db.NullText(c.Service)}
	t.fed = true
	if t.failed == nil && t.aside != nil {
		t.aside.add(t, &row{op: op, in: &addChanges, seq: seq}, args)
		return nil
	}
	at, err := t.position(op, insertChange, args...)
	*seq = uint64(at)
	return err
}

// Sequence is a position in the change feed: everything up to it is on disk and seen by every read that begins from
// now on. It may be behind what another process wrote, never ahead of what a reader sees.
func (s *Store) Sequence() uint64 { return s.feed.Sequence() }

// Feed returns the store's change feed. It is followed from the first call on, until the store is closed.
func (s *Store) Feed() *feed.Feed {
	s.followOnce.Do(func() {
		s.followed.Store(true)
		// The first reading is made here, so that there is a position when this returns; if it fails, the next is in a
		// moment.
		_ = s.feed.CatchUp(s.loopCtx, 0)
		s.loop.Go(func() { s.feed.Follow(s.loopCtx) })
		if s.dialect.Remote {
			s.loop.Go(func() { db.Listen(s.loopCtx, s.config, s.options.settings(), s.feed.NudgeFromOutside) })
		}
	})
	return s.feed
}

// catchUp moves the sequence to the newest committed entry, whoever wrote it.
func (s *Store) catchUp(ctx context.Context) error {
	of := s.feed.History()
	var seq int64
	err := s.lookup(ctx, "read the position of the change feed", func(ctx context.Context, c *db.Conn) error {
		return c.One(ctx, readReady, []any{&seq})
	})
	if err != nil {
		return err
	}
	s.feed.Advance(uint64(seq), of)
	return nil
}

const (
	selectEntries = `SELECT seq, time_us, token_id, "user", service FROM changes WHERE seq >= ? ORDER BY seq LIMIT ?`

	selectNewestEntries = `SELECT seq, time_us, token_id, "user", service FROM changes ORDER BY seq DESC LIMIT ?`

	// The same for one of the servers, which looks for its row at the same moment.
	selectServerEntries = `SELECT seq, time_us, token_id, "user", service, ` + serverTag + `
FROM changes WHERE seq >= ?2 ORDER BY seq LIMIT ?3`

	selectServerNewestEntries = `SELECT seq, time_us, token_id, "user", service, ` + serverTag + `
FROM changes ORDER BY seq DESC LIMIT ?2`
)

// changes are the tables that the feed reads.
type changes struct{ *Store }

var _ feed.Source = changes{}

// Entries implements feed.Source.
func (s changes) Entries(ctx context.Context, from uint64, limit int) ([]feed.Entry, error) {
	return s.entries(ctx, selectEntries, selectServerEntries, int64(min(from, math.MaxInt64)), limit)
}

// NewestEntries implements feed.Source.
func (s changes) NewestEntries(ctx context.Context, limit int) ([]feed.Entry, error) {
	return s.entries(ctx, selectNewestEntries, selectServerNewestEntries, limit)
}

// entries reads entries. As one of the servers it reads with the second query; an error says that the process is none
// any more, and what it reads renews no trust.
func (s changes) entries(ctx context.Context, query, asServer string, args ...any) ([]feed.Entry, error) {
	if s.options.beforeFeed != nil {
		if err := s.options.beforeFeed(ctx); err != nil {
			return nil, err
		}
	}
	var id string
	var err error
	m := s.member.Load()
	if m != nil {
		if id, err = m.current(); err != nil {
			return nil, db.Fault("read the change feed", err)
		}
		query, args = asServer, append([]any{id}, args...)
	}
	var list []feed.Entry
	var tag sql.NullInt64
	within := context.WithoutCancel(ctx)
	err = s.newsPool().Use(ctx, func(c *db.Conn) error {
		list = nil
		err := c.Each(within, query, func(rows *sql.Rows) error {
			var seq, us int64
			var id sql.NullInt64
			var user, service sql.NullString
			dest := []any{&seq, &us, &id, &user, &service}
			if m != nil {
				dest = append(dest, &tag)
			}
			err := rows.Scan(dest...)
			e := feed.Entry{Change: tokens.Change{
				Seq: uint64(seq), TokenID: tokens.ID(id.Int64), User: user.String, Service: service.String,
			}}
			e.Mark = feed.Mark(us, e.Change)
			e.StartOver = user.Valid && user.String == "" // see insertStartOver
			list = append(list, e)
			return err
		}, args...)
		if err == nil && m != nil && len(list) == 0 {
			return c.One(within, selectServerTag, []any{&tag}, id)
		}
		return err
	})
	if err == nil && m != nil {
		err = m.noted(ctx, id, tag)
	}
	if err != nil {
		return nil, db.Fault("read the change feed", err)
	}
	return list, nil
}

// selectHeads also reports whether the audit log has had a change since a position: refused attempts have no entry in
// the feed.
const selectHeads = `
SELECT coalesce((SELECT max(seq) FROM events), 0), EXISTS (SELECT 1 FROM events WHERE seq > ? AND outcome = 1),
  coalesce((SELECT max(seq) FROM changes), 0)`

// Heads implements feed.Source.
func (s changes) Heads(ctx context.Context, after int64) (now feed.Heads, err error) {
	within := context.WithoutCancel(ctx)
	err = s.newsPool().Use(ctx, func(c *db.Conn) error {
		return c.One(within, selectHeads, []any{&now.Event, &now.Changed, &now.Change}, after)
	})
	if err != nil {
		return feed.Heads{}, db.Fault("compare the change feed with the audit log", err)
	}
	return now, nil
}

// newsPool is where the feed is read.
func (s changes) newsPool() *db.Pool {
	if s.news != nil {
		return s.news
	}
	return s.lookups
}

const (
	hasPrunableChanges = `
SELECT EXISTS (SELECT 1 FROM changes
               WHERE seq = (SELECT min(seq) FROM changes) AND time_us < ?1 AND seq < (SELECT max(seq) FROM changes))`

	// The newest entry stays, so that a position of another history can always be recognized.
	pruneChanges = `
DELETE FROM changes WHERE seq IN (SELECT seq FROM changes ORDER BY seq LIMIT ?2) AND time_us < ?1
   AND seq < (SELECT max(seq) FROM changes)`

	hasPrunableRequests = `SELECT EXISTS (SELECT 1 FROM requests WHERE expire_us <= ?1)`

	pruneRequests = `
DELETE FROM requests WHERE key IN (SELECT key FROM requests WHERE expire_us <= ?1 ORDER BY expire_us LIMIT ?2)`
)
