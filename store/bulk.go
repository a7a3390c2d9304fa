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
	bulkColumns = `plan, actor, peer_ip, reason, count, revoked, begin_us, work_us, end_us`

	selectBulk = `SELECT ` + bulkColumns + ` FROM bulk_revocations WHERE plan = ?`

	selectAbandoned = `SELECT ` + bulkColumns + ` FROM bulk_revocations INDEXED BY bulk_revocations_open
WHERE end_us IS NULL AND work_us < ? ORDER BY work_us LIMIT 1`

	selectPart = `SELECT num, ids FROM bulk_parts WHERE plan = ? ORDER BY num LIMIT 1`
)

// BulkRevocation implements tokens.BulkReader.
func (t *readTx) BulkRevocation(key tokens.PlanKey) (tokens.BulkRevocation, error) {
	return t.bulk("read a revocation of many tokens", selectBulk, key[:])
}

// AbandonedBulkRevocation implements tokens.BulkReader.
func (t *readTx) AbandonedBulkRevocation(before time.Time) (tokens.BulkRevocation, error) {
	return t.bulk("look for a revocation to carry on", selectAbandoned, db.Micros(before))
}

func (t *readTx) bulk(op, query string, arg any) (tokens.BulkRevocation, error) {
	var (
		b               tokens.BulkRevocation
		plan, ip        []byte
		reason          sql.NullString
		beginUS, workUS int64
		endUS           sql.NullInt64
	)
	err := t.one(op, query, []any{&plan, &b.Actor, &ip, &reason, &b.Count, &b.Revoked, &beginUS, &workUS, &endUS}, arg)
	if err != nil {
		return tokens.BulkRevocation{}, err
	}
	copy(b.Key[:], plan)
	b.PeerIP, _ = netip.AddrFromSlice(ip)
	b.Reason, b.BeginTime, b.WorkTime = reason.String, db.Instant(beginUS), db.Instant(workUS)
	if endUS.Valid {
		b.EndTime = db.Instant(endUS.Int64)
	}
	return b, nil
}

// NextBulkPart implements tokens.BulkReader.
func (t *readTx) NextBulkPart(key tokens.PlanKey) (tokens.BulkPart, error) {
	return t.part("read tokens to revoke", selectPart, key)
}

func (t *readTx) part(op, query string, key tokens.PlanKey) (tokens.BulkPart, error) {
	var number int64
	var ids []byte
	err := t.one(op, query, []any{&number, &ids}, key[:])
	p := tokens.BulkPart{Number: int(number)}
	for ; len(ids) >= 8; ids = ids[8:] {
		p.IDs = append(p.IDs, tokens.ID(binary.BigEndian.Uint64(ids)))
	}
	return p, err
}

const (
	insertBulk = `
INSERT INTO bulk_revocations (` + bulkColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (plan) DO NOTHING`

	insertPart = `INSERT INTO bulk_parts (plan, num, ids) VALUES (?, ?, ?)`

	updateBulk = `UPDATE bulk_revocations SET revoked = ?2, work_us = ?3, end_us = ?4 WHERE plan = ?1`

	deletePart = `DELETE FROM bulk_parts WHERE plan = ?1 AND num = ?2`
)

// InsertBulkRevocation implements tokens.BulkWriter.
func (t *tx) InsertBulkRevocation(b tokens.BulkRevocation, parts []tokens.BulkPart) error {
	const op = "begin a revocation of many tokens"
	err := t.mustExec(
		op,
		fmt.Errorf("the plan is carried out already: %w", tokens.ErrTaken),
		insertBulk,
		b.Key[:],
		b.Actor,
		db.AddrBytes(
			b.PeerIP,
		),
		db.NullText(b.Reason),
		b.Count,
		b.Revoked,
		db.Micros(b.BeginTime),
		db.Micros(b.WorkTime),
		db.NullTime(b.EndTime),
	)
	for _, p := range parts {
		if err != nil {
			return err
		}
		_, err = t.exec(op, insertPart, b.Key[:], int64(p.Number), idBytes(p.IDs))
	}
	return err
}

// UpdateBulkRevocation implements tokens.BulkWriter.
func (t *tx) UpdateBulkRevocation(b tokens.BulkRevocation, part int) error {
	const op = "note the progress of a revocation of many tokens"
	err := t.mustExec(
		op,
		fmt.Errorf("the plan is not carried out: %w", tokens.ErrNotFound),
		updateBulk,
		b.Key[:],
		b.Revoked,
		db.Micros(b.WorkTime),
		db.NullTime(b.EndTime),
	)
	if err == nil {
		_, err = t.exec(op, deletePart, b.Key[:], int64(part))
	}
	return err
}

// keepBulk is how long the record of a revocation of many tokens is kept after its end: so long the same call returns
// what it did. Its event stays in the audit log.
const keepBulk = 30 * tokens.Day

const (
	hasPrunableBulk = `SELECT EXISTS (SELECT 1 FROM bulk_revocations WHERE end_us <= ?1)`

	// Each batch goes with its own transaction, so that one that has ended has no parts.
	pruneBulk = `
DELETE FROM bulk_revocations WHERE plan IN (SELECT plan FROM bulk_revocations WHERE end_us <= ?1 LIMIT ?2)`
)
