package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"patd/tokens"
)

var (
	// ErrClosed is the cause of every failure after the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrUnknownOutcome is the cause where it cannot be known whether a commit happened.
	ErrUnknownOutcome = errors.New("whether the commit happened is not known")
	// ErrSchema is the cause when a database has no schema that this program can work with.
	ErrSchema = errors.New("the schema is not one for this program")
)

// Fault turns a failure into what tokens.Store promises. Errors of the domain pass; the
// context's end stays recognizable; everything else is an outage, and one that no retry ends says so.
func Fault(op string, err error) error {
	var known *tokens.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known), errors.Is(err, tokens.ErrNotFound), errors.Is(err, tokens.ErrTaken):
		return err
	case IsState(err, "22021"): // character_not_in_repertoire: PostgreSQL has no NUL in a text
		return tokens.Invalid("TEXT_INVALID", "", "a text in the request holds a NUL character")
	case errors.Is(err, ErrUnknownOutcome):
		return outcomeUnknown(op, err)
	case IsTimeout(err):
		return tokens.StoreUnavailable(op, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", op, err)
	case IsFull(err):
		return tokens.DiskFull(op, err)
	case isSQLite(err, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
		damaged := tokens.StoreUnavailable(op, err)
		damaged.Message = "the database file is damaged; stop the server, run patd check and restore a backup"
		return damaged
	default:
		return tokens.StoreUnavailable(op, err)
	}
}

// ConnectFault is fault for the first word to a database: why it cannot be reached is for the operator to know. The
// driver's own text says no password.
func ConnectFault(op string, err error) error {
	f := Fault(op, err)
	var e *tokens.Error
	if errors.As(f, &e) {
		return fmt.Errorf("%s: the database cannot be reached: %w", op, err)
	}
	return f
}

// outcomeUnknown is the error of a change whose commit was cut off, where it is not known yet whether it happened.
func outcomeUnknown(op string, cause error) *tokens.Error {
	return &tokens.Error{
		Code: tokens.CodeUnavailable, Reason: "OUTCOME_UNKNOWN",
		Message: "the database went away while the change was committed, so it may or may not have happened: " +
			"look, or repeat it with the same idempotency key",
		Cause: fmt.Errorf("%s: %w", op, cause),
	}
}

// statementTimeout ends a statement that took longer than a store waits for one, which is not the caller's doing.
type statementTimeout struct{ cause error }

func (e *statementTimeout) Error() string {
	return "the database took too long: " + e.cause.Error()
}

func (e *statementTimeout) Unwrap() error { return e.cause }

// IsTimeout reports whether a statement took longer than the store waits for one.
func IsTimeout(err error) bool {
	var timeout *statementTimeout
	return errors.As(err, &timeout)
}

// IsFull reports whether the database had no room to write. SQLite reports a quota or a file size limit as a failed
// write, and no room for the index of the write-ahead log as a failure to grow that.
func IsFull(err error) bool {
	var se *sqlite.Error
	if errors.As(err, &se) && (se.Code() == sqlite3.SQLITE_IOERR_WRITE || se.Code() == sqlite3.SQLITE_IOERR_SHMSIZE) {
		return true
	}
	return isSQLite(err, sqlite3.SQLITE_FULL) || IsState(err, "53100") // disk_full
}

// IsConstraint reports whether a change broke a rule of the schema.
func IsConstraint(err error) bool {
	return isSQLite(err, sqlite3.SQLITE_CONSTRAINT) || isClass(err, "23")
}

// IsConflict reports whether a transaction was given up in favour of another, so that it may do better the next time.
func IsConflict(err error) bool {
	return IsState(err, "40001", "40P01") // serialization_failure, deadlock_detected
}

// IsInterrupt reports whether a statement was ended from outside.
func IsInterrupt(err error) bool {
	return isSQLite(err, sqlite3.SQLITE_INTERRUPT) || IsState(err, "57014") // query_canceled
}

func isSQLite(err error, primary ...int) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && slices.Contains(primary, se.Code()&0xff)
}

// IsState reports whether PostgreSQL returned one of some SQLSTATEs
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
func IsState(err error, states ...string) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && slices.Contains(states, pe.Code)
}

func isClass(err error, class string) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && len(pe.Code) == 5 && pe.Code[:2] == class
}

// EndsTransaction reports whether the database may have rolled back by itself. After whatever failed PostgreSQL goes on
// with nothing but a savepoint made before. Of the failures that leave SQLite's transaction standing these are the ones
// to expect; to take another for the end costs no more than running the group again.
func EndsTransaction(err error, saved bool) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return !saved
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return gone(err) || IsTimeout(err)
	}
	switch se.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
		return false
	default:
		return true
	}
}

// gone reports whether the driver has given a connection up.
func gone(err error) bool {
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)
}
