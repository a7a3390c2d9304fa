package fault

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/tokens"
)

// errorDomain is the domain of every google.rpc.ErrorInfo that patd makes.
const errorDomain = "patd"

// Codes of the transport itself, which continue those of the domain.
const (
	CodeDeadline tokens.Code = 1000 + iota
	CodeCanceled
	CodeUnimplemented
)

// Reasons that the transport sets or distinguishes.
const (
	ReasonTooLarge  = "BODY_TOO_LARGE"
	ReasonGrantType = "GRANT_TYPE_UNSUPPORTED"
	ReasonDenied    = "PERMISSION_DENIED"
	ReasonSubject   = "SUBJECT_INVALID" // a good credential of another kind than a personal access token
	ReasonGrant     = "GRANT_INVALID"
	ReasonScope     = "SCOPE_INVALID"
	ReasonTarget    = "TARGET_INVALID"
	ReasonStays     = "REVOCATION_UNSUPPORTED"
)

// KeyPermission is the metadata key of a rejection that names a permission that a service lacks. If several would
// suffice, it names one of them.
const KeyPermission = "permission"

// Class is how one class of error appears over gRPC, over HTTP, and at the OAuth endpoints.
type Class struct {
	Code  tokens.Code
	GRPC  codes.Code
	HTTP  int
	Name  string // as in google.rpc.Code
	OAuth OAuthError
}

// OAuthError is an error of RFC 6749 section 5.2, or of an RFC based on it: its name and its HTTP status.
type OAuthError struct {
	Name string
	HTTP int
}

// Classes returns the only table from the domain's codes to those of gRPC, HTTP and OAuth. An outage that ends in an
// error or in a timeout is the same to clients: they retry.
func Classes() []Class {
	invalid := OAuthError{"invalid_request", http.StatusBadRequest}
	unavailable := OAuthError{"temporarily_unavailable", http.StatusServiceUnavailable}
	return []Class{
		{
			tokens.CodeInternal,
			codes.Internal,
			http.StatusInternalServerError,
			"INTERNAL",
			OAuthError{"server_error", http.StatusInternalServerError},
		},
		{tokens.CodeInvalid, codes.InvalidArgument, http.StatusBadRequest, "INVALID_ARGUMENT", invalid},
		{
			tokens.CodeUnauthenticated,
			codes.Unauthenticated,
			http.StatusUnauthorized,
			"UNAUTHENTICATED",
			OAuthError{"invalid_client", http.StatusUnauthorized},
		},
		{
			tokens.CodeDenied,
			codes.PermissionDenied,
			http.StatusForbidden,
			"PERMISSION_DENIED",
			OAuthError{"insufficient_scope", http.StatusForbidden},
		},
		{tokens.CodeNotFound, codes.NotFound, http.StatusNotFound, "NOT_FOUND", invalid},
		{tokens.CodeExists, codes.AlreadyExists, http.StatusConflict, "ALREADY_EXISTS", invalid},
		{tokens.CodePrecondition, codes.FailedPrecondition, http.StatusBadRequest, "FAILED_PRECONDITION", invalid},
		{tokens.CodeAborted, codes.Aborted, http.StatusConflict, "ABORTED", invalid},
		{
			tokens.CodeExhausted,
			codes.ResourceExhausted,
			http.StatusTooManyRequests,
			"RESOURCE_EXHAUSTED",
			OAuthError{"temporarily_unavailable", http.StatusTooManyRequests},
		},
		{tokens.CodeUnavailable, codes.Unavailable, http.StatusServiceUnavailable, "UNAVAILABLE", unavailable},
		{CodeDeadline, codes.DeadlineExceeded, http.StatusGatewayTimeout, "DEADLINE_EXCEEDED", unavailable},
		{CodeCanceled, codes.Canceled, 499, "CANCELLED", unavailable},
		{
			CodeUnimplemented,
			codes.Unimplemented,
			http.StatusNotImplemented,
			"UNIMPLEMENTED",
			OAuthError{"invalid_request", http.StatusMethodNotAllowed},
		},
	}
}

// OAuthReasons returns the errors that OAuth distinguishes within a class. unauthorized_client of RFC 6749 section 5.2
// is missing, since every client may use every grant.
func OAuthReasons() map[string]OAuthError {
	return map[string]OAuthError{
		ReasonTooLarge:  {"invalid_request", http.StatusRequestEntityTooLarge},
		ReasonGrantType: {"unsupported_grant_type", http.StatusBadRequest},
		ReasonSubject:   {"invalid_request", http.StatusBadRequest}, // RFC 8693 section 2.2.2
		ReasonGrant:     {"invalid_grant", http.StatusBadRequest},
		ReasonScope:     {"invalid_scope", http.StatusBadRequest},
		ReasonTarget:    {"invalid_target", http.StatusBadRequest},         // RFC 8707 section 2
		ReasonStays:     {"unsupported_token_type", http.StatusBadRequest}, // RFC 7009 section 2.2.1
	}
}

