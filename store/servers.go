package store

import (
	"context"
	crypto "crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// A server of the store has a row in the table servers from before it first reads the change feed. A reading of the
// feed counts only if its statement finds the row too, and not ended: so a server that another has counted as gone
// trusts nothing that it reads from then on, until it has added another row. The order is what receipts rest on: who
// reads the table after a change was committed, and does not find a server, knows that its next reading has the change.

const (
	insertServer = `
INSERT INTO servers (id, name, version, begin_us, ask, answers, tag) VALUES (?1, ?2, ?3, ?4, ?5, '', ?6)
ON CONFLICT (id) DO NOTHING`

	// serverTag is of a reading of the change feed: NULL where the server is not there, or has ended. Otherwise it is
	// another when the table has changed.
	serverTag = `CASE WHEN EXISTS (SELECT 1 FROM servers WHERE id = ?1 AND left_us IS NULL AND gone_us IS NULL)
  THEN (SELECT CAST(sum(tag) AS bigint) FROM servers) END`

	selectServerTag = `SELECT ` + serverTag

	selectServers = `
SELECT id, name, version, left_us IS NOT NULL, gone_us IS NOT NULL, ask, answers FROM servers ORDER BY begin_us, id`

	// selectPrograms are the versions of patd that have connections. Copies are made by programs that serve nothing.
	selectPrograms = `
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'patd%' AND application_name <> 'patd copy'`

	updateAsk = `
UPDATE servers SET ask = ?2, tag = ?3 WHERE id = ?1 AND left_us IS NULL AND gone_us IS NULL`

	updateAnswers = `
UPDATE servers SET answers = ?2, tag = ?3 WHERE id = ?1 AND left_us IS NULL AND gone_us IS NULL`

	endServer = `
UPDATE servers SET gone_us = ?2, tag = ?3 WHERE id = ?1 AND left_us IS NULL AND gone_us IS NULL`

	leaveServers = `
UPDATE servers SET left_us = ?2, tag = ?3 WHERE id = ?1 AND left_us IS NULL AND gone_us IS NULL`

	forgetServer = `DELETE FROM servers WHERE id = ?1 AND (left_us IS NOT NULL OR gone_us IS NOT NULL)`

	// A server that is started again and again, and never lives long enough to count the one before as gone, leaves no
	// more rows than these. To count one as gone is never wrong.
	endExcess = `
UPDATE servers SET gone_us = ?1, tag = ?2 WHERE left_us IS NULL AND gone_us IS NULL AND id NOT IN
  (SELECT id FROM servers WHERE left_us IS NULL AND gone_us IS NULL ORDER BY begin_us DESC LIMIT ?3)`

	forgetExcess = `
DELETE FROM servers WHERE coalesce(left_us, gone_us) < ?1 AND (SELECT count(*) FROM servers) > CAST(?2 AS bigint)`
)

const (
	// maxServers is how many rows may stay of servers that have not ended.
	maxServers = 256
	// forgetAfter is how long rows beyond that are kept once they have ended, by the clock.
	forgetAfter = time.Hour
	// joinAgain is the pause between two attempts to add the row.
	joinAgain = time.Second
	// maxTag bounds the tags, so that their sum is one too.
	maxTag = 1 << 48
)

var (
	errNotServing = errors.New("this server is not in the table of servers")
	errFollowed   = errors.New("a server joins the others before it reads the change feed")
)

// Membership is this process's place among the servers of the store. It implements tokens.Servers.
type Membership struct {
	store *Store
	name  string
	wake  chan struct{} // a level: there is no row

	mu      sync.Mutex
	id      string // of the row; empty: there is none, or it has ended
	mine    map[string]bool
	asked   uint64
	answers map[string]uint64 // of the row
	tag     int64             // when the feed was last read
	changed chan struct{}
}

var _ tokens.Servers = (*Membership)(nil)

// Join makes this process a server of the store, before its change feed is read: from then on memory counts while the
// others know of it. If its row cannot be written now, that is tried again and again; until then memory does not count.
// Name is for people. Close leaves.
func (s *Store) Join(ctx context.Context, name string) (*Membership, error) {
	m := &Membership{
		store: s, name: name, wake: make(chan struct{}, 1), mine: map[string]bool{},
		answers: map[string]uint64{}, changed: make(chan struct{}),
	}
	if s.followed.Load() || !s.member.CompareAndSwap(nil, m) {
		return nil, errFollowed
	}
	if err := m.join(ctx); err != nil {
		s.options.Logger.LogAttrs(ctx, slog.LevelWarn,
			"store: this server cannot be added to the servers of the store; memory is not used until it is",
			slog.Any("error", err))
		m.wake <- struct{}{}
	}
	s.loop.Go(func() { m.keep(s.loopCtx) })
	return m, nil
}

// keep adds the row anew when it is not there.
func (m *Membership) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
		for m.join(ctx) != nil {
			pause := time.NewTimer(joinAgain)
			select {
			case <-ctx.Done():
				pause.Stop()
				return
			case <-pause.C:
			}
		}
		m.store.feed.Nudge()
	}
}

