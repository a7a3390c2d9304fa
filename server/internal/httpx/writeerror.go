package httpx

import (
	"encoding/json"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"patd/server/internal/call"
	"patd/server/internal/fault"
)

// errorBody is the JSON form of an error.
type errorBody struct {
	Error struct {
		Code    int               `json:"code"`
		Status  string            `json:"status"`
		Message string            `json:"message"`
		Details []json.RawMessage `json:"details"`
	} `json:"error"`
}

// WriteError responds to a REST request with an error in the Google form.
func WriteError(w http.ResponseWriter, r *http.Request, st *status.Status) {
	class, code := fault.ClassOfGRPC(st.Code()), call.HTTPStatus("", st)
	if code == http.StatusNotModified {
		_, metadata := fault.Info(st)
		w.Header().Set("Etag", metadata[call.KeyETag])
		w.Header().Del("Content-Type")
		w.WriteHeader(code)
		return
	}
	ExchangeOf(r.Context()).Reason, _ = fault.Reason(st)
	switch reason, metadata := fault.Info(st); {
	case class.GRPC == codes.Unauthenticated:
		w.Header().Set("WWW-Authenticate", challenge(r))
	case reason == fault.ReasonDenied:
		w.Header().Set("WWW-Authenticate", BearerChallenge("insufficient_scope", metadata[fault.KeyPermission]))
	}
	if reason, _ := fault.Reason(st); reason == call.ReasonUnknownMemory {
		w.Header().Set("Retry-After", fault.WholeSeconds(call.UnknownRetryAfter))
	}
	if after, ok := fault.RetryAfter(st); ok {
		w.Header().Set("Retry-After", after)
	}
	WriteErrorAs(w, st, class, code)
}

// WriteErrorAs writes the body of an error with an HTTP code other than that of its class.
func WriteErrorAs(w http.ResponseWriter, st *status.Status, class fault.Class, code int) {
	var body errorBody
	body.Error.Code, body.Error.Status, body.Error.Message = code, class.Name, st.Message()
	for _, d := range st.Proto().GetDetails() {
		if raw, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(d); err == nil {
			body.Error.Details = append(body.Error.Details, raw)
		}
	}
	WriteJSON(w, code, body)
}

// WriteJSON responds with a small JSON body. A failed write means that the client has gone.
func WriteJSON(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(`{"error":{"code":500,"status":"INTERNAL","message":"internal error","details":[]}}`)
	}
	WriteText(w, code, append(text, '\n'))
}

// WriteText responds with a body that is already JSON.
func WriteText(w http.ResponseWriter, code int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

// challenge returns the WWW-Authenticate header of a 401. It has an error code only if a credential was given.
func challenge(r *http.Request) string {
	if len(r.Header.Values("Authorization")) == 0 {
		return BearerChallenge("", "")
	}
	return BearerChallenge("invalid_token", "")
}

// BearerChallenge returns a challenge of RFC 6750 section 3. The error code and the scopes, joined by spaces, may be
// empty; scopes contain neither quotes nor backslashes (RFC 6749 section 3.3).
func BearerChallenge(code, scope string) string {
	text := `Bearer realm="patd"`
	if code != "" {
		text += `, error="` + code + `"`
	}
	if scope != "" {
		text += `, scope="` + scope + `"`
	}
	return text
}
