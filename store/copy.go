package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5"

	"patd/internal/durable"
	"patd/store/internal/db"
)

// Copied is a table of a copy. SHA256 is over a canonical form of its rows, sorted by key, and so the same in both
// databases.
type Copied struct {
	Table  string `json:"table"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"`
}

// Copy copies the whole store into another, which to names: a file that does not exist yet, or a database in PostgreSQL
// without a patd store in it, whose schema is made. Every row is read back and compared before it counts; whatever
// happens, the other store is whole afterwards or has no row. While it runs, nothing in this store changes: it holds
// the lock of writers. What a server changes in this store later is not in the other.
func (s *Store) Copy(ctx context.Context, to string, o Options) ([]Copied, error) {
	copied, err := s.copy(ctx, to, o.withDefaults())
	if cerr := ctx.Err(); cerr != nil && err != nil {
		err = cerr // whatever it broke
	}
	if err != nil {
		return nil, fmt.Errorf("copy the store: %w", err)
	}
	return copied, nil
}

func (s *Store) copy(ctx context.Context, to string, o Options) (copied []Copied, err error) {
	if err := s.Flush(ctx); err != nil {
		return nil, err
	}
	if IsPostgres(to) {
		return s.copyToPostgres(ctx, to, o)
	}
	_, path, err := engine(to)
	if err != nil {
		return nil, err
	}
	if s.path != "" && sameFile(s.path, path) {
		return nil, errSameStore
	}
	err = newFile(path, func(part string) error {
		if copied, err = s.copyToFile(ctx, part, true, o); err != nil {
			return err
		}
		return durable.InheritDir(part, filepath.Dir(path))
	})
	return copied, err
}

var errSameStore = errors.New("both are the same store")

func sameFile(a, b string) bool {
	ai, aerr := os.Stat(a)
	bi, berr := os.Stat(b)
	return aerr == nil && berr == nil && os.SameFile(ai, bi)
}

// copyEnd is a store at one end of a copy: a connection of its own, without the limits that keep a server's calls
// short, in a transaction.
type copyEnd struct {
	*db.Conn
	db *sql.DB
}

func (e *copyEnd) close() {
	// It rolls back what was not committed, and lets go of the locks.
	_ = e.Conn.Close()
	_ = e.db.Close()
}

// copySource connects to the store to read from. From then on no writer changes it, when it is locked, and what is read
// is as it was at one moment either way.
func (s *Store) copySource(ctx context.Context, locked bool) (e *copyEnd, err error) {
	// To wait for the lock takes no snapshot, so that what is read is from after it.
	begin := s.dialect.BeginRead
	if s.dialect.Remote {
		if locked {
			begin = append(slices.Clone(begin), db.LockWriter)
		}
		e, err = postgresEnd(ctx, "connect to the store that is copied", s.config, s.options)
	} else {
		begin = s.dialect.BeginWrite
		e, err = sqliteEnd(ctx, db.WriterDSN(s.path, s.options.settings()), nil)
	}
	if err != nil {
		return nil, err
	}
	if err := e.ExecAll(ctx, begin); err != nil {
		e.close()
		return nil, db.Fault("keep others from changing the store that is copied", err)
	}
	if err := e.checkVersion(ctx); err != nil {
		e.close()
		return nil, fmt.Errorf("the store that is copied: %w", err)
	}
	return e, nil
}

func newEnd(ctx context.Context, op string, d *db.Dialect, database *sql.DB) (*copyEnd, error) {
	c, err := db.Connect(ctx, d, database)
	if err != nil {
		return nil, errors.Join(db.ConnectFault(op, err), database.Close())
	}
	return &copyEnd{Conn: c, db: database}, nil
}

