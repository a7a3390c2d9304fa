package store

import (
	"context"
	"database/sql"
	"math"
	"time"

	"patd/store/internal/db"
)

// The generic cell rate algorithm (ITU-T I.371) in one statement, by the database's clock: full_us is when the whole
// burst is there again, and one taken moves it on by the interval, as long as it is no further away than a burst less
// one. Where nothing is left no row is written, and none comes back. One further away than that is from before the
// clock was set back, and counts no more.
const (
	spendRate = `
INSERT INTO rates AS r (name, full_us) VALUES (?1, ` + databaseNow + ` + CAST(?2 AS bigint))
ON CONFLICT (name) DO UPDATE
  SET full_us = CASE WHEN r.full_us > ` + databaseNow + ` + CAST(?2 AS bigint) + CAST(?3 AS bigint)
  THEN ` + databaseNow + `
  ELSE greatest(r.full_us, ` + databaseNow + `) END + CAST(?2 AS bigint)
WHERE r.full_us - ` + databaseNow + ` <= CAST(?3 AS bigint)
  OR r.full_us - ` + databaseNow + ` > CAST(?2 AS bigint) + CAST(?3 AS bigint)
RETURNING full_us`

	waitRate = `SELECT full_us - CAST(?2 AS bigint) - ` + databaseNow + ` FROM rates WHERE name = ?1`

	pruneRates = `DELETE FROM rates WHERE name IN (SELECT name FROM rates WHERE full_us < ` + databaseNow +
		` LIMIT ? FOR UPDATE SKIP LOCKED)`

	databaseNow = `CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)`
)

// Spend takes one of what a name may do: at most burst at once, and rate each second over time, whichever process on
// the store it is. Otherwise it returns how long until there is one. It is for a store in PostgreSQL, see Shared.
func (s *Store) Spend(ctx context.Context, name string, rate float64, burst int) (ok bool, after time.Duration,
	err error) {
	const op = "count what is limited"
	interval := int64(max(math.Ceil(1e6/rate), 1))
	slack := interval * int64(burst-1)
	err = s.lookup(ctx, op, func(ctx context.Context, c *db.Conn) error {
		ok = false
		err := c.Each(ctx, spendRate, func(*sql.Rows) error { ok = true; return nil }, name, interval, slack)
		if err != nil || ok {
			return err
		}
		var us int64
		err = c.One(ctx, waitRate, []any{&us}, name, slack)
		after = max(time.Duration(us)*time.Microsecond, time.Millisecond)
		return err
	})
	return ok, after, err
}

// Shared reports whether other processes may serve the same store.
func (s *Store) Shared() bool { return s.dialect.Remote }

// pruneOldRates drops what counts no more.
func (s *Store) pruneOldRates(ctx context.Context) error {
	if !s.Shared() {
		return nil
	}
	return s.lookup(ctx, "prune what is limited", func(ctx context.Context, c *db.Conn) error {
		_, err := c.Exec(ctx, pruneRates, pruneLimit)
		return err
	})
}
