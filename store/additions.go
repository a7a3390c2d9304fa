package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"patd/store/internal/db"
	"patd/tokens"
)

// row is one that a change adds at the end of its group.
type row struct {
	op   string
	in   *addition
	args []any // of the statement for one row
	at   []place

	number int64        // in the audit log and the change feed: the position that it was given
	event  tokens.Event // of the audit log's row
	seq    *uint64      // of the change feed's row: set to its position
}

// addition is how rows are added to a table of PostgreSQL: one by one, or many in one statement.
type addition struct {
	one, many string
	columns   string // what each column holds, in the order of the arguments: n numbers, t texts, b bytes
}

// The tables, in the order in which they are written: requests refer to tokens.
var (
	addTokens   = addition{one: insertToken, many: insertTokens, columns: tokenArrays}
	addRequests = addition{one: putRequest, many: putRequests, columns: requestArrays}
	addEvents   = addition{one: insertEvent, many: insertEvents, columns: eventArrays}
	addChanges  = addition{one: insertChange, many: insertChanges, columns: changeArrays}
)

const (
	tokenArrays   = "nntbtttnntttt" + "ntttbnbtbn"
	requestArrays = "bbnbnn"
	eventArrays   = "nttntntbttnt"
	changeArrays  = "nntt"
)

// insertTokens is insertToken for many, whose number must come out.
var insertTokens = `
INSERT INTO tokens (id, "user", key, digest, name, name_key, scopes, issue_us, expire_us, audiences, cidrs, labels,
  description, revoke_us, revoked_by, revoke_reason, blocked_by, row_mac, self_rotate_until_us, self_mac, paused,
  paused_mac, paused_end_us)
SELECT v.id, v.owner, k.num, v.digest, v.name, v.name_key, v.scopes, v.issue_us, v.expire_us, v.audiences, v.cidrs,
  v.labels, v.description, v.revoke_us, v.revoked_by, v.revoke_reason, v.blocked_by, v.row_mac, v.until_us, v.self_mac,
  v.paused, v.paused_mac, v.paused_end_us
FROM ` + arraysOf(tokenArrays, 1) + ` AS v (id, owner, key, digest, name, name_key, scopes, issue_us,
  expire_us, audiences, cidrs, labels, description, revoke_us, revoked_by, revoke_reason, blocked_by, row_mac, until_us,
  self_mac, paused, paused_mac, paused_end_us)
LEFT JOIN keys k ON k.name = v.key AND k.retire_us IS NULL
ON CONFLICT (id) DO NOTHING`

// putRequests is putRequest for many. Whose request is there and expires between the moments of two of them has to put
// it alone.
var putRequests = `
INSERT INTO requests (key, fingerprint, token_id, sealed, expire_us)
SELECT v.key, v.fingerprint, v.token_id, v.sealed, v.expire_us
FROM ` + arraysOf(requestArrays, 1) + ` AS v (key, fingerprint, token_id, sealed, expire_us, now_us)
ON CONFLICT (key) DO UPDATE
SET fingerprint = excluded.fingerprint, token_id = excluded.token_id, sealed = excluded.sealed,
  expire_us = excluded.expire_us
WHERE requests.expire_us <= (SELECT min(n) FROM unnest(CAST(?6 AS bigint[])) AS n)`

// numbersOf gives the number before the first of ?1 rows, each above all that the table has, and takes the sequence
// along; see positions.go and db.PostgresForm.
func numbersOf(table string) string {
	return `
WITH given AS MATERIALIZED (
  SELECT s.of, CASE WHEN has_sequence_privilege(s.of, 'UPDATE') THEN nextval(s.of) END AS next,
    (SELECT coalesce(max(seq), 0) FROM ` + table + `) AS newest
  FROM (SELECT to_regclass('` + table + `_seq_seq') AS of) s
), first AS MATERIALIZED (
  SELECT CASE WHEN next IS NULL THEN newest ELSE
    setval(of, greatest(next, newest + 1) + CAST(?1 AS bigint) - 1) - CAST(?1 AS bigint) END AS before FROM given
)`
}

