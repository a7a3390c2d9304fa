package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

const selectRefresh = `
SELECT r.id, k.name, r.digest, r.issue_us, r.use_us, f.id, f.token_id, f.serial, f.client_id, f.authenticated,
  f.scopes, f.audiences,
       f.issue_us, f.expire_us, f.revoke_us, f.revoked_by, f.revoke_reason
FROM refresh_tokens r CROSS JOIN families f ON f.id = r.family CROSS JOIN keys k ON k.num = r.key
WHERE r.id = ?`

// RefreshToken implements tokens.GrantReader.
func (t *readTx) RefreshToken(id tokens.ID) (tokens.RefreshToken, error) {
	const op = "read a refresh token"
	var (
		out                               tokens.RefreshToken
		rid, fid, tokenID                 int64
		issueUS, familyUS, expireUS       int64
		useUS, revokeUS                   sql.NullInt64
		digest                            []byte
		scopes, audiences                 string
		clientID, revokedBy, revokeReason sql.NullString
	)
	f := &out.Family
	err := t.one(op, selectRefresh, []any{
		&rid, &out.Hash.Key, &digest, &issueUS, &useUS, &fid, &tokenID, &f.Serial, &clientID, &f.Client.Authenticated,
		&scopes, &audiences,
		&familyUS, &expireUS, &revokeUS, &revokedBy, &revokeReason,
	}, int64(id))
	if err != nil {
		return tokens.RefreshToken{}, fmt.Errorf("refresh token %s: %w", id, err)
	}
	if copy(out.Hash.Sum[:], digest) != len(out.Hash.Sum) {
		return tokens.RefreshToken{}, t.fail(op, errShortDigest)
	}
	out.ID, out.IssueTime = tokens.ID(rid), db.Instant(issueUS)
	if useUS.Valid {
		out.UseTime = db.Instant(useUS.Int64)
	}
	f.ID, f.TokenID, f.Client.ID = tokens.ID(fid), tokens.ID(tokenID), clientID.String
	f.Scopes, f.Audiences = db.Split(scopes, " "), db.Split(audiences, "\n")
	f.IssueTime, f.ExpireTime, f.Revocation = db.Instant(familyUS), db.ExpiryTime(expireUS), revoked(revokeUS,
		revokedBy, revokeReason)
	return out, nil
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
  revoke_us, revoked_by, revoke_reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

// InsertFamily implements tokens.FamilyWriter.
func (t *tx) InsertFamily(f tokens.Family) error {
	us, by, reason := db.Revocation(f.Revocation)
	return t.mustExec("insert a family", fmt.Errorf("family %s: %w", f.ID, tokens.ErrTaken), insertFamily,
		int64(f.ID), int64(f.TokenID), f.Serial, db.NullText(f.Client.ID), db.Flag(f.Client.Authenticated),
		db.Join(f.Scopes, " "),
		db.Join(f.Audiences, "\n"), db.Micros(f.IssueTime), db.Expiry(f.ExpireTime), us, by, reason)
}

const insertRefresh = `
INSERT INTO refresh_tokens (id, family, key, digest, issue_us, use_us)
VALUES (?, ?, (SELECT num FROM keys WHERE name = ? AND retire_us IS NULL), ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

// InsertRefresh implements tokens.FamilyWriter.
func (t *tx) InsertRefresh(r tokens.RefreshToken, h tokens.Hash) error {
	return t.mustExec("insert a refresh token", fmt.Errorf("refresh token %s: %w", r.ID, tokens.ErrTaken),
		insertRefresh,
		int64(r.ID), int64(r.Family.ID), h.Key, h.Sum[:], db.Micros(r.IssueTime), db.NullTime(r.UseTime))
}

const useRefresh = `UPDATE refresh_tokens SET use_us = ?2 WHERE id = ?1 AND use_us IS NULL`

// UseRefresh implements tokens.FamilyWriter.
func (t *tx) UseRefresh(id tokens.ID, at time.Time) error {
	return t.mustExec("use a refresh token", fmt.Errorf("refresh token %s: %w", id, tokens.ErrNotFound), useRefresh,
		int64(id), db.Micros(at))
}

const (
	revokeFamily = `
UPDATE families SET revoke_us = ?2, revoked_by = ?3, revoke_reason = ?4 WHERE id = ?1 AND revoke_us IS NULL`

	revokeFamilyAccess = `
UPDATE access_tokens SET revoke_us = ?2, revoked_by = ?3, revoke_reason = ?4 WHERE family = ?1 AND revoke_us IS NULL`
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

// pruneRounds is how many transactions, of up to pruneLimit rows a table, one pruning of grants may take: what ends in
// a burst is not left to pile up.
const pruneRounds = 16

// pruneGrants drops what came of tokens and ended a day ago; a family when nothing of it is left.
func (s *Store) pruneGrants(ctx context.Context) error {
	const op = "prune expired access and refresh tokens"
	before := db.Micros(s.options.Now().Add(-keepGrants))
	var due bool
	err := s.lookup(ctx, op, func(ctx context.Context, c *db.Conn) error {
		return c.One(ctx, hasPrunableGrants, []any{&due}, before)
	})
	for range pruneRounds {
		if err != nil || !due {
			break
		}
		due = false
		err = s.transact(ctx, op, func(t *tx) error {
			for _, statement := range []string{pruneAccess, pruneRefresh, pruneFamilies} {
				n, err := t.exec(op, statement, before, pruneLimit)
				if err != nil {
					return err
				}
				due = due || n == pruneLimit
			}
			return nil
		})
	}
	return err
}
