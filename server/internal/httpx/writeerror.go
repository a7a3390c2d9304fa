package httpx

import (
	"encoding/json"
	"net/http"

	"google.golang.org/grpc/status"

	"patd/server/internal/call"
	"patd/server/internal/fault"
)

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
	SetRefusal(w.Header(), st, Refused{NoToken: len(r.Header.Values("Authorization")) == 0})
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
	WriteJSON(w, code, ErrorBody(st, class, code))
}

// WriteJSON responds with a small JSON body. A failed write means that the client has gone.
func WriteJSON(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(
			`{"error":{"code":500,"status":"INTERNAL","message":"internal error","details":[]}}`,
		)
	}
	WriteText(w, code, append(text, '\n'))
}

// WriteText responds with a body that is already JSON.
func WriteText(w http.ResponseWriter, code int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}
