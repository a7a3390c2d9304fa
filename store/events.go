package store

import (
	"database/sql"
	"math"
	"net/netip"

	"patd/internal/tracecontext"
	"patd/store/internal/db"
	"patd/tokens"
)

const insertEvent = `
INSERT INTO events (seq, time_us, actor, action, outcome, "user", token_id, service, peer_ip, reason, detail, writer, traceparent)
VALUES (NULL /* next events.seq */, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
RETURNING seq`

// record writes the events of a transaction and their entries in the change feed. It sets seq to the position of the
// last entry, by the commit at the latest; 0 when there is none.
func (t *tx) record(events []tokens.Event, nowUS int64, seq *uint64) error {
	const op = "write an audit event"
	parent := ""
	*seq = 0
	if at := tracecontext.Of(t.ctx); at.Sampled {
		parent = at.Parent()
	}
	for _, e := range events {
		args := []any{db.Micros(e.Time), e.Actor, string(e.Action), int64(e.Outcome),
			db.NullText(e.User), db.NullID(e.TokenID), db.NullText(e.Service), db.AddrBytes(e.PeerIP),
			db.NullText(e.Reason), db.NullText(e.Detail), int64(newestSchema), db.NullText(parent)}
		if t.failed == nil && t.aside != nil {
			t.aside.add(t, &row{op: op, in: &addEvents, event: e}, args)
		} else {
			at, err := t.position(op, insertEvent, args...)
			if err != nil {
				return err
			}
			t.proof = proof{seq: at, event: e}
		}
		if e.Outcome != tokens.OutcomeSuccess {
			continue
		}
		if err := t.change(e, nowUS, seq); err != nil {
			return err
		}
	}
	return nil
}

const (
	eventColumns = `
SELECT seq, time_us, actor, action, outcome, "user", token_id, service, peer_ip, reason, detail, traceparent FROM events`

	// The three differ in what leads: the index of tokens, that of users, or the log itself.
	selectEventsOfToken = eventColumns + `
WHERE token_id = ?1 AND (?2 = '' OR "user" = ?2) AND (?3 = '' OR actor = ?3) AND (?4 = '' OR action = ?4) AND seq <= ?5
ORDER BY seq DESC LIMIT ?6`

	selectEventsOfUser = eventColumns + `
WHERE (token_id = ?1 OR ?1 = 0) AND "user" = ?2 AND (?3 = '' OR actor = ?3) AND (?4 = '' OR action = ?4) AND seq <= ?5
ORDER BY seq DESC LIMIT ?6`

	selectEvents = eventColumns + `
WHERE (token_id = ?1 OR ?1 = 0) AND (?2 = '' OR "user" = ?2) AND (?3 = '' OR actor = ?3) AND (?4 = '' OR action = ?4)
  AND seq <= ?5
ORDER BY seq DESC LIMIT ?6`
)

// Events implements tokens.LogReader.
func (t *readTx) Events(q tokens.EventQuery) ([]tokens.Event, error) {
	query := selectEvents
	switch {
	case q.TokenID != 0:
		query = selectEventsOfToken
	case q.User != "":
		query = selectEventsOfUser
	}
	last := int64(math.MaxInt64)
	if q.Before != 0 && q.Before <= math.MaxInt64 {
		last = int64(q.Before) - 1
	}
	events := []tokens.Event{}
	err := t.each("list audit events", query, func(rows *sql.Rows) error {
		e, err := scanEvent(rows)
		events = append(events, e)
		return err
	}, int64(q.TokenID), q.User, q.Actor, string(q.Action), last, q.Limit)
	if err != nil {
		return nil, err
	}
	return events, nil
}

func scanEvent(rows *sql.Rows) (tokens.Event, error) {
	var (
		e                           tokens.Event
		seq, us, outcome            int64
		user, service, reason, text sql.NullString
		parent                      sql.NullString
		id                          sql.NullInt64
		ip                          []byte
	)
	err := rows.Scan(&seq, &us, &e.Actor, &e.Action, &outcome, &user, &id, &service, &ip, &reason, &text, &parent)
	if err != nil {
		return e, err
	}
	e.Seq, e.Time, e.Outcome = uint64(seq), db.Instant(us), tokens.Outcome(outcome)
	e.User, e.Service, e.Reason, e.Detail = user.String, service.String, reason.String, text.String
	e.TokenID, e.TraceParent = tokens.ID(id.Int64), parent.String
	e.PeerIP, _ = netip.AddrFromSlice(ip)
	return e, nil
}
