package store

import (
	"database/sql"
	"fmt"
	"strings"

	"patd/tokens"
)

// protected is a table whose rows carry checksums, for what goes through all of its rows. columns are in the order of
// the sum, of x, the table, and what is joined with it.
type protected struct {
	table   byte
	name    string
	one     string   // what a row is, for people
	keys    []string // of its primary key; the first is the id
	joined  string
	columns string
	live    string // false: the row has ended
	mac     string // the column with the checksum; empty: row_mac
	serial  int    // which of columns is the serial of a secret, where that changes
	later   bool   // its rows got checksums when those of others had them already
}

func (p protected) checksum() string {
	if p.mac != "" {
		return p.mac
	}
	return "row_mac"
}

const joinKey = ` CROSS JOIN keys k ON k.num = x.key`

// protectedTables returns the tables whose rows carry checksums.
func protectedTables() []protected {
	return []protected{
		{table: ofUser, name: "users", one: "user", keys: []string{"key"}, live: `x.delete_us IS NULL`,
			columns: `x.create_us, x.state, x."user", coalesce(x.features, '')`},
		{
			table:  ofToken,
			name:   "tokens",
			one:    "token",
			keys:   []string{"id"},
			live:   `x.revoke_us IS NULL`,
			joined: ` CROSS JOIN users u ON u.key = x."user"` + joinKey,
			columns: `x.id, x."user", x.rotations, x.issue_us, x.expire_us, u."user", x.name, x.scopes, coalesce(x.audiences, ''),
  coalesce(x.cidrs, ''), coalesce(x.labels, ''), coalesce(x.blocked_by, ''), x.digest, k.name`,
		},
		{
			table:   ofSelf,
			name:    "tokens",
			one:     "self-rotation of token",
			keys:    []string{"id"},
			mac:     "self_mac",
			live:    `x.revoke_us IS NULL AND x.self_rotate_until_us IS NOT NULL`,
			columns: `x.id, coalesce(x.self_rotate_until_us, 0)`,
		},
		{table: ofPaused, name: "tokens", one: "paused scopes of token", keys: []string{"id"}, mac: "paused_mac",
			live: `x.revoke_us IS NULL AND x.paused IS NOT NULL`, columns: `x.id, coalesce(x.paused, '')`},
		{table: ofOld, name: "old_secrets", one: "rotated secret of token", keys: []string{"token_id", "serial"},
			live: `x.until_us > 0`, joined: joinKey, columns: `x.token_id, x.serial, x.until_us, x.digest, k.name`},
		{table: ofBefore, name: "old_secrets", one: "rotation of token", keys: []string{"token_id", "serial"},
			live: `x.until_us > 0 AND x.rotate_us IS NOT NULL`, mac: "before_mac",
			columns: `x.token_id, x.serial, x.rotate_us, coalesce(x.change, 0), coalesce(x.expire_before_us, 0),
  coalesce(x.expire_after_us, 0), coalesce(x.renew_before_us, 0), coalesce(x.dropped, ''), coalesce(x.blocked_before, '')`},
		{table: ofService, name: "services", one: "service token", keys: []string{"id"}, live: `x.revoke_us IS NULL`,
			joined: joinKey + ` LEFT JOIN keys j ON j.num = x.old_key`,
			columns: `x.id, x.issue_us, x.expire_us, x.rotations, coalesce(x.old_until_us, 0), x.name, x.permissions,
  coalesce(x.audience, ''), x.old_digest, j.name, x.digest, k.name`},
		{
			table:  ofFamily,
			name:   "families",
			one:    "family of refresh tokens",
			keys:   []string{"id"},
			live:   `x.revoke_us IS NULL`,
			serial: 2,
			columns: `x.id, x.token_id, x.serial, x.authenticated, x.issue_us, x.expire_us, coalesce(x.client_id, ''),
  x.scopes, x.audiences`,
		},
		{table: ofRefresh, name: "refresh_tokens", one: "refresh token", keys: []string{"id"}, joined: joinKey,
			live: `x.use_us IS NULL`, columns: `x.id, x.family, x.issue_us, x.digest, k.name`},
		{
			table:  ofAccess,
			name:   "access_tokens",
			one:    "access token",
			keys:   []string{"id"},
			joined: joinKey,
			live:   `x.revoke_us IS NULL`,
			serial: 2,
			columns: `x.id, x.token_id, x.serial, coalesce(x.family, 0), x.issue_us, x.expire_us, coalesce(x.client_id, ''),
  x.scopes, coalesce(x.audiences, ''), x.digest, k.name`,
		},
		{table: ofWebhook, name: "webhooks", one: "webhook", keys: []string{"num"}, live: `x.num = x.num`, later: true,
			columns: `x.num, x.enabled, x.id, x.url, coalesce(x.event_types, ''), coalesce(x.users, ''),
  coalesce(x.audiences, ''), coalesce(x.labels, '')`},
		{
			table:   ofProvisioned,
			name:    "provisioned_users",
			one:     "provisioned user",
			keys:    []string{"user_key"},
			later:   true,
			live:    `EXISTS (SELECT 1 FROM users v WHERE v.key = x.user_key AND v.delete_us IS NULL)`,
			joined:  ` CROSS JOIN users u ON u.key = x.user_key`,
			columns: `x.user_key, x.inactive, u."user", x.id, x.user_name, coalesce(x.external_id, '')`,
		},
	}
}

