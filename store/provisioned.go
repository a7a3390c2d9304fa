package store

import (
	"database/sql"
	"fmt"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

const (
	provisionedColumns = `p.id, p.user_key, u."user", u.state, p.user_name, p.external_id, p.display_name, p.inactive,
  p.create_us, p.update_us, p.row_mac`

	fromProvisioned = ` FROM provisioned_users AS p JOIN users AS u ON u.key = p.user_key AND u.delete_us IS NULL `

	// Each has the index that selects, or else the order.
	provisionedByID       = fromProvisioned + `WHERE p.id = ?1 AND (?2 = '' OR p.user_name_key = ?2) AND (?3 = '' OR p.external_id = ?3)`
	provisionedByName     = fromProvisioned + `WHERE (?1 = '' OR p.id = ?1) AND p.user_name_key = ?2 AND (?3 = '' OR p.external_id = ?3)`
	provisionedByExternal = fromProvisioned + `WHERE (?1 = '' OR p.id = ?1) AND (?2 = '' OR p.user_name_key = ?2) AND p.external_id = ?3`
	provisionedAll        = fromProvisioned + `WHERE (?1 = '' OR p.id = ?1) AND (?2 = '' OR p.user_name_key = ?2) AND (?3 = '' OR p.external_id = ?3)`

	pageOfProvisioned = ` ORDER BY p.user_key LIMIT ?4 OFFSET ?5`

	selectProvisioned = `SELECT ` + provisionedColumns + fromProvisioned + `WHERE p.id = ?`
)

// provisionedBy returns what selects by a query.
func provisionedBy(q tokens.ProvisionedQuery) string {
	switch {
	case q.ID != "":
		return provisionedByID
	case q.UserNameKey != "":
		return provisionedByName
	case q.ExternalID != "":
		return provisionedByExternal
	default:
		return provisionedAll
	}
}

// provisionedRow holds a row of provisioned_users, with its user.
type provisionedRow struct {
	p                  tokens.Provisioned
	state, inactive    int64
	external, display  sql.NullString
	createUS, updateUS int64
	checksum           []byte
}

func (r *provisionedRow) dest() []any {
	return []any{&r.p.ID, &r.p.UserKey, &r.p.User, &r.state, &r.p.UserName, &r.external, &r.display, &r.inactive,
		&r.createUS, &r.updateUS, &r.checksum}
}

// sumProvisioned appends the sum of the row of a provisioned user.
func sumProvisioned(b []byte, p tokens.Provisioned) []byte {
	b = sumNumber(sumNumber(append(b, ofProvisioned), p.UserKey), db.Flag(p.Inactive))
	for _, s := range [...]string{p.User, p.ID, p.UserName, p.ExternalID} {
		b = sumText(b, s)
	}
	return b
}

func (r *provisionedRow) record() tokens.Provisioned {
	p := r.p
	p.State = tokens.UserSuspended
	if r.state == userActive {
		p.State = tokens.UserActive
	}
	p.ExternalID, p.DisplayName, p.Inactive = r.external.String, r.display.String, r.inactive != 0
	p.CreateTime, p.UpdateTime = db.Instant(r.createUS), db.Instant(r.updateUS)
	return p
}

// Provisioned implements tokens.ProvisionedReader.
func (t *readTx) Provisioned(id string) (tokens.Provisioned, error) {
	p, checksum, err := t.provisioned(id)
	if err != nil {
		return tokens.Provisioned{}, err
	}
	return p, t.store.rows.check(ofProvisioned, p.UserKey, sumProvisioned(nil, p), checksum)
}

// provisioned reads a user with the checksum of its row.
func (t *readTx) provisioned(id string) (p tokens.Provisioned, checksum []byte, err error) {
	var r provisionedRow
	err = t.one("read a provisioned user", selectProvisioned, r.dest(), id)
	return r.record(), r.checksum, err
}

// ProvisionedUsers implements tokens.ProvisionedReader.
func (t *readTx) ProvisionedUsers(q tokens.ProvisionedQuery) ([]tokens.Provisioned, error) {
	list := []tokens.Provisioned{}
	err := t.each("list provisioned users", `SELECT `+provisionedColumns+provisionedBy(q)+pageOfProvisioned,
		func(rows *sql.Rows) error {
			var r provisionedRow
			err := rows.Scan(r.dest()...)
			list = append(list, r.record())
			return err
		}, q.ID, q.UserNameKey, q.ExternalID, q.Limit, q.Offset)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// CountProvisioned implements tokens.ProvisionedReader.
func (t *readTx) CountProvisioned(q tokens.ProvisionedQuery) (n int64, err error) {
	err = t.one(
		"count provisioned users",
		`SELECT count(*)`+provisionedBy(q),
		[]any{&n},
		q.ID,
		q.UserNameKey,
		q.ExternalID,
	)
	return n, err
}

const (
	// An earlier program deletes users and leaves their records: what they hold is free.
	dropStale = `
DELETE FROM provisioned_users WHERE (id = ?1 OR user_name_key = ?2)
   AND user_key IN (SELECT key FROM users WHERE delete_us IS NOT NULL)`

	insertProvisioned = `
INSERT INTO provisioned_users (user_key, id, user_name, user_name_key, external_id, display_name, inactive, create_us,
  update_us, row_mac)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`

	hasOtherName = `
SELECT EXISTS (SELECT 1 FROM provisioned_users WHERE user_name_key = ?1 AND user_key <> ?2)`

	updateProvisioned = `
UPDATE provisioned_users SET user_name = ?2, user_name_key = ?3, external_id = ?4, display_name = ?5, inactive = ?6,
  update_us = ?7, row_mac = ?8
WHERE user_key = ?1`

	deleteProvisioned = `DELETE FROM provisioned_users WHERE user_key = ?`
)

// InsertProvisioned implements tokens.ProvisionedWriter.
func (t *tx) InsertProvisioned(p tokens.Provisioned) error {
	const op = "insert a provisioned user"
	name := tokens.UserNameKey(p.UserName)
	if _, err := t.exec(op, dropStale, p.ID, name); err != nil {
		return err
	}
	checksum, err := t.store.rows.checksum(sumProvisioned(nil, p))
	if err != nil {
		return err
	}
	return t.mustExec(op, fmt.Errorf("provisioned user: %w", tokens.ErrTaken), insertProvisioned, p.UserKey, p.ID,
		p.UserName, name, db.NullText(p.ExternalID), db.NullText(p.DisplayName), db.Flag(p.Inactive),
		db.Micros(p.CreateTime), db.Micros(p.UpdateTime), checksum)
}

// UpdateProvisioned implements tokens.ProvisionedWriter. A row that is refused stays so, and can only be made inactive.
func (t *tx) UpdateProvisioned(p tokens.Provisioned) error {
	const op = "update a provisioned user"
	name := tokens.UserNameKey(p.UserName)
	if _, err := t.exec(op, dropStale, "", name); err != nil {
		return err
	}
	var taken bool
	if err := t.one(op, hasOtherName, []any{&taken}, name, p.UserKey); err != nil {
		return err
	}
	if taken {
		return fmt.Errorf("provisioned user: %w", tokens.ErrTaken)
	}
	was, had, err := t.provisioned(p.ID)
	if err == nil && !p.Inactive {
		err = t.store.rows.check(ofProvisioned, was.UserKey, sumProvisioned(nil, was), had)
	}
	if err != nil {
		return fmt.Errorf("update a provisioned user: %w", err)
	}
	checksum, err := t.store.rows.next(sumProvisioned(nil, was), had, sumProvisioned(nil, p))
	if err != nil {
		return err
	}
	return t.mustExec(op, fmt.Errorf("provisioned user: %w", tokens.ErrNotFound), updateProvisioned, p.UserKey,
		p.UserName, name, db.NullText(p.ExternalID), db.NullText(p.DisplayName), db.Flag(p.Inactive),
		db.Micros(p.UpdateTime), checksum)
}

// DeleteProvisioned implements tokens.ProvisionedWriter.
func (t *tx) DeleteProvisioned(userKey int64) error {
	_, err := t.exec("delete a provisioned user", deleteProvisioned, userKey)
	return err
}

const (
	insertSecurityEvent = `INSERT INTO security_events (digest, expire_us) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING`

	hasPrunableSecurityEvents = `SELECT EXISTS (SELECT 1 FROM security_events WHERE expire_us <= ?1)`

	pruneSecurityEvents = `
DELETE FROM security_events WHERE digest IN
  (SELECT digest FROM security_events WHERE expire_us <= ?1 ORDER BY expire_us LIMIT ?2)`
)

// RememberSecurityEvent implements tokens.ProvisionedWriter.
func (t *tx) RememberSecurityEvent(digest [32]byte, until time.Time) error {
	return t.mustExec(
		"remember a security event",
		fmt.Errorf("security event: %w", tokens.ErrTaken),
		insertSecurityEvent,
		digest[:],
		db.Micros(until),
	)
}
