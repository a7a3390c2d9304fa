package store

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// Both lists of ends go along an index of expiries. What was set less than ?4 ahead of the end has no notice, and ?3 is
// the id to go on after among those that end at ?1.
const (
	selectEndingTokens = `SELECT ` + usedColumns + `
FROM tokens t INDEXED BY tokens_expire
CROSS JOIN users u ON u.key = t."user" ` + joinUse + `
WHERE t.expire_us >= ?1 AND t.expire_us <= ?2 AND (t.expire_us > ?1 OR t.id > ?3) AND +t.revoke_us IS NULL
  AND coalesce(t.end_set_us, t.renew_us, t.issue_us) < t.expire_us - ?4
  AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.kind = 1 AND n.end_us = t.expire_us AND n.id = t.id AND n.before_us = ?4)
ORDER BY t.expire_us, t.id LIMIT ?5`

	selectEndingServices = `SELECT ` + serviceColumns + `
FROM services s INDEXED BY services_expire
WHERE s.expire_us >= ?1 AND s.expire_us <= ?2 AND (s.expire_us > ?1 OR s.id > ?3) AND s.revoke_us IS NULL
  AND coalesce(s.rotate_us, s.issue_us) < s.expire_us - ?4
  AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.kind = 2 AND n.end_us = s.expire_us AND n.id = s.id AND n.before_us = ?4)
ORDER BY s.expire_us, s.id LIMIT ?5`
)

func endArgs(q tokens.EndQuery) []any {
	return []any{db.Micros(q.From), db.Micros(q.UpTo), above(q.AfterID), q.Before.Microseconds(), q.Limit}
}

// EndingTokens implements tokens.NoticeReader.
func (t *readTx) EndingTokens(q tokens.EndQuery) ([]tokens.Token, error) {
	return t.listTokens("list tokens by their end", selectEndingTokens, endArgs(q)...)
}

// EndingServices implements tokens.NoticeReader.
func (t *readTx) EndingServices(q tokens.EndQuery) ([]tokens.ServiceAccount, error) {
	return t.services("list services by their end", selectEndingServices, endArgs(q)...)
}

const insertNotice = `INSERT INTO notices (kind, end_us, id, before_us) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`

// PutNotice implements tokens.NoticeWriter.
func (t *tx) PutNotice(kind tokens.NoticeKind, id tokens.ID, end time.Time, before time.Duration) error {
	return t.mustExec("record a notice", fmt.Errorf("a notice of %s: %w", id, tokens.ErrTaken), insertNotice,
		int64(kind), db.Micros(end), int64(id), before.Microseconds())
}

const (
	selectEarliestNotice = `SELECT end_us FROM notices WHERE kind = ?1 ORDER BY end_us LIMIT 1`

	// The last of the first so many, up to which rows are then deleted along the index.
	selectNthNotice = `SELECT end_us, id, before_us FROM notices WHERE kind = ?1 AND end_us < ?2
ORDER BY end_us, id, before_us LIMIT 1 OFFSET ?3`
	deleteNotices = `DELETE FROM notices WHERE kind = ?1 AND (end_us, id, before_us) <= (?2, ?3, ?4)`
)

// EarliestNotice implements tokens.NoticeReader.
func (t *readTx) EarliestNotice(kind tokens.NoticeKind) (time.Time, error) {
	var us int64
	if err := t.one("read the earliest notice", selectEarliestNotice, []any{&us}, int64(kind)); err != nil {
		return time.Time{}, err
	}
	return db.Instant(us), nil
}

// ForgetNotices implements tokens.NoticeKeeper.
func (t *tx) ForgetNotices(kind tokens.NoticeKind, before time.Time, limit int) (int, error) {
	const op = "forget notices of what ended long ago"
	endUS, id, beforeUS := db.Micros(before)-1, int64(math.MaxInt64), int64(math.MaxInt64)
	err := t.one(op, selectNthNotice, []any{&endUS, &id, &beforeUS}, int64(kind), db.Micros(before), limit-1)
	if err != nil && !errors.Is(err, tokens.ErrNotFound) {
		return 0, err
	}
	n, err := t.keepRows(op, deleteNotices, int64(kind), endUS, id, beforeUS)
	return int(n), err
}

const selectNoticeMark = `SELECT at_us, note FROM notice_marks WHERE name = ?`

// NoticeMark implements tokens.NoticeReader.
func (t *readTx) NoticeMark(name string) (tokens.NoticeMark, error) {
	var us int64
	var note sql.NullString
	if err := t.one("read a mark of notices", selectNoticeMark, []any{&us, &note}, name); err != nil {
		return tokens.NoticeMark{}, err
	}
	return tokens.NoticeMark{Name: name, Time: db.Instant(us), Note: note.String}, nil
}

// keep is exec for what only says when to look again: it needs no event.
func (t *tx) keep(op, query string, args ...any) error {
	_, err := t.keepRows(op, query, args...)
	return err
}

// keepRows is keep, and returns how many rows it wrote.
func (t *tx) keepRows(op, query string, args ...any) (n int64, err error) {
	wrote := t.wrote
	n, err = t.exec(op, query, args...)
	t.wrote, t.kept = wrote, t.kept || n > 0
	return n, err
}

