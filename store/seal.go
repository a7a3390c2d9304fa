package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
	"patd/tokens/secret"
)

// Sealing. Until the rows are sealed one without a checksum is accepted, for programs from before checksums write such.
// Sealing gives every row its checksum as it is then, and ends with a row in the table sealed, which keeps those
// programs out. What holds against somebody who can write to the database is the line in the key file: it alone cannot
// be taken back there.

const (
	selectSealed = `SELECT count(finish_us), count(later_us) FROM sealed`

	beginSealing  = `INSERT INTO sealed (one, begin_us) VALUES (1, ?) ON CONFLICT (one) DO NOTHING`
	finishSealing = `
INSERT INTO sealed (one, begin_us, finish_us, later_us) VALUES (1, ?1, ?1, ?1)
ON CONFLICT (one) DO UPDATE SET finish_us = coalesce(sealed.finish_us, excluded.finish_us),
  later_us = coalesce(sealed.later_us, excluded.later_us)`
)

// sealedTo reads the migration that the database says, as secret.Keys.SealedTo.
func sealedTo(one func(query string, dest []any) error) (to int, err error) {
	var first, later int64
	if err := one(selectSealed, []any{&first, &later}); err != nil || first == 0 {
		return 0, err
	}
	if later == 0 {
		return secret.SealedFirst, nil
	}
	return secret.SealedAll, nil
}

// SealRows implements tokens.KeyWriter.
func (t *tx) SealRows(now time.Time) error {
	_, err := t.exec("seal the rows", finishSealing, db.Micros(now))
	return err
}

// readSealed looks whether the database says that its rows are sealed. It is never believed that they are no more.
func (s *Store) readSealed(ctx context.Context) error {
	if s.rows.sealed.Load() >= secret.SealedAll {
		return nil
	}
	to, err := s.recordedSeal(ctx)
	for was := s.rows.sealed.Load(); err == nil && int64(to) > was; was = s.rows.sealed.Load() {
		if s.rows.sealed.CompareAndSwap(was, int64(to)) {
			break
		}
	}
	return err
}

func (s *Store) recordedSeal(ctx context.Context) (to int, err error) {
	err = s.lookup(ctx, "look whether the rows are sealed", func(ctx context.Context, c *db.Conn) (err error) {
		to, err = sealedTo(func(query string, dest []any) error { return c.One(ctx, query, dest) })
		return err
	})
	return to, err
}

// SealRecorded reports whether the database says now that all its rows are sealed.
func (s *Store) SealRecorded(ctx context.Context) (sealed bool, err error) {
	to, err := s.recordedSeal(ctx)
	return to >= secret.SealedAll, err
}

// RowsSealed reports whether every row without a checksum is refused.
func (s *Store) RowsSealed() bool { return s.rows.sealedTo() >= secret.SealedAll }

// RowsRefused counts how often a row was refused since Open, because it is not as patd wrote it.
func (s *Store) RowsRefused() uint64 { return s.rows.failed.Load() }

// UseRowKeys implements tokens.RowKeeper. Where the rows were sealed before those of later tables had checksums, those
// get theirs, unless the key file says that they have them.
func (s *Store) UseRowKeys(ctx context.Context, ks *tokens.Keys) error {
	s.rows.keys.Store(ks)
	if err := s.readSealed(ctx); err != nil {
		return err
	}
	recorded, err := s.recordedSeal(ctx)
	if err != nil || recorded >= max(ks.SealedTo(), secret.SealedAll) {
		return err
	}
	if recorded >= secret.SealedFirst && ks.SealedTo() <= recorded {
		if err := s.SealLater(ctx); err != nil { // a full disk must keep no server from starting; the next one does it
			s.options.Logger.LogAttrs(
				ctx,
				slog.LevelError,
				"store: webhooks and users of identity providers that are edited in the "+
					"database are believed until they have checksums",
				slog.Any("error", err),
			)
		}
		return nil
	}
	if ks.SealedTo() <= recorded {
		return nil
	}
	s.options.Logger.LogAttrs(
		ctx,
		slog.LevelError,
		"store: the key file says that the rows are sealed, and the database does not: "+
			"it is a backup from before, or was changed; rows without a checksum are refused; see `"+SealRows+"`",
	)
	return nil
}

// SealRows names the command that seals rows; problems that it mends say so.
const SealRows = "patd migrate --seal-rows"

