package store

import (
	"database/sql"
	"fmt"
	"strings"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

const selectRefresh = `
SELECT r.id, k.name, r.digest, r.issue_us, r.use_us, f.id, f.token_id, f.serial, f.client_id, f.authenticated,
  f.scopes, f.audiences,
       f.issue_us, f.expire_us, f.revoke_us, f.revoked_by, f.revoke_reason, r.row_mac, f.row_mac
FROM refresh_tokens r CROSS JOIN families f ON f.id = r.family CROSS JOIN keys k ON k.num = r.key
WHERE r.id = ?`

// RefreshToken implements tokens.GrantReader.
func (t *readTx) RefreshToken(id tokens.ID) (tokens.RefreshToken, error) {
	const op = "read a refresh token"
	var (
		out                           tokens.RefreshToken
		rid, issueUS                  int64
		useUS                         sql.NullInt64
		r                             familyRow
		digest, checksum, ofTheFamily []byte
	)
	err := t.one(op, selectRefresh, []any{
		&rid, &out.Hash.Key, &digest, &issueUS, &useUS, &r.id, &r.tokenID, &r.serial, &r.clientID, &r.authenticated,
		&r.scopes, &r.audiences, &r.issueUS, &r.expireUS, &r.revokeUS, &r.revokedBy, &r.revokeReason, &checksum,
		&ofTheFamily,
	}, int64(id))
	if err != nil {
		return tokens.RefreshToken{}, fmt.Errorf("refresh token %s: %w", id, err)
	}
	if copy(out.Hash.Sum[:], digest) != len(out.Hash.Sum) {
		return tokens.RefreshToken{}, t.fail(op, errShortDigest)
	}
	if !useUS.Valid {
		err = t.store.rows.check(ofRefresh, rid, sumRefresh(nil, rid, r.id, issueUS, digest, out.Hash.Key), checksum)
	}
	if err == nil && !r.revokeUS.Valid {
		err = t.store.rows.check(ofFamily, r.id, r.sum(nil), ofTheFamily)
	}
	if err != nil {
		return tokens.RefreshToken{}, fmt.Errorf("refresh token %s: %w", id, err)
	}
	out.ID, out.IssueTime, out.Family = tokens.ID(rid), db.Instant(issueUS), r.family()
	if useUS.Valid {
		out.UseTime = db.Instant(useUS.Int64)
	}
	return out, nil
}

// familyRow is a row of families.
type familyRow struct {
	id, tokenID, serial, authenticated int64
	issueUS, expireUS                  int64
	clientID                           sql.NullString
	scopes, audiences                  string
	revokeUS                           sql.NullInt64
	revokedBy, revokeReason            sql.NullString
}

func (r *familyRow) family() tokens.Family {
	return tokens.Family{
		ID: tokens.ID(r.id), TokenID: tokens.ID(r.tokenID), Serial: r.serial,
		Client: tokens.Client{ID: r.clientID.String, Authenticated: r.authenticated == 1},
		Scopes: db.Split(r.scopes, " "), Audiences: db.Split(r.audiences, "\n"),
		IssueTime: db.Instant(r.issueUS), ExpireTime: db.ExpiryTime(r.expireUS),
		Revocation: revoked(r.revokeUS, r.revokedBy, r.revokeReason),
	}
}

const countGrants = `
SELECT (SELECT count(*) FROM access_tokens INDEXED BY access_tokens_live
        WHERE token_id = ?1 AND serial >= ?2 AND expire_us > ?3 AND revoke_us IS NULL),
       (SELECT count(*) FROM families INDEXED BY families_live
        WHERE token_id = ?1 AND serial >= ?2 AND expire_us > ?3 AND revoke_us IS NULL)`

// CountGrants implements tokens.GrantReader.
func (t *readTx) CountGrants(token tokens.ID, serial int64, now time.Time) (tokens.GrantCount, error) {
	var n tokens.GrantCount
	err := t.one("count what came of a token", countGrants, []any{&n.Access, &n.Families}, int64(token), serial,
		db.Micros(now))
	return n, err
}

const insertFamily = `
INSERT INTO families (id, token_id, serial, client_id, authenticated, scopes, audiences, issue_us, expire_us,
  revoke_us, revoked_by, revoke_reason, row_mac)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

// InsertFamily implements tokens.FamilyWriter.
func (t *tx) InsertFamily(f tokens.Family) error {
	us, by, reason := db.Revocation(f.Revocation)
	r := familyRow{id: int64(f.ID), tokenID: int64(f.TokenID), serial: f.Serial,
		authenticated: db.Flag(f.Client.Authenticated), issueUS: db.Micros(f.IssueTime),
		expireUS: db.Expiry(f.ExpireTime), clientID: db.TextOf(db.NullText(f.Client.ID)),
		scopes: strings.Join(f.Scopes, " "), audiences: strings.Join(f.Audiences, "\n")}
	var checksum any
	if f.Revocation == nil {
		var err error
		if checksum, err = t.store.rows.checksum(r.sum(nil)); err != nil {
			return err
		}
	}
	return t.mustExec("insert a family", fmt.Errorf("family %s: %w", f.ID, tokens.ErrTaken), insertFamily,
		r.id, r.tokenID, r.serial, db.NullText(f.Client.ID), r.authenticated, db.NullText(r.scopes),
		db.NullText(r.audiences), r.issueUS, r.expireUS, us, by, reason, checksum)
}

const insertRefresh = `
INSERT INTO refresh_tokens (id, family, key, digest, issue_us, use_us, row_mac)
VALUES (?, ?, (SELECT num FROM keys WHERE name = ? AND retire_us IS NULL), ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

// InsertRefresh implements tokens.FamilyWriter.
func (t *tx) InsertRefresh(r tokens.RefreshToken, h tokens.Hash) error {
	id, family, issueUS := int64(r.ID), int64(r.Family.ID), db.Micros(r.IssueTime)
	var checksum any
	if r.UseTime.IsZero() {
		var err error
		checksum, err = t.store.rows.checksum(sumRefresh(nil, id, family, issueUS, h.Sum[:], h.Key))
		if err != nil {
			return err
		}
	}
	return t.mustExec("insert a refresh token", fmt.Errorf("refresh token %s: %w", r.ID, tokens.ErrTaken),
		insertRefresh,
		id, family, h.Key, h.Sum[:], issueUS, db.NullTime(r.UseTime), checksum)
}

const useRefresh = `UPDATE refresh_tokens SET use_us = ?2, row_mac = NULL WHERE id = ?1 AND use_us IS NULL`

// UseRefresh implements tokens.FamilyWriter.
func (t *tx) UseRefresh(id tokens.ID, at time.Time) error {
	return t.mustExec("use a refresh token", fmt.Errorf("refresh token %s: %w", id, tokens.ErrNotFound), useRefresh,
		int64(id), db.Micros(at))
}

const (
	revokeFamily = `
UPDATE families SET revoke_us = ?2, revoked_by = ?3, revoke_reason = ?4, row_mac = NULL WHERE id = ?1 AND revoke_us IS NULL`

	revokeFamilyAccess = `
UPDATE access_tokens SET revoke_us = ?2, revoked_by = ?3, revoke_reason = ?4, row_mac = NULL WHERE family = ?1 AND revoke_us IS NULL`
)

// RevokeFamily implements tokens.FamilyWriter.
func (t *tx) RevokeFamily(id tokens.ID, r tokens.Revocation) (bool, error) {
	const op = "revoke a family"
	us, by, reason := db.Revocation(&r)
	n, err := t.exec(op, revokeFamily, int64(id), us, by, reason)
	if err != nil || n == 0 {
		return false, err
	}
	_, err = t.exec(op, revokeFamilyAccess, int64(id), us, by, reason)
	return err == nil, err
}

// keepGrants is how long what came of tokens is kept after its end, so that it differs from what never existed.
const keepGrants = 24 * time.Hour

const (
	hasPrunableGrants = `
SELECT EXISTS (SELECT 1 FROM access_tokens WHERE expire_us <= ?1) OR EXISTS (SELECT 1 FROM families
  WHERE expire_us <= ?1)`

	pruneAccess = `
DELETE FROM access_tokens WHERE id IN (SELECT id FROM access_tokens WHERE expire_us <= ?1 ORDER BY expire_us LIMIT ?2)`

	pruneRefresh = `
DELETE FROM refresh_tokens WHERE id IN (
  SELECT r.id FROM families f CROSS JOIN refresh_tokens r INDEXED BY refresh_tokens_family ON r.family = f.id
  WHERE f.expire_us <= ?1 LIMIT ?2)`

	pruneFamilies = `
DELETE FROM families WHERE id IN (
  SELECT f.id FROM families f WHERE f.expire_us <= ?1
    AND NOT EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.family = f.id)
    AND NOT EXISTS (SELECT 1 FROM access_tokens a WHERE a.family = f.id)
  LIMIT ?2)`
)
