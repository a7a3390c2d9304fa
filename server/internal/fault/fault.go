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

// Codes that the transport itself knows, continuing those of the domain.
const (
	CodeDeadline tokens.Code = 1000 + iota
	CodeCanceled
	CodeUnimplemented
)

// Reasons that the transport gives or tells apart.
const (
	ReasonTooLarge  = "BODY_TOO_LARGE"
	ReasonGrantType = "GRANT_TYPE_UNSUPPORTED"
	ReasonDenied    = "PERMISSION_DENIED"
	ReasonSubject   = "SUBJECT_INVALID"
	ReasonGrant     = "GRANT_INVALID"
	ReasonScope     = "SCOPE_INVALID"
	ReasonTarget    = "TARGET_INVALID"
	ReasonStays     = "REVOCATION_UNSUPPORTED"
)

// KeyPermission is the metadata key of a refusal that says which permission would have let a service in; where several would,
// it is one of them.
const KeyPermission = "permission"

// Class is how one class of error shows over gRPC, over HTTP, and at the OAuth endpoints.
type Class struct {
	Code  tokens.Code
	GRPC  codes.Code
	HTTP  int
	Name  string // as in google.rpc.Code
	OAuth OAuthError
}

// OAuthError is an error of RFC 6749 section 5.2, or of an RFC that builds on it: its name and the status it comes with.
type OAuthError struct {
	Name string
	HTTP int
}

// Classes returns the only table from the domain's codes to those of gRPC, HTTP and OAuth. What a client can do about an
// outage is to come again, whether it ended by a refusal or by a deadline.
func Classes() []Class {
	invalid := OAuthError{"invalid_request", http.StatusBadRequest}
	unavailable := OAuthError{"temporarily_unavailable", http.StatusServiceUnavailable}
	return []Class{
		{tokens.CodeInternal, codes.Internal, http.StatusInternalServerError, "INTERNAL", OAuthError{"server_error", http.StatusInternalServerError}},
		{tokens.CodeInvalid, codes.InvalidArgument, http.StatusBadRequest, "INVALID_ARGUMENT", invalid},
		{tokens.CodeUnauthenticated, codes.Unauthenticated, http.StatusUnauthorized, "UNAUTHENTICATED", OAuthError{"invalid_client", http.StatusUnauthorized}},
		{tokens.CodeDenied, codes.PermissionDenied, http.StatusForbidden, "PERMISSION_DENIED", OAuthError{"insufficient_scope", http.StatusForbidden}},
		{tokens.CodeNotFound, codes.NotFound, http.StatusNotFound, "NOT_FOUND", invalid},
		{tokens.CodeExists, codes.AlreadyExists, http.StatusConflict, "ALREADY_EXISTS", invalid},
		{tokens.CodePrecondition, codes.FailedPrecondition, http.StatusBadRequest, "FAILED_PRECONDITION", invalid},
		{tokens.CodeAborted, codes.Aborted, http.StatusConflict, "ABORTED", invalid},
		{tokens.CodeExhausted, codes.ResourceExhausted, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", OAuthError{"temporarily_unavailable", http.StatusTooManyRequests}},
		{tokens.CodeUnavailable, codes.Unavailable, http.StatusServiceUnavailable, "UNAVAILABLE", unavailable},
		{CodeDeadline, codes.DeadlineExceeded, http.StatusGatewayTimeout, "DEADLINE_EXCEEDED", unavailable},
		{CodeCanceled, codes.Canceled, 499, "CANCELLED", unavailable},
		{CodeUnimplemented, codes.Unimplemented, http.StatusNotImplemented, "UNIMPLEMENTED", OAuthError{"invalid_request", http.StatusMethodNotAllowed}},
	}
}

// OAuthReasons are the errors that OAuth tells apart within a class. Of RFC 6749 section 5.2 unauthorized_client is
// missing, since every client may use every grant.
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

// OAuthOf is how an error shows at an OAuth endpoint.
func OAuthOf(e *tokens.Error) OAuthError {
	if known, ok := OAuthReasons()[e.Reason]; ok {
		return known
	}
	return ClassOfDomain(e.Code).OAuth
}

// ClassOf returns the first row that matches, or the row of internal errors.
func ClassOf(match func(Class) bool) Class {
	all := Classes()
	for _, c := range all {
		if match(c) {
			return c
		}
	}
	return all[0]
}

// ClassOfDomain returns the row of a code of the domain.
func ClassOfDomain(code tokens.Code) Class {
	return ClassOf(func(c Class) bool { return c.Code == code })
}

// ClassOfGRPC returns the row of a code of gRPC.
func ClassOfGRPC(code codes.Code) Class {
	return ClassOf(func(c Class) bool { return c.GRPC == code })
}

// Public is what the caller is told of err. Anything that is not an error of the domain, nor the end of the call's
// context, is internal and says no more than that.
func Public(err error) *tokens.Error {
	var e *tokens.Error
	switch {
	case errors.As(err, &e) && e.Code != tokens.CodeInternal:
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return tokens.Fail(CodeDeadline, "DEADLINE_EXCEEDED", "the call took longer than its deadline; for a change, look whether it was done")
	case errors.Is(err, context.Canceled):
		return tokens.Fail(CodeCanceled, "CANCELLED", "the caller went away")
	default:
		return tokens.Fail(tokens.CodeInternal, "INTERNAL", "internal error")
	}
}

// ErrPanic stands for a panic, which was logged.
var ErrPanic = errors.New("panic")

// Explain returns what the caller is told of err, and the cause that only the log is told; nil: there is none.
func Explain(err error) (public *tokens.Error, cause error) {
	public = Public(err)
	if public.Code == tokens.CodeInternal && !errors.Is(err, ErrPanic) {
		return public, err
	}
	return public, public.Cause
}

// OutageRetryAfter is what Retry-After says in an outage, in seconds: when it ends is not known.
const OutageRetryAfter = "1"

// Status writes an error in the Google form: ErrorInfo with the stable reason, BadRequest with the violations, RequestInfo,
// by which the caller and the log can be brought together, and what else there is to say.
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

// Reason reads the stable reason out of a status of ours; false: it is not ours.
func Reason(st *status.Status) (string, bool) {
	reason, _ := Info(st)
	return reason, reason != ""
}

// Info reads the reason and the metadata out of a status of ours; of another one they are empty.
func Info(st *status.Status) (reason string, metadata map[string]string) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info.GetReason(), info.GetMetadata()
		}
	}
	return "", nil
}

