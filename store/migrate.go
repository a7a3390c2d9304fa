package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"patd/store/internal/db"
)

// The migrations of one number mean the same in both databases.
//
//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var migrations embed.FS

const (
	// newestSchema is the last migration, and oldestSchema the first on whose schema this program can do its work:
	// where that is an earlier one, servers of the new version may begin before the migration.
	newestSchema = 26
	oldestSchema = 24

	// oldestPostgres is the oldest version of PostgreSQL that patd is for.
	oldestPostgres = 13

	versionTable = "patd_schema_version" // goose's, in PostgreSQL

	lockTx           = `BEGIN EXCLUSIVE`
	setApplicationID = `PRAGMA application_id = ` // a PRAGMA takes no parameters; the number follows
)

// ErrSchema is the cause when a database has no schema that this program can work with.
var ErrSchema = db.ErrSchema

const selectOldest = `SELECT max(oldest) FROM compatibility`

// compatible returns why this program cannot work with a schema of a version; nil: it can. oldest reads the schema's
// minimum compatible version.
func compatible(have int64, oldest func() (int64, error)) error {
	switch {
	case have == 0:
		return fmt.Errorf("%w: the database holds no patd store yet; run `patd migrate` first", ErrSchema)
	case have < oldestSchema:
		return fmt.Errorf("%w: it is version %d and this program needs %d; run `patd migrate`", ErrSchema, have,
			int64(oldestSchema))
	case have <= newestSchema:
		return nil
	}
	needs, err := oldest()
	if err != nil {
		return err
	}
	if needs > newestSchema {
		return fmt.Errorf("%w: it is version %d, which needs a program that knows %d, and this one "+
			"knows %d: use a newer patd",
			ErrSchema, have, needs, int64(newestSchema))
	}
	return nil
}

// Migrate brings the schema of a store up to date, and makes a new one where there is none. Several may do it at once.
// It returns the version of the schema before and after.
func Migrate(ctx context.Context, url string, o Options) (before, after int64, err error) {
	if !IsPostgres(url) {
		return 0, 0, errors.New("migrate the store: one in a file is brought up to date by whatever opens it")
	}
	o = o.withDefaults()
	config, err := db.ParsePostgresURL(url)
	if err != nil {
		return 0, 0, err
	}
	config.ConnectTimeout = o.BusyTimeout
	// However long the role's statements may take; but what waits for a lock that somebody holds for long would have
	// all lookups wait behind it.
	config.RuntimeParams["statement_timeout"], config.RuntimeParams["idle_in_transaction_session_timeout"] = "0", "0"
	config.RuntimeParams["lock_timeout"] = db.Milliseconds(o.BusyTimeout)
	if err := db.RefusePooler(ctx, config, o.settings()); err != nil {
		return 0, 0, err
	}
	database := db.OpenPostgres(config, o.settings())
	defer database.Close()
	if err := makeSchema(ctx, database, config); err != nil {
		return 0, 0, err
	}
	if before, err = postgresVersion(ctx, database); err != nil {
		return 0, 0, db.Fault("read the store's schema version", err)
	}
	if before > newestSchema {
		return before, before, nil // a later program's work
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return before, before, fmt.Errorf("migrate the store: %w", err)
	}
	p, err := provider(goose.DialectPostgres, database, goose.WithSessionLocker(locker),
		goose.WithTableName(versionTable))
	if err != nil {
		return before, before, err
	}
	if _, err := p.Up(ctx); err != nil {
		return before, before, migrateFault(err)
	}
	after, err = postgresVersion(ctx, database)
	return before, after, db.Fault("read the store's schema version", err)
}

const (
	selectEncoding = `SELECT current_setting('server_encoding')`
	createSchema   = `CREATE SCHEMA IF NOT EXISTS `
)

// makeSchema makes the schema that the tables go into, if there is none yet.
func makeSchema(ctx context.Context, database *sql.DB, config *pgx.ConnConfig) error {
	var encoding string
	if err := database.QueryRowContext(ctx, selectEncoding).Scan(&encoding); err != nil {
		return db.ConnectFault("migrate the store", err)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("migrate the store: the database's encoding is %s, and patd needs UTF8: "+
			"CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", encoding)
	}
	var have string
	want := config.RuntimeParams["search_path"]
	if err := database.QueryRowContext(ctx, db.SelectSchema).Scan(&have); err != nil {
		return db.ConnectFault("migrate the store", err)
	}
	if have == "" {
		_, err := database.ExecContext(ctx, createSchema+pgx.Identifier{want}.Sanitize())
		if err == nil || db.IsState(err, "23505", "42P06") { // another has made it at the same moment
			err = database.QueryRowContext(ctx, db.SelectSchema).Scan(&have)
		}
		if err != nil {
			return migrateFault(err)
		}
	}
	if have == "" {
		return fmt.Errorf("migrate the store: %w: the schema %s cannot be used", ErrSchema, want)
	}
	return db.SchemaFault(have, want)
}

