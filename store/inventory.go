package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// A page of the inventory is read along one index, in the order of the list. The rest of the filter is checked row by
// row, in stretches of inventoryStretch rows and for inventoryTime at most. So a page takes no longer with ten million
// tokens than with ten thousand: what matches rarely comes in pages that are not full. A few rows, inventoryFew, are
// read from another index and sorted.
const (
	inventoryStretch = 500
	userStretch      = 64
	inventoryFew     = 4000
	inventoryTime    = 20 * time.Millisecond
)

// inventoryFilter is the part of a filter that is checked row by row; + keeps an index from being chosen for it. ?1 is
// the state, or 4 for all that are not revoked. Labels are stored as JSON with sorted keys: one is found by its text,
// after a brace or a comma.
const inventoryFilter = `
  AND (CAST(?1 AS BIGINT) = 0
       OR ?1 = 1 AND +t.revoke_us IS NULL AND +t.expire_us > ?2
       OR ?1 = 2 AND +t.revoke_us IS NULL AND +t.expire_us <= ?2
       OR ?1 = 3 AND +t.revoke_us IS NOT NULL
       OR ?1 = 4 AND +t.revoke_us IS NULL)
  AND (?3 = '' OR instr(' ' || t.scopes || ' ', ' ' || ?3 || ' ') > 0
       OR instr(t.paused || ` + db.LineEnd + `, ' ' || ?3 || ` + db.LineEnd + `) > 0 AND ` + pauseTime + ` > ` + lastEndedPause + `)
  AND (?4 = '' OR instr(` + db.LineEnd + ` || t.audiences || ` + db.LineEnd + `, ` + db.LineEnd + ` || ?4 || ` + db.LineEnd + `) > 0)
  AND (?5 = '' OR instr(` + nameKey + `, ?5) > 0 OR ?6 <> '' AND instr(` + nameKey + `, ?6) > 0)
  AND +t.expire_us <= ?7 AND +t.issue_us <= ?8
  AND t.issue_us < ?9 AND (t.last_used_us IS NULL OR t.last_used_us < ?9) AND (w.use_us IS NULL OR w.use_us < ?9)
  AND (?10 = '' OR instr(',' || substr(t.labels, 2), ?10) > 0)
  AND (?11 = '' OR instr(',' || substr(t.labels, 2), ?11) > 0)
  AND (?12 = '' OR instr(',' || substr(t.labels, 2), ?12) > 0)
  AND (?13 = '' OR instr(',' || substr(t.labels, 2), ?13) > 0)
  AND (CAST(?14 AS BIGINT) = 0 OR +t."user" = ?14)`

// pauseTime is the text of when the scope was paused, which stands before it in its line. lastEndedPause is that of a
// pause which is over right now. Both have 16 digits, from 2001 to 2286.
const (
	pauseTime      = `substr(t.paused, CAST(instr(t.paused || ` + db.LineEnd + `, ' ' || ?3 || ` + db.LineEnd + `) AS INTEGER) - 16, 16)`
	lastEndedPause = `CAST(CAST(?2 AS BIGINT) - 2592000000000 AS TEXT)`
)

// span is a range of ids or instants as they are stored, with both ends.
type span struct{ lo, hi int64 }

func everything() span { return span{math.MinInt64, math.MaxInt64} }

// bounded reports whether a span leaves something out.
func (s span) bounded() bool { return s != everything() }

// past is the part of a span that comes after at, in the direction of reading.
func (s span) past(at int64, desc bool) span {
	switch {
	case desc && at == math.MinInt64, !desc && at == math.MaxInt64:
		return span{1, 0} // nothing
	case desc:
		return span{s.lo, min(s.hi, at-1)}
	default:
		return span{max(s.lo, at+1), s.hi}
	}
}

// until is the part of a span that comes before at.
func (s span) until(at int64, desc bool) span {
	return s.past(at, !desc)
}

// inventory is a page of the inventory in the making.
type inventory struct {
	*readTx

	q      tokens.InventoryQuery
	desc   bool
	column string // of the order
	args   []any  // ?1 to ?14, of inventoryFilter
	user   int64
	found  []tokens.Token // at most one more than the limit: then there are more
	turn   <-chan time.Time
	over   bool
}

// Inventory implements tokens.InventoryReader.
func (t *readTx) Inventory(q tokens.InventoryQuery) (tokens.InventoryPage, error) {
	if q.Within == 0 {
		q.Within = inventoryTime
	}
	turn := time.NewTimer(max(q.Within, 0))
	defer turn.Stop()
	in := &inventory{readTx: t, q: q, desc: q.Order.Descending(), column: idColumn, found: []tokens.Token{},
		turn: turn.C, over: q.Within < 0}
	if q.Order.ByExpiry() {
		in.column = expireColumn
	}
	err := in.prepare()
	if errors.Is(err, tokens.ErrNotFound) { // the user
		return tokens.InventoryPage{Tokens: in.found}, nil
	}
	if err != nil {
		return tokens.InventoryPage{}, err
	}
	page := tokens.InventoryPage{}
	if page.Next, page.More, err = in.read(); err != nil {
		return tokens.InventoryPage{}, err
	}
	if n := q.Limit; len(in.found) > n {
		in.found, page.More = in.found[:n], true
		last := in.found[n-1]
		if page.Next = in.place(int64(last.ID)); q.Order.ByExpiry() {
			page.Next.Time = last.ExpireTime
		}
	}
	page.Tokens = in.found
	return page, nil
}

