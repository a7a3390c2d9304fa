package store

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

const selectRequest = `SELECT fingerprint, token_id, sealed, expire_us FROM requests WHERE key = ? AND expire_us > ?`

// Request implements tokens.TokenReader.
func (t *readTx) Request(key tokens.RequestKey, now time.Time) (tokens.Request, error) {
	var (
		r           = tokens.Request{Key: key}
		fingerprint []byte
		id, us      int64
	)
	err := t.oneBeside(
		"read an idempotent request",
		selectRequest,
		key,
		[]any{&fingerprint, &id, &r.Sealed, &us},
		key[:],
		db.Micros(now),
	)
	if errors.Is(err, tokens.ErrNotFound) && t.aside != nil {
		t.aside.absent = append(t.aside.absent, key)
	}
	if err != nil {
		return tokens.Request{}, err
	}
	copy(r.Fingerprint[:], fingerprint)
	r.TokenID, r.ExpireTime = tokens.ID(id), db.Instant(us)
	return r, nil
}

const putRequest = `
INSERT INTO requests (key, fingerprint, token_id, sealed, expire_us) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (key) DO UPDATE
SET fingerprint = excluded.fingerprint, token_id = excluded.token_id, sealed = excluded.sealed,
  expire_us = excluded.expire_us
WHERE requests.expire_us <= ?6`

// PutRequest implements tokens.RequestWriter. A request that has not expired is not replaced: ErrTaken. Expired
// ones are dropped in the background.
func (t *tx) PutRequest(r tokens.Request, now time.Time) error {
	var sealed any
	if len(r.Sealed) > 0 {
		sealed = r.Sealed
	}
	const op = "keep an idempotent request"
	args := []any{r.Key[:], r.Fingerprint[:], int64(r.TokenID), sealed, db.Micros(r.ExpireTime), db.Micros(now)}
	if a := t.aside; t.failed == nil && a != nil && slices.Contains(a.absent, place(r.Key)) && !a.adds(r.Key) {
		a.add(t, &row{op: op, in: &addRequests, at: []place{r.Key}}, args)
		return nil
	}
	return t.mustExec(op, fmt.Errorf("idempotent request: %w", tokens.ErrTaken), putRequest, args...)
}

const forgetSealed = `UPDATE requests SET sealed = NULL WHERE token_id = ? AND sealed IS NOT NULL`

// ForgetSealed implements tokens.RequestWriter.
func (t *tx) ForgetSealed(id tokens.ID) error {
	_, err := t.exec("forget sealed secrets", forgetSealed, int64(id))
	return err
}

const forgetSealedOfUser = `
UPDATE requests SET sealed = NULL
WHERE sealed IS NOT NULL AND token_id IN (SELECT id FROM tokens WHERE "user" = ?)`

// ForgetSealedOf implements tokens.RequestWriter.
func (t *tx) ForgetSealedOf(userKey int64) error {
	_, err := t.exec("forget a user's sealed secrets", forgetSealedOfUser, userKey)
	return err
}

const selectKeys = `SELECT name, check_value, create_us, retire_us FROM keys ORDER BY num`