// sqliteEnd connects to a file that prepare, if there is one, has made ready.
func sqliteEnd(ctx context.Context, dsn string, prepare func(*sql.DB) error) (*copyEnd, error) {
	d := db.SQLiteDialect()
	database, err := sql.Open(d.Driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if prepare != nil {
		database.SetMaxOpenConns(1)
		if err := prepare(database); err != nil {
			return nil, errors.Join(err, database.Close())
		}
	}
	return newEnd(ctx, "open the store", d, database)
}

// postgresEnd connects with no limit of a statement's time, or of a transaction's rest: one end waits while the other
// works.
func postgresEnd(ctx context.Context, op string, config *pgx.ConnConfig, o Options) (*copyEnd, error) {
	config = config.Copy()
	config.RuntimeParams["application_name"] = "patd copy"
	config.RuntimeParams["lock_timeout"] = db.Milliseconds(o.BusyTimeout)
	config.RuntimeParams["statement_timeout"] = "0"
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	// A copy holds the writers up: a machine that vanished must not for ever.
	config.RuntimeParams["tcp_keepalives_idle"], config.RuntimeParams["tcp_keepalives_interval"],
		config.RuntimeParams["tcp_keepalives_count"] = "30", "10", "3"
	config.ConnectTimeout = o.BusyTimeout
	return newEnd(ctx, op, db.PostgresDialect(), db.OpenPostgres(config, o.settings()))
}

const selectSQLiteVersion = `SELECT coalesce(max(version_id), 0) FROM goose_db_version`

// checkVersion demands the schema that this program's list of tables is of. A later one may have a column that would be
// lost.
func (e *copyEnd) checkVersion(ctx context.Context) error {
	query := selectSQLiteVersion
	if e.Dialect().Remote {
		query = selectVersion
	}
	var have int64
	if err := e.One(ctx, query, []any{&have}); err != nil {
		return db.Fault("read the store's schema version", err)
	}
	if have != newestSchema {
		return fmt.Errorf(
			"%w: it is version %d, and this program copies version %d only; use the patd whose `migrate` "+
				"made it, or migrate it first",
			ErrSchema,
			have,
			int64(newestSchema),
		)
	}
	return nil
}

const (
	sqlitePosition   = `SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?1), 0)`
	postgresPosition = `SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(CAST(?1 AS text), CAST(?2 AS text))), 0)`
)

// position is the last number that was given to a row of a table, whether or not the row is still there.
func (e *copyEnd) position(ctx context.Context, t copiedTable) (int64, error) {
	var highest, given int64
	if err := e.One(ctx, t.selectMax(), []any{&highest}); err != nil {
		return 0, db.Fault("read the positions of "+t.name, err)
	}
	query, args := sqlitePosition, []any{t.name}
	if e.Dialect().Remote {
		query, args = postgresPosition, []any{t.name, t.sequence}
	}
	if err := e.One(ctx, query, []any{&given}, args...); err != nil {
		return 0, db.Fault("read the positions of "+t.name, err)
	}
	return max(highest, given), nil
}

// fill copies all rows and compares what has arrived with what was sent. It neither begins nor commits.
func (e *copyEnd) fill(ctx context.Context, from *copyEnd, o Options) ([]Copied, error) {
	var sent []Copied
	for _, t := range copiedTables() {
		done, err := e.fillTable(ctx, from, t)
		if err != nil {
			return nil, err
		}
		sent = append(sent, done)
		if t.sequence == "" {
			continue
		}
		last, err := from.position(ctx, t)
		if err == nil {
			err = e.setPosition(ctx, t, last)
		}
		if err != nil {
			return nil, err
		}
	}
	if o.copied != nil {
		if err := o.copied(ctx, e.Conn); err != nil {
			return nil, err
		}
	}
	for i, t := range copiedTables() {
		if err := e.verify(ctx, t, sent[i]); err != nil {
			return nil, err
		}
	}
	// A connection that has broken meanwhile has lost its lock: the store may not be as it was copied any more.
	var seq int64
	return sent, db.Fault("look whether the store that is copied is still there", from.One(ctx, readReady, []any{&seq}))
}

func (e *copyEnd) fillTable(ctx context.Context, from *copyEnd, t copiedTable) (Copied, error) {
	rows, err := from.read(ctx, t)
	if err != nil {
		return Copied{}, err
	}
	if e.Dialect().Remote {
		rows.texts = postgresText
		err = e.copyIn(ctx, t, rows)
	} else {
		err = e.insertAll(ctx, t, rows)
	}
	// What was wrong with a row says more than that the other end was given up for it.
	if rows.err != nil {
		err = rows.err
	} else if err = errors.Join(rows.rows.Err(), err); err != nil {
		err = copyFault("copy the table "+t.name, err)
	}
	if err != nil {
		return Copied{}, errors.Join(err, rows.rows.Close())
	}
	return rows.end()
}

// copyFault is fault, but that a row which breaks a rule is no outage.
func copyFault(op string, err error) error {
	if db.IsConstraint(err) {
		return fmt.Errorf("%s: a row breaks a rule of the schema; `patd check` looks at the store that is copied: %w",
			op, err)
	}
	return db.Fault(op, err)
}

// verify reads a table back.
func (e *copyEnd) verify(ctx context.Context, t copiedTable, sent Copied) error {
	rows, err := e.read(ctx, t)
	if err != nil {
		return err
	}
	arrived, err := rows.end()
	switch {
	case err != nil:
		return db.Fault("read the table "+t.name+" back", err)
	case arrived.Rows != sent.Rows:
		return fmt.Errorf("the table %s has %d rows, and %d have arrived: nothing was copied", t.name, sent.Rows,
			arrived.Rows)
	case arrived != sent:
		return fmt.Errorf("the table %s has arrived otherwise than it was sent: nothing was copied", t.name)
	}
	return nil
}
