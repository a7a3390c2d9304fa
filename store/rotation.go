package store

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// keepOldSecrets is how many rotated secrets of a token are remembered, so that they can be called superseded.
const keepOldSecrets = 32

// rotationColumns are of old_secrets r joined with tokens t by joinRotation: those of the newest secret that was
// rotated away.
const (
	rotationColumns = `r.until_us, r.rotate_us, r.next_use_us, r.retire_on_use, r.change, r.expire_before_us,
       r.expire_after_us, r.renew_before_us, r.dropped, r.blocked_before`
	joinRotation = `LEFT JOIN old_secrets r ON r.token_id = CASE WHEN t.rotations > 0 THEN t.id END
  AND r.serial = t.rotations`
)

// rotationRow holds rotationColumns.
type rotationRow struct {
	untilUS, rotateUS, useUS, retire, change sql.NullInt64
	expireBefore, expireAfter, renewBefore   sql.NullInt64
	dropped, blockedBefore                   sql.NullString
}

func (r *rotationRow) dest(d []any) []any {
	return append(d, &r.untilUS, &r.rotateUS, &r.useUS, &r.retire, &r.change, &r.expireBefore, &r.expireAfter,
		&r.renewBefore, &r.dropped, &r.blockedBefore)
}

func (r *rotationRow) rotation() *tokens.Rotation {
	if !r.untilUS.Valid {
		return nil
	}
	out := &tokens.Rotation{PreviousUntil: db.Instant(r.untilUS.Int64)}
	if !r.rotateUS.Valid {
		return out
	}
	out.Time, out.FirstUse = db.Instant(r.rotateUS.Int64), nullInstant(r.useUS)
	out.Retire, out.Change = tokens.AfterGrace, tokens.ExpiryChange(r.change.Int64)
	if r.retire.Int64 == 1 {
		out.Retire = tokens.OnFirstUse
	}
	out.Dropped = db.Split(r.dropped.String, " ")
	if out.Change != tokens.ExpiryRestored {
		out.Before = tokens.BeforeRotation{
			ExpireTime: db.ExpiryTime(r.expireBefore.Int64), SetExpireTime: db.ExpiryTime(r.expireAfter.Int64),
			RenewTime: nullInstant(r.renewBefore), BlockedBy: r.blockedBefore.String,
		}
	}
	return out
}

func nullInstant(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return db.Instant(us.Int64)
}

