package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"patd/store/internal/db"
)

// selectIdentity tells one store in PostgreSQL from every other: the server's run, the database, the table.
const selectIdentity = `SELECT concat_ws(' ', pg_postmaster_start_time(), current_database(), CAST(to_regclass('changes') AS oid))`

// copyToPostgres copies into a database without a store in it.
func (s *Store) copyToPostgres(ctx context.Context, to string, o Options) ([]Copied, error) {
	config, err := db.ParsePostgresURL(to)
	if err != nil {
		return nil, err
	}
	if err := db.RefusePooler(ctx, config, o.settings()); err != nil {
		return nil, err
	}
	into, err := postgresEnd(ctx, "connect to the new store", config, o)
	if err != nil {
		return nil, err
	}
	defer into.close()
	from, err := s.copySource(ctx, true)
	if err != nil {
		return nil, err
	}
	defer from.close()
	if from.Dialect().Remote {
		var one, other string
		err := errors.Join(from.One(ctx, selectIdentity, []any{&one}), into.One(ctx, selectIdentity, []any{&other}))
		if err != nil {
			return nil, db.Fault("look whether both are the same store", err)
		}
		if one == other {
			return nil, errSameStore
		}
	}
	if err := into.prepare(ctx, to, o); err != nil {
		return nil, err
	}
	if err := into.ExecAll(ctx, into.Dialect().BeginWrite); err != nil {
		return nil, db.Fault("begin to write the copy", err)
	}
	if err := into.refuseRows(ctx); err != nil {
		return nil, err
	}
	copied, err := into.fill(ctx, from, o)
	if err != nil {
		return nil, err
	}
	if err := into.keepOldest(ctx, from); err != nil {
		return nil, err
	}
	// The server would otherwise not know how many rows there are, and read whole tables, until it looks by itself.
	for _, t := range copiedTables() {
		if _, err := into.Exec(ctx, t.analyze()); err != nil {
			return nil, db.Fault("count the rows of "+t.name, err)
		}
	}
	if _, err := into.Exec(ctx, commitTx); err != nil {
		if into.Broken() {
			err = fmt.Errorf("the connection broke at the end: the copy is whole, or there is none, "+
				"which `patd check` shows: %w", err)
		}
		return nil, copyFault("commit the copy", err)
	}
	return copied, nil
}

const raiseOldest = `UPDATE compatibility SET oldest = ?1 WHERE oldest < ?1`

// keepOldest keeps programs out of the copy that cannot use what it was made of: its rows are as they were there.
func (e *copyEnd) keepOldest(ctx context.Context, from *copyEnd) error {
	var oldest int64
	err := from.One(ctx, selectOldest, []any{&oldest})
	if err == nil {
		_, err = e.Exec(ctx, raiseOldest, oldest)
	}
	return db.Fault("say which programs may use the copy", err)
}

// prepare makes the schema where there is none.
func (e *copyEnd) prepare(ctx context.Context, to string, o Options) error {
	var there bool
	if err := e.One(ctx, hasVersions, []any{&there}); err != nil {
		return db.Fault("look for a store in the database", err)
	}
	if !there {
		if _, _, err := Migrate(ctx, to, o); err != nil {
			return err
		}
	}
	if err := e.checkVersion(ctx); err != nil {
		return fmt.Errorf("the store to copy into: %w", err)
	}
	return nil
}

// refuseRows refuses a database with a store in it. Whoever could add a row meanwhile waits for the lock of writers.
func (e *copyEnd) refuseRows(ctx context.Context) error {
	for _, t := range copiedTables() {
		var taken bool
		if err := e.One(ctx, t.selectAny(), []any{&taken}); err != nil {
			return db.Fault("look whether the database is empty", err)
		}
		if taken {
			return fmt.Errorf("there is a store in that database already (its table %s has rows), and a copy replaces "+
				"none; "+
				"it makes the schema by itself, so name an empty database, or another schema by search_path", t.name)
		}
	}
	return nil
}

// copyIn sends rows by PostgreSQL's COPY, as they come.
func (e *copyEnd) copyIn(ctx context.Context, t copiedTable, rows pgx.CopyFromSource) error {
	return e.Raw().Raw(func(dc any) error {
		c, ok := dc.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("the driver's %T cannot copy", dc)
		}
		_, err := c.Conn().CopyFrom(ctx, pgx.Identifier{t.name}, t.columnNames(), rows)
		return err
	})
}

const (
	setSequence = `SELECT setval(CAST(pg_get_serial_sequence(CAST(?1 AS text), CAST(?2 AS text)) AS regclass), ?3)`
	setCounter  = `UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1`
	addCounter  = `INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)`
)