// fillLimit is how many rows get a checksum in one transaction.
const fillLimit = 500

// BeginSeal keeps out programs from before checksums: from then on they open the store no more, and one that is running
// changes nothing.
func (s *Store) BeginSeal(ctx context.Context) error {
	const op = "begin to seal the rows"
	return s.transact(ctx, op, func(t *tx) error {
		_, err := t.exec(op, beginSealing, db.Micros(s.options.Now()))
		return err
	})
}

// FillChecksums gives every row without a checksum one of what it holds now, in small transactions that give way to
// changes, and returns how many rows it wrote. It can be interrupted, and called again.
func (s *Store) FillChecksums(ctx context.Context) (filled int64, err error) {
	return s.rewriteChecksums(ctx, protectedTables(), "give rows their checksums", `IS NULL`, ``)
}

// FillLaterChecksums is FillChecksums of the tables whose rows had none when those of others were sealed. Servers of
// the version before leave such rows behind.
func (s *Store) FillLaterChecksums(ctx context.Context) (filled int64, err error) {
	later := slices.DeleteFunc(protectedTables(), func(p protected) bool { return !p.later })
	return s.rewriteChecksums(ctx, later, "give rows of later tables their checksums", `IS NULL`, ``)
}

// SealLater gives the rows of later tables their checksums, and records that they have them, where the other rows are
// sealed. It can be interrupted, and called again.
func (s *Store) SealLater(ctx context.Context) error {
	const op = "seal the rows of later tables"
	if recorded, err := s.recordedSeal(ctx); err != nil || recorded != secret.SealedFirst {
		return err
	}
	if _, err := s.FillLaterChecksums(ctx); err != nil {
		return err
	}
	err := s.transact(ctx, op, func(t *tx) error {
		_, err := t.exec(op, finishSealing, db.Micros(s.options.Now()))
		return err
	})
	if err != nil {
		return err
	}
	return s.readSealed(ctx)
}

// MoveChecksums implements tokens.RowKeeper. It can be interrupted, and called again.
func (s *Store) MoveChecksums(ctx context.Context, key string) (moved int64, err error) {
	under := underKey(s.dialect, key)
	return s.rewriteChecksums(ctx, protectedTables(), "move checksums to the current key", under, `substr(`)
}

// underKey is the end of a condition that checksums are under a key, which begins with substr( and their column.
func underKey(d *db.Dialect, key string) string {
	short, long := tokens.RowKeyPrefixes(key)
	return fmt.Sprintf(`, 1, %d) IN (%s, %s)`, len(short), d.Bytes(short), d.Bytes(long))
}

// rewriteChecksums writes the checksums that a condition selects, whose column stands between two parts of it.
func (s *Store) rewriteChecksums(
	ctx context.Context,
	of []protected,
	op, condition, before string,
) (n int64, err error) {
	for _, p := range of {
		after := make([]int64, len(p.keys))
		after[0] = math.MinInt64
		which := before + `x.` + p.checksum() + ` ` + condition
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				return n, db.Fault(op, err)
			}
			var wrote int64
			next := after
			err := s.transact(ctx, op, func(t *tx) (err error) {
				next, wrote, err = t.rewriteChecksums(op, &p, which, after)
				return err
			})
			if err != nil {
				return n, err
			}
			n, after, more = n+wrote, next, next != nil
		}
	}
	return n, nil
}

// rewriteChecksums writes the checksums of the next rows after a key, of those that a condition selects. It returns the
// key of the last; nil: there are no more.
func (t *tx) rewriteChecksums(op string, p *protected, which string, after []int64) (next []int64, n int64, err error) {
	columns, places := strings.Join(p.keys, ", x."), "?1, ?2"[:len(p.keys)*4-2]
	query := p.selectRows(`(x.`+columns+`) > (`+places+`) AND `+which+` AND `+p.live,
		fmt.Sprintf(` ORDER BY x.%s LIMIT %d`, columns, fillLimit))
	args := make([]any, len(after))
	for i := range after {
		args[i] = after[i]
	}
	var found []*protectedRow
	err = t.each(op, query, func(rows *sql.Rows) error {
		r, err := p.scan(rows)
		found = append(found, r)
		return err
	}, args...)
	if err != nil || len(found) == 0 {
		return nil, 0, err
	}
	checksums := make([]any, len(found))
	for i, r := range found {
		sum, err := r.sum(nil)
		if err != nil {
			return nil, 0, t.fail(op, err)
		}
		checksums[i] = noChecksum()
		if len(r.checksum) == 0 || t.store.rows.compare(sum, r.checksum) == nil {
			if checksums[i], err = t.store.rows.checksum(sum); err != nil {
				return nil, 0, err
			}
		}
	}
	if n, err = t.writeChecksums(op, p, found, checksums); err != nil {
		return nil, 0, err
	}
	if len(found) == fillLimit {
		next = found[len(found)-1].keys
	}
	return next, n, nil
}