// prepare makes the parameters of inventoryFilter.
func (in *inventory) prepare() error {
	q := in.q
	state, err := stateNumber(q.State)
	if err != nil {
		return err
	}
	if q.Unrevoked && state == 0 {
		state = 4
	}
	if q.User != "" {
		u, err := in.User(q.User)
		if err != nil {
			return err
		}
		in.user = u.Key
	}
	key, former := searchKeys(q.NameHas)
	var labels []any
	for k, v := range q.Labels {
		text, err := json.Marshal(map[string]string{k: v})
		if err != nil {
			return fmt.Errorf("list the inventory: %w", err)
		}
		labels = append(labels, ","+string(text[1:len(text)-1]))
	}
	for len(labels) < tokens.MaxFilterLabels {
		labels = append(labels, "")
	}
	in.args = append([]any{state, db.Micros(q.Now), q.Scope, q.Audience, key, former, before(q.ExpiresBefore, db.Never),
		before(q.CreatedBefore, math.MaxInt64), before(q.UnusedSince, math.MaxInt64-1) + 1}, append(labels, in.user)...)
	return nil
}

// before is the last stored instant before a time; the zero time has no end.
func before(t time.Time, otherwise int64) int64 {
	if t.IsZero() {
		return otherwise
	}
	return db.Micros(t) - 1
}

// issued is the range of ids that the filter leaves, to the millisecond, and expiring that of expiries.
func (in *inventory) issued() span {
	s := everything()
	if us := min(before(in.q.CreatedBefore, s.hi), before(in.q.UnusedSince, s.hi)); us != s.hi {
		s.hi = lastIssued(us)
	}
	return s
}

func (in *inventory) expiring() span {
	s := everything()
	s.hi = before(in.q.ExpiresBefore, s.hi)
	switch now := db.Micros(in.q.Now); in.q.State {
	case tokens.StateActive:
		s.lo = now + 1
	case tokens.StateExpired:
		s.hi = min(s.hi, now)
	}
	return s
}

// read chooses a way and follows it. It returns where it stopped for lack of time; false: there is no more.
func (in *inventory) read() (tokens.InventoryPosition, bool, error) {
	byExpiry, ids, ends := in.q.Order.ByExpiry(), in.issued(), in.expiring()
	few, s := wayTimes(), ends // sorted if they are few
	if byExpiry {
		few, s = wayToken(), ids
	}
	switch {
	case in.q.ID != 0:
		id := int64(in.q.ID)
		return in.follow(wayToken(), span{id, id}, int64(in.q.After.ID))
	case in.user != 0 && !byExpiry:
		return in.follow(in.ofUser(), everything(), int64(in.q.After.ID))
	case in.q.State == tokens.StateRevoked && !byExpiry && !ids.bounded():
		return in.follow(wayRevoked(), everything(), int64(in.q.After.ID))
	case in.user != 0:
		few, s = in.ofUser(), everything()
		fallthrough
	case s.bounded():
		if done, err := in.sort(few, s); done || err != nil {
			return tokens.InventoryPosition{}, false, err
		}
	}
	if byExpiry {
		return in.byTime(ends)
	}
	return in.follow(wayToken(), ids, in.after())
}

// ofUser is the way through the user's tokens.
func (in *inventory) ofUser() way {
	state := ``
	switch {
	case in.q.State == tokens.StateRevoked:
		state = userRevoked
	case in.q.Unrevoked || in.q.State != tokens.StateAny:
		state = userUnrevoked
	}
	rows := userStretch
	for rows <= in.q.Limit && rows < inventoryStretch {
		rows *= 2
	}
	return wayUser(in.user, state, rows)
}

// place is where the list goes on after an id, in the order of ids. Servers of earlier versions go by the instant of issue,
// and then by the id: the time is beside the millisecond of the id, so that they list some tokens of it again and leave
// none out.
func (in *inventory) place(id int64) tokens.InventoryPosition {
	at := tokens.InventoryPosition{ID: tokens.ID(id)}
	if at.Time = at.ID.Time().Add(-time.Microsecond); in.desc {
		at.Time = at.ID.Time().Add(time.Millisecond)
	}
	return at
}

// after is the id after which the list goes on, in the order of ids; 0: from the start. A position from an earlier version
// has a time of the id's millisecond, or no id; the list goes on from the start of that millisecond.
func (in *inventory) after() int64 {
	p := in.q.After
	us := db.Micros(p.Time)
	switch id := int64(p.ID); {
	case p.Time.IsZero() || !p.Time.Truncate(time.Millisecond).Equal(p.ID.Time()) && id != in.start():
		return id
	case in.desc:
		return lastIssued(us) + 1
	default:
		return firstIssued(us) - 1
	}
}

