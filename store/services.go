package store

import (
	"database/sql"
	"fmt"
	"strings"

	"patd/store/internal/db"
	"patd/tokens"
)

const serviceColumns = `id, name, permissions, audience, issue_us, expire_us, revoke_us, revoked_by, revoke_reason,
  rotations, rotate_us, old_until_us`

// serviceRow holds serviceColumns.
type serviceRow struct {
	id, issueUS, expireUS             int64
	name, permissions                 string
	audience, revokedBy, revokeReason sql.NullString
	revokeUS, rotateUS, oldUntilUS    sql.NullInt64
	rotations                         int64
}

func (r *serviceRow) dest(d []any) []any {
	return append(d, &r.id, &r.name, &r.permissions, &r.audience, &r.issueUS, &r.expireUS, &r.revokeUS, &r.revokedBy,
		&r.revokeReason, &r.rotations, &r.rotateUS, &r.oldUntilUS)
}

func (r *serviceRow) service() (tokens.ServiceAccount, error) {
	p, err := tokens.ParsePermissions(strings.Fields(r.permissions))
	if err != nil {
		// Not the domain's error: the caller is not to blame for what is stored.
		return tokens.ServiceAccount{}, fmt.Errorf("service %s has permissions that this program does not know",
			tokens.ID(r.id))
	}
	s := tokens.ServiceAccount{
		ID: tokens.ID(r.id), Name: r.name, Permissions: p, Audience: r.audience.String,
		IssueTime: db.Instant(r.issueUS), ExpireTime: db.ExpiryTime(r.expireUS), Rotations: r.rotations,
	}
	if r.rotateUS.Valid {
		s.RotateTime = db.Instant(r.rotateUS.Int64)
	}
	if r.oldUntilUS.Valid {
		s.PreviousUntil = db.Instant(r.oldUntilUS.Int64)
	}
	if r.revokeUS.Valid {
		s.Revocation = &tokens.Revocation{Time: db.Instant(r.revokeUS.Int64), By: r.revokedBy.String,
			Reason: r.revokeReason.String}
	}
	return s, nil
}

func (t *readTx) services(op, query string, args ...any) ([]tokens.ServiceAccount, error) {
	list := []tokens.ServiceAccount{}
	err := t.each(op, query, func(rows *sql.Rows) error {
		var r serviceRow
		if err := rows.Scan(r.dest(nil)...); err != nil {
			return err
		}
		s, err := r.service()
		list = append(list, s)
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	return list, nil
}

const selectService = `SELECT ` + serviceColumns + ` FROM services
WHERE id = coalesce((SELECT id FROM services WHERE name = ?1 AND revoke_us IS NULL ORDER BY id DESC LIMIT 1),
                    (SELECT id FROM services WHERE name = ?1 ORDER BY id DESC LIMIT 1))`

// Service implements tokens.ServiceReader.
func (t *readTx) Service(name string) (tokens.ServiceAccount, error) {
	found, err := t.services("read a service", selectService, name)
	switch {
	case err != nil:
		return tokens.ServiceAccount{}, err
	case len(found) == 0:
		return tokens.ServiceAccount{}, tokens.ErrNotFound
	}
	return found[0], nil
}

const selectServices = `SELECT ` + serviceColumns + ` FROM services WHERE id <= ? ORDER BY id DESC LIMIT ?`

// Services implements tokens.ServiceReader.
func (t *readTx) Services(before tokens.ID, limit int) ([]tokens.ServiceAccount, error) {
	return t.services("list services", selectServices, lastBefore(before), limit)
}

const insertService = `
INSERT INTO services (id, name, permissions, audience, key, digest, issue_us, expire_us, revoke_us, revoked_by,
  revoke_reason)
VALUES (?, ?, ?, ?, (SELECT num FROM keys WHERE name = ? AND retire_us IS NULL), ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

// InsertService implements tokens.ServiceWriter.
func (t *tx) InsertService(s tokens.ServiceAccount, h tokens.Hash) error {
	us, by, reason := db.Revocation(s.Revocation)
	return t.mustExec("insert a service", fmt.Errorf("service %s: %w", s.ID, tokens.ErrTaken), insertService,
		int64(s.ID), s.Name, strings.Join(s.Permissions.Names(), " "), db.NullText(s.Audience), h.Key, h.Sum[:],
		db.Micros(s.IssueTime), db.Expiry(s.ExpireTime), us, by, reason)
}

// The first revocation stands; a row that has one is found, and written as it was.
const revokeService = `
UPDATE services
SET revoke_us     = CASE WHEN revoke_us IS NULL THEN ?2 ELSE revoke_us END,
    revoked_by    = CASE WHEN revoke_us IS NULL THEN ?3 ELSE revoked_by END,
    revoke_reason = CASE WHEN revoke_us IS NULL THEN ?4 ELSE revoke_reason END
WHERE id = ?1`

// RevokeService implements tokens.ServiceWriter.
func (t *tx) RevokeService(id tokens.ID, r tokens.Revocation) error {
	us, by, reason := db.Revocation(&r)
	return t.mustExec("revoke a service", fmt.Errorf("service %s: %w", id, tokens.ErrNotFound), revokeService,
		int64(id), us, by, reason)
}

const replaceServiceSecret = `
UPDATE services
SET old_key = key, old_digest = digest, old_until_us = CAST(?2 AS BIGINT),
    key = (SELECT num FROM keys WHERE name = ?3 AND retire_us IS NULL), digest = ?4,
    rotations = rotations + 1, rotate_us = ?5, expire_us = ?6
WHERE id = ?1`

// ReplaceServiceSecret implements tokens.ServiceWriter.
func (t *tx) ReplaceServiceSecret(s tokens.ServiceAccount, h tokens.Hash) error {
	return t.mustExec("replace a service's secret", fmt.Errorf("service %s: %w", s.ID, tokens.ErrNotFound),
		replaceServiceSecret, int64(s.ID), max(db.Micros(s.PreviousUntil), 0), h.Key, h.Sum[:],
		db.Micros(s.RotateTime), db.Expiry(s.ExpireTime))
}
