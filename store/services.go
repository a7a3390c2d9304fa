package store

import (
	"database/sql"
	"errors"
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

// dest is where the columns go, and others after them.
func (r *serviceRow) dest(others ...any) []any {
	return append([]any{&r.id, &r.name, &r.permissions, &r.audience, &r.issueUS, &r.expireUS, &r.revokeUS, &r.revokedBy,
		&r.revokeReason, &r.rotations, &r.rotateUS, &r.oldUntilUS}, others...)
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
		if err := rows.Scan(r.dest()...); err != nil {
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

// serviceSecrets are the secrets of a service, and the checksum of its row.
type serviceSecrets struct {
	key               string
	digest, oldDigest []byte
	oldKey            sql.NullString
	checksum          []byte
}

// secretColumns are where a serviceSecrets is.
const secretColumns = `, (SELECT k.name FROM keys k WHERE k.num = key), digest,
  (SELECT k.name FROM keys k WHERE k.num = old_key), old_digest, row_mac`

func (s *serviceSecrets) dest() []any {
	return []any{&s.key, &s.digest, &s.oldKey, &s.oldDigest, &s.checksum}
}

// check compares a row that has not ended with its checksum.
func (r *serviceRow) check(g *rowGuard, s *serviceSecrets) error {
	if r.revokeUS.Valid {
		return nil
	}
	return g.check(ofService, r.id, r.sum(nil, s), s.checksum)
}

const selectService = `SELECT ` + serviceColumns + secretColumns + ` FROM services
WHERE id = coalesce((SELECT id FROM services WHERE name = ?1 AND revoke_us IS NULL ORDER BY id DESC LIMIT 1),
                    (SELECT id FROM services WHERE name = ?1 ORDER BY id DESC LIMIT 1))`

// Service implements tokens.ServiceReader.
func (t *readTx) Service(name string) (tokens.ServiceAccount, error) {
	var (
		r       serviceRow
		secrets serviceSecrets
	)
	if err := t.oneBeside("read a service", selectService, nil, r.dest(secrets.dest()...), name); err != nil {
		return tokens.ServiceAccount{}, err
	}
	s, err := r.service()
	if err == nil {
		err = r.check(&t.store.rows, &secrets)
	}
	return s, err
}

const selectServices = `SELECT ` + serviceColumns + ` FROM services WHERE id <= ? ORDER BY id DESC LIMIT ?`

// Services implements tokens.ServiceReader.
func (t *readTx) Services(before tokens.ID, limit int) ([]tokens.ServiceAccount, error) {
	return t.services("list services", selectServices, lastBefore(before), limit)
}

const insertService = `
INSERT INTO services (id, name, permissions, audience, key, digest, issue_us, expire_us, revoke_us, revoked_by,
  revoke_reason, row_mac)
VALUES (?, ?, ?, ?, (SELECT num FROM keys WHERE name = ? AND retire_us IS NULL), ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

// InsertService implements tokens.ServiceWriter.
func (t *tx) InsertService(s tokens.ServiceAccount, h tokens.Hash) error {
	us, by, reason := db.Revocation(s.Revocation)
	r := serviceRow{
		id:          int64(s.ID),
		name:        s.Name,
		permissions: strings.Join(s.Permissions.Names(), " "),
		audience: db.TextOf(
			db.NullText(s.Audience),
		),
		issueUS:  db.Micros(s.IssueTime),
		expireUS: db.Expiry(s.ExpireTime),
	}
	var checksum any
	if s.Revocation == nil {
		var err error
		if checksum, err = t.store.rows.checksum(
			r.sum(nil, &serviceSecrets{key: h.Key, digest: h.Sum[:]}),
		); err != nil {
			return err
		}
	}
	return t.mustExec("insert a service", fmt.Errorf("service %s: %w", s.ID, tokens.ErrTaken), insertService,
		r.id, r.name, r.permissions, db.NullText(s.Audience), h.Key, h.Sum[:], r.issueUS, r.expireUS, us, by, reason,
		checksum)
}

// The first revocation stands; a row that has one is found, and written as it was.
const revokeService = `
UPDATE services
SET revoke_us     = CASE WHEN revoke_us IS NULL THEN ?2 ELSE revoke_us END,
    revoked_by    = CASE WHEN revoke_us IS NULL THEN ?3 ELSE revoked_by END,
    revoke_reason = CASE WHEN revoke_us IS NULL THEN ?4 ELSE revoke_reason END,
    row_mac       = NULL
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
    rotations = rotations + 1, rotate_us = ?5, expire_us = ?6, row_mac = ?7
WHERE id = ?1`

const selectServiceRow = `SELECT ` + serviceColumns + secretColumns + ` FROM services WHERE id = ?`

// ReplaceServiceSecret implements tokens.ServiceWriter.
func (t *tx) ReplaceServiceSecret(s tokens.ServiceAccount, h tokens.Hash) error {
	const op = "replace a service's secret"
	var (
		r       serviceRow
		secrets serviceSecrets
	)
	absent := fmt.Errorf("service %s: %w", s.ID, tokens.ErrNotFound)
	err := t.one(op, selectServiceRow, r.dest(secrets.dest()...), int64(s.ID))
	if errors.Is(err, tokens.ErrNotFound) {
		return absent
	}
	if err == nil {
		err = r.check(&t.store.rows, &secrets)
	}
	if err != nil {
		return err
	}
	until := max(db.Micros(s.PreviousUntil), 0)
	var checksum any
	if !r.revokeUS.Valid {
		r.rotations, r.expireUS, r.oldUntilUS.Int64 = r.rotations+1, db.Expiry(s.ExpireTime), until
		next := serviceSecrets{key: h.Key, digest: h.Sum[:], oldDigest: secrets.digest,
			oldKey: sql.NullString{String: secrets.key, Valid: true}}
		if checksum, err = t.store.rows.checksum(r.sum(nil, &next)); err != nil {
			return err
		}
	}
	return t.mustExec(op, absent, replaceServiceSecret, int64(s.ID), until, h.Key, h.Sum[:], db.Micros(s.RotateTime),
		db.Expiry(s.ExpireTime), checksum)
}