// join adds a row of a new id.
func (m *Membership) join(ctx context.Context) error {
	const op = "add this server to those of the store"
	now := m.store.options.Now()
	id, us, version := crypto.Text(), db.Micros(now), m.store.options.Version
	m.mu.Lock()
	asked := m.asked // a request that the row before made is made again: its answers are to that row
	m.mu.Unlock()
	_, err := m.write(ctx, op, asked > 0, insertServer, id, m.name, version, us, int64(asked), newTag())
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.id, m.mine[id], m.answers = id, true, map[string]uint64{}
	m.announce()
	m.mu.Unlock()
	_, err = m.write(ctx, op, false, endExcess, us, newTag(), maxServers)
	if err == nil {
		_, err = m.write(ctx, op, false, forgetExcess, db.Micros(now.Add(-forgetAfter)), 2*maxServers)
	}
	if err != nil { // the next that joins does it
		m.store.options.Logger.LogAttrs(ctx, slog.LevelDebug, "store: rows of servers are left", slog.Any("error", err))
	}
	return nil
}

// leave marks the row as left, after the last call was answered.
func (m *Membership) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.store.options.BusyTimeout)
	defer cancel()
	if id, err := m.current(); err == nil {
		_, err := m.write(ctx, "leave the servers of the store", true, leaveServers, id,
			db.Micros(m.store.options.Now()), newTag())
		if err != nil { // the others find out
			m.store.options.Logger.LogAttrs(ctx, slog.LevelWarn,
				"store: this server could not be taken from the servers of the store", slog.Any("error", err))
		}
	}
}

// current returns the id of the row.
func (m *Membership) current() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == "" {
		return "", errNotServing
	}
	return m.id, nil
}

// noted takes note of what a reading of the feed found. Its error says that the reading does not count.
func (m *Membership) noted(ctx context.Context, id string, tag sql.NullInt64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case id != m.id:
		return errNotServing
	case !tag.Valid:
		m.id = ""
		m.store.options.Logger.LogAttrs(ctx, slog.LevelWarn,
			"store: other servers have counted this one as gone, since it did not answer; it joins them again")
		select {
		case m.wake <- struct{}{}:
		default:
		}
		return errNotServing
	case tag.Int64 != m.tag:
		m.tag = tag.Int64
		m.announce()
	}
	return nil
}

// announce closes what Changed has returned. The caller has the lock.
func (m *Membership) announce() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Changed implements tokens.Servers.
func (m *Membership) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// write runs a statement that writes. With notify the others look at the table soon, where the database can tell them.
func (m *Membership) write(
	ctx context.Context,
	op string,
	notify bool,
	query string,
	args ...any,
) (n int64, err error) {
	s := m.store
	if !s.dialect.Remote {
		err = s.group.do(ctx, op, false, func(t *tx) error {
			t.ends = true // nothing is given by it, and it may use the disk's reserve
			n, err = t.exec(op, query, args...)
			return err
		})
		return n, err
	}
	// No position is taken, so that it need not wait for other writers.
	err = s.lookup(ctx, op, func(ctx context.Context, c *db.Conn) error {
		list := []*db.Statement{{Query: query, Args: args}}
		if notify {
			list = append(list, &db.Statement{Query: s.dialect.Announce})
		}
		err := c.Pipeline(ctx, list)
		n = list[0].Rows
		return err
	})
	return n, err
}