// Keys implements tokens.KeyReader.
func (t *readTx) Keys() ([]tokens.KeyRecord, error) {
	list := []tokens.KeyRecord{}
	err := t.each("list the keys", selectKeys, func(rows *sql.Rows) error {
		k, err := scanKey(rows)
		list = append(list, k)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func scanKey(rows *sql.Rows) (tokens.KeyRecord, error) {
	var (
		k        tokens.KeyRecord
		check    []byte
		createUS int64
		retireUS sql.NullInt64
	)
	if err := rows.Scan(&k.Name, &check, &createUS, &retireUS); err != nil {
		return k, err
	}
	copy(k.Check[:], check)
	k.CreateTime = db.Instant(createUS)
	if retireUS.Valid {
		k.RetireTime = db.Instant(retireUS.Int64)
	}
	return k, nil
}

const countKeyUse = `
SELECT k.name, sum(n) FROM (
  SELECT key, count(*) AS n FROM tokens WHERE revoke_us IS NULL AND expire_us > ?1 GROUP BY key
  UNION ALL
  SELECT key, count(*) FROM services WHERE revoke_us IS NULL AND expire_us > ?1 GROUP BY key
  UNION ALL
  SELECT old_key, count(*) FROM services WHERE revoke_us IS NULL AND expire_us > ?1 AND old_until_us > ?1
  GROUP BY old_key
  UNION ALL
  SELECT o.key, count(*) FROM old_secrets o JOIN tokens t ON t.id = o.token_id
  WHERE o.until_us > ?1 AND t.revoke_us IS NULL AND t.expire_us > ?1 GROUP BY o.key
  UNION ALL
  SELECT a.key, count(*) FROM access_tokens a JOIN tokens t ON t.id = a.token_id
  WHERE a.revoke_us IS NULL AND a.expire_us > ?1 AND t.revoke_us IS NULL AND t.expire_us > ?1
    AND (a.serial = t.rotations OR EXISTS (SELECT 1 FROM old_secrets o WHERE o.token_id = t.id
      AND o.serial = a.serial + 1 AND o.until_us > ?1))
  GROUP BY a.key
  UNION ALL
  SELECT r.key, count(*) FROM refresh_tokens r JOIN families f ON f.id = r.family JOIN tokens t ON t.id = f.token_id
  WHERE r.use_us IS NULL AND f.revoke_us IS NULL AND f.expire_us > ?1 AND t.revoke_us IS NULL AND t.expire_us > ?1
    AND (f.serial = t.rotations OR EXISTS (SELECT 1 FROM old_secrets o WHERE o.token_id = t.id
      AND o.serial = f.serial + 1 AND o.until_us > ?1))
  GROUP BY r.key
  UNION ALL
  SELECT secret_key, count(*) FROM webhooks GROUP BY secret_key
  UNION ALL
  SELECT old_secret_key, count(*) FROM webhooks WHERE old_until_us > ?1 GROUP BY old_secret_key
) u JOIN keys k ON k.num = u.key GROUP BY k.num`

// KeyUse implements tokens.KeyReader.
func (t *readTx) KeyUse(now time.Time) (map[string]int64, error) {
	use := map[string]int64{}
	err := t.each("count the digests under each key", countKeyUse, func(rows *sql.Rows) error {
		var name string
		var n int64
		err := rows.Scan(&name, &n)
		use[name] = n
		return err
	}, db.Micros(now))
	if err != nil {
		return nil, err
	}
	return use, nil
}

const (
	insertKey = `
INSERT INTO keys (num, name, check_value, create_us, retire_us) VALUES (NULL /* next keys.num */, ?, ?, ?, ?)
  ON CONFLICT (name) DO NOTHING`

	// The check value stands in the condition: another key cannot pass under a known name.
	retireKey = `UPDATE keys SET retire_us = ?3 WHERE name = ?1 AND check_value = ?2`
)

// PutKey implements tokens.KeyWriter. Another key under a name that is known is refused: ErrTaken.
func (t *tx) PutKey(k tokens.KeyRecord) error {
	const op = "put a key's record"
	err := t.mustExec(op, tokens.ErrTaken, insertKey, k.Name, k.Check[:], db.Micros(k.CreateTime),
		db.NullTime(k.RetireTime))
	if !errors.Is(err, tokens.ErrTaken) {
		return err
	}
	return t.mustExec(op, fmt.Errorf("another key is known as %s: %w", k.Name, tokens.ErrTaken), retireKey,
		k.Name, k.Check[:], db.NullTime(k.RetireTime))
}

const selectPrefixes = `SELECT prefix FROM prefixes ORDER BY prefix`

// Prefixes implements tokens.KeyReader.
func (t *readTx) Prefixes() ([]string, error) {
	list := []string{}
	err := t.each("list the prefixes", selectPrefixes, func(rows *sql.Rows) error {
		var p string
		err := rows.Scan(&p)
		list = append(list, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

const insertPrefix = `INSERT INTO prefixes (prefix) VALUES (?) ON CONFLICT (prefix) DO NOTHING`

// PutPrefix implements tokens.KeyWriter.
func (t *tx) PutPrefix(prefix string) error {
	_, err := t.exec("put a prefix", insertPrefix, prefix)
	return err
}
