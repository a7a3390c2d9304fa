package db

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// Dialect is what the databases differ in, beside the words of a few statements.
type Dialect struct {
	Driver string // of database/sql
	// form is a statement as the database reads it.
	form func(string) string
	// BeginRead and BeginWrite begin a transaction. From the last statement of BeginWrite on no other writes until the
	// transaction ends, and it reads what the one before has left.
	BeginRead, BeginWrite []string
	// Announce is run before the commit of what wrote to the change feed; empty: nothing.
	Announce string
	// AtClose is run on the writer at the end; empty: nothing.
	AtClose string
	// Remote says that the database is a process of its own: connections break, and the outcome of a commit may be
	// unknown.
	Remote bool
}

// SQLiteDialect is that of SQLite, for which statements are written.
func SQLiteDialect() *Dialect {
	return &Dialect{
		Driver: "sqlite", form: func(q string) string { return q },
		BeginRead: []string{`BEGIN`}, BeginWrite: []string{`BEGIN IMMEDIATE`}, AtClose: checkpoint,
	}
}

// Statements are written for SQLite. What PostgreSQL reads otherwise are parameters, a type, a collation, the order of joins
// and the choice of an index, which it finds out by itself.
var (
	indexHint  = regexp.MustCompile(`\bINDEXED BY \w+`)
	fixedOrder = regexp.MustCompile(`\bCROSS JOIN\b`)
	blob       = regexp.MustCompile(`\bAS BLOB\b`)
	bytewise   = regexp.MustCompile(`\bCOLLATE BINARY\b`)
)

// PostgresForm writes ?1 as $1, each ? as the next of them, and nextNumber as what gives it. Texts in quotes stay as
// they are: none holds a hint.
func PostgresForm(query string) string {
	query = fixedOrder.ReplaceAllLiteralString(indexHint.ReplaceAllLiteralString(query, ""), "JOIN")
	query = blob.ReplaceAllLiteralString(query, "AS bytea")
	query = bytewise.ReplaceAllLiteralString(query, `COLLATE "C"`)
	query = nextNumber.ReplaceAllString(query, postgresNext)
	var b strings.Builder
	next := 0
	for i := 0; i < len(query); i++ {
		switch c := query[i]; {
		case c == '\'' || c == '"':
			end := i + 1 + strings.IndexByte(query[i+1:], c)
			b.WriteString(query[i : end+1])
			i = end
		case c == '?':
			b.WriteByte('$')
			if i+1 < len(query) && '0' <= query[i+1] && query[i+1] <= '9' {
				continue // its number follows
			}
			next++
			b.WriteString(strconv.Itoa(next))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// nextNumber stands in statements for the next number of a column. SQLite reads it as NULL, for which it gives the
// number.
var nextNumber = regexp.MustCompile(`NULL /\* next (\w+)\.(\w+) \*/`)

// postgresNext is nextNumber for PostgreSQL. Numbers of transactions that were rolled back are not given again, as long
// as the sequence is sound. A role without rights to the sequence goes by the table alone.
const postgresNext = `(SELECT CASE WHEN n.next > m.newest THEN n.next WHEN n.next IS NULL THEN m.newest + 1
             ELSE setval(n.of, m.newest + 1) END
FROM (SELECT s.of, CASE WHEN has_sequence_privilege(s.of, 'UPDATE') THEN nextval(s.of) END AS next
      FROM (SELECT to_regclass('${1}_${2}_seq') AS of) s) n,
     (SELECT coalesce(max(${2}), 0) AS newest FROM ${1}) m)`

// Bytes returns bytes as they stand in a statement.
func (d *Dialect) Bytes(b []byte) string {
	if d.Remote {
		return `'\x` + hex.EncodeToString(b) + `'::bytea`
	}
	return `x'` + hex.EncodeToString(b) + `'`
}