// setPosition has numbering go on after the last number that was given.
//
// PostgreSQL does so at once and whatever becomes of the transaction. It is done within the transaction all the same,
// before the commit: were it done after, a crash in between would leave rows whose numbers are given again. A copy that
// is undone leaves an empty table whose numbers begin later, which does no harm, and the next copy sets them anew.
func (e *copyEnd) setPosition(ctx context.Context, t copiedTable, last int64) error {
	err := error(nil)
	switch {
	case last == 0: // none was given
	case e.Dialect().Remote:
		_, err = e.Exec(ctx, setSequence, t.name, t.sequence, last)
	case t.counted:
		var r sql.Result
		var n int64
		if r, err = e.Exec(ctx, setCounter, t.name, last); err == nil {
			n, err = r.RowsAffected()
		}
		if err == nil && n == 0 {
			_, err = e.Exec(ctx, addCounter, t.name, last)
		}
	}
	return db.Fault("set the positions of "+t.name, err)
}

// copyPragmas are for a file that no other program uses: it is put on disk when it is whole, and thrown away otherwise.
// It has no log, and nothing to undo by. What sorting needs beyond a few times the cache goes into temporary files: a
// larger one was measured to take more memory and no less time.
func copyPragmas() []string {
	return []string{"journal_mode(OFF)", "synchronous(OFF)", "foreign_keys(ON)", "trusted_schema(OFF)",
		"cache_size(-" + strconv.Itoa(db.CacheKiB) + ")"}
}

// copyToFile makes the copy in a new file, and puts it on disk. The file does not have its name yet.
func (s *Store) copyToFile(ctx context.Context, part string, locked bool, o Options) (copied []Copied, err error) {
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close() // last, for it would end the locks that SQLite holds on the file
	from, err := s.copySource(ctx, locked)
	if err != nil {
		return nil, err
	}
	defer from.close()
	into, err := sqliteEnd(ctx, db.FileDSN(part, o.BusyTimeout, copyPragmas()...), func(database *sql.DB) error {
		if _, err := database.ExecContext(ctx, setApplicationID+strconv.Itoa(db.ApplicationID)); err != nil {
			return db.Fault("mark the new store as patd's", err)
		}
		return up(ctx, database)
	})
	if err != nil {
		return nil, err
	}
	copied, err = into.fillFile(ctx, from, o)
	if cerr := errors.Join(into.Conn.Close(), into.db.Close()); err == nil && cerr != nil {
		err = db.Fault("close the copy", cerr)
	}
	if err == nil {
		err = f.Sync()
	}
	return copied, err
}

// fillFile is fill in a transaction. Indexes are made when all rows are there, by sorting: with 200,000 tokens that was
// measured to save a sixth of the processor time, and it touches no page twice when they are more than memory holds.
func (e *copyEnd) fillFile(ctx context.Context, from *copyEnd, o Options) (copied []Copied, err error) {
	if err := e.ExecAll(ctx, e.Dialect().BeginWrite); err != nil {
		return nil, db.Fault("begin to write the copy", err)
	}
	indexes, err := e.dropIndexes(ctx)
	if err != nil {
		return nil, err
	}
	if copied, err = e.fill(ctx, from, o); err != nil {
		return nil, err
	}
	for _, statement := range append(indexes, commitTx) {
		if _, err := e.Exec(ctx, statement); err != nil {
			return nil, copyFault("finish the copy", err)
		}
	}
	return copied, nil
}

const (
	selectIndexes = `SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY name`
	dropIndex     = `DROP INDEX `
)

// dropIndexes takes the indexes away that are not a table's own, and returns the statements that make them.
func (e *copyEnd) dropIndexes(ctx context.Context) (remake []string, err error) {
	var names []string
	err = e.Each(ctx, selectIndexes, func(rows *sql.Rows) error {
		var name, statement string
		err := rows.Scan(&name, &statement)
		names, remake = append(names, name), append(remake, statement)
		return err
	})
	for _, name := range names {
		if err == nil {
			_, err = e.Exec(ctx, dropIndex+name)
		}
	}
	return remake, db.Fault("make ready for the rows", err)
}

// insertAll adds the rows one by one.
func (e *copyEnd) insertAll(ctx context.Context, t copiedTable, rows *copyRows) error {
	insert, err := e.Raw().PrepareContext(ctx, t.insert())
	if err != nil {
		return err
	}
	defer insert.Close()
	within := context.WithoutCancel(ctx) // the driver would need a goroutine for each row to heed it
	for rows.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := insert.ExecContext(within, rows.row...); err != nil {
			return fmt.Errorf("row %s: %w", rows.where(), err)
		}
	}
	return nil
}
