package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"patd/internal/durable"
	"patd/store/internal/db"
	"patd/tokens"
)

const vacuumInto = `VACUUM INTO ?`

// Backup writes a consistent copy of the store, as of one instant, to a new file that only its owner can read; the
// store goes on working meanwhile. A file that exists is refused. The copy gets its name only when it is whole and on
// disk; an interrupted backup leaves no file of that name. A store in PostgreSQL is copied into a store in a file, row
// by row, read back and compared, as Copy does it, but with no lock that a change would wait for.
func (s *Store) Backup(ctx context.Context, path string) error {
	if err := s.backup(ctx, path); err != nil {
		return fmt.Errorf("back up to %s: %w", path, err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, path string) error {
	select {
	case <-s.done:
		return db.Fault("copy the store", db.ErrClosed)
	default:
	}
	return newFile(path, func(part string) error {
		if err := s.Flush(ctx); err != nil {
			s.report(ctx, err) // no reason not to save the rest
		}
		if s.dialect.Remote {
			_, err := s.copyToFile(ctx, part, false, s.options)
			return err
		}
		return s.copyTo(ctx, part)
	})
}

// newFile has a file filled under another name, in the same directory, and gives it its own when it is whole.
func newFile(path string, fill func(part string) error) (err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return err
	}
	// A log that was left there would be taken for the new file's.
	for _, name := range []string{path, path + "-wal", path + "-journal"} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
			}
			return err
		}
	}
	part := path + "." + rand.Text()[:8] + ".part"
	defer func() {
		if rerr := os.Remove(part); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	if err := fill(part); err != nil {
		return err
	}
	if err := durable.Publish(part, path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// copyTo fills a new file, and syncs it: SQLite does not sync what VACUUM INTO writes.
func (s *Store) copyTo(ctx context.Context, part string) error {
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	database, err := sql.Open(s.dialect.Driver, db.FileDSN(s.path, s.options.BusyTimeout))
	if err != nil {
		return fmt.Errorf("prepare a connection to the store: %w", err)
	}
	defer database.Close()
	c, err := db.Connect(ctx, s.dialect, database)
	if err != nil {
		return db.Fault("copy the store", err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Exec(ctx, vacuumInto, part); err != nil {
		if db.IsFull(err) {
			return tokens.DiskFull("copy the store", err)
		}
		return db.Fault("copy the store", err)
	}
	return f.Sync()
}
