package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"patd/store/internal/db"
)

// Numbers of rows: positions in the audit log and the change feed, and the keys of users and digest keys. SQLite gives
// each row a number above the highest of the table. PostgreSQL would give the next one of a sequence, and what moves a
// database need not carry those: logical replication does not, and a partial repair may not. A change that got a number
// below the newest would not be seen by those who follow the feed. So a number is given inside the transaction, under
// the lock of writers, and is above the highest that the table has; the sequence is taken along, because the version
// before numbers by it.

var errNotNumbered = errors.New("the database took no row, and gave no position")

// numbered runs an insertion that returns the number of its row; 0: none was inserted.
func (t *tx) numbered(op, query string, args ...any) (number int64, err error) {
	err = t.returning(op, query, func(rows *sql.Rows) error { return rows.Scan(&number) }, args...)
	return number, err
}

// position is numbered for a table whose every insertion must give a row: a change without its entry would not be seen.
func (t *tx) position(op, query string, args ...any) (int64, error) {
	at, err := t.numbered(op, query, args...)
	if err == nil && at == 0 {
		err = t.fail(op, errNotNumbered)
	}
	return at, err
}

// RepairPositions names the command that mends the numbers of rows; problems that it mends say so.
const RepairPositions = "patd check --repair-positions"

// sequences are the columns that a database numbers, and what an operator calls them.
func sequences(d *db.Dialect) []sequence {
	list := []sequence{{table: "events", column: "seq", of: "the audit log"}, {table: "changes", column: "seq",
		of: "the change feed"}}
	if !d.Remote { // SQLite numbers the others by their rows
		return list
	}
	return append(list, sequence{table: "users", column: "key", of: "the users"}, sequence{table: "keys",
		column: "num", of: "the digest keys"},
		sequence{table: versionTable, column: "id", of: "the schema's versions"})
}

type sequence struct{ table, column, of string }

// lag is a sequence that would give a number of a row that is there.
type lag struct {
	sequence
	highest int64
}

func (l lag) String() string {
	return fmt.Sprintf("position %d of %s would be given twice; `%s` mends it", l.highest, l.of, RepairPositions)
}

// lagging returns the sequences that are behind their tables.
func (t *readTx) lagging(op string) (list []lag, err error) {
	for _, s := range sequences(t.c.Dialect()) {
		var highest, given int64
		query, args := sqlitePosition, []any{s.table}
		if t.c.Dialect().Remote {
			query, args = postgresPosition, []any{s.table, s.column}
		}
		if err := t.one(op, `SELECT coalesce(max(`+s.column+`), 0) FROM `+s.table, []any{&highest}); err != nil {
			return nil, err
		}
		if err := t.one(op, query, []any{&given}, args...); err != nil {
			return nil, err
		}
		if highest > given {
			list = append(list, lag{s, highest})
		}
	}
	return list, nil
}

// selectUnheard finds the newest change in the audit log where the newest entry of the feed is of another: those who
// follow the feed have not received it. One of insertStartOver stands for everything.
const selectUnheard = `
SELECT e.seq FROM events e
WHERE e.seq = (SELECT max(seq) FROM events WHERE outcome = 1) AND EXISTS (SELECT 1 FROM changes)
  AND NOT EXISTS (SELECT 1 FROM changes c WHERE c.seq = (SELECT max(seq) FROM changes)
    AND (c.token_id = e.token_id OR e.token_id IS NULL AND c."user" = e."user"
      OR e.token_id IS NULL AND e."user" IS NULL AND c.service = e.service
      OR e.token_id IS NULL AND e."user" IS NULL AND e.service IS NULL AND c.token_id IS NULL AND c."user" IS NULL
        AND c.service IS NULL
      OR c."user" = ''))`

// unheard returns what selectUnheard finds, in words; empty: nothing.
func (t *readTx) unheard(op string) (problem string, err error) {
	err = t.each(op, selectUnheard, func(rows *sql.Rows) error {
		var seq int64
		err := rows.Scan(&seq)
		problem = fmt.Sprintf(
			"the change of audit event %d is not at the end of the change feed, so servers may not have "+
				"noticed it; `%s` "+
				"has them drop what they remember",
			seq,
			RepairPositions,
		)
		return err
	})
	return problem, err
}

func (t *readTx) checkPositions(op string, add func(string)) error {
	list, err := t.lagging(op)
	if err != nil {
		return err
	}
	for _, l := range list {
		add("database: " + l.String())
	}
	problem, err := t.unheard(op)
	if problem != "" {
		add("database: " + problem)
	}
	return err
}

// insertStartOver is an entry that names nothing, by a user without a name: all that follow the feed drop what they
// remember.
const insertStartOver = `INSERT INTO changes (seq, time_us, "user") VALUES (NULL /* next changes.seq */, ?, '')
  RETURNING seq`

// RepairPositions has every number of a row to come be above those of the rows that are there, and returns what was
// mended, in words; none when all was well. Where something was, every server and watcher drops what it remembers of
// the store: it may have missed a change. It may be called while servers use the store.
func (s *Store) RepairPositions(ctx context.Context) (mended []string, err error) {
	const op = "repair the positions"
	err = s.transact(ctx, op, func(t *tx) error {
		mended = nil
		list, err := t.lagging(op)
		if err != nil {
			return err
		}
		for _, l := range list {
			if err := t.setSequence(op, l.sequence, l.highest); err != nil {
				return err
			}
			mended = append(mended, fmt.Sprintf("the next position of %s is above %d", l.of, l.highest))
		}
		problem, err := t.unheard(op)
		if err != nil || problem == "" && len(mended) == 0 {
			return err
		}
		at, err := t.position(op, insertStartOver, db.Micros(s.options.Now()))
		t.fed = true
		mended = append(mended, fmt.Sprintf("entry %d of the change feed has every server drop what it remembers", at))
		return err
	})
	return mended, err
}

// setSequence has numbering go on after a number.
func (t *tx) setSequence(op string, s sequence, last int64) error {
	if t.c.Dialect().Remote {
		_, err := t.numbered(op, setSequence, s.table, s.column, last)
		return err
	}
	n, err := t.exec(op, setCounter, s.table, last)
	if err == nil && n == 0 {
		_, err = t.exec(op, addCounter, s.table, last)
	}
	return err
}

// SkipEvents has the positions of the audit log go on above a position, if they do not already. After a restore the
// positions that were given before it are not given again: those who were sent the events at them would take the new
// ones for the old.
func (s *Store) SkipEvents(ctx context.Context, to uint64) error {
	const op = "skip positions of the audit log"
	return s.transact(ctx, op, func(t *tx) error {
		of := sequences(t.c.Dialect())[0]
		var given int64
		query, args := sqlitePosition, []any{of.table}
		if t.c.Dialect().Remote {
			query, args = postgresPosition, []any{of.table, of.column}
		}
		if err := t.one(op, query, []any{&given}, args...); err != nil || uint64(given) >= to {
			return err
		}
		return t.setSequence(op, of, int64(min(to, math.MaxInt64-1)))
	})
}
