package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"patd/store/internal/db"
	"patd/tokens"
)

const accessColumns = `id, token_id, serial, family, client_id, scopes, audiences, issue_us, expire_us, revoke_us,
  revoked_by, revoke_reason`

// accessRow holds accessColumns.
type accessRow struct {
	id, tokenID, serial, issueUS, expireUS       int64
	family, revokeUS                             sql.NullInt64
	scopes                                       string
	clientID, audiences, revokedBy, revokeReason sql.NullString
}

// dest is where the columns go, and others after them.
func (r *accessRow) dest(others ...any) []any {
	return append([]any{
		&r.id, &r.tokenID, &r.serial, &r.family, &r.clientID, &r.scopes, &r.audiences, &r.issueUS, &r.expireUS,
		&r.revokeUS, &r.revokedBy, &r.revokeReason,
	}, others...)
}

func (r *accessRow) access() tokens.AccessToken {
	return tokens.AccessToken{
		ID: tokens.ID(r.id), TokenID: tokens.ID(r.tokenID), Serial: r.serial, Family: tokens.ID(r.family.Int64),
		ClientID: r.clientID.String,
		Scopes:   db.Split(r.scopes, " "), Audiences: db.Split(r.audiences.String, "\n"),
		IssueTime: db.Instant(r.issueUS), ExpireTime: db.ExpiryTime(r.expireUS), Revocation: revoked(r.revokeUS,
			r.revokedBy, r.revokeReason),
	}
}

// revoked reads the columns that revocation writes.
func revoked(us sql.NullInt64, by, reason sql.NullString) *tokens.Revocation {
	if !us.Valid {
		return nil
	}
	return &tokens.Revocation{Time: db.Instant(us.Int64), By: by.String, Reason: reason.String}
}

const selectAccessCredential = `SELECT ` + accessColumns + `, key, digest, row_mac FROM access_tokens WHERE id = ?`

// LookupAccess implements tokens.Store.
func (s *Store) LookupAccess(ctx context.Context, id tokens.ID) (tokens.AccessCredential, error) {
	cred := tokens.AccessCredential{Sequence: s.feed.Sequence()} // before it is read
	err := s.lookup(ctx, "look up an access token", func(ctx context.Context, c *db.Conn) error {
		var (
			r                accessRow
			key              int64
			digest, checksum []byte
		)
		err := c.One(ctx, selectAccessCredential, r.dest(&key, &digest, &checksum), int64(id))
		if errors.Is(err, sql.ErrNoRows) {
			return tokens.ErrNotFound
		}
		if err != nil {
			return err
		}
		cred.Access = r.access()
		secret, err := storedSecret(digest)
		if err != nil {
			return err
		}
		cred.Hash = secret.Hash
		if cred.Hash.Key, err = s.keyName(ctx, c, key); err != nil || r.revokeUS.Valid {
			return err
		}
		return s.rows.check(ofAccess, r.id, r.sum(nil, digest, cred.Hash.Key), checksum)
	})
	if err != nil {
		return tokens.AccessCredential{}, err
	}
	return cred, nil
}

const selectAccess = `SELECT ` + accessColumns + `, (SELECT k.name FROM keys k WHERE k.num = key), digest, row_mac
FROM access_tokens WHERE id = ?`

// AccessToken implements tokens.GrantReader.
func (t *readTx) AccessToken(id tokens.ID) (tokens.AccessToken, error) {
	var (
		r                accessRow
		key              string
		digest, checksum []byte
	)
	err := t.one("read an access token", selectAccess, r.dest(&key, &digest, &checksum), int64(id))
	if err == nil && !r.revokeUS.Valid {
		err = t.store.rows.check(ofAccess, r.id, r.sum(nil, digest, key), checksum)
	}
	if err != nil {
		return tokens.AccessToken{}, fmt.Errorf("access token %s: %w", id, err)
	}
	return r.access(), nil
}

// A key that the store does not know, or has retired, gives NULL, which the table refuses.
const insertAccess = `
INSERT INTO access_tokens (id, token_id, serial, family, key, digest, scopes, audiences, client_id, issue_us, expire_us,
                           revoke_us, revoked_by, revoke_reason, row_mac)
VALUES (?, ?, ?, ?, (SELECT num FROM keys WHERE name = ? AND retire_us IS NULL), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

// InsertAccess implements tokens.AccessWriter.
func (t *tx) InsertAccess(a tokens.AccessToken, h tokens.Hash) error {
	us, by, reason := db.Revocation(a.Revocation)
	r := accessRow{
		id:      int64(a.ID),
		tokenID: int64(a.TokenID),
		serial:  a.Serial,
		family: sql.NullInt64{
			Int64: int64(a.Family),
			Valid: a.Family != 0,
		},
		clientID:  db.TextOf(db.NullText(a.ClientID)),
		scopes:    strings.Join(a.Scopes, " "),
		audiences: db.TextOf(db.Join(a.Audiences, "\n")),
		issueUS:   db.Micros(a.IssueTime),
		expireUS:  db.Expiry(a.ExpireTime),
	}
	var checksum any
	if a.Revocation == nil {
		var err error
		if checksum, err = t.store.rows.checksum(r.sum(nil, h.Sum[:], h.Key)); err != nil {
			return err
		}
	}
	return t.mustExec("insert an access token", fmt.Errorf("access token %s: %w", a.ID, tokens.ErrTaken), insertAccess,
		r.id, r.tokenID, r.serial, db.NullID(a.Family), h.Key, h.Sum[:], r.scopes, db.Join(a.Audiences, "\n"),
		db.NullText(a.ClientID), r.issueUS, r.expireUS, us, by, reason, checksum)
}

const revokeAccess = `
UPDATE access_tokens SET revoke_us = ?2, revoked_by = ?3, revoke_reason = ?4, row_mac = NULL WHERE id = ?1 AND revoke_us IS NULL`

// RevokeAccess implements tokens.AccessWriter.
func (t *tx) RevokeAccess(id tokens.ID, r tokens.Revocation) (bool, error) {
	us, by, reason := db.Revocation(&r)
	n, err := t.exec("revoke an access token", revokeAccess, int64(id), us, by, reason)
	return n > 0, err
}
