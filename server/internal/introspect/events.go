package introspect

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/refusal"
)

// PathInvalidations is where WatchInvalidations is served as server-sent events.
const PathInvalidations = "/v1/invalidations"

// The names of the events.
const (
	eventNews      = "invalidations"
	eventHeartbeat = "heartbeat"
	eventStartOver = "start-over"
	eventEnd       = "end"
)

const (
	// reconnectAfter is how long a standard client waits before it connects again, in milliseconds.
	reconnectAfter = 1000
	// lastWrite is how long a write may take once the server stops.
	lastWrite = time.Second
	// maxSequence and maxHistory bound the two parts of a position, in characters.
	maxSequence, maxHistory = 20, 64
)

// Events serves WatchInvalidations as server-sent events (WHATWG HTML, section 9.2), for callers without gRPC: the same
// messages by the same rights, with the position of each as its id.
type Events struct {
	service *Service
	senders httpx.Senders
	codec   *httpx.JSONCodec
}

var _ http.Handler = (*Events)(nil)

// NewEvents returns the endpoint of a service.
func NewEvents(s *Service, known httpx.Senders) *Events {
	return &Events{service: s, senders: known, codec: httpx.NewJSONCodec()}
}

// ServeHTTP serves one watch and writes its log line, whatever the result.
func (e *Events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	chain, x, start := e.service.chain, httpx.ExchangeOf(r.Context()), time.Now()
	if !x.Reads {
		httpx.AnswerMethod(w, x.RequestID, []string{http.MethodGet, http.MethodHead})
		return
	}
	x.Reached = true
	c := &call.Call{
		Context:       r.Context(),
		Method:        chain.Methods[patdv1.IntrospectionService_WatchInvalidations_FullMethodName],
		Credentials:   r.Header["Authorization"],
		ID:            x.RequestID,
		Route:         x.Method + " " + PathInvalidations,
		BehindGateway: true,
		Peer:          tokens.Peer{IP: x.Client},
		Connection:    connection.Of(r.Context()),
	}
	c.Actor.Peer = c.Peer
	chain.TraceDirect(c, r.Header)
	out := &eventWriter{response: w, control: http.NewResponseController(w), codec: e.codec}
	defer out.close()
	err := func() (err error) {
		defer func() {
			c.Status = x.Status // 0: none was written, and the error decides
			err = chain.End(c, start, recover(), err)
		}()
		return e.watch(c, out, r)
	}()
	switch {
	case err == nil:
	case x.Status == 0:
		httpx.WriteError(w, r, status.Convert(err))
	default:
		out.end(status.Convert(err))
	}
}

// watch checks the caller and sends events until the watch ends.
func (e *Events) watch(c *call.Call, out *eventWriter, r *http.Request) error {
	chain := e.service.chain
	if slices.ContainsFunc(c.Credentials, func(text string) bool { return !httpx.Printable(text) }) {
		return call.BadCredential("the Authorization header must be `Bearer` and a token")
	}
	if err := chain.AdmitHot(c, 0); err != nil {
		return err
	}
	from, err := positionOf(r)
	if err != nil {
		return err
	}
	h := out.response.Header()
	if expires := chain.TokenExpires(c); expires != nil {
		h[refusal.HeaderExpiresAt] = expires
	}
	if r.Method == http.MethodHead {
		out.headers()
		return nil
	}
	// The limits of ordinary requests would end the stream. Without an error, HTTP/2 and HTTP/1.1 both support this.
	if err := out.control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	defer context.AfterFunc(chain.Draining, out.hurry)()
	return e.service.follow(c, from, out.send)
}

