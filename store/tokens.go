package store

import (
	"cmp"
	"database/sql"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// tokenColumns are of tokens t joined with users u, and usedColumns of tokens t with joinUse.
const (
	tokenColumns = `
       t.id, t.user, u.user, t.name, t.scopes, t.issue_us, t.expire_us, t.audiences, t.cidrs, t.labels, t.description,
       t.revoke_us, t.revoked_by, t.revoke_reason, t.blocked_by, t.paused`

	usedColumns = tokenColumns + `, t.rotations, t.renew_us, t.end_set_us, t.self_rotate_until_us, t.last_used_us, t.last_used_ip, w.use_us, w.use_ip,
       ` + rotationColumns
	joinUse = `LEFT JOIN uses w ON w.token_id = t.id
` + joinRotation
)

// tokenRow holds tokenColumns.
type tokenRow struct {
	id, userKey, issueUS, expireUS        int64
	user, name, scopes                    string
	audiences, cidrs, labels, description sql.NullString
	revokeUS                              sql.NullInt64
	revokedBy, revokeReason               sql.NullString
	blockedBy, paused                     sql.NullString
}

func (r *tokenRow) dest(d []any) []any { return r.contents(append(d, &r.id)) }

// contents is where all columns but the id go.
func (r *tokenRow) contents(d []any) []any {
	return append(d, &r.userKey, &r.user, &r.name, &r.scopes, &r.issueUS, &r.expireUS, &r.audiences, &r.cidrs,
		&r.labels,
		&r.description, &r.revokeUS, &r.revokedBy, &r.revokeReason, &r.blockedBy, &r.paused)
}

// usedRow holds usedColumns. There may be two last uses, see the migration that made uses.
type usedRow struct {
	tokenRow
	rotations    int64
	renewUS      sql.NullInt64
	endSetUS     sql.NullInt64
	selfUS       sql.NullInt64
	oldUS, useUS sql.NullInt64
	oldIP, useIP sql.RawBytes
	rotation     rotationRow
}

func (r *usedRow) dest() []any {
	return r.rotation.dest(
		append(
			r.tokenRow.dest(nil),
			&r.rotations,
			&r.renewUS,
			&r.endSetUS,
			&r.selfUS,
			&r.oldUS,
			&r.oldIP,
			&r.useUS,
			&r.useIP,
		),
	)
}

func (r *tokenRow) token() (tokens.Token, error) {
	t := tokens.Token{
		ID: tokens.ID(r.id), UserKey: r.userKey, User: r.user, Name: r.name, Description: r.description.String,
		Scopes: parseScopes(r.scopes), Audiences: db.Split(r.audiences.String, "\n"),
		IssueTime: db.Instant(r.issueUS), ExpireTime: db.ExpiryTime(r.expireUS), BlockedBy: r.blockedBy.String,
	}
	var err error
	if t.Labels, err = db.ParseLabels(r.labels.String); err != nil {
		return tokens.Token{}, err
	}
	if t.CIDRs, err = db.ParseCIDRs(r.cidrs.String); err != nil {
		return tokens.Token{}, err
	}
	if t.Paused, err = parsePaused(r.paused.String); err != nil {
		return tokens.Token{}, err
	}
	if r.revokeUS.Valid {
		t.Revocation = &tokens.Revocation{Time: db.Instant(r.revokeUS.Int64), By: r.revokedBy.String,
			Reason: r.revokeReason.String}
	}
	return t, nil
}

// used returns a token with all that Lookup does not set.
func (r *usedRow) used() (tokens.Token, error) {
	t, err := r.token()
	t.LastUsed, t.Rotations, t.RenewTime, t.Rotation = r.lastUse(), r.rotations, nullInstant(
		r.renewUS,
	), r.rotation.rotation()
	t.EndSetTime = nullInstant(r.endSetUS)
	if t.SelfRotate = r.selfUS.Valid; r.selfUS.Int64 != 0 {
		t.RenewableUntil = db.Instant(r.selfUS.Int64)
	}
	return t, err
}

func (r *usedRow) lastUse() (u tokens.Use) {
	us, ip := r.useUS, r.useIP
	if r.oldUS.Valid && (!us.Valid || us.Int64 < r.oldUS.Int64) {
		us, ip = r.oldUS, r.oldIP
	}
	if us.Valid {
		u.Time = db.Instant(us.Int64)
		u.IP, _ = netip.AddrFromSlice(ip)
	}
	return u
}

func scanToken(rows *sql.Rows) (tokens.Token, error) {
	var r usedRow
	if err := rows.Scan(r.dest()...); err != nil {
		return tokens.Token{}, err
	}
	return r.used()
}

const selectToken = `SELECT ` + usedColumns + `, k.name, t.digest, t.row_mac, t.self_mac, t.paused_mac
FROM tokens t CROSS JOIN users u ON u.key = t.user CROSS JOIN keys k ON k.num = t.key ` + joinUse + ` WHERE t.id = ?`

// guardedToken is a token's row with all that its checksum is about.
type guardedToken struct {
	tokenRow
	rotations int64
	key       string
	digest    []byte
	refused   error // it is not as patd wrote it
}

func (g *guardedToken) checksum(t *readTx) (any, error) {
	if g.revokeUS.Valid {
		return nil, nil
	}
	return t.store.rows.checksum(g.sum(nil, g.rotations, g.digest, g.key))
}

// Token implements tokens.TokenReader.
func (t *readTx) Token(id tokens.ID) (tokens.Token, error) {
	r, err := t.readToken(id)
	if err != nil {
		return tokens.Token{}, err
	}
	tok, err := r.used()
	if err == nil {
		err = t.token.refused
	}
	return tok, err
}

// readToken reads a token's row, and keeps it for what is written to it.
func (t *readTx) readToken(id tokens.ID) (r usedRow, err error) {
	g, found := &guardedToken{}, false
	err = t.each("read a token", selectToken, func(rows *sql.Rows) error {
		found = true
		var checksum, ofItself, ofPauses []byte
		if err := rows.Scan(append(r.dest(), &g.key, &g.digest, &checksum, &ofItself, &ofPauses)...); err != nil {
			return err
		}
		g.tokenRow, g.rotations = r.tokenRow, r.rotations
		if !r.revokeUS.Valid {
			g.refused = t.store.rows.check(ofToken, r.id, r.sum(nil, r.rotations, g.digest, g.key), checksum)
			if g.refused == nil && r.selfUS.Valid {
				g.refused = t.store.rows.check(ofSelf, r.id, sumSelf(nil, r.id, r.selfUS.Int64), ofItself)
			}
			if g.refused == nil {
				g.refused = t.store.rows.checkPaused(r.id, r.paused, ofPauses)
			}
		}
		r.oldIP, r.useIP = slices.Clone(r.oldIP), slices.Clone(r.useIP)
		return nil
	}, int64(id))
	if err == nil && !found {
		err = fmt.Errorf("token %s: %w", id, tokens.ErrNotFound)
	}
	if err == nil {
		t.token = g
	}
	return r, err
}

// guard returns a token's row as it is in the transaction.
func (t *tx) guard(id tokens.ID) (*guardedToken, error) {
	if t.token != nil && t.token.id == int64(id) {
		return t.token, nil
	}
	if _, err := t.readToken(id); err != nil {
		return nil, err
	}
	return t.token, nil
}

// liveUntil is the second column of the index tokens_user, after the user: when a token expires, and 0 if it is revoked. The
// revoked tokens of a user are in the order of their ids in the index, the others in that of their expiry.
const liveUntil = `CASE WHEN revoke_us IS NULL THEN expire_us ELSE 0 END`

// The tokens of a user, in two parts: ?1 is the user, ?2 the first id in the order of the list, ?3 to ?5 the rest of the
// filter and ?6 the limit. Of those that are not revoked ?7 and ?8 bound the expiry. Their ids are sorted before any row
// is read, and the rows of ?9 are.
const (
	restOfUser = `
CROSS JOIN users u ON u.key = t."user" ` + joinUse + `
WHERE t."user" = ?1 AND t.id <= ?2
  AND (?3 = '' OR instr(` + nameKey + `, ?3) > 0 OR ?4 <> '' AND instr(` + nameKey + `, ?4) > 0)
  AND (?5 = '' OR instr(` + db.LineEnd + ` || t.audiences || ` + db.LineEnd + `, ` + db.LineEnd + ` || ?5 || ` + db.LineEnd + `) > 0)
`

	selectRevokedTokens = `SELECT ` + usedColumns + `
FROM tokens t INDEXED BY tokens_user` + restOfUser + ` AND ` + liveUntil + ` = 0 ORDER BY t.id DESC LIMIT ?6`

	selectUnrevokedTokens = `SELECT ` + usedColumns + `
FROM (SELECT id FROM tokens INDEXED BY tokens_user
  WHERE "user" = ?1 AND id <= ?2 AND ` + liveUntil + ` > ?7 AND ` + liveUntil + ` <= ?8 ORDER BY +id DESC LIMIT ?9) p
CROSS JOIN tokens t ON t.id = p.id` + restOfUser + `ORDER BY +p.id DESC LIMIT ?6`
)

// Tokens implements tokens.TokenReader.
func (t *readTx) Tokens(q tokens.TokenQuery) ([]tokens.Token, error) {
	const op = "list tokens"
	if _, err := stateNumber(q.State); err != nil {
		return nil, err
	}
	key, former := searchKeys(q.NameHas)
	args := []any{q.UserKey, lastBefore(q.Before), key, former, q.Audience, q.Limit}
	list := []tokens.Token{}
	if q.State == tokens.StateAny || q.State == tokens.StateRevoked {
		var err error
		if list, err = t.listTokens(op, selectRevokedTokens, args...); err != nil || q.State == tokens.StateRevoked {
			return list, err
		}
	}
	after, upTo, rows := int64(0), int64(math.MaxInt64), int64(q.Limit)
	switch q.State {
	case tokens.StateActive:
		after = db.Micros(q.Now)
	case tokens.StateExpired:
		upTo = db.Micros(q.Now)
	}
	if key != "" || q.Audience != "" { // any number may not match
		rows = math.MaxInt32
	}
	part, err := t.listTokens(op, selectUnrevokedTokens, append(args, after, upTo, rows)...)
	if err != nil {
		return nil, err
	}
	list = append(list, part...)
	slices.SortFunc(list, func(a, b tokens.Token) int { return cmp.Compare(int64(b.ID), int64(a.ID)) })
	return list[:min(len(list), q.Limit)], nil
}

// listTokens runs a query of usedColumns.
func (t *readTx) listTokens(op, query string, args ...any) ([]tokens.Token, error) {
	list := []tokens.Token{}
	err := t.each(op, query, func(rows *sql.Rows) error {
		tok, err := scanToken(rows)
		list = append(list, tok)
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	return list, nil
}

func stateNumber(s tokens.State) (int64, error) {
	switch s {
	case tokens.StateAny:
		return 0, nil
	case tokens.StateActive:
		return 1, nil
	case tokens.StateExpired:
		return 2, nil
	case tokens.StateRevoked:
		return 3, nil
	default:
		return 0, fmt.Errorf("list tokens: unknown state %d", s)
	}
}

// lastBefore is the largest id of a page that ends before the given one; 0 has no end. Ids are compared as the
// signed integers they are stored as, which is their order until the year 2089.
func lastBefore(id tokens.ID) int64 {
	if id == 0 {
		return math.MaxInt64
	}
	return int64(id) - 1
}

const selectLiveTokens = `
SELECT id, ` + nameKey + ` FROM tokens t INDEXED BY tokens_user WHERE "user" = ? AND ` + liveUntil + ` > ?`

// LiveTokens implements tokens.TokenReader.
func (t *readTx) LiveTokens(userKey int64, now time.Time) ([]tokens.LiveToken, error) {
	list := []tokens.LiveToken{}
	err := t.beside("list live tokens", selectLiveTokens, userTokens(userKey), func(row db.Row) error {
		var id int64
		var live tokens.LiveToken
		err := row.Scan(&id, &live.NameKey)
		live.ID = tokens.ID(id)
		list = append(list, live)
		return err
	}, userKey, db.Micros(now))
	if err != nil {
		return nil, err
	}
	return list, nil
}

// A key that the store does not know, or has retired, gives NULL, which the table refuses.
const insertToken = `
INSERT INTO tokens (id, "user", key, digest, name, name_key, scopes, issue_us, expire_us, audiences, cidrs, labels,
  description,
                    revoke_us, revoked_by, revoke_reason, blocked_by, row_mac,
                    self_rotate_until_us, self_mac, paused, paused_mac, paused_end_us)
VALUES (?, ?, (SELECT num FROM keys WHERE name = ? AND retire_us IS NULL), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
        ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

// InsertToken implements tokens.TokenWriter.
func (t *tx) InsertToken(tok tokens.Token, h tokens.Hash) error {
	labels, err := db.LabelsText(tok.Labels)
	if err != nil {
		return err
	}
	us, by, reason := db.Revocation(tok.Revocation)
	g := guardedToken{
		tokenRow: tokenRow{id: int64(tok.ID), userKey: tok.UserKey, user: tok.User,
			issueUS: db.Micros(tok.IssueTime), audiences: db.TextOf(db.Join(tok.Audiences, "\n")),
			revokeUS: sql.NullInt64{Valid: us != nil}},
		key: h.Key, digest: h.Sum[:],
	}
	g.set(tok, labels)
	checksum, err := g.checksum(&t.readTx)
	if err != nil {
		return err
	}
	until, ofItself, err := t.selfRotation(tok)
	if err != nil {
		return err
	}
	paused, ofPauses, pauseEnd, err := t.pausedColumns(tok)
	if err != nil {
		return err
	}
	args := []any{int64(tok.ID), tok.UserKey, h.Key, h.Sum[:], tok.Name, t.storedNameKey(tok.Name),
		scopesText(tok.Scopes),
		db.Micros(tok.IssueTime), db.Expiry(tok.ExpireTime), db.Join(tok.Audiences, "\n"), db.CIDRsText(tok.CIDRs),
		labels,
		db.NullText(tok.Description), us, by, reason, db.NullText(tok.BlockedBy), checksum, until, ofItself,
		paused, ofPauses, pauseEnd}
	return t.insertToken(tok, args)
}

const (
	opInsertToken = "insert a token"

	tokenThere = `SELECT EXISTS (SELECT 1 FROM tokens WHERE id = ?)`
)

func (t *tx) insertToken(tok tokens.Token, args []any) error {
	taken := fmt.Errorf("token %s: %w", tok.ID, tokens.ErrTaken)
	if t.aside == nil {
		return t.mustExec(opInsertToken, taken, insertToken, args...)
	}
	var there bool
	if err := t.oneBeside(opInsertToken, tokenThere, tok.ID, []any{&there}, int64(tok.ID)); err != nil {
		return err
	}
	switch a := t.aside; {
	case there:
		return taken
	case a == nil: // it was put off until now
		return t.mustExec(opInsertToken, taken, insertToken, args...)
	default:
		a.add(t, &row{op: opInsertToken, in: &addTokens, at: []place{tok.ID, userTokens(tok.UserKey)}}, args)
		return nil
	}
}

// selfRotation returns what is stored of what a token may do by itself.
func (t *tx) selfRotation(tok tokens.Token) (untilUS, checksum any, err error) {
	if !tok.SelfRotate {
		return nil, nil, nil
	}
	us := int64(0)
	if !tok.RenewableUntil.IsZero() {
		us = db.Micros(tok.RenewableUntil)
	}
	if tok.Revocation != nil {
		return us, nil, nil
	}
	checksum, err = t.store.rows.checksum(sumSelf(nil, int64(tok.ID), us))
	return us, checksum, err
}

// set sets what an update writes.
func (g *guardedToken) set(tok tokens.Token, labels any) {
	g.name, g.scopes, g.expireUS = tok.Name, scopesText(tok.Scopes), db.Expiry(tok.ExpireTime)
	g.cidrs, g.labels = db.TextOf(db.CIDRsText(tok.CIDRs)), db.TextOf(labels)
	g.blockedBy = db.TextOf(db.NullText(tok.BlockedBy))
}

// A revocation that stands is kept, whatever the record says: the right-hand sides see the row as it was.
const updateToken = `
UPDATE tokens
SET name = ?2, name_key = ?3, description = ?4, labels = ?5, scopes = ?6, cidrs = ?7, expire_us = ?8, blocked_by = ?12,
    renew_us = ?13, row_mac = ?14, self_rotate_until_us = ?15, self_mac = ?16,
    paused = ?17, paused_mac = ?18, paused_end_us = ?19, end_set_us = ?20,
    revoke_us     = CASE WHEN revoke_us IS NULL THEN ?9  ELSE revoke_us END,
    revoked_by    = CASE WHEN revoke_us IS NULL THEN ?10 ELSE revoked_by END,
    revoke_reason = CASE WHEN revoke_us IS NULL THEN ?11 ELSE revoke_reason END
WHERE id = ?1`

// UpdateToken implements tokens.TokenWriter.
func (t *tx) UpdateToken(tok tokens.Token) error {
	labels, err := db.LabelsText(tok.Labels)
	if err != nil {
		return err
	}
	us, by, reason := db.Revocation(tok.Revocation)
	var checksum any
	if tok.Revocation == nil {
		g, err := t.guard(tok.ID)
		switch {
		case err != nil:
			return err
		case g.refused != nil:
			return g.refused
		}
		g.set(tok, labels)
		if checksum, err = g.checksum(&t.readTx); err != nil {
			return err
		}
	} else {
		t.token = nil
	}
	until, ofItself, err := t.selfRotation(tok)
	if err != nil {
		return err
	}
	paused, ofPauses, pauseEnd, err := t.pausedColumns(tok)
	if err != nil {
		return err
	}
	return t.mustExec("update a token", fmt.Errorf("token %s: %w", tok.ID, tokens.ErrNotFound), updateToken,
		int64(tok.ID), tok.Name, t.storedNameKey(tok.Name), db.NullText(tok.Description), labels,
		scopesText(tok.Scopes), db.CIDRsText(tok.CIDRs), db.Expiry(tok.ExpireTime), us, by, reason,
		db.NullText(tok.BlockedBy), db.NullTime(tok.RenewTime), checksum, until, ofItself, paused, ofPauses, pauseEnd,
		db.NullTime(tok.EndSetTime))
}

const revokeTokens = `
UPDATE tokens INDEXED BY tokens_user
SET revoke_us = ?2, revoked_by = ?3, revoke_reason = ?4, row_mac = NULL
WHERE "user" = ?1 AND ` + liveUntil + ` > 0 AND revoke_us IS NULL
RETURNING id`

// RevokeTokens implements tokens.TokenWriter.
func (t *tx) RevokeTokens(userKey int64, r tokens.Revocation) ([]tokens.ID, error) {
	const op = "revoke a user's tokens"
	t.token = nil
	us, by, reason := db.Revocation(&r)
	ids := []tokens.ID{}
	err := t.returning(op, revokeTokens, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, tokens.ID(id))
		return err
	}, userKey, us, by, reason)
	if err != nil {
		return nil, err
	}
	t.wrote = t.wrote || len(ids) > 0
	slices.Sort(ids)
	return ids, nil
}
