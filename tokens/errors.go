package tokens

import (
	"errors"
	"fmt"
	"strings"

	"patd/tokens/refusal"
)

// Code is the class of a domain error. The transport maps it; see server/internal/fault for the only table.
type Code int

// The codes.
const (
	CodeInternal Code = iota
	CodeInvalid
	CodeUnauthenticated
	CodeDenied
	CodeNotFound
	CodeExists
	CodePrecondition
	CodeAborted
	CodeExhausted
	CodeUnavailable
)

// Error is a domain error: a code, a stable reason for programs and a text for people. The cause is for the log, never
// for the caller.
type Error struct {
	Code       Code
	Reason     string // stable, e.g. SCOPE_NOT_HELD
	Message    string // public
	Violations []Violation
	Metadata   map[string]string // public
	Cause      error             // private
}

// Violation names one field of a request and what is wrong with it.
type Violation struct {
	Field       string
	Description string
	Reason      string
}

// Error returns the text for logs, with the cause.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Reason)
	b.WriteString(": ")
	b.WriteString(e.Message)
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Cause }

// Invalid returns a CodeInvalid error about one field. text must not repeat caller input, unless that was validated.
func Invalid(reason, field, text string) *Error {
	return invalid([]Violation{{Field: field, Description: text, Reason: reason}})
}

// invalid joins violations into one error, whose reason and text are those of the first.
func invalid(vs []Violation) *Error {
	e := &Error{Code: CodeInvalid, Reason: vs[0].Reason, Message: vs[0].Description, Violations: vs}
	if vs[0].Field != "" {
		e.Message = vs[0].Field + ": " + vs[0].Description
	}
	if n := len(vs) - 1; n > 0 {
		e.Message = fmt.Sprintf("%s (and %d more violations, see details)", e.Message, n)
	}
	return e
}

// Fail returns an error of any other code.
func Fail(code Code, reason, text string) *Error {
	return &Error{Code: code, Reason: reason, Message: text}
}

// StoreUnavailable returns the error of a store during an outage. op says what was attempted.
func StoreUnavailable(op string, cause error) *Error {
	return &Error{
		Code: CodeUnavailable, Reason: "STORE_UNAVAILABLE",
		Message: "the store does not answer; try again", Cause: fmt.Errorf("%s: %w", op, cause),
	}
}

// DiskFull returns the error of a store that has no room to write a change. Nothing was changed.
func DiskFull(op string, cause error) *Error {
	return &Error{
		Code:    CodeUnavailable,
		Reason:  "DISK_FULL",
		Message: "the store's disk is full: nothing was changed; make room and try again",
		Cause:   fmt.Errorf("%s: %w", op, cause),
	}
}

// DiskReserved is DiskFull for a change that may not use the store's reserve.
func DiskReserved(op string, cause error) *Error {
	e := DiskFull(op, cause)
	e.Message = "the store's disk is full: nothing was changed; revoking, suspending and deleting still work; make room and try again"
	return e
}

// ErrRecordInvalid is in the chain of every error about a stored record that is not as patd wrote it.
var ErrRecordInvalid = errors.New("a stored record is not as patd wrote it")

// RecordInvalid returns the error about a stored record whose checksum is wrong or missing, or cannot be looked at. It
// is a fault of the store, which says nothing about the secret that was presented.
func RecordInvalid(cause error) *Error {
	return &Error{
		Code:    CodeUnavailable,
		Reason:  "RECORD_INVALID",
		Message: "the stored record was changed by other means than patd, and is not used; the operator must revoke it, or restore a backup",
		Cause:   errors.Join(ErrRecordInvalid, cause),
	}
}

// toEnd passes over ErrRecordInvalid: what ends a record may read one that is not as patd wrote it.
func toEnd(err error) error {
	if errors.Is(err, ErrRecordInvalid) {
		return nil
	}
	return err
}

// FeaturesUnavailable returns the error of a feature source during an outage.
func FeaturesUnavailable(op string, cause error) *Error {
	return &Error{
		Code: CodeUnavailable, Reason: "FEATURES_UNAVAILABLE",
		Message: "the source of features does not answer; try again", Cause: fmt.Errorf("%s: %w", op, cause),
	}
}

func unauthenticated(text string) *Error {
	return Fail(CodeUnauthenticated, refusal.NotValid, text)
}

// ErrUnknownCredential is the private cause of an error about a credential that has no record. Finding that out took a
// read of the store.
var ErrUnknownCredential = errors.New("no record is of this credential")

// because returns an error with a private cause.
func because(e *Error, cause error) *Error {
	e.Cause = cause
	return e
}

func notFound(what string) *Error {
	return Fail(CodeNotFound, "NOT_FOUND", "no such "+what)
}
