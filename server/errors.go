package server

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
	codeDeadline tokens.Code = 1000 + iota
	codeCanceled
	codeUnimplemented
)

// Reasons that the transport gives or tells apart.
const (
	reasonTooLarge  = "BODY_TOO_LARGE"
	reasonGrantType = "GRANT_TYPE_UNSUPPORTED"
	reasonDenied    = "PERMISSION_DENIED"
	reasonSubject   = "SUBJECT_INVALID"
	reasonGrant     = "GRANT_INVALID"
	reasonScope     = "SCOPE_INVALID"
	reasonTarget    = "TARGET_INVALID"
	reasonStays     = "REVOCATION_UNSUPPORTED"
)

// keyPermission is the metadata key of a refusal that says which permission would have let a service in; where several would,
// it is one of them.
const keyPermission = "permission"

// errorClass is how one class of error shows over gRPC, over HTTP, and at the OAuth endpoints.
type errorClass struct {
	code  tokens.Code
	grpc  codes.Code
	http  int
	name  string // as in google.rpc.Code
	oauth oauthError
}

// oauthError is an error of RFC 6749 section 5.2, or of an RFC that builds on it: its name and the status it comes with.
type oauthError struct {
	name string
	http int
}

// classes answers the only table from the domain's codes to those of gRPC, HTTP and OAuth. What a client can do about an
// outage is to come again, whether it ended by a refusal or by a deadline.
func classes() []errorClass {
	invalid := oauthError{"invalid_request", http.StatusBadRequest}
	unavailable := oauthError{"temporarily_unavailable", http.StatusServiceUnavailable}
	return []errorClass{
		{tokens.CodeInternal, codes.Internal, http.StatusInternalServerError, "INTERNAL", oauthError{"server_error", http.StatusInternalServerError}},
		{tokens.CodeInvalid, codes.InvalidArgument, http.StatusBadRequest, "INVALID_ARGUMENT", invalid},
		{tokens.CodeUnauthenticated, codes.Unauthenticated, http.StatusUnauthorized, "UNAUTHENTICATED", oauthError{"invalid_client", http.StatusUnauthorized}},
		{tokens.CodeDenied, codes.PermissionDenied, http.StatusForbidden, "PERMISSION_DENIED", oauthError{"insufficient_scope", http.StatusForbidden}},
		{tokens.CodeNotFound, codes.NotFound, http.StatusNotFound, "NOT_FOUND", invalid},
		{tokens.CodeExists, codes.AlreadyExists, http.StatusConflict, "ALREADY_EXISTS", invalid},
		{tokens.CodePrecondition, codes.FailedPrecondition, http.StatusBadRequest, "FAILED_PRECONDITION", invalid},
		{tokens.CodeAborted, codes.Aborted, http.StatusConflict, "ABORTED", invalid},
		{tokens.CodeExhausted, codes.ResourceExhausted, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", oauthError{"temporarily_unavailable", http.StatusTooManyRequests}},
		{tokens.CodeUnavailable, codes.Unavailable, http.StatusServiceUnavailable, "UNAVAILABLE", unavailable},
		{codeDeadline, codes.DeadlineExceeded, http.StatusGatewayTimeout, "DEADLINE_EXCEEDED", unavailable},
		{codeCanceled, codes.Canceled, 499, "CANCELLED", unavailable},
		{codeUnimplemented, codes.Unimplemented, http.StatusNotImplemented, "UNIMPLEMENTED", oauthError{"invalid_request", http.StatusMethodNotAllowed}},
	}
}

// oauthReasons are the errors that OAuth tells apart within a class. Of RFC 6749 section 5.2 unauthorized_client is
// missing, since every client may use every grant.
func oauthReasons() map[string]oauthError {
	return map[string]oauthError{
		reasonTooLarge:  {"invalid_request", http.StatusRequestEntityTooLarge},
		reasonGrantType: {"unsupported_grant_type", http.StatusBadRequest},
		reasonSubject:   {"invalid_request", http.StatusBadRequest}, // RFC 8693 section 2.2.2
		reasonGrant:     {"invalid_grant", http.StatusBadRequest},
		reasonScope:     {"invalid_scope", http.StatusBadRequest},
		reasonTarget:    {"invalid_target", http.StatusBadRequest},         // RFC 8707 section 2
		reasonStays:     {"unsupported_token_type", http.StatusBadRequest}, // RFC 7009 section 2.2.1
	}
}

// oauthErrorOf is how an error shows at an OAuth endpoint.
func oauthErrorOf(e *tokens.Error) oauthError {
	if known, ok := oauthReasons()[e.Reason]; ok {
		return known
	}
	return classOfDomain(e.Code).oauth
}

func classOf(match func(errorClass) bool) errorClass {
	all := classes()
	for _, c := range all {
		if match(c) {
			return c
		}
	}
	return all[0]
}

func classOfDomain(code tokens.Code) errorClass {
	return classOf(func(c errorClass) bool { return c.code == code })
}

func classOfGRPC(code codes.Code) errorClass {
	return classOf(func(c errorClass) bool { return c.grpc == code })
}

// publicError is what the caller is told of err. Anything that is not an error of the domain, nor the end of the call's
// context, is internal and says no more than that.
func publicError(err error) *tokens.Error {
	var e *tokens.Error
	switch {
	case errors.As(err, &e) && e.Code != tokens.CodeInternal:
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return tokens.Fail(codeDeadline, "DEADLINE_EXCEEDED", "the call took longer than its deadline; for a change, look whether it was done")
	case errors.Is(err, context.Canceled):
		return tokens.Fail(codeCanceled, "CANCELLED", "the caller went away")
	default:
		return tokens.Fail(tokens.CodeInternal, "INTERNAL", "internal error")
	}
}

// toStatus writes an error in the Google form: ErrorInfo with the stable reason, BadRequest with the violations, RequestInfo,
// by which the caller and the log can be brought together, and what else there is to say.
func toStatus(e *tokens.Error, requestID string, more ...protoadapt.MessageV1) *status.Status {
	st := status.New(classOfDomain(e.Code).grpc, e.Message)
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

// errorReason reads the stable reason out of a status of ours; false: it is not ours.
func errorReason(st *status.Status) (string, bool) {
	reason, _ := errorInfo(st)
	return reason, reason != ""
}

// errorInfo reads the reason and the metadata out of a status of ours; of another one they are empty.
func errorInfo(st *status.Status) (reason string, metadata map[string]string) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info.GetReason(), info.GetMetadata()
		}
	}
	return "", nil
}