// tableName returns the name of a table by its byte.
func tableName(table byte) string {
	for _, p := range protectedTables() {
		if p.table == table {
			return p.name
		}
	}
	return "?"
}

// tableOf returns the table of a kind of secret.
func tableOf(table byte) protected {
	for _, p := range protectedTables() {
		if p.table == table {
			return p
		}
	}
	panic("no such table: " + string(table))
}

// selectRows returns a statement that reads rows as protectedRow takes them.
func (p protected) selectRows(where, after string) string {
	return `SELECT x.` + strings.Join(
		p.keys,
		`, x.`,
	) + `, CASE WHEN ` + p.live + ` THEN 1 ELSE 0 END, x.` + p.checksum() + `, ` +
		p.columns + ` FROM ` + p.name + ` x` + p.joined + ` WHERE ` + where + after
}

// where is the condition that names a row by its key, whose columns are ?1 and on.
func (p protected) where(alias string) string {
	terms := make([]string, len(p.keys))
	for i, k := range p.keys {
		terms[i] = fmt.Sprintf("%s%s = ?%d", alias, k, i+1)
	}
	return strings.Join(terms, " AND ")
}

// protectedRow is any row with a checksum.
type protectedRow struct {
	of       *protected
	keys     []int64
	live     bool
	checksum []byte
	values   []any
}

func (p *protected) scan(rows *sql.Rows) (*protectedRow, error) {
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	r := &protectedRow{of: p, keys: make([]int64, len(p.keys)), values: make([]any, len(columns)-len(p.keys)-2)}
	var live int64
	dest := make([]any, 0, len(columns))
	for i := range r.keys {
		dest = append(dest, &r.keys[i])
	}
	dest = append(dest, &live, &r.checksum)
	for i := range r.values {
		dest = append(dest, &r.values[i])
	}
	err = rows.Scan(dest...)
	r.live = live == 1
	return r, err
}

// sum is that of the table's own method.
func (r *protectedRow) sum(b []byte) ([]byte, error) {
	b = append(b, r.of.table)
	for _, v := range r.values {
		switch v := v.(type) {
		case int64:
			b = sumNumber(b, v)
		case string:
			b = sumText(b, v)
		case []byte:
			b = sumText(b, v)
		case nil:
			b = sumText(b, "")
		default:
			return nil, fmt.Errorf("a column of %s holds a %T", r.of.name, v)
		}
	}
	return b, nil
}

// compare returns why the row would be refused; nil: it would not.
func (r *protectedRow) compare(g *rowGuard) error {
	if !r.live {
		return nil
	}
	sum, err := r.sum(nil)
	if err != nil {
		return err
	}
	return g.compare(sum, r.checksum)
}

// setDigest gives the row another digest, which with the name of its key is so far from the end.
func (r *protectedRow) setDigest(at int, h tokens.Hash) {
	n := len(r.values) - at
	r.values[n-2], r.values[n-1] = h.Sum[:], h.Key
}
