package store

import (
	"database/sql"
	"fmt"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// keepOldSecrets is how many rotated secrets of a token are remembered, so that they can be called superseded.
const keepOldSecrets = 32

// rotationColumns are of old_secrets r joined with tokens t by joinRotation: those of the newest secret that was rotated
// away.
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
UPDATE old_secrets SET until_us = 0, ended_us = CASE WHEN until_us > CAST(?2 AS BIGINT) THEN CAST(?2 AS BIGINT)
  ELSE until_us END
WHERE token_id = ?1 AND until_us > 0`

	ageSecret = `
INSERT INTO old_secrets (token_id, serial, key, digest, until_us, ended_us, rotate_us, retire_on_use, change,
  expire_before_us, expire_after_us, renew_before_us, dropped, blocked_before)
SELECT id, rotations + 1, key, digest, CAST(?2 AS BIGINT), CAST(?3 AS BIGINT), CAST(?4 AS BIGINT),
  CAST(?5 AS BIGINT), CAST(?6 AS BIGINT), CAST(?7 AS BIGINT), CAST(?8 AS BIGINT), CAST(?9 AS BIGINT),
  CAST(?10 AS TEXT), CAST(?11 AS TEXT)
FROM tokens WHERE id = ?1`

	replaceSecret = `
UPDATE tokens SET key = (SELECT num FROM keys WHERE name = ?2 AND retire_us IS NULL), digest = ?3,
  rotations = rotations + 1 WHERE id = ?1`

	dropOldSecrets = `
DELETE FROM old_secrets WHERE token_id = ?1 AND serial <= (SELECT rotations FROM tokens WHERE id = ?1) - ?2`
)

// ReplaceSecret implements tokens.RotationWriter.
func (t *tx) ReplaceSecret(id tokens.ID, h tokens.Hash, r tokens.Rotation) error {
	const op = "replace a token's secret"
	absent := fmt.Errorf("token %s: %w", id, tokens.ErrNotFound)
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
	err := t.mustExec(op, absent, ageSecret, int64(id), until, ended, db.Micros(r.Time), onUse, int(max(r.Change, tokens.ExpiryKept)),
		db.Expiry(r.Before.ExpireTime), db.Expiry(r.Before.SetExpireTime), db.NullTime(r.Before.RenewTime),
		db.Join(r.Dropped, " "), db.NullText(r.Before.BlockedBy))
	if err != nil {
		return err
	}
	if err := t.mustExec(op, absent, replaceSecret, int64(id), h.Key, h.Sum[:]); err != nil {
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
UPDATE tokens SET key = o.key, digest = o.digest, rotations = rotations + 1
FROM old_secrets o
WHERE o.token_id = tokens.id AND o.serial = tokens.rotations AND tokens.id = ?1`

	restoreAccess = `
UPDATE access_tokens SET serial = serial + 2
WHERE token_id = ?1 AND serial = (SELECT rotations - 2 FROM tokens WHERE id = ?1) AND revoke_us IS NULL`

	restoreFamilies = `
UPDATE families SET serial = serial + 2
WHERE token_id = ?1 AND serial = (SELECT rotations - 2 FROM tokens WHERE id = ?1) AND revoke_us IS NULL`
)

// RestoreSecret implements tokens.RotationWriter.
func (t *tx) RestoreSecret(id tokens.ID, at time.Time) error {
	const op = "restore a token's secret"
	absent := fmt.Errorf("token %s has no secret before the present one: %w", id, tokens.ErrNotFound)
	if err := t.mustExec(op, absent, takeBackSecret, int64(id), db.Micros(at)); err != nil {
		return err
	}
	if _, err := t.exec(op, endOldSecrets, int64(id), db.Micros(at)); err != nil {
		return err
	}
	if err := t.mustExec(op, absent, restoreSecret, int64(id)); err != nil {
		return err
	}
	for _, statement := range []string{restoreAccess, restoreFamilies} {
		if _, err := t.exec(op, statement, int64(id)); err != nil {
			return err
		}
	}
	_, err := t.exec(op, dropOldSecrets, int64(id), keepOldSecrets)
	return err
}

const useSecret = `
UPDATE old_secrets SET next_use_us = ?3,
  ended_us = CASE WHEN retire_on_use = 1 THEN CAST(?3 AS BIGINT) ELSE ended_us END,
  until_us = CASE WHEN retire_on_use = 1 THEN 0 ELSE until_us END
WHERE token_id = ?1 AND serial = ?2 AND next_use_us IS NULL AND until_us > ?3
  AND EXISTS (SELECT 1 FROM tokens WHERE id = ?1 AND rotations = ?2)`

// UseSecret implements tokens.RotationWriter.
func (t *tx) UseSecret(id tokens.ID, serial int64, at time.Time) (bool, error) {
	n, err := t.exec("record the first use of a secret", useSecret, int64(id), serial, db.Micros(at))
	return n > 0, err
}