const (
	hasVersions   = `SELECT to_regclass('` + versionTable + `') IS NOT NULL`
	selectVersion = `SELECT coalesce(max(version_id), 0) FROM ` + versionTable + ` WHERE is_applied`
)

// postgresVersion is the version of the schema; 0: there is none.
func postgresVersion(ctx context.Context, db *sql.DB) (version int64, err error) {
	var there bool
	if err := db.QueryRowContext(ctx, hasVersions).Scan(&there); err != nil || !there {
		return 0, err
	}
	return version, db.QueryRowContext(ctx, selectVersion).Scan(&version)
}

const (
	selectServer = `SELECT current_setting('server_version_num')::int / 10000`

	// selectCareless reports whether the server confirms a commit before it is on disk.
	selectCareless = `SELECT current_setting('synchronous_commit') = 'off'`
)

// checkSchema refuses a database that this program cannot work with, and changes nothing of it.
func checkSchema(ctx context.Context, c *db.Conn, schema string) error {
	var server, version int64
	var there bool
	var have string
	if err := c.One(ctx, db.SelectSchema, []any{&have}); err != nil {
		return err
	}
	if err := db.SchemaFault(have, schema); err != nil {
		return err
	}
	if err := c.One(ctx, selectServer, []any{&server}); err != nil {
		return err
	}
	if server < oldestPostgres {
		return fmt.Errorf("%w: the server is PostgreSQL %d, and patd needs %d or later", ErrSchema, server,
			oldestPostgres)
	}
	if err := c.One(ctx, hasVersions, []any{&there}); err != nil {
		return err
	}
	if there {
		if err := c.One(ctx, selectVersion, []any{&version}); err != nil {
			return err
		}
	}
	return compatible(version, func() (oldest int64, err error) {
		return oldest, c.One(ctx, selectOldest, []any{&oldest})
	})
}

// migrateFault says why a migration failed: the operator needs the database's own words.
func migrateFault(err error) error {
	return fmt.Errorf("migrate the store: nothing of the step that failed was done; "+
		"see to its cause and run patd migrate again: %w", err)
}

// migrate brings the schema up to what this program knows, and refuses one that is newer.
func migrate(ctx context.Context, path string, o Options) error {
	unlock, err := lockFile(ctx, path+".lock", o.BusyTimeout)
	if err != nil {
		return err
	}
	defer unlock()
	empty, err := db.IsEmptyFile(ctx, path, o.BusyTimeout)
	if err != nil {
		return err
	}
	database, err := sql.Open("sqlite", db.WriterDSN(path, o.settings()))
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer database.Close()
	database.SetMaxOpenConns(1)
	if empty {
		if _, err := database.ExecContext(ctx, setApplicationID+strconv.Itoa(db.ApplicationID)); err != nil {
			return db.Fault("mark the new store as patd's", err)
		}
	}
	return up(ctx, database)
}

func provider(d goose.Dialect, db *sql.DB, options ...goose.ProviderOption) (*goose.Provider, error) {
	of := map[goose.Dialect]string{goose.DialectSQLite3: "migrations/sqlite",
		goose.DialectPostgres: "migrations/postgres"}
	dir, err := fs.Sub(migrations, of[d])
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	p, err := goose.NewProvider(d, db, dir, append(options, goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return p, nil
}

func up(ctx context.Context, database *sql.DB) error {
	p, err := provider(goose.DialectSQLite3, database)
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return db.Fault("read the store's schema version", err)
	}
	if have >= want {
		err := compatible(have, func() (oldest int64, err error) {
			return oldest, database.QueryRowContext(ctx, selectOldest).Scan(&oldest)
		})
		if err != nil {
			return fmt.Errorf("open the store: %w", err)
		}
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return db.Fault("migrate the store", err)
	}
	return nil
}

// lockFile holds an exclusive lock, so that of several programs that start at once on a new store one migrates it.
// The lock is SQLite's own, on an empty database beside the store: it works wherever SQLite does, waits no longer
// than ctx, and ends with its process. The file stays, for removing it would race with the next to lock it.
func lockFile(ctx context.Context, path string, busy time.Duration) (unlock func(), err error) {
	if err := db.CreateFile(path); err != nil {
		return nil, err
	}
	// The journal is in memory: nothing is ever written here, and a journal file could not be made on a full disk, on
	// which a server that starts can still tell what is revoked.
	database, err := sql.Open("sqlite", db.FileDSN(path, max(busy, 30*time.Second), "journal_mode(MEMORY)"))
	if err != nil {
		return nil, fmt.Errorf("lock the store for migration: %w", err)
	}
	database.SetMaxOpenConns(1)
	if _, err := database.ExecContext(ctx, lockTx); err != nil {
		_ = database.Close()
		return nil, db.Fault("lock the store for migration", err)
	}
	return func() { _ = database.Close() }, nil
}
