package store

import (
	"fmt"
	"math"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
	"patd/tokens/secret"
)

// What exceeds a policy is found in the index alone, sorted by age there, and only then read. An audience is one of the
// lines of audiences: api is neither xapi nor api2. ?2 and ?3 bound the expiry, ?4 leaves out what the audience has
// blocked already. Those by which a token is blocked are lines too.
const (
	exceeding = `
FROM tokens INDEXED BY tokens_exceeding
WHERE audiences IS NOT NULL AND revoke_us IS NULL AND expire_us > ?2 AND expire_us <= ?3 AND (?4 = 0
  OR blocked_by IS NULL OR instr(` + db.LineEnd + ` || blocked_by || ` + db.LineEnd + `, ` + db.LineEnd + ` || ?1 || ` + db.LineEnd + `) = 0)
  AND instr(` + db.LineEnd + ` || audiences || ` + db.LineEnd + `, ` + db.LineEnd + ` || ?1 || ` + db.LineEnd + `) > 0`

	selectExceeding = `SELECT ` + usedColumns + `
FROM (SELECT id` + exceeding + ` AND id > ?5 ORDER BY id LIMIT ?6) x
CROSS JOIN tokens t ON t.id = x.id
CROSS JOIN users u ON u.key = t.user ` + joinUse + `
ORDER BY t.id`

	countExceeding = `SELECT count(*)` + exceeding

	selectBlocked = `SELECT ` + usedColumns + `
FROM tokens t INDEXED BY tokens_blocked
CROSS JOIN users u ON u.key = t.user ` + joinUse + `
WHERE t.blocked_by IS NOT NULL
  AND instr(` + db.LineEnd + ` || t.blocked_by || ` + db.LineEnd + `, ` + db.LineEnd + ` || ?1 || ` + db.LineEnd + `) > 0 AND t.revoke_us IS NULL AND t.expire_us > ?2 AND t.id > ?3
ORDER BY t.id LIMIT ?4`

	countBlocked = `SELECT count(*) FROM tokens INDEXED BY tokens_blocked
WHERE blocked_by IS NOT NULL
  AND instr(` + db.LineEnd + ` || blocked_by || ` + db.LineEnd + `, ` + db.LineEnd + ` || ?1 || ` + db.LineEnd + `) > 0
  AND revoke_us IS NULL AND expire_us > ?2 AND id > ?3`
)

// exceedArgs are the parameters ?1 to ?4 of exceeding. The bounds of the expiry say both that a token is live and that
// it ends too late; one that never ends is at the upper bound.
func exceedArgs(q tokens.ExceedQuery) ([]any, error) {
	upTo := int64(db.Never - 1)
	if q.Never {
		upTo = db.Never
	}
	var unblocked int64
	switch q.Blocked {
	case tokens.BlockedAny:
	case tokens.BlockedNot:
		unblocked = 1
	default:
		return nil, fmt.Errorf("list exceeding tokens: unknown selection %d", q.Blocked)
	}
	return []any{q.Audience, max(db.Micros(q.Limited), db.Micros(q.Now)), upTo, unblocked}, nil
}

// Exceeding implements tokens.ExceedingReader.
func (t *readTx) Exceeding(q tokens.ExceedQuery) ([]tokens.Token, error) {
	if q.Blocked == tokens.BlockedByAudience {
		return t.listTokens("list blocked tokens", selectBlocked, q.Audience, db.Micros(q.Now), above(q.After), q.Limit)
	}
	args, err := exceedArgs(q)
	if err != nil {
		return nil, err
	}
	return t.listTokens("list exceeding tokens", selectExceeding, append(args, above(q.After), q.Limit)...)
}

// CountExceeding implements tokens.ExceedingReader.
func (t *readTx) CountExceeding(q tokens.ExceedQuery) (int64, error) {
	query, args := countBlocked, []any{q.Audience, db.Micros(q.Now), above(0)}
	if q.Blocked != tokens.BlockedByAudience {
		var err error
		if args, err = exceedArgs(q); err != nil {
			return 0, err
		}
		query = countExceeding
	}
	var n int64
	err := t.one("count exceeding tokens", query, []any{&n}, args...)
	return n, err
}

const countUnnamed = `SELECT count(*) FROM tokens WHERE audiences IS NULL AND revoke_us IS NULL AND expire_us > ?`

// CountUnnamed implements tokens.AudienceReader.
func (t *readTx) CountUnnamed(now time.Time) (int64, error) {
	var n int64
	err := t.one("count tokens that name no audience", countUnnamed, []any{&n}, db.Micros(now))
	return n, err
}

// above is the id that a page begins after; 0 is before all of them, as they are stored: see lastBefore.
func above(id tokens.ID) int64 {
	if id == 0 {
		return math.MinInt64
	}
	return int64(id)
}

// firstIssued and lastIssued are the smallest and the largest id of tokens issued in the millisecond of an instant, as they
// are stored: an id begins with the millisecond of its issue.
func firstIssued(us int64) int64 { return int64(min(secret.FirstID(db.Instant(us)), math.MaxInt64)) }

func lastIssued(us int64) int64 {
	return int64(min(secret.FirstID(db.Instant(us).Add(time.Millisecond)), 1<<63) - 1)
}

const setBlocked = `UPDATE tokens SET blocked_by = ?2, row_mac = ?3 WHERE id = ?1`

// SetBlocked implements tokens.TokenWriter.
func (t *tx) SetBlocked(id tokens.ID, by string) error {
	g, err := t.guard(id)
	if err != nil {
		return err
	}
	g.blockedBy = db.TextOf(db.NullText(by))
	var checksum any = noChecksum() // a row that is refused stays refused
	if g.refused == nil {
		if checksum, err = g.checksum(&t.readTx); err != nil {
			return err
		}
	}
	return t.mustExec("set a token's block", fmt.Errorf("token %s: %w", id, tokens.ErrNotFound), setBlocked, int64(id),
		db.NullText(by), checksum)
}