// OAuthOf returns how an error appears at an OAuth endpoint.
func OAuthOf(e *tokens.Error) OAuthError {
	if known, ok := OAuthReasons()[e.Reason]; ok {
		return known
	}
	return ClassOfDomain(e.Code).OAuth
}

// ClassOf returns the first row that matches, or else the row of internal errors.
func ClassOf(match func(Class) bool) Class {
	all := Classes()
	for _, c := range all {
		if match(c) {
			return c
		}
	}
	return all[0]
}

// ClassOfDomain returns the row of a domain code.
func ClassOfDomain(code tokens.Code) Class {
	return ClassOf(func(c Class) bool { return c.Code == code })
}

// ClassOfGRPC returns the row of a gRPC code.
func ClassOfGRPC(code codes.Code) Class {
	return ClassOf(func(c Class) bool { return c.GRPC == code })
}

// Public returns the public error for err. An error that is neither the domain's nor the end of the call's context
// becomes "internal error", with no details.
func Public(err error) *tokens.Error {
	var e *tokens.Error
	switch {
	case errors.As(err, &e) && e.Code != tokens.CodeInternal:
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return tokens.Fail(
			CodeDeadline,
			"DEADLINE_EXCEEDED",
			"the call took longer than its deadline; for a change, look whether it was done",
		)
	case errors.Is(err, context.Canceled):
		return tokens.Fail(CodeCanceled, "CANCELLED", "the caller went away")
	default:
		return tokens.Fail(tokens.CodeInternal, "INTERNAL", "internal error")
	}
}

// ErrPanic stands for a panic that has been logged.
var ErrPanic = errors.New("panic")

// Explain returns the public error for err, and its private cause for the log; nil: there is none.
func Explain(err error) (public *tokens.Error, cause error) {
	public = Public(err)
	if public.Code == tokens.CodeInternal && !errors.Is(err, ErrPanic) {
		return public, err
	}
	return public, public.Cause
}

// OutageRetryAfter is the Retry-After of an outage, in seconds: its end is not known.
const OutageRetryAfter = "1"

// Status writes an error in the Google form: ErrorInfo with the stable reason, BadRequest with the violations,
// RequestInfo with the id under which the log has the request, and any other details.
func Status(e *tokens.Error, requestID string, more ...protoadapt.MessageV1) *status.Status {
	st := status.New(ClassOfDomain(e.Code).GRPC, e.Message)
	details := []protoadapt.MessageV1{
		protoadapt.MessageV1Of(&errdetails.ErrorInfo{Reason: e.Reason, Domain: errorDomain, Metadata: e.Metadata}),
	}
	if len(e.Violations) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range e.Violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: v.Field, Description: v.Description, Reason: v.Reason,
			})
		}
		details = append(details, protoadapt.MessageV1Of(bad))
	}
	details = append(details, protoadapt.MessageV1Of(&errdetails.RequestInfo{RequestId: requestID}))
	details = append(details, more...)
	if with, err := st.WithDetails(details...); err == nil {
		return with
	}
	return st
}

// Reason returns the stable reason of a status; false: the status is not ours.
func Reason(st *status.Status) (string, bool) {
	reason, _ := Info(st)
	return reason, reason != ""
}

// Info returns the reason and the metadata of a status, or zero values if it is not ours.
func Info(st *status.Status) (reason string, metadata map[string]string) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info.GetReason(), info.GetMetadata()
		}
	}
	return "", nil
}

// CodeName returns a code's name as in the JSON errors.
func CodeName(code codes.Code) string {
	if code == codes.OK {
		return "OK"
	}
	return ClassOfGRPC(code).Name
}

// keyRetryAfter is the metadata key of the time to wait in whole seconds, like the HTTP header of that name.
const keyRetryAfter = "retry-after"

// TooOften is the refusal of a caller that does something too often.
type TooOften struct {
	Refusal *tokens.Error
	After   time.Duration // the time until the next call is allowed
}

// Error returns the text of the refusal.
func (t *TooOften) Error() string { return t.Refusal.Error() }

// Unwrap returns the refusal.
func (t *TooOften) Unwrap() error { return t.Refusal }

// Status returns the gRPC status, with google.rpc.RetryInfo, and sets the gRPC trailer that corresponds to the header
// Retry-After.
func (t *TooOften) Status(ctx context.Context, requestID string) *status.Status {
	// A failure means that the call has no transport, and so no reader of the trailer; RetryInfo has the same value.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(keyRetryAfter, WholeSeconds(t.After)))
	return Status(
		t.Refusal,
		requestID,
		protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(t.After)}),
	)
}

// RetryAfter returns the value of Retry-After (RFC 9110 section 10.2.3) for a status.
func RetryAfter(st *status.Status) (string, bool) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return WholeSeconds(info.GetRetryDelay().AsDuration()), true
		}
	}
	return "", false
}

// WholeSeconds returns a duration in seconds, rounded up.
func WholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