// Others implements tokens.Servers.
func (m *Membership) Others(ctx context.Context) (list []tokens.StoreServer, err error) {
	const op = "read the servers of the store"
	m.mu.Lock()
	own, mine, answered := m.id, maps.Clone(m.mine), maps.Clone(m.answers)
	m.mu.Unlock()
	if own == "" {
		return nil, db.Fault(op, errNotServing) // which answers are its own is not known
	}
	var versions, found map[string]bool
	err = m.store.lookup(ctx, op, func(ctx context.Context, c *db.Conn) error {
		list, versions, found = nil, map[string]bool{m.store.options.Version: true}, map[string]bool{}
		err := c.Each(ctx, selectServers, func(rows *sql.Rows) error {
			var one tokens.StoreServer
			var version, answers string
			var gone bool
			var asks int64
			err := rows.Scan(&one.ID, &one.Name, &version, &one.Left, &gone, &asks, &answers)
			versions[version], found[one.ID] = true, true
			if mine[one.ID] {
				return err
			}
			one.Ended, one.Asks, one.Answered = one.Left || gone, uint64(asks), answered[one.ID]
			one.Answers = answerTo(answers, own)
			list = append(list, one)
			return err
		})
		if err != nil || !c.Dialect().Remote {
			return err
		}
		return c.Each(ctx, selectPrograms, func(rows *sql.Rows) error {
			var name string
			err := rows.Scan(&name)
			if !versions[versionIn(name)] {
				list = append(list, tokens.StoreServer{ID: name, Name: name, Unknown: true})
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.answers, func(id string, _ uint64) bool { return !found[id] })
	return list, nil
}

// Ask implements tokens.Servers.
func (m *Membership) Ask(ctx context.Context) (uint64, error) {
	m.mu.Lock()
	id := m.id
	m.asked++
	number := m.asked
	m.mu.Unlock()
	if id == "" {
		return 0, errNotServing
	}
	return number, m.update(ctx, id, updateAsk, int64(number))
}

// Answer implements tokens.Servers.
func (m *Membership) Answer(ctx context.Context, upTo map[string]uint64) error {
	m.mu.Lock()
	id, answers := m.id, maps.Clone(m.answers)
	m.mu.Unlock()
	if id == "" {
		return errNotServing
	}
	for to, number := range upTo {
		answers[to] = max(answers[to], number)
	}
	if err := m.update(ctx, id, updateAnswers, answersText(answers)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == id {
		m.answers = answers
	}
	return nil
}

// update changes the row; an error that it is not there is known soon by the feed too.
func (m *Membership) update(ctx context.Context, id, query string, value any) error {
	n, err := m.write(ctx, "change this server's row", true, query, id, value, newTag())
	if err == nil && n == 0 {
		return errNotServing
	}
	return err
}

// End implements tokens.Servers.
func (m *Membership) End(ctx context.Context, gone, forget []string) error {
	const op = "end what is known of a server"
	for _, id := range gone {
		if _, err := m.write(ctx, op, true, endServer, id, db.Micros(m.store.options.Now()), newTag()); err != nil {
			return err
		}
	}
	for _, id := range forget {
		if _, err := m.write(ctx, op, false, forgetServer, id); err != nil {
			return err
		}
	}
	return nil
}

func newTag() int64 { return rand.Int64N(maxTag) } //nolint:gosec // G404: any will do

// answersText is the stored form of answers: lines of an id and a number.
func answersText(answers map[string]uint64) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(answers)) {
		b.WriteString(id + " " + strconv.FormatUint(answers[id], 10) + "\n")
	}
	return b.String()
}

// answerTo reads the answer to a server; 0: there is none.
func answerTo(text, id string) uint64 {
	for line := range strings.Lines(text) {
		to, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if to == id && id != "" {
			n, _ := strconv.ParseUint(number, 10, 64) // 0 is no answer
			return n
		}
	}
	return 0
}