// CodeName is a code's name as the JSON errors have it.
func CodeName(code codes.Code) string {
	if code == codes.OK {
		return "OK"
	}
	return ClassOfGRPC(code).Name
}

// keyRetryAfter is the metadata key that says in whole seconds when to come back, as the HTTP header of that name does.
const keyRetryAfter = "retry-after"

// TooOften is the refusal of a caller that does something too often.
type TooOften struct {
	Refusal *tokens.Error
	After   time.Duration // when there is room again
}

// Error is that of the refusal.
func (t *TooOften) Error() string { return t.Refusal.Error() }

// Unwrap returns the refusal.
func (t *TooOften) Unwrap() error { return t.Refusal }

// Status is the refusal on the wire: with google.rpc.RetryInfo, and over gRPC with the trailer that stands for the header
// Retry-After.
func (t *TooOften) Status(ctx context.Context, requestID string) *status.Status {
	// A failure means that the call has no transport, and so nobody to read the trailer; RetryInfo says the same.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(keyRetryAfter, WholeSeconds(t.After)))
	return Status(t.Refusal, requestID, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(t.After)}))
}

// RetryAfter is the value of Retry-After (RFC 9110 section 10.2.3) that a status asks for.
func RetryAfter(st *status.Status) (string, bool) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return WholeSeconds(info.GetRetryDelay().AsDuration()), true
		}
	}
	return "", false
}

// WholeSeconds is a duration in seconds, rounded up.
func WholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