var (
	insertEvents = numbersOf("events") + `
INSERT INTO events (seq, time_us, actor, action, outcome, "user", token_id, service, peer_ip, reason, detail, writer,
  traceparent)
SELECT first.before + v.n, v.time_us, v.actor, v.action, v.outcome, v.owner, v.token_id, v.service, v.peer_ip, v.reason,
  v.detail, v.writer, v.traceparent
FROM first, ` + arraysOf(eventArrays, 2) + ` WITH ORDINALITY AS v (time_us, actor, action, outcome, owner, token_id,
  service, peer_ip, reason, detail, writer, traceparent, n)
ORDER BY v.n RETURNING seq`

	insertChanges = numbersOf("changes") + `
INSERT INTO changes (seq, time_us, token_id, "user", service)
SELECT first.before + v.n, v.time_us, v.token_id, v.owner, v.service
FROM first, ` + arraysOf(changeArrays, 2) + ` WITH ORDINALITY AS v (time_us, token_id, owner, service, n)
ORDER BY v.n RETURNING seq`
)

// arraysOf is the rows of the parameters from the nth on, each an array.
func arraysOf(columns string, n int) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = fmt.Sprintf("CAST(?%d AS %s[])", n+i, map[rune]string{'n': "bigint", 't': "text", 'b': "bytea"}[c])
	}
	return `unnest(` + strings.Join(list, ", ") + `)`
}

var errNotAdded = errors.New("the database did not take every row of a group")

// add adds the rows of a group, in one pipeline.
func (b *batch) add(rows []*row) {
	var list []*db.Statement
	var wants [][]*row
	for _, in := range []*addition{&addTokens, &addRequests, &addEvents, &addChanges} {
		var of []*row
		for _, r := range rows {
			if r.in == in {
				of = append(of, r)
			}
		}
		if len(of) == 0 {
			continue
		}
		s, err := in.statement(of)
		if err != nil {
			b.lose(err)
			return
		}
		list, wants = append(list, s), append(wants, of)
	}
	if err := b.c.Pipeline(context.Background(), list); err != nil {
		b.lose(err)
		return
	}
	for i, s := range list {
		if s.Err != nil || s.Rows != int64(len(wants[i])) {
			b.lose(errors.Join(errNotAdded, s.Err))
			return
		}
	}
	b.wrote = true
	for _, r := range rows {
		switch r.in {
		case &addEvents:
			b.proof = proof{seq: r.number, event: r.event}
		case &addChanges:
			b.fed = true
			*r.seq = uint64(r.number)
		}
	}
}

// statement adds rows. Those of a table that numbers them, of the audit log and the change feed, get their numbers, in
// their order.
func (in *addition) statement(of []*row) (*db.Statement, error) {
	s := &db.Statement{Query: in.many}
	if in == &addEvents || in == &addChanges {
		s.Args = append(s.Args, int64(len(of)))
		next, last := of, int64(0)
		s.Row = func(row db.Row) error {
			if len(next) == 0 {
				return errNotNumbered
			}
			if err := row.Scan(&next[0].number); err != nil {
				return err
			}
			if next[0].number <= last {
				return errNotNumbered
			}
			next, last = next[1:], next[0].number
			return nil
		}
	}
	for c := range in.columns {
		list, err := column(of, c, in.columns[c])
		if err != nil {
			return nil, err
		}
		s.Args = append(s.Args, list)
	}
	return s, nil
}

// column returns a column of rows as an array.
func column(of []*row, c int, holds byte) (any, error) {
	switch holds {
	case 'n':
		return columnOf[int64](of, c)
	case 't':
		return columnOf[string](of, c)
	}
	list := make([][]byte, len(of))
	for i, r := range of {
		v, ok := r.args[c].([]byte)
		if !ok && r.args[c] != nil {
			return nil, fmt.Errorf("%s: column %d is a %T", r.op, c+1, r.args[c])
		}
		list[i] = v
	}
	return list, nil
}

func columnOf[T any](of []*row, c int) ([]*T, error) {
	list := make([]*T, len(of))
	for i, r := range of {
		v, ok := r.args[c].(T)
		switch {
		case ok:
			list[i] = &v
		case r.args[c] != nil:
			return nil, fmt.Errorf("%s: column %d is a %T", r.op, c+1, r.args[c])
		}
	}
	return list, nil
}