// sort reads all tokens of a way and sorts them, if they are few.
func (in *inventory) sort(w way, s span) (bool, error) {
	_, many, err := in.endOf(w, inventoryFew, s)
	if many || err != nil {
		return false, err
	}
	at, id := in.start(), in.start()
	switch from := in.q.After; {
	case from == (tokens.InventoryPosition{}):
	case in.q.Order.ByExpiry():
		at, id = db.Expiry(from.Time), int64(from.ID)
	default:
		at, id = in.after(), in.after()
	}
	args := append(in.pageArgs(), at, id, s.lo, s.hi)
	return true, in.list(w.sortedBy(in.column, in.desc), append(args, w.key...))
}

// follow reads along a way in the order of ids, after one; 0: from the start.
func (in *inventory) follow(w way, s span, after int64) (tokens.InventoryPosition, bool, error) {
	if after != 0 {
		s = s.past(after, in.desc)
	}
	stopped, more, err := in.stretches(w, s)
	return in.place(stopped), more, err
}

// byTime reads along the expiries, from where the last page ended.
func (in *inventory) byTime(s span) (at tokens.InventoryPosition, more bool, err error) {
	if from := in.q.After; from != (tokens.InventoryPosition{}) {
		us := db.Expiry(from.Time)
		if at, more, err := in.tied(us, int64(from.ID)); more || err != nil || in.full() {
			return at, more, err
		}
		s = s.past(us, in.desc)
	}
	for s.lo <= s.hi {
		us, more, err := in.endOf(wayTimes(), inventoryStretch, s)
		if err != nil {
			return at, false, err
		}
		if !more {
			return at, false, in.list(wayTimes().pageOf(in.desc), append(in.pageArgs(), s.lo, s.hi))
		}
		if first := s.until(us, in.desc); first.lo <= first.hi {
			err = in.list(wayTimes().pageOf(in.desc), append(in.pageArgs(), first.lo, first.hi))
		}
		if err != nil || in.full() {
			return at, false, err
		}
		if in.late() {
			return in.position(us, in.start()), true, nil
		}
		if at, more, err := in.tied(us, in.start()); more || err != nil || in.full() {
			return at, more, err
		}
		s = s.past(us, in.desc)
	}
	return at, false, nil
}

// start is before all ids, in the direction of reading.
func (in *inventory) start() int64 {
	if in.desc {
		return math.MaxInt64
	}
	return math.MinInt64
}

// tied reads the tokens of one instant after an id.
func (in *inventory) tied(us, after int64) (tokens.InventoryPosition, bool, error) {
	stopped, more, err := in.stretches(wayTied(us), everything().past(after, in.desc))
	return in.position(us, stopped), more, err
}

// position is where the list goes on, after an id among the tokens of one expiry.
func (in *inventory) position(us, id int64) tokens.InventoryPosition {
	return tokens.InventoryPosition{ID: tokens.ID(id), Time: db.ExpiryTime(us)}
}

// stretches reads along a way in the order of ids. It returns the id where it stopped for lack of time.
func (in *inventory) stretches(w way, s span) (stopped int64, more bool, err error) {
	for s.lo <= s.hi {
		end, more, err := in.endOf(w, cmp.Or(w.rows, inventoryStretch), s)
		if err != nil {
			return 0, false, err
		}
		part := s
		if more {
			part = s.until(end, in.desc)
		}
		err = in.list(w.pageOf(in.desc), append(append(in.pageArgs(), part.lo, part.hi), w.key...))
		if err != nil || in.full() || !more {
			return 0, false, err
		}
		// The next stretch begins with the token at end.
		if in.desc {
			s.hi = end
		} else {
			s.lo = end
		}
		if in.late() && in.desc {
			return end + 1, true, nil
		} else if in.late() {
			return end - 1, true, nil
		}
	}
	return 0, false, nil
}

func (in *inventory) full() bool { return len(in.found) > in.q.Limit }

// late reports whether the time for a page is over.
func (in *inventory) late() bool {
	select {
	case <-in.turn:
		in.over = true
	default:
	}
	return in.over
}

// pageArgs are the parameters up to ?15: one token more than the page has room for says that there are more.
func (in *inventory) pageArgs() []any {
	return append(append([]any{}, in.args...), in.q.Limit+1-len(in.found))
}

func (in *inventory) list(statement string, args []any) error {
	page, err := in.listTokens("list the inventory", statement, args...)
	in.found = append(in.found, page...)
	return err
}

func (in *inventory) endOf(w way, rows int, s span) (at int64, more bool, err error) {
	err = in.one(
		"look ahead in the inventory",
		w.endOf(rows, in.desc),
		[]any{&at},
		append([]any{s.lo, s.hi}, w.key...)...)
	if errors.Is(err, tokens.ErrNotFound) {
		return 0, false, nil
	}
	return at, err == nil, err
}