const (
	endOldSecrets = `
UPDATE old_secrets SET until_us = 0, row_mac = NULL, ended_us = CASE WHEN until_us > CAST(?2 AS BIGINT) THEN CAST(?2 AS BIGINT)
  ELSE until_us END
WHERE token_id = ?1 AND until_us > 0`

	ageSecret = `
INSERT INTO old_secrets (token_id, serial, key, digest, until_us, ended_us, rotate_us, retire_on_use, change,
  expire_before_us, expire_after_us, renew_before_us, dropped, blocked_before, row_mac, before_mac)
VALUES (?, ?, (SELECT num FROM keys WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	replaceSecret = `
UPDATE tokens SET key = (SELECT num FROM keys WHERE name = ?2 AND retire_us IS NULL), digest = ?3,
  rotations = rotations + 1, row_mac = ?4 WHERE id = ?1`

	dropOldSecrets = `
DELETE FROM old_secrets WHERE token_id = ?1 AND serial <= (SELECT rotations FROM tokens WHERE id = ?1) - ?2`
)

// ReplaceSecret implements tokens.RotationWriter.
func (t *tx) ReplaceSecret(id tokens.ID, h tokens.Hash, r tokens.Rotation) error {
	const op = "replace a token's secret"
	absent := fmt.Errorf("token %s: %w", id, tokens.ErrNotFound)
	g, err := t.guard(id)
	switch {
	case err != nil:
		return err
	case g.refused != nil:
		return g.refused
	}
	if _, err := t.exec(op, endOldSecrets, int64(id), db.Micros(r.Time)); err != nil {
		return err
	}
	// Until 0 it is accepted at no time, whatever the clock shows.
	until, ended := db.Micros(r.PreviousUntil), any(nil)
	if !r.PreviousUntil.After(r.Time) {
		until, ended = 0, db.Micros(r.Time)
	}
	onUse := 0
	if r.Retire == tokens.OnFirstUse {
		onUse = 1
	}
	g.rotations++
	before := beforeRow{
		token: g.id, serial: g.rotations, rotateUS: db.Micros(r.Time), change: int64(max(r.Change, tokens.ExpiryKept)),
		expireBefore: db.Expiry(r.Before.ExpireTime), expireAfter: db.Expiry(r.Before.SetExpireTime),
		dropped: strings.Join(r.Dropped, " "), blockedBefore: r.Before.BlockedBy,
	}
	if !r.Before.RenewTime.IsZero() {
		before.renewBefore = db.Micros(r.Before.RenewTime)
	}
	var old, ofBefore any
	if until > 0 {
		if old, err = t.store.rows.checksum(sumOld(nil, g.id, g.rotations, until, g.digest, g.key)); err != nil {
			return err
		}
		if ofBefore, err = t.store.rows.checksum(before.sum(nil)); err != nil {
			return err
		}
	}
	err = t.mustExec(
		op,
		absent,
		ageSecret,
		g.id,
		g.rotations,
		g.key,
		g.digest,
		until,
		ended,
		before.rotateUS,
		onUse,
		before.change,
		before.expireBefore,
		before.expireAfter,
		db.NullTime(r.Before.RenewTime),
		db.NullText(before.dropped),
		db.NullText(before.blockedBefore),
		old,
		ofBefore,
	)
	if err != nil {
		return err
	}
	g.key, g.digest = h.Key, h.Sum[:]
	checksum, err := g.checksum(&t.readTx)
	if err != nil {
		return err
	}
	if err := t.mustExec(op, absent, replaceSecret, int64(id), h.Key, h.Sum[:], checksum); err != nil {
		return err
	}
	_, err = t.exec(op, dropOldSecrets, int64(id), keepOldSecrets)
	return err
}

const (
	// The secret that is taken back has ended. The one that was before it becomes current under the next serial, since
	// serials only count up; its row stays, for no lookup comes to it: the current one has the same digest.
	takeBackSecret = `
INSERT INTO old_secrets (token_id, serial, key, digest, until_us, ended_us, rotate_us, change)
SELECT id, rotations + 1, key, digest, 0, CAST(?2 AS BIGINT), CAST(?2 AS BIGINT), 4 FROM tokens
WHERE id = ?1 AND EXISTS (SELECT 1 FROM old_secrets o WHERE o.token_id = ?1 AND o.serial = tokens.rotations)`

	restoreSecret = `
UPDATE tokens SET key = o.key, digest = o.digest, rotations = rotations + 1, row_mac = ?2
FROM old_secrets o
WHERE o.token_id = tokens.id AND o.serial = tokens.rotations AND tokens.id = ?1`

	selectOldSecret = `
SELECT k.name, o.digest, o.until_us, o.row_mac, o.before_mac, coalesce(o.rotate_us, 0), coalesce(o.change, 0),
  coalesce(o.expire_before_us, 0), coalesce(o.expire_after_us, 0), coalesce(o.renew_before_us, 0),
  coalesce(o.dropped, ''), coalesce(o.blocked_before, '')
FROM old_secrets o CROSS JOIN keys k ON k.num = o.key WHERE o.token_id = ? AND o.serial = ?`

	restoreAccess   = `UPDATE access_tokens SET serial = ?2, row_mac = ?3 WHERE id = ?1`
	restoreFamilies = `UPDATE families SET serial = ?2, row_mac = ?3 WHERE id = ?1`
)

// beforeRow is what a cancellation puts back.
type beforeRow struct {
	token, serial, rotateUS, change        int64
	expireBefore, expireAfter, renewBefore int64
	dropped, blockedBefore                 string
}

func (r *beforeRow) sum(b []byte) []byte {
	b = append(b, ofBefore)
	for _, n := range [...]int64{r.token, r.serial, r.rotateUS, r.change, r.expireBefore, r.expireAfter, r.renewBefore} {
		b = sumNumber(b, n)
	}
	return sumText(sumText(b, r.dropped), r.blockedBefore)
}

// oldSecret reads the secret that was before the present one, as it becomes current again.
func (t *tx) oldSecret(op string, g *guardedToken) (key string, digest []byte, err error) {
	var (
		untilUS          int64
		checksum, ofBack []byte
	)
	r := beforeRow{token: g.id, serial: g.rotations}
	err = t.one(op, selectOldSecret, []any{&key, &digest, &untilUS, &checksum, &ofBack, &r.rotateUS, &r.change,
		&r.expireBefore, &r.expireAfter, &r.renewBefore, &r.dropped, &r.blockedBefore}, g.id, g.rotations)
	if err != nil {
		return "", nil, err
	}
	err = t.store.rows.check(ofOld, g.id, sumOld(nil, g.id, g.rotations, untilUS, digest, key), checksum)
	if err == nil {
		err = t.store.rows.check(ofBefore, g.id, r.sum(nil), ofBack)
	}
	return key, digest, err
}

// ofSecret selects what came of a secret.
const ofSecret = `x.token_id = ?1 AND x.serial = ?2 AND x.revoke_us IS NULL`

// restoreSerials gives what came of the secret that is current again its serial.
func (t *tx) restoreSerials(op string, p protected, statement string, token, serial int64) error {
	var found []*protectedRow
	err := t.each(op, p.selectRows(ofSecret, ``), func(rows *sql.Rows) error {
		r, err := p.scan(rows)
		found = append(found, r)
		return err
	}, token, serial-2)
	for _, r := range found {
		if err != nil {
			return err
		}
		var checksum any = noChecksum() // a row that is refused stays refused
		if r.compare(&t.store.rows) == nil {
			r.values[p.serial] = serial
			sum, err := r.sum(nil)
			if err != nil {
				return t.fail(op, err)
			}
			if checksum, err = t.store.rows.checksum(sum); err != nil {
				return err
			}
		}
		_, err = t.exec(op, statement, r.keys[0], serial, checksum)
	}
	return err
}

// RestoreSecret implements tokens.RotationWriter.
func (t *tx) RestoreSecret(id tokens.ID, at time.Time) error {
	const op = "restore a token's secret"
	absent := fmt.Errorf("token %s has no secret before the present one: %w", id, tokens.ErrNotFound)
	g, err := t.guard(id)
	if err == nil {
		err = g.refused
	}
	if err != nil {
		return err
	}
	key, digest, err := t.oldSecret(op, g)
	if errors.Is(err, tokens.ErrNotFound) {
		return absent
	}
	if err != nil {
		return err
	}
	g.key, g.digest, g.rotations = key, digest, g.rotations+1
	checksum, err := g.checksum(&t.readTx)
	if err != nil {
		return err
	}
	if err := t.mustExec(op, absent, takeBackSecret, int64(id), db.Micros(at)); err != nil {
		return err
	}
	if _, err := t.exec(op, endOldSecrets, int64(id), db.Micros(at)); err != nil {
		return err
	}
	if err := t.mustExec(op, absent, restoreSecret, int64(id), checksum); err != nil {
		return err
	}
	if err := t.restoreSerials(op, tableOf(ofAccess), restoreAccess, g.id, g.rotations); err != nil {
		return err
	}
	if err := t.restoreSerials(op, tableOf(ofFamily), restoreFamilies, g.id, g.rotations); err != nil {
		return err
	}
	_, err = t.exec(op, dropOldSecrets, int64(id), keepOldSecrets)
	return err
}

const useSecret = `
UPDATE old_secrets SET next_use_us = ?3,
  ended_us = CASE WHEN retire_on_use = 1 THEN CAST(?3 AS BIGINT) ELSE ended_us END,
  until_us = CASE WHEN retire_on_use = 1 THEN 0 ELSE until_us END,
  row_mac = CASE WHEN retire_on_use = 1 THEN NULL ELSE row_mac END
WHERE token_id = ?1 AND serial = ?2 AND next_use_us IS NULL AND until_us > ?3
  AND EXISTS (SELECT 1 FROM tokens WHERE id = ?1 AND rotations = ?2)`

// UseSecret implements tokens.RotationWriter.
func (t *tx) UseSecret(id tokens.ID, serial int64, at time.Time) (bool, error) {
	n, err := t.exec("record the first use of a secret", useSecret, int64(id), serial, db.Micros(at))
	return n > 0, err
}

// A time far in the future is that of a clock that was wrong.
const presentSuperseded = `
UPDATE old_secrets SET presented_us = ?3 WHERE token_id = ?1 AND serial = ?2
  AND (presented_us IS NULL OR presented_us <= ?4 OR presented_us > ?5)`

// PresentSuperseded implements tokens.RotationWriter.
func (t *tx) PresentSuperseded(id tokens.ID, serial int64, at time.Time, every time.Duration) (bool, error) {
	n, err := t.exec("record that a superseded secret was presented", presentSuperseded, int64(id), serial+1,
		db.Micros(at), db.Micros(at.Add(-every)), db.Micros(at.Add(every)))
	return n > 0, err
}
