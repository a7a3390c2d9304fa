package server

import (
	"encoding/json"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"patd/tokens"
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

// writeError answers a REST request with an error in the Google form.
func writeError(w http.ResponseWriter, r *http.Request, st *status.Status) {
	class := classOfGRPC(st.Code())
	code := class.http
	switch reason, metadata := errorInfo(st); reason {
	case reasonTooLarge:
		code = http.StatusRequestEntityTooLarge
	case tokens.ReasonPrecondition:
		code = http.StatusPreconditionFailed
	case reasonNotModified:
		w.Header().Set("Etag", metadata[keyETag])
		w.Header().Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	switch reason, metadata := errorInfo(st); {
	case class.grpc == codes.Unauthenticated:
		w.Header().Set("WWW-Authenticate", challenge(r))
	case reason == reasonDenied:
		w.Header().Set("WWW-Authenticate", bearerChallenge("insufficient_scope", metadata[keyPermission]))
	}
	if reason, _ := errorReason(st); reason == reasonUnknownMemory {
		w.Header().Set("Retry-After", wholeSeconds(unknownRetryAfter))
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
	writeText(w, code, append(text, '\n'))
}

// writeText answers with a body that is JSON already.
func writeText(w http.ResponseWriter, code int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

// challenge is the WWW-Authenticate header of a 401: with an error code only when a credential was given.
func challenge(r *http.Request) string {
	if len(r.Header.Values("Authorization")) == 0 {
		return bearerChallenge("", "")
	}
	return bearerChallenge("invalid_token", "")
}

// bearerChallenge is a challenge of RFC 6750 section 3. The error code and the scopes, joined by spaces, may be empty; scopes
// hold neither quotes nor backslashes (RFC 6749 section 3.3).
func bearerChallenge(code, scope string) string {
	text := `Bearer realm="patd"`
	if code != "" {
		text += `, error="` + code + `"`
	}
	if scope != "" {
		text += `, scope="` + scope + `"`
	}
	return text
}
