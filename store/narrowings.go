package store

import (
	"database/sql"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

const (
	narrowingColumns = `plan, actor, peer_ip, cutoff_us, unscoped, count, narrowed, scopes, begin_us, work_us, end_us`

	selectNarrowing = `SELECT ` + narrowingColumns + ` FROM narrowings WHERE plan = ?`

	selectAbandonedNarrowing = `SELECT ` + narrowingColumns + ` FROM narrowings INDEXED BY narrowings_open
WHERE end_us IS NULL AND work_us < ? ORDER BY work_us LIMIT 1`

	selectNarrowingPart = `SELECT num, ids FROM narrowing_parts WHERE plan = ? ORDER BY num LIMIT 1`
)

// Narrowing implements tokens.NarrowingReader.
func (t *readTx) Narrowing(key tokens.PlanKey) (tokens.Narrowing, error) {
	return t.narrowing("read a narrowing of many tokens", selectNarrowing, key[:])
}

// AbandonedNarrowing implements tokens.NarrowingReader.
func (t *readTx) AbandonedNarrowing(before time.Time) (tokens.Narrowing, error) {
	return t.narrowing("look for a narrowing to carry on", selectAbandonedNarrowing, db.Micros(before))
}

func (t *readTx) narrowing(op, query string, arg any) (tokens.Narrowing, error) {
	var (
		n               tokens.Narrowing
		plan, ip        []byte
		cutoffUS, endUS sql.NullInt64
		unscoped        int64
		beginUS, workUS int64
	)
	err := t.one(
		op,
		query,
		[]any{&plan, &n.Actor, &ip, &cutoffUS, &unscoped, &n.Count, &n.Narrowed, &n.Scopes, &beginUS,
			&workUS, &endUS},
		arg,
	)
	if err != nil {
		return tokens.Narrowing{}, err
	}
	copy(n.Key[:], plan)
	n.PeerIP, _ = netip.AddrFromSlice(ip)
	n.Cutoff, n.Unscoped = nullInstant(cutoffUS), unscoped == 1
	n.BeginTime, n.WorkTime, n.EndTime = db.Instant(beginUS), db.Instant(workUS), nullInstant(endUS)
	return n, nil
}

// NextNarrowingPart implements tokens.NarrowingReader.
func (t *readTx) NextNarrowingPart(key tokens.PlanKey) (tokens.BulkPart, error) {
	return t.part("read tokens to narrow", selectNarrowingPart, key)
}

const (
	insertNarrowing = `
INSERT INTO narrowings (` + narrowingColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (plan) DO NOTHING`

	insertNarrowingPart = `INSERT INTO narrowing_parts (plan, num, ids) VALUES (?, ?, ?)`

	updateNarrowing = `UPDATE narrowings SET narrowed = ?2, scopes = ?3, work_us = ?4, end_us = ?5 WHERE plan = ?1`

	deleteNarrowingPart = `DELETE FROM narrowing_parts WHERE plan = ?1 AND num = ?2`
)

// InsertNarrowing implements tokens.NarrowingWriter.
func (t *tx) InsertNarrowing(n tokens.Narrowing, parts []tokens.BulkPart) error {
	const op = "begin a narrowing of many tokens"
	unscoped := 0
	if n.Unscoped {
		unscoped = 1
	}
	err := t.mustExec(op, fmt.Errorf("the plan is carried out already: %w", tokens.ErrTaken), insertNarrowing, n.Key[:],
		n.Actor, db.AddrBytes(n.PeerIP), db.NullTime(n.Cutoff), unscoped, n.Count, n.Narrowed, n.Scopes,
		db.Micros(n.BeginTime), db.Micros(n.WorkTime), db.NullTime(n.EndTime))
	for _, p := range parts {
		if err != nil {
			return err
		}
		_, err = t.exec(op, insertNarrowingPart, n.Key[:], int64(p.Number), idBytes(p.IDs))
	}
	return err
}

// idBytes are ids of 8 bytes each.
func idBytes(ids []tokens.ID) []byte {
	b := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, uint64(id))
	}
	return b
}

// UpdateNarrowing implements tokens.NarrowingWriter.
func (t *tx) UpdateNarrowing(n tokens.Narrowing, part int) error {
	const op = "note the progress of a narrowing of many tokens"
	err := t.mustExec(op, fmt.Errorf("the plan is not carried out: %w", tokens.ErrNotFound), updateNarrowing, n.Key[:],
		n.Narrowed, n.Scopes, db.Micros(n.WorkTime), db.NullTime(n.EndTime))
	if err == nil {
		_, err = t.exec(op, deleteNarrowingPart, n.Key[:], int64(part))
	}
	return err
}

const (
	hasPrunableNarrowings = `SELECT EXISTS (SELECT 1 FROM narrowings WHERE end_us <= ?1)`

	pruneNarrowings = `
DELETE FROM narrowings WHERE plan IN (SELECT plan FROM narrowings WHERE end_us <= ?1 LIMIT ?2)`
)

// The condition on revoke_us has the index used.
const selectEndedPauses = `
SELECT id FROM tokens INDEXED BY tokens_paused WHERE paused_end_us IS NOT NULL AND revoke_us IS NULL AND paused_end_us <= ?1
ORDER BY paused_end_us LIMIT ?2`

// EndedPauses implements tokens.TokenReader.
func (t *readTx) EndedPauses(before time.Time, limit int) ([]tokens.ID, error) {
	ids := []tokens.ID{}
	err := t.each("look for pauses that are over", selectEndedPauses, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, tokens.ID(id))
		return err
	}, db.Micros(before), limit)
	return ids, err
}
