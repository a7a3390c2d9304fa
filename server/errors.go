package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/protoadapt"

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

const reasonTooLarge = "BODY_TOO_LARGE"

// errorClass is how one class of error shows over gRPC and over HTTP.
type errorClass struct {
	code tokens.Code
	grpc codes.Code
	http int
	name string // as in google.rpc.Code
}

// classes answers the only table from the domain's codes to those of gRPC and HTTP.
func classes() []errorClass {
	return []errorClass{
		{tokens.CodeInternal, codes.Internal, http.StatusInternalServerError, "INTERNAL"},
		{tokens.CodeInvalid, codes.InvalidArgument, http.StatusBadRequest, "INVALID_ARGUMENT"},
		{tokens.CodeUnauthenticated, codes.Unauthenticated, http.StatusUnauthorized, "UNAUTHENTICATED"},
		{tokens.CodeDenied, codes.PermissionDenied, http.StatusForbidden, "PERMISSION_DENIED"},
		{tokens.CodeNotFound, codes.NotFound, http.StatusNotFound, "NOT_FOUND"},
		{tokens.CodeExists, codes.AlreadyExists, http.StatusConflict, "ALREADY_EXISTS"},
		{tokens.CodePrecondition, codes.FailedPrecondition, http.StatusBadRequest, "FAILED_PRECONDITION"},
		{tokens.CodeAborted, codes.Aborted, http.StatusConflict, "ABORTED"},
		{tokens.CodeExhausted, codes.ResourceExhausted, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED"},
		{tokens.CodeUnavailable, codes.Unavailable, http.StatusServiceUnavailable, "UNAVAILABLE"},
		{codeDeadline, codes.DeadlineExceeded, http.StatusGatewayTimeout, "DEADLINE_EXCEEDED"},
		{codeCanceled, codes.Canceled, 499, "CANCELLED"},
		{codeUnimplemented, codes.Unimplemented, http.StatusNotImplemented, "UNIMPLEMENTED"},
	}
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
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info.GetReason(), true
		}
	}
	return "", false
}

// errorBody is the JSON form of an error.
type errorBody struct {
	Error struct {
		Code    int               `json:"code"`
		Status  string            `json:"status"`
		Message string            `json:"message"`
		Details []json.RawMessage `json:"details"`
	} `json:"error"`
}

// writeError answers a REST request with an error in the Google form.
func writeError(w http.ResponseWriter, r *http.Request, st *status.Status) {
	class := classOfGRPC(st.Code())
	code := class.http
	if reason, _ := errorReason(st); reason == reasonTooLarge {
		code = http.StatusRequestEntityTooLarge
	}
	if class.grpc == codes.Unauthenticated {
		w.Header().Set("WWW-Authenticate", challenge(r))
	}
	if after, ok := retryAfter(st); ok {
		w.Header().Set("Retry-After", after)
	}
	writeErrorAs(w, st, class, code)
}

// writeErrorAs writes the body of an error under an HTTP code that is not the one of its class.
func writeErrorAs(w http.ResponseWriter, st *status.Status, class errorClass, code int) {
	var body errorBody
	body.Error.Code, body.Error.Status, body.Error.Message = code, class.name, st.Message()
	for _, d := range st.Proto().GetDetails() {
		if raw, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(d); err == nil {
			body.Error.Details = append(body.Error.Details, raw)
		}
	}
	writeJSON(w, code, body)
}

// writeJSON answers with a small JSON body. A failed write means that the client has gone.
func writeJSON(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(`{"error":{"code":500,"status":"INTERNAL","message":"internal error","details":[]}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n'))
}

// challenge is the WWW-Authenticate header of RFC 6750 section 3: with an error code only when a credential was given.
func challenge(r *http.Request) string {
	if len(r.Header.Values("Authorization")) == 0 {
		return `Bearer realm="patd"`
	}
	return `Bearer realm="patd", error="invalid_token"`
}
