package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

const sessionColumns = `id, "user", service, return_url, permissions, features, issue_us, seen_us, expire_us, end_us,
  peer_ip, agent, hint, draft`

// scanSession reads a row of sessionColumns.
func scanSession(scan func(...any) error) (tokens.PageSession, error) {
	var (
		id, issueUS, seenUS, expireUS                    int64
		v                                                tokens.PageSession
		service, returnURL, permissions, features, agent sql.NullString
		endUS                                            sql.NullInt64
		ip                                               []byte
	)
	err := scan(&id, &v.User, &service, &returnURL, &permissions, &features, &issueUS, &seenUS, &expireUS, &endUS, &ip,
		&agent, &v.Hint, &v.Draft)
	if err != nil {
		return tokens.PageSession{}, err
	}
	v.ID, v.Service, v.ReturnURL, v.Agent = tokens.ID(id), service.String, returnURL.String, agent.String
	v.IssueTime, v.SeenTime, v.ExpireTime = db.Instant(issueUS), db.Instant(seenUS), db.Instant(expireUS)
	if endUS.Valid {
		v.EndTime = db.Instant(endUS.Int64)
	}
	if features.Valid {
		v.Features = append([]string{}, db.Split(features.String, " ")...)
	}
	v.IP, _ = netip.AddrFromSlice(ip)
	if permissions.Valid {
		if v.Permissions, err = tokens.ParsePermissions(strings.Fields(permissions.String)); err != nil {
			return tokens.PageSession{}, fmt.Errorf("session %s has permissions that this program does not know", v.ID)
		}
	}
	return v, nil
}

const selectSession = `SELECT ` + sessionColumns + ` FROM page_sessions WHERE digest = ?`

// PageSession implements tokens.PageSessionReader.
func (t *readTx) PageSession(key tokens.SessionKey) (tokens.PageSession, error) {
	found, err := t.sessions("read a session", selectSession, key[:])
	switch {
	case err != nil:
		return tokens.PageSession{}, err
	case len(found) == 0:
		return tokens.PageSession{}, tokens.ErrNotFound
	}
	return found[0], nil
}

const selectSessions = `SELECT ` + sessionColumns + ` FROM page_sessions
WHERE "user" = ? AND end_us IS NULL AND expire_us > ? ORDER BY id DESC LIMIT ?`

// PageSessions implements tokens.PageSessionReader.
func (t *readTx) PageSessions(user string, now time.Time, limit int) ([]tokens.PageSession, error) {
	return t.sessions("list sessions", selectSessions, user, db.Micros(now), limit)
}

const selectAllSessions = `SELECT ` + sessionColumns + ` FROM page_sessions
WHERE id > ? AND end_us IS NULL AND expire_us > ? ORDER BY id LIMIT ?`

// AllPageSessions implements tokens.PageSessionReader.
func (t *readTx) AllPageSessions(after tokens.ID, now time.Time, limit int) ([]tokens.PageSession, error) {
	return t.sessions("list all sessions", selectAllSessions, int64(after), db.Micros(now), limit)
}

