package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"patd/store/internal/db"
	"patd/store/usage"
	"patd/tokens"
	"patd/tokens/secret"
)

// promptly is how soon a digest that moves is written: a retiring key should go, but not with a transaction for each.
const promptly = 50 * time.Millisecond

// RecordUse implements tokens.Store.
func (s *Store) RecordUse(u tokens.Usage) {
	if u.Kind == 0 {
		u.Kind = secret.KindPersonal
	}
	if usage.IsUse(u) {
		s.uses.Record(u.ID, usage.Of(u.Use))
		if d := usage.DetailOf(u); d != nil {
			s.uses.RecordDetail(u.ID, *d)
		}
	}
	if u.Rekey != nil {
		s.uses.Rekey(usage.Credential{ID: u.ID, Kind: u.Kind}, *u.Rekey)
	}
}

// Uses returns the buffer of recorded uses.
func (s *Store) Uses() *usage.Buffer { return s.uses }

// UsesDropped counts what RecordUse had no room for since Open, because too much was waiting to be written.
func (s *Store) UsesDropped() uint64 { return s.uses.Dropped() }

// Flush writes now what was recorded so far. What cannot be written is kept for the next time.
func (s *Store) Flush(ctx context.Context) error {
	return errors.Join(s.flushRekeys(ctx), s.FlushUses(ctx, nil))
}

// FlushUses implements tokens.UseFlusher. What cannot be written is kept for the next time.
func (s *Store) FlushUses(ctx context.Context, of []tokens.ID) error {
	return errors.Join(s.uses.FlushUses(ctx, of, s.writeUses), s.uses.FlushDetails(ctx, of, s.writeDetails))
}

func (s *Store) flushRekeys(ctx context.Context) error { return s.uses.FlushRekeys(ctx, s.writeRekeys) }

const (
	// A use only moves forward.
	insertUses = `INSERT INTO uses (token_id, use_us, use_ip) VALUES `
	moveUse    = ` ON CONFLICT (token_id) DO UPDATE SET use_us = excluded.use_us, use_ip = excluded.use_ip
  WHERE uses.use_us < excluded.use_us`

	// Where each statement is a way through the network, all uses go in one.
	insertAllUses = `INSERT INTO uses (token_id, use_us, use_ip)
SELECT v.id, v.us, v.ip FROM unnest(CAST(?1 AS bigint[]), CAST(?2 AS bigint[]), CAST(?3 AS bytea[])) AS v (id, us, ip)` + moveUse

	// A digest moves only while it is still the old one, and only to a later key: servers may differ about which is
	// current.
	rekeyToken = `
UPDATE tokens SET key = n.num, digest = ?5, row_mac = ?6 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND n.num >= o.num AND tokens.id = ?1 AND tokens.key = o.num
  AND tokens.digest = ?3`

	rekeyOldSecret = `
UPDATE old_secrets SET key = n.num, digest = ?5, row_mac = ?6 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND n.num >= o.num AND token_id = ?1
  AND old_secrets.key = o.num AND old_secrets.digest = ?3`

	rekeyService = `
UPDATE services SET key = n.num, digest = ?5, row_mac = ?6 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND n.num >= o.num AND services.id = ?1
  AND services.key = o.num AND services.digest = ?3`

	rekeyOldService = `
UPDATE services SET old_key = n.num, old_digest = ?5, row_mac = ?6 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND n.num >= o.num AND services.id = ?1
  AND services.old_key = o.num AND services.old_digest = ?3`

	rekeyAccess = `
UPDATE access_tokens SET key = n.num, digest = ?5, row_mac = ?6 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND n.num >= o.num AND access_tokens.id = ?1
  AND access_tokens.key = o.num AND access_tokens.digest = ?3`

	rekeyRefresh = `
UPDATE refresh_tokens SET key = n.num, digest = ?5, row_mac = ?6 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND n.num >= o.num AND refresh_tokens.id = ?1
  AND refresh_tokens.key = o.num AND refresh_tokens.digest = ?3`
)

const writeSeen = "write what was seen"

// usesAtOnce is how many uses one statement writes: to bind and run one for each was measured to cost twice as much.
const usesAtOnce = 50

// Statements that write one use, and many.
var (
	insertOneUse   = insertUses + `(?, ?, ?)` + moveUse
	insertManyUses = insertUses + strings.Repeat(`(?, ?, ?), `, usesAtOnce-1) + `(?, ?, ?)` + moveUse
)

func (s *Store) writeUses(ctx context.Context, batch []usage.Used) error {
	return s.transact(ctx, writeSeen, func(t *tx) error {
		if t.c.Dialect().Remote {
			return t.writeAllUses(batch)
		}
		args := make([]any, 0, 3*usesAtOnce)
		return inStatements(batch, usesAtOnce, func(part []usage.Used) error {
			statement := insertManyUses
			if len(part) == 1 {
				statement = insertOneUse
			}
			args = args[:0]
			for i := range part {
				args = append(args, int64(part[i].ID), part[i].Micros, db.AddrBytes(part[i].Addr()))
			}
			_, err := t.exec(writeSeen, statement, args...)
			return err
		})
	})
}