const putNoticeMark = `INSERT INTO notice_marks (name, at_us, note) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET at_us = excluded.at_us, note = excluded.note`

// PutNoticeMark implements tokens.NoticeKeeper.
func (t *tx) PutNoticeMark(m tokens.NoticeMark) error {
	return t.keep("write a mark of notices", putNoticeMark, m.Name, db.Micros(m.Time), db.NullText(m.Note))
}

const (
	idleCheckColumns = `SELECT token_id, due_us, unused_us, announced_us, announce_us, resume_us FROM idle_checks `
	selectIdleCheck  = idleCheckColumns + `WHERE token_id = ?`
	selectDueChecks  = idleCheckColumns + `INDEXED BY idle_checks_due WHERE due_us <= ? ORDER BY due_us, token_id LIMIT ?`
)

// idleCheckRow holds idleCheckColumns.
type idleCheckRow struct {
	id, dueUS                                   int64
	unusedUS, announcedUS, announceUS, resumeUS sql.NullInt64
}

func (r *idleCheckRow) dest() []any {
	return []any{&r.id, &r.dueUS, &r.unusedUS, &r.announcedUS, &r.announceUS, &r.resumeUS}
}

func (r *idleCheckRow) check() tokens.IdleCheck {
	return tokens.IdleCheck{
		TokenID: tokens.ID(r.id),
		Due:     db.Instant(r.dueUS),
		Unused:  nullInstant(r.unusedUS),
		Announced: nullInstant(
			r.announcedUS,
		),
		AnnounceTime: nullInstant(r.announceUS),
		ResumeTime:   nullInstant(r.resumeUS),
	}
}

// IdleCheck implements tokens.NoticeReader.
func (t *readTx) IdleCheck(id tokens.ID) (tokens.IdleCheck, error) {
	var r idleCheckRow
	if err := t.one("read the check of a token", selectIdleCheck, r.dest(), int64(id)); err != nil {
		return tokens.IdleCheck{}, err
	}
	return r.check(), nil
}

// DueIdleChecks implements tokens.NoticeReader.
func (t *readTx) DueIdleChecks(now time.Time, limit int) ([]tokens.IdleCheck, error) {
	list := []tokens.IdleCheck{}
	err := t.each("list checks of tokens", selectDueChecks, func(rows *sql.Rows) error {
		var r idleCheckRow
		err := rows.Scan(r.dest()...)
		list = append(list, r.check())
		return err
	}, db.Micros(now), limit)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// The tokens of a stretch of ids, and what becomes of those that have not ended.
const (
	selectIssued = `
SELECT t.id, t.revoke_us IS NULL AND +t.expire_us > ?3 FROM tokens t
WHERE t.id > ?1 AND t.id <= ?2 ORDER BY t.id LIMIT ?4`

	beginIdleCheck = `INSERT INTO idle_checks (token_id, due_us) VALUES (?, ?)
ON CONFLICT (token_id) DO UPDATE SET due_us = excluded.due_us WHERE idle_checks.due_us > excluded.due_us`
)

// BeginIdleChecks implements tokens.NoticeKeeper.
func (t *tx) BeginIdleChecks(after tokens.ID, upTo, now time.Time, limit int) (last tokens.ID, n int, err error) {
	const op = "begin checks of tokens"
	var id int64
	live := []int64{}
	err = t.each(op, selectIssued, func(rows *sql.Rows) error {
		var lives bool
		if err := rows.Scan(&id, &lives); err != nil {
			return err
		}
		if n++; lives {
			live = append(live, id)
		}
		return nil
	}, above(after), lastIssued(db.Micros(upTo)), db.Micros(now), limit)
	for _, one := range live {
		if err == nil {
			err = t.keep(op, beginIdleCheck, one, db.Micros(now))
		}
	}
	if err != nil {
		return 0, 0, err
	}
	return tokens.ID(id), n, nil
}

const putIdleCheck = `
INSERT INTO idle_checks (token_id, due_us, unused_us, announced_us, announce_us, resume_us) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (token_id) DO UPDATE SET due_us = excluded.due_us, unused_us = excluded.unused_us,
  announced_us = excluded.announced_us, announce_us = excluded.announce_us, resume_us = excluded.resume_us`

// PutIdleCheck implements tokens.NoticeKeeper.
func (t *tx) PutIdleCheck(c tokens.IdleCheck) error {
	return t.keep("write the check of a token", putIdleCheck, int64(c.TokenID), db.Micros(c.Due), db.NullTime(c.Unused),
		db.NullTime(c.Announced), db.NullTime(c.AnnounceTime), db.NullTime(c.ResumeTime))
}

const deleteIdleCheck = `DELETE FROM idle_checks WHERE token_id = ?`

// DeleteIdleCheck implements tokens.NoticeKeeper.
func (t *tx) DeleteIdleCheck(id tokens.ID) error {
	return t.keep("remove the check of a token", deleteIdleCheck, int64(id))
}
