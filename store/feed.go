package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"math"
	"time"

	"patd/tokens"
)

// keepChanges is how long entries of the change feed are kept, and the bounds of what is pruned in one go.
const (
	keepChanges = time.Hour
	pruneLimit  = 1000
)

const insertChange = `
INSERT INTO changes (seq, time_us, token_id, "user", service) VALUES (NULL /* next changes.seq */, ?, ?, ?, ?) RETURNING seq`

// change writes the entry of one event: what it names is no longer as it was.
func (t *tx) change(e tokens.Event, nowUS int64) (uint64, error) {
	const op = "write to the change feed"
	c := changeOf(e)
	seq, err := t.position(op, insertChange, nowUS, nullID(c.TokenID), nullText(c.User), nullText(c.Service))
	t.fed = true
	return uint64(seq), err
}

// changeOf is what the entry of an event names: the token, or else the user, or else the service.
func changeOf(e tokens.Event) tokens.Change {
	switch {
	case e.TokenID != 0:
		return tokens.Change{TokenID: e.TokenID}
	case e.User != "":
		return tokens.Change{User: e.User}
	default:
		return tokens.Change{Service: e.Service}
	}
}

const selectChanges = `SELECT seq, token_id, "user", service FROM changes WHERE seq > ? ORDER BY seq LIMIT ?`

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

// advance moves the sequence forward, after the commit that it stands for, and has the feed read on.
func (s *Store) advance(seq uint64, of history) {
	s.noteSequence(seq, of)
	s.feed.nudge()
}

// history numbers the histories that the change feed was seen to have: a restore or a failover can put another in the place of
// one, with smaller positions. It is guarded by Store.histories.
type history uint64

func (s *Store) historyNow() history {
	s.histories.Lock()
	defer s.histories.Unlock()
	return s.history
}

// noteSequence moves the sequence forward to a position of a history, unless another has taken its place.
func (s *Store) noteSequence(seq uint64, of history) {
	s.histories.Lock()
	defer s.histories.Unlock()
	if of == s.history && seq > s.sequence.Load() {
		s.sequence.Store(seq)
	}
}

// beginHistory takes the sequence to where another history ends, which may be back: a lookup that told a position ahead of
// it would be believed over changes to come.
func (s *Store) beginHistory(seq uint64) {
	s.histories.Lock()
	defer s.histories.Unlock()
	s.history++
	s.sequence.Store(seq)
}

// catchUp moves the sequence to the newest committed entry, whoever wrote it.
func (s *Store) catchUp(ctx context.Context) error {
	of := s.historyNow()
	var seq int64
	err := s.lookup(ctx, "read the position of the change feed", func(ctx context.Context, c *conn) error {
		return c.one(ctx, readReady, []any{&seq})
	})
	if err != nil {
		return err
	}
	s.advance(uint64(seq), of)
	return nil
}

const (
	selectEntries = `SELECT seq, time_us, token_id, "user", service FROM changes WHERE seq >= ? ORDER BY seq LIMIT ?`

	selectNewestEntries = `SELECT seq, time_us, token_id, "user", service FROM changes ORDER BY seq DESC LIMIT ?`
)

// entry is an entry of the change feed. Its mark tells it from one at the same position of another history, as after a
// restore.
type entry struct {
	tokens.Change
	mark      uint64
	startOver bool // whatever is remembered does not count: see insertStartOver
}

// entries reads the feed: at most limit entries from a position on, oldest first.
func (s *Store) entries(ctx context.Context, from uint64, limit int) ([]entry, error) {
	return s.readEntries(ctx, selectEntries, int64(min(from, math.MaxInt64)), limit)
}

// newestEntries reads the end of the feed, newest first.
func (s *Store) newestEntries(ctx context.Context, limit int) ([]entry, error) {
	return s.readEntries(ctx, selectNewestEntries, limit)
}

func (s *Store) readEntries(ctx context.Context, query string, args ...any) ([]entry, error) {
	var list []entry
	within := context.WithoutCancel(ctx)
	err := s.newsPool().use(ctx, func(c *conn) error {
		list = nil
		return c.each(within, query, func(rows *sql.Rows) error {
			var seq, us int64
			var id sql.NullInt64
			var user, service sql.NullString
			err := rows.Scan(&seq, &us, &id, &user, &service)
			e := entry{Change: tokens.Change{Seq: uint64(seq), TokenID: tokens.ID(id.Int64), User: user.String, Service: service.String}}
			e.mark = mark(us, e.Change)
			e.startOver = user.Valid && user.String == ""
			list = append(list, e)
			return err
		}, args...)
	})
	if err != nil {
		return nil, fault("read the change feed", err)
	}
	return list, nil
}

// newsPool is where the feed is read.
func (s *Store) newsPool() *pool {
	if s.news != nil {
		return s.news
	}
	return s.lookups
}

// mark is a hash of an entry, never 0.
func mark(us int64, c tokens.Change) uint64 {
	h := fnv.New64a()
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(us))
	binary.BigEndian.PutUint64(b[8:], uint64(c.TokenID))
	_, _ = h.Write(b[:])
	_, _ = io.WriteString(h, c.User+"\x00"+c.Service)
	return max(h.Sum64(), 1)
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

// prune drops what is no longer needed, a bounded number, and touches the writer only when there is any.
func (s *Store) prune(ctx context.Context) error {
	return errors.Join(s.pruneFeed(ctx), s.pruneGrants(ctx), s.pruneOldRates(ctx))
}

// pruneFeed drops old entries of the change feed and expired idempotent requests.
func (s *Store) pruneFeed(ctx context.Context) error {
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
