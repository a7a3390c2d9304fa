package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

const (
	lockTx           = `BEGIN EXCLUSIVE`
	setApplicationID = `PRAGMA application_id = ` // a PRAGMA takes no parameters; the number follows
)

// migrate brings the schema up to what this program knows, and refuses one that is newer.
func migrate(ctx context.Context, path string, o Options) error {
	unlock, err := lockFile(ctx, path+".lock", o.BusyTimeout)
	if err != nil {
		return err
	}
	defer unlock()
	empty, err := probe(ctx, path, o.BusyTimeout)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", writerDSN(path, o))
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if empty {
		if _, err := db.ExecContext(ctx, setApplicationID+strconv.Itoa(applicationID)); err != nil {
			return fault("mark the new store as patd's", err)
		}
	}
	return up(ctx, db)
}

func provider(db *sql.DB) (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return p, nil
}

func up(ctx context.Context, db *sql.DB) error {
	p, err := provider(db)
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fault("read the store's schema version", err)
	}
	if have > want {
		return fmt.Errorf("open the store: its schema is version %d and this program knows %d: use a newer patd", have, want)
	}
	if have == want {
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return fault("migrate the store", err)
	}
	return nil
}

// lockFile holds an exclusive lock, so that of several programs that start at once on a new store one migrates it.
// The lock is SQLite's own, on an empty database beside the store: it works wherever SQLite does, waits no longer
// than ctx, and ends with its process. The file stays, for removing it would race with the next to lock it.
func lockFile(ctx context.Context, path string, busy time.Duration) (unlock func(), err error) {
	if err := createFile(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", dsn(path, max(busy, 30*time.Second)))
	if err != nil {
		return nil, fmt.Errorf("lock the store for migration: %w", err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, lockTx); err != nil {
		_ = db.Close()
		return nil, fault("lock the store for migration", err)
	}
	return func() { _ = db.Close() }, nil
}
