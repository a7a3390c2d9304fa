package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"patd/internal/durable"
)

const (
	// ApplicationID marks a database file as patd's: "patd" in ASCII.
	ApplicationID = 0x70617464

	journalSizeLimit = 64 << 20
	// CacheKiB is the page cache of a connection.
	CacheKiB = 16 << 10

	// checkpointPages is how long the write-ahead log becomes before it is copied into the file: 16 MiB. Changes touch
	// indexes at random, and of a page that changes often only the last state is copied.
	checkpointPages = 4000
	// sparingPages is the same while the disk's reserve is in use, which the log must not take for itself.
	sparingPages = 256
)

// LogPages sets how long the write-ahead log becomes.
func LogPages(sparing bool) string {
	if sparing {
		return `PRAGMA wal_autocheckpoint(` + strconv.Itoa(sparingPages) + `)`
	}
	return `PRAGMA wal_autocheckpoint(` + strconv.Itoa(checkpointPages) + `)`
}

// checkpoint is best effort: the last connection to close does it too, and what remains is replayed at the next start.
const checkpoint = `PRAGMA wal_checkpoint(TRUNCATE)`

// RewindLog has what comes overwrite the write-ahead log, which keeps its length, so that no other program gets its
// room.
const RewindLog = `PRAGMA wal_checkpoint(RESTART)`

// SQLitePool makes a pool of n connections to a file, until done is closed.
func SQLitePool(d *Dialect, dsn string, n int, done <-chan struct{}) (*Pool, error) {
	db, err := sql.Open(d.Driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("prepare connections to the store: %w", err)
	}
	return newPool(d, db, n, 0, done), nil
}

// FileDSN names a file with the settings that every connection gets: a PRAGMA run on a pool would reach one of them.
func FileDSN(path string, busy time.Duration, pragmas ...string) string {
	q := url.Values{"mode": {"rw"}, "_error_rc": {"1"}}
	q.Add("_pragma", "busy_timeout("+strconv.FormatInt(busy.Milliseconds(), 10)+")")
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	escape := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")
	return "file:" + escape.Replace(filepath.ToSlash(path)) + "?" + q.Encode()
}

// CommonPragmas are for every connection. The file is not mapped into memory: that was measured to gain nothing here,
// and an I/O error in a mapping kills the process.
func CommonPragmas() []string {
	return []string{
		"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "trusted_schema(OFF)", "temp_store(MEMORY)",
		"journal_size_limit(" + strconv.Itoa(journalSizeLimit) + ")",
		"cache_size(-" + strconv.Itoa(CacheKiB) + ")",
	}
}

// WriterDSN names a file for the writer.
func WriterDSN(path string, o Settings) string {
	pragmas := append(CommonPragmas(), "wal_autocheckpoint("+strconv.Itoa(checkpointPages)+")")
	return FileDSN(path, o.BusyTimeout, append(pragmas, o.Pragmas...)...) + "&_txlock=immediate"
}

// ReaderDSN names a file for readers.
func ReaderDSN(path string, o Settings) string {
	return FileDSN(path, o.BusyTimeout, CommonPragmas()...) + "&_query_only=1"
}

// CreateFile makes an empty database file that only its owner, that of the directory, can read. A file that exists is
// left alone: to open and close it here would drop the locks that SQLite holds on it elsewhere in this process.
func CreateFile(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create the store: %w", err)
	}
	if err := errors.Join(f.Close(), durable.InheritDir(path, filepath.Dir(path))); err != nil {
		return fmt.Errorf("create the store: %w", err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

const (
	readApplicationID = `PRAGMA application_id`
	countObjects      = `SELECT count(*) FROM sqlite_schema`
)

// IsEmptyFile reports whether the file is an empty database. A file that is neither empty nor patd's is refused before
// anything of it is changed: opening it as ours would already convert its journal.
func IsEmptyFile(ctx context.Context, path string, busy time.Duration) (empty bool, err error) {
	db, err := sql.Open("sqlite", FileDSN(path, busy, "query_only(1)"))
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	defer db.Close()
	var id, objects int64
	if err := db.QueryRowContext(ctx, readApplicationID).Scan(&id); err != nil {
		return false, probeError(path, err)
	}
	if err := db.QueryRowContext(ctx, countObjects).Scan(&objects); err != nil {
		return false, probeError(path, err)
	}
	switch {
	case id == ApplicationID:
		return objects == 0, nil
	case id == 0 && objects == 0:
		return true, nil
	default:
		return false, fmt.Errorf("open the store: %s is a database of another program, not patd's", path)
	}
}

func probeError(path string, err error) error {
	if isSQLite(err, sqlite3.SQLITE_NOTADB) {
		return fmt.Errorf("open the store: %s is not a patd database: %w", path, err)
	}
	return Fault("look at "+path, err)
}