// writeChecksums writes the checksums of some rows: in one statement where each is a way through the network.
func (t *tx) writeChecksums(op string, p *protected, found []*protectedRow, checksums []any) (n int64, err error) {
	if !t.c.Dialect().Remote {
		statement := `UPDATE ` + p.name + fmt.Sprintf(` SET %s = ?%d WHERE `, p.checksum(), len(p.keys)+1) + p.where("")
		for i, r := range found {
			args := make([]any, 0, 3)
			for _, k := range r.keys {
				args = append(args, k)
			}
			if _, err := t.exec(op, statement, append(args, checksums[i])...); err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	}
	arrays, names := make([]any, 0, 3), make([]string, 0, 3)
	terms := make([]string, 0, 2)
	var from strings.Builder
	for c, k := range p.keys {
		list := make([]int64, len(found))
		for i, r := range found {
			list[i] = r.keys[c]
		}
		arrays, names = append(arrays, list), append(names, k)
		terms = append(terms, `x.`+k+` = v.`+k)
		fmt.Fprintf(&from, `CAST(?%d AS bigint[]), `, c+1)
	}
	list := make([][]byte, len(found))
	for i, c := range checksums {
		list[i], _ = c.([]byte)
	}
	statement := `UPDATE ` + p.name + ` AS x SET ` + p.checksum() + ` = v.checksum FROM unnest(` + from.String() +
		fmt.Sprintf(
			`CAST(?%d AS bytea[])`,
			len(names)+1,
		) + `) AS v (` + strings.Join(names, ", ") + `, checksum) WHERE ` +
		strings.Join(terms, " AND ")
	return t.exec(op, statement, append(arrays, list)...)
}

// RowsUnder implements tokens.KeyReader.
func (t *readTx) RowsUnder(key string) (n int64, err error) {
	under := underKey(t.c.Dialect(), key)
	for _, p := range protectedTables() {
		var some int64
		err := t.one("count the checksums under a key",
			`SELECT count(*) FROM `+p.name+` x WHERE `+p.live+` AND substr(x.`+p.checksum()+under, []any{&some})
		if err != nil {
			return 0, err
		}
		n += some
	}
	return n, nil
}

// checkRows looks at the checksums of all rows.
func (t *readTx) checkRows(op string, add func(string)) error {
	g := &t.store.rows
	ks := g.keys.Load()
	if ks == nil {
		return nil // there is nothing to look with
	}
	recorded, err := sealedTo(func(query string, dest []any) error { return t.one(op, query, dest) })
	if err != nil {
		return err
	}
	if ks.SealedTo() > recorded {
		add(
			"the key file says that the rows are sealed, and the database does not: it is a backup from before, or was " +
				"changed; if you vouch for what it holds, `" + SealRows + "` gives every row without a checksum one",
		)
		return nil // each row without one would be a finding
	}
	for _, p := range protectedTables() {
		found := 0
		err := t.each(op, p.selectRows(p.live, ``), func(rows *sql.Rows) error {
			r, err := p.scan(rows)
			if err != nil {
				return err
			}
			if bad := r.compare(g); bad != nil {
				if found++; found <= maxFindings {
					add(fmt.Sprintf("%s %s is refused: %s; %s", p.one, p.shown(r), bad, RefusedRemedy))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// RefusedRemedy is what to do about a row that is refused; problems that it mends say so.
const RefusedRemedy = "revoke it, or restore a backup"

// shown names a row for people.
func (p *protected) shown(r *protectedRow) string {
	if p.table == ofUser || p.table == ofWebhook || p.table == ofProvisioned {
		return fmt.Sprintf("%q", r.values[2])
	}
	return tokens.ID(r.keys[0]).String()
}