// classOfCode is a code's name as the JSON errors have it.
func classOfCode(code codes.Code) string {
	if code == codes.OK {
		return "OK"
	}
	return classOfGRPC(code).name
}

// keyRetryAfter is the metadata key that says in whole seconds when to come back, as the HTTP header of that name does.
const keyRetryAfter = "retry-after"

// tooOften is the refusal of a caller that does something too often.
type tooOften struct {
	refusal *tokens.Error
	after   time.Duration // when there is room again
}

// Error is that of the refusal.
func (t *tooOften) Error() string { return t.refusal.Error() }

// Unwrap answers the refusal.
func (t *tooOften) Unwrap() error { return t.refusal }

// status is the refusal on the wire: with google.rpc.RetryInfo, and over gRPC with the trailer that stands for the header
// Retry-After.
func (t *tooOften) status(ctx context.Context, requestID string) *status.Status {
	// A failure means that the call has no transport, and so nobody to read the trailer; RetryInfo says the same.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(keyRetryAfter, wholeSeconds(t.after)))
	return toStatus(t.refusal, requestID, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(t.after)}))
}

// retryAfter is the value of Retry-After (RFC 9110 section 10.2.3) that a status asks for.
func retryAfter(st *status.Status) (string, bool) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return wholeSeconds(info.GetRetryDelay().AsDuration()), true
		}
	}
	return "", false
}

// wholeSeconds is a duration in seconds, rounded up.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
