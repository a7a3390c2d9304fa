package scim

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
)

// contentType is that of every body of SCIM (RFC 7644 section 8.1).
const contentType = "application/scim+json"

// kind is an scimType of RFC 7644 section 3.12.
type kind string

const (
	kindFilter     kind = "invalidFilter"
	kindUniqueness kind = "uniqueness"
	kindMutability kind = "mutability"
	kindSyntax     kind = "invalidSyntax"
	kindPath       kind = "invalidPath"
	kindNoTarget   kind = "noTarget"
	kindValue      kind = "invalidValue"
)

// typed is a fault of the request that SCIM has a type for.
type typed struct {
	fault *tokens.Error
	kind  kind
}

// Error returns the text of the fault.
func (t *typed) Error() string { return t.fault.Error() }

// Unwrap returns the error of the domain.
func (t *typed) Unwrap() error { return t.fault }

func scimFault(k kind, field, text string) error {
	return &typed{tokens.Invalid("SCIM_INVALID", field, text), k}
}

func errSyntax(text string) error           { return scimFault(kindSyntax, "", text) }
func invalidPath(text string) error         { return scimFault(kindPath, "path", text) }
func invalidValue(field, text string) error { return scimFault(kindValue, field, text) }

func errMutability(field string) error {
	return scimFault(kindMutability, field, "never changes")
}

// kindOf returns the scimType of an error; empty: it has none.
func kindOf(err error, public *tokens.Error) kind {
	var t *typed
	switch {
	case errors.As(err, &t):
		return t.kind
	case isImmutable(err):
		return kindMutability
	case public.Code == tokens.CodeExists:
		return kindUniqueness
	case public.Code == tokens.CodeInvalid:
		return kindValue
	default:
		return ""
	}
}

// errorBody is the JSON of an error (RFC 7644 section 3.12). patd's own reason is not in it, since clients refuse what
// the RFC does not name; the log has it.
type errorBody struct {
	Schemas []string `json:"schemas"`
	Status  string   `json:"status"`
	Type    kind     `json:"scimType,omitempty"`
	Detail  string   `json:"detail"`
}

// fail responds with an error, keeps its private cause for the log, and returns the code for metrics.
func (e *Endpoints) fail(w http.ResponseWriter, begun *call.Call, err error) codes.Code {
	public := begun.Explain(err)
	class := fault.ClassOfDomain(public.Code)
	code, header := class.HTTP, w.Header()
	switch {
	case public.Code == fault.CodeUnimplemented:
		code = http.StatusMethodNotAllowed
	case public.Reason == fault.ReasonTooLarge:
		code = http.StatusRequestEntityTooLarge
	case public.Reason == "CONTENT_TYPE_INVALID":
		code = http.StatusUnsupportedMediaType
	}
	var often *fault.TooOften
	switch {
	case errors.As(err, &often):
		header.Set("Retry-After", fault.WholeSeconds(often.After))
	case code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests:
		header.Set("Retry-After", fault.OutageRetryAfter)
	}
	httpx.SetRefusal(
		header,
		fault.Status(public, begun.RequestID()),
		httpx.Refused{NoToken: len(begun.Credentials) == 0},
	)
	body := errorBody{Schemas: []string{schemaError}, Status: strconv.Itoa(code), Detail: call.SafeText(public.Message)}
	if code == http.StatusBadRequest || code == http.StatusConflict {
		body.Type = kindOf(err, public)
	}
	write(w, code, body)
	return class.GRPC
}

// write responds with a body of SCIM.
func write(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(`{"schemas":["`+schemaError+`"],"status":"500"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(code)
	_, _ = w.Write(text) // a failed write means that the client has gone
}
