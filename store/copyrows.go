package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"unicode/utf8"

	"patd/store/internal/db"
)

// copyRows reads a table in the order of its key, one row at a time, and sums up what it has read. pgx takes rows from
// it as they come.
type copyRows struct {
	table copiedTable
	rows  *sql.Rows
	// texts looks at each text before it is passed on; nil: any will do.
	texts func(string) error

	row  []any
	dest []any
	sum  hash.Hash
	buf  []byte
	n    int64
	err  error
}

func (e *copyEnd) read(ctx context.Context, t copiedTable) (*copyRows, error) {
	rows, err := e.Raw().QueryContext(ctx, t.selectAll())
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		return nil, db.Fault("read the table "+t.name, err)
	}
	r := &copyRows{table: t, rows: rows, row: make([]any, len(t.columnNames())), sum: sha256.New()}
	for i := range r.row {
		r.dest = append(r.dest, &r.row[i])
	}
	return r, nil
}

// Next reads the next row.
func (r *copyRows) Next() bool {
	if r.err != nil || !r.rows.Next() {
		return false
	}
	if r.err = r.rows.Scan(r.dest...); r.err != nil {
		return false
	}
	r.buf = r.buf[:0]
	for i, v := range r.row {
		if b, ok := v.([]byte); ok && b == nil {
			r.row[i] = []byte{} // how SQLite's driver answers an empty one; what is absent is nil
		}
		if text, ok := v.(string); ok && r.texts != nil {
			if err := r.texts(text); err != nil {
				r.err = fmt.Errorf("the table %s, row %s: its %s %w", r.table.name, r.where(),
					r.table.columnNames()[i], err)
				return false
			}
		}
		if r.buf, r.err = appendValue(r.buf, r.row[i]); r.err != nil {
			return false
		}
	}
	r.sum.Write(r.buf)
	r.n++
	return true
}

// Values returns the row, which lasts until the next.
func (r *copyRows) Values() ([]any, error) { return r.row, nil }

// Err says why there are no more rows; nil: that was all.
func (r *copyRows) Err() error {
	if r.err != nil {
		return r.err
	}
	return r.rows.Err()
}

// end returns the sum of what was read, which must be all of it.
func (r *copyRows) end() (Copied, error) {
	for r.Next() {
		continue
	}
	err := errors.Join(r.Err(), r.rows.Close())
	return Copied{Table: r.table.name, Rows: r.n, SHA256: hex.EncodeToString(r.sum.Sum(nil))}, err
}

// where names the row by its key, for people.
func (r *copyRows) where() string {
	var parts []string
	keys := strings.Fields(r.table.key)
	for i, column := range r.table.columnNames() {
		for _, k := range keys {
			if k != column {
				continue
			}
			if b, ok := r.row[i].([]byte); ok {
				parts = append(parts, hex.EncodeToString(b))
				continue
			}
			parts = append(parts, fmt.Sprintf("%v", r.row[i]))
		}
	}
	return strings.Join(parts, " ")
}

// appendValue writes a value so that no two rows look alike: its kind, its length, itself.
func appendValue(buf []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(buf, 0), nil
	case int64:
		return binary.BigEndian.AppendUint64(append(buf, 1), uint64(v)), nil
	case string:
		return append(binary.BigEndian.AppendUint64(append(buf, 2), uint64(len(v))), v...), nil
	case []byte:
		return append(binary.BigEndian.AppendUint64(append(buf, 3), uint64(len(v))), v...), nil
	default:
		return buf, fmt.Errorf("a column holds a %T, which no column of patd's is", v)
	}
}

// postgresText refuses what SQLite takes for a text and PostgreSQL does not.
func postgresText(s string) error {
	switch {
	case strings.IndexByte(s, 0) >= 0:
		return errors.New("holds a NUL character, which PostgreSQL cannot keep in a text")
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8, and PostgreSQL keeps no other text")
	}
	return nil
}