func (t *readTx) sessions(op, query string, args ...any) ([]tokens.PageSession, error) {
	list := []tokens.PageSession{}
	err := t.beside(op, query, nil, func(row db.Row) error {
		v, err := scanSession(row.Scan)
		list = append(list, v)
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	return list, nil
}

const selectHandoff = `SELECT "user", service, return_url, expire_us, session_us FROM page_handoffs
WHERE digest = ? AND use_us IS NULL AND expire_us > ?`

// Handoff implements tokens.PageSessionReader.
func (t *readTx) Handoff(key tokens.SessionKey, now time.Time) (tokens.Handoff, error) {
	var (
		h                   tokens.Handoff
		returnURL           sql.NullString
		expireUS, sessionUS int64
	)
	err := t.one(
		"read a hand-off",
		selectHandoff,
		[]any{&h.User, &h.Service, &returnURL, &expireUS, &sessionUS},
		key[:],
		db.Micros(now),
	)
	if err != nil {
		return tokens.Handoff{}, err
	}
	h.ReturnURL, h.ExpireTime, h.SessionExpireTime = returnURL.String, db.Instant(expireUS), db.Instant(sessionUS)
	return h, nil
}

const insertSession = `
INSERT INTO page_sessions (digest, ` + sessionColumns + `)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO NOTHING`

// InsertPageSession implements tokens.PageSessionWriter.
func (t *tx) InsertPageSession(key tokens.SessionKey, v tokens.PageSession) error {
	var features any
	if v.Features != nil {
		features = strings.Join(v.Features, " ")
	}
	return t.mustExec("insert a session", fmt.Errorf("session: %w", tokens.ErrTaken), insertSession,
		key[:], int64(v.ID), v.User, db.NullText(v.Service), db.NullText(v.ReturnURL),
		db.Join(v.Permissions.Names(), " "), features, db.Micros(v.IssueTime), db.Micros(v.SeenTime),
		db.Micros(v.ExpireTime), db.NullTime(v.EndTime), db.AddrBytes(v.IP), db.NullText(v.Agent), nullBytes(v.Hint),
		nullBytes(v.Draft))
}

// nullBytes is NULL for none.
func nullBytes(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

const endSessions = `
UPDATE page_sessions SET end_us = ?4 WHERE "user" = ?1 AND end_us IS NULL
  AND (CAST(?2 AS bigint) = 0 OR id = CAST(?2 AS bigint)) AND id <> ?3`

// EndPageSessions implements tokens.PageSessionWriter.
func (t *tx) EndPageSessions(user string, id, except tokens.ID, at time.Time) (int, error) {
	n, err := t.exec("end sessions", endSessions, user, int64(id), int64(except), db.Micros(at))
	return int(n), err
}

const insertHandoff = `
INSERT INTO page_handoffs (digest, "user", service, return_url, expire_us, session_us) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO NOTHING`

// InsertHandoff implements tokens.PageSessionWriter.
func (t *tx) InsertHandoff(key tokens.SessionKey, h tokens.Handoff) error {
	return t.mustExec("insert a hand-off", fmt.Errorf("hand-off: %w", tokens.ErrTaken), insertHandoff, key[:], h.User,
		h.Service, db.NullText(h.ReturnURL), db.Micros(h.ExpireTime), db.Micros(h.SessionExpireTime))
}

const useHandoff = `UPDATE page_handoffs SET use_us = ?2 WHERE digest = ?1 AND use_us IS NULL AND expire_us > ?2`

// UseHandoff implements tokens.PageSessionWriter.
func (t *tx) UseHandoff(key tokens.SessionKey, at time.Time) error {
	return t.mustExec("use a hand-off", fmt.Errorf("hand-off: %w", tokens.ErrNotFound), useHandoff, key[:],
		db.Micros(at))
}

const (
	recordVisit = `UPDATE page_sessions SET seen_us = ?2 WHERE digest = ?1 AND seen_us < ?2 AND end_us IS NULL`
	keepDraft   = `UPDATE page_sessions SET draft = ?2 WHERE digest = ?1`
)

// RecordVisit implements tokens.Store.
func (s *Store) RecordVisit(ctx context.Context, key tokens.SessionKey, v tokens.Visit) error {
	const op = "record the use of a session"
	return s.transact(ctx, op, func(t *tx) error {
		if !v.Time.IsZero() {
			if _, err := t.exec(op, recordVisit, key[:], db.Micros(v.Time)); err != nil {
				return err
			}
		}
		if v.Draft == nil {
			return nil
		}
		_, err := t.exec(op, keepDraft, key[:], nullBytes(v.Draft))
		return err
	})
}

const (
	hasPrunablePages = `
SELECT EXISTS (SELECT 1 FROM page_sessions WHERE expire_us <= ?1)
    OR EXISTS (SELECT 1 FROM page_handoffs WHERE expire_us <= ?1)`

	pruneSessions = `
DELETE FROM page_sessions WHERE digest IN (SELECT digest FROM page_sessions WHERE expire_us <= ?1 LIMIT ?2)`

	pruneHandoffs = `
DELETE FROM page_handoffs WHERE digest IN (SELECT digest FROM page_handoffs WHERE expire_us <= ?1 LIMIT ?2)`
)