// inStatements has write write a batch in parts: of as many as one statement takes, and what is then left one by one.
func inStatements[T any](batch []T, most int, write func(part []T) error) error {
	for len(batch) > 0 {
		n := most
		if len(batch) < n {
			n = 1
		}
		if err := write(batch[:n]); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

func (t *tx) writeAllUses(batch []usage.Used) error {
	ids, times, addresses := make([]int64, len(batch)), make([]int64, len(batch)), make([][]byte, len(batch))
	for i := range batch {
		ids[i], times[i] = int64(batch[i].ID), batch[i].Micros
		addresses[i], _ = db.AddrBytes(batch[i].Addr()).([]byte)
	}
	_, err := t.exec(writeSeen, insertAllUses, ids, times, addresses)
	return err
}

func (s *Store) writeRekeys(ctx context.Context, batch []usage.Rekeyed) error {
	err := s.transact(ctx, writeSeen, func(t *tx) error {
		for _, r := range batch {
			for _, one := range r.Rekeys {
				if err := t.rekey(writeSeen, r.Credential, one); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range batch {
		s.feed.Forget(r.ID)
	}
	return nil
}

func (t *tx) rekey(op string, c usage.Credential, r tokens.Rekey) error {
	type move struct {
		table     byte
		statement string
	}
	var moves []move
	switch c.Kind {
	case secret.KindPersonal:
		moves = []move{{ofToken, rekeyToken}, {ofOld, rekeyOldSecret}}
	case secret.KindService:
		moves = []move{{ofService, rekeyService}, {ofOldService, rekeyOldService}}
	case secret.KindAccess:
		moves = []move{{ofAccess, rekeyAccess}}
	case secret.KindRefresh:
		moves = []move{{ofRefresh, rekeyRefresh}}
	}
	for _, m := range moves {
		found, checksum, err := t.rekeyed(op, m.table, c.ID, r)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		_, err = t.exec(op, m.statement, int64(c.ID), r.Old.Key, r.Old.Sum[:], r.New.Key, r.New.Sum[:], checksum)
		if err != nil {
			return err
		}
	}
	return nil
}

// rekeyed returns the checksum of a row whose digest moves, as it will be. A row that has another digest by now, or
// that is refused, is not found.
func (t *tx) rekeyed(op string, table byte, id tokens.ID, r tokens.Rekey) (found bool, checksum any, err error) {
	condition := ` = ?1 AND k.name = ?2 AND x.digest = ?3`
	at := 0 // how far from the end the digest is
	if table == ofOldService {
		table, condition, at = ofService, ` = ?1 AND j.name = ?2 AND x.old_digest = ?3`, 2
	}
	p := tableOf(table)
	var row *protectedRow
	err = t.each(op, p.selectRows(`x.`+p.keys[0]+condition, ``), func(rows *sql.Rows) error {
		row, err = p.scan(rows)
		return err
	}, int64(id), r.Old.Key, r.Old.Sum[:])
	if err != nil || row == nil || row.compare(&t.store.rows) != nil {
		return false, nil, err
	}
	if !row.live {
		return true, nil, nil
	}
	row.setDigest(at, r.New)
	sum, err := row.sum(nil)
	if err != nil {
		return false, nil, err
	}
	checksum, err = t.store.rows.checksum(sum)
	return true, checksum, err
}

// writeBehind writes recorded uses, and prunes, until ctx ends. Digests that move are written soon, uses a part at a
// time, so that calls are never slower for it than at other times. After a failure it waits for the interval, whatever
// wakes it.
func (s *Store) writeBehind(ctx context.Context) {
	ticker := time.NewTicker(s.options.FlushInterval)
	defer ticker.Stop()
	soon := time.NewTimer(promptly)
	soon.Stop()
	defer soon.Stop()
	uses, details := time.NewTimer(s.options.FlushInterval), time.NewTimer(s.options.FlushInterval)
	defer uses.Stop()
	defer details.Stop()
	failing := false
	const ofUses, ofDetails, ofRest = 0, 1, 2
	var failed [ofRest + 1]error // what each kind of work came to last
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.uses.Wake():
			if !failing {
				soon.Reset(promptly)
			}
			continue
		case <-soon.C:
			if failed[ofRest] = s.flushRekeys(ctx); s.uses.Crowded() {
				failed[ofUses] = s.uses.FlushUses(ctx, nil, s.writeUses)
			}
			if s.uses.DetailsCrowded() {
				failed[ofDetails] = s.uses.FlushDetails(ctx, nil, s.writeDetails)
			}
		case <-uses.C:
			var pause time.Duration
			pause, failed[ofUses] = s.uses.FlushPart(ctx, s.options.FlushInterval, s.writeUses)
			uses.Reset(pause)
		case <-details.C:
			var pause time.Duration
			pause, failed[ofDetails] = s.uses.FlushDetailsPart(ctx, s.options.FlushInterval, s.writeDetails)
			details.Reset(pause)
		case <-ticker.C:
			failed[ofRest] = errors.Join(s.flushRekeys(ctx), s.catchUp(ctx), s.readSealed(ctx), s.prune(ctx))
		}
		if ctx.Err() != nil {
			return
		}
		err := errors.Join(failed[:]...)
		if (err != nil) != failing {
			failing = err != nil
			s.report(ctx, err)
		}
	}
}

// report logs once when writing behind begins to fail, and once when it works again.
func (s *Store) report(ctx context.Context, err error) {
	if err != nil {
		s.options.Logger.WarnContext(ctx, "store: writing behind fails; it is tried again", "error", err)
		return
	}
	s.options.Logger.InfoContext(ctx, "store: writing behind works again")
}
