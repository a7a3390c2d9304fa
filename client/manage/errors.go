package manage

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason is the stable reason of an error. errors.Is reports whether an error has it, also as the reason of a
// violation.
type Reason string

// Error returns the reason.
func (r Reason) Error() string { return string(r) }

// The reasons that programs decide by. docs/api.md has all of them, and what to do; any other is a Reason of its text.
const (
	ScopeNotHeld         Reason = "SCOPE_NOT_HELD"
	ScopesRequired       Reason = "SCOPES_REQUIRED"
	ScopesWidened        Reason = "SCOPES_WIDENED"
	TTLAboveMaximum      Reason = "TTL_ABOVE_MAXIMUM"
	NameTaken            Reason = "NAME_TAKEN"
	TokenLimitReached    Reason = "TOKEN_LIMIT_REACHED"
	TokenNotActive       Reason = "TOKEN_NOT_ACTIVE"
	NotFound             Reason = "NOT_FOUND"
	UserSuspended        Reason = "USER_SUSPENDED"
	RotationInProgress   Reason = "ROTATION_IN_PROGRESS"
	PreconditionFailed   Reason = "PRECONDITION_FAILED"
	IdempotencyKeyReused Reason = "IDEMPOTENCY_KEY_REUSED"
	RateLimited          Reason = "RATE_LIMITED"
	PermissionDenied     Reason = "PERMISSION_DENIED"
	CredentialRequired   Reason = "CREDENTIAL_REQUIRED"
	CredentialInvalid    Reason = "CREDENTIAL_INVALID"
	StoreUnavailable     Reason = "STORE_UNAVAILABLE"
	OutcomeUnknown       Reason = "OUTCOME_UNKNOWN"
	DiskFull             Reason = "DISK_FULL"
)

// Error is why a call failed.
type Error struct {
	// Code is the class of the error.
	Code codes.Code
	// Reason is patd's stable reason; empty: the error is not patd's, such as a lost connection.
	Reason Reason
	// Message is for people. It has no secret.
	Message string
	// Violations are the fields at fault.
	Violations []Violation
	// Metadata says more, by reason: see docs/api.md.
	Metadata map[string]string
	// RequestID is the id under which patd's log has the call; empty: not known.
	RequestID string
	// RetryAfter is how long patd asks to wait; 0: it does not say.
	RetryAfter time.Duration
	// Attempts is how often the call was made. If it is a change that failed with UNAVAILABLE or DEADLINE_EXCEEDED, any
	// of them may have happened.
	Attempts int
	// IdempotencyKey is the key of a call that makes a secret. To find out later what came of it, make the same call
	// again with this key as its request_id. Do not log it. Empty: the call takes none.
	IdempotencyKey string

	status *status.Status
}

// Violation is one fault of a request.
type Violation struct {
	Field       string
	Reason      Reason // empty: that of the Error
	Description string
}

var _ error = (*Error)(nil)

// Error returns the reason and the message.
func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("patd: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("patd: %s: %s", e.Reason, e.Message)
}

// Is reports whether the error has a Reason.
func (e *Error) Is(target error) bool {
	reason, ok := target.(Reason)
	if !ok {
		return false
	}
	for _, v := range e.Violations {
		if v.Reason == reason {
			return true
		}
	}
	return e.Reason == reason && reason != ""
}

// GRPCStatus returns the error as gRPC has it.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// ReasonOf returns the reason of an error; empty: it has none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// errorOf reads the error of a call.
func errorOf(err error) *Error {
	st := status.Convert(err)
	e := &Error{Code: st.Code(), Message: st.Message(), status: st}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == "patd" {
				e.Reason, e.Metadata = Reason(d.GetReason()), d.GetMetadata()
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Violations = append(e.Violations, Violation{v.GetField(), Reason(v.GetReason()), v.GetDescription()})
			}
		case *errdetails.RequestInfo:
			e.RequestID = d.GetRequestId()
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}