// positionOf returns where a request resumes the watch: Last-Event-ID, which a standard client sends when it connects
// again, or else the query. The zero position begins now.
func positionOf(r *http.Request) (tokens.WatchPosition, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return tokens.WatchPosition{}, tokens.Invalid("QUERY_INVALID", "", "a query is UTF-8 in percent-encoding")
	}
	for name, values := range query {
		switch {
		case name != "after" && name != "history":
			return tokens.WatchPosition{}, tokens.Invalid(
				"QUERY_UNKNOWN",
				"",
				"the query parameters here are after, history",
			)
		case len(values) > 1:
			return tokens.WatchPosition{}, tokens.Invalid("QUERY_INVALID", name, name+" is given more than once")
		}
	}
	history := query.Get("history")
	if after := query.Get("after"); after != "" && r.Header.Get("Last-Event-ID") == "" {
		at, ok := parsePosition(after, history)
		if !ok {
			return at, tokens.Invalid(
				"QUERY_INVALID",
				"after",
				"after is the sequence of the last message, and history its history",
			)
		}
		return at, nil
	}
	id := r.Header.Get("Last-Event-ID")
	if id == "" {
		return tokens.WatchPosition{}, nil
	}
	sequence, of, whole := strings.Cut(id, "-")
	if whole {
		history = of
	}
	at, ok := parsePosition(sequence, history)
	if !ok {
		return at, tokens.Invalid(
			"LAST_EVENT_ID_INVALID",
			"",
			"Last-Event-ID is the id of the last event that was received; leave it out to begin anew",
		)
	}
	return at, nil
}

func parsePosition(sequence, history string) (at tokens.WatchPosition, ok bool) {
	n, err := strconv.ParseUint(sequence, 10, 64)
	if err != nil || len(sequence) > maxSequence || len(history) > maxHistory || !httpx.Printable(history) {
		return tokens.WatchPosition{}, false
	}
	return tokens.WatchPosition{Sequence: n, History: history}, true
}

// eventWriter writes events to one response.
type eventWriter struct {
	response http.ResponseWriter
	control  *http.ResponseController
	codec    *httpx.JSONCodec
	begun    bool
	text     bytes.Buffer // of the event that is being written

	mu             sync.Mutex // guards the deadline, and these
	stopping, over bool
}

// headers writes the headers of a stream.
func (w *eventWriter) headers() {
	h := w.response.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	w.response.WriteHeader(http.StatusOK)
}

// send writes a message as an event.
func (w *eventWriter) send(m *patdv1.WatchInvalidationsResponse) error {
	data, err := w.codec.Marshal(m)
	if err != nil {
		return err
	}
	w.text.Reset()
	if !w.begun {
		w.headers()
		w.begun = true
		w.text.WriteString("retry: " + strconv.Itoa(reconnectAfter) + "\n")
	}
	w.text.WriteString(
		"event: " + eventOf(m) + "\nid: " + strconv.FormatUint(m.GetSequence(), 10) + "-" + m.GetHistory() + "\ndata: ",
	)
	w.text.Write(data) // which ends in a newline
	w.text.WriteByte('\n')
	return w.flush()
}

// eventOf returns the name of a message's event.
func eventOf(m *patdv1.WatchInvalidationsResponse) string {
	switch {
	case m.GetStartOver():
		return eventStartOver
	case len(m.GetTokenIds())+len(m.GetUsers()) > 0:
		return eventNews
	default:
		return eventHeartbeat
	}
}

// end writes why a stream ends, as the body of an error. It has no id, so that the client's position stays.
func (w *eventWriter) end(st *status.Status) {
	if st.Code() == codes.Canceled {
		return // the reader is gone
	}
	data, err := json.Marshal(httpx.ErrorBody(st, fault.ClassOfGRPC(st.Code()), call.HTTPStatus("", st)))
	if err != nil {
		return
	}
	w.text.Reset()
	w.text.WriteString("event: " + eventEnd + "\ndata: ")
	w.text.Write(data)
	w.text.WriteString("\n\n")
	_ = w.flush() // a failure means that the client has gone
}

// flush writes the event, and gives up on a client that does not read.
func (w *eventWriter) flush() error {
	most, err := w.deadline()
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err = w.response.Write(w.text.Bytes()); err == nil {
		err = w.control.Flush()
	}
	switch {
	case err == nil:
		return nil
	case time.Since(began) >= most:
		return tooSlow()
	default:
		return context.Canceled // the client has gone
	}
}

// hurry shortens the deadlines of this write and the next ones, since the server stops.
func (w *eventWriter) hurry() {
	w.mu.Lock()
	w.stopping = true
	w.mu.Unlock()
	_, _ = w.deadline() // a failure means that the client has gone
}

// deadline sets the deadline of a write, and returns how far off it is.
func (w *eventWriter) deadline() (most time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return 0, nil
	}
	most = slowWatcher
	if w.stopping {
		most = lastWrite
	}
	return most, w.control.SetWriteDeadline(time.Now().Add(most))
}

// close makes deadline do nothing: the response is over, and its connection may serve another.
func (w *eventWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}
