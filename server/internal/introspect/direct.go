package introspect

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/refusal"
)

// The paths with a direct way.
const (
	pathIntrospect = "/v1/introspect"
	pathBatch      = "/v1/introspect:batch"
)

// firstRead is how many bytes of a body the first read takes.
const firstRead = 4 << 10

// Direct is the short way of introspection over REST: the steps of the chain and the same method of tokens.Service,
// without the gateway, which costs more than they do. It serves requests in plain form and leaves all others,
// untouched, to the gateway. The responses are the same, byte for byte.
type Direct struct {
	senders httpx.Senders
	service *Service
	codec   *httpx.JSONCodec
	buffers sync.Pool // of *[]byte
	bodies  sync.Pool // of *[]byte, none larger than call.MaxUnknown
	// Header values that all responses share.
	noStore, noSniff, contentType []string
}

// NewDirect returns the short way to a service.
func NewDirect(s *Service, known httpx.Senders) *Direct {
	return &Direct{
		senders: known, service: s, codec: httpx.NewJSONCodec(),
		bodies:  sync.Pool{New: func() any { return new([]byte) }},
		buffers: sync.Pool{New: func() any { return new([]byte) }},
		noStore: []string{"no-store"}, noSniff: []string{"nosniff"}, contentType: []string{"application/json"},
	}
}

// Serve serves a plain request. If it returns false, it has done nothing, and the request can still be served.
func (d *Direct) Serve(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost || !plainRequest(r) {
		return false
	}
	switch r.URL.Path {
	case pathIntrospect:
		return d.one(w, r)
	case pathBatch:
		return d.batch(w, r)
	default:
		return false
	}
}

// Takes reports whether the path has a direct way.
func (d *Direct) Takes(path string) bool { return path == pathIntrospect || path == pathBatch }

// plainRequest reports whether a request has nothing that the gateway or the front treats specially.
func plainRequest(r *http.Request) bool {
	if r.URL.RawPath != "" || r.URL.RawQuery != "" || r.URL.ForceQuery || r.ContentLength <= 0 ||
		r.ContentLength > call.MaxMessage {
		return false
	}
	for name := range r.Header { // there are few: to look for each of those costs more
		switch name {
		case "Grpc-Timeout",
			"Idempotency-Key",
			"If-Match",
			"If-None-Match",
			"If-Unmodified-Since",
			"Content-Encoding",
			"Trailer",
			"Upgrade":
			return false
		}
	}
	credentials := r.Header["Authorization"]
	return len(credentials) == 1 && httpx.Printable(credentials[0])
}

// read reads the body. If the body does not arrive whole, or there is no room for it, the gateway deals with it.
func (d *Direct) read(r *http.Request, from *connection.Connection) (text string, ok bool) {
	p, _ := d.bodies.Get().(*[]byte)
	whole := int(r.ContentLength)
	b := slices.Grow((*p)[:0], min(whole, firstRead))
	var err error
	if from == nil || from.Known.Load() {
		var n int
		n, err = r.Body.Read(b[:min(whole, cap(b))])
		if b = b[:n]; n < whole && err == nil {
			b, err = d.readOn(r, b, whole)
		}
	} else {
		b, err = d.readOn(r, b, whole)
	}
	text = string(b)
	clear(b)
	if cap(b) <= call.MaxUnknown { // an unknown caller may hold that much as long as it likes
		*p = b
		d.bodies.Put(p)
	}
	return text, len(text) == whole && (err == nil || errors.Is(err, io.EOF))
}

// readOn reads the rest of a body in growing steps: the declared length reserves no memory.
func (d *Direct) readOn(r *http.Request, b []byte, whole int) ([]byte, error) {
	rest := d.senders.NewBody(r, r.Body, d.senders.Known)
	defer rest.Release()
	for len(b) < whole {
		if len(b) == cap(b) {
			grown := slices.Grow(b, min(len(b), whole-len(b)))
			clear(b)
			b = grown
		}
		n, err := rest.Read(b[len(b):min(whole, cap(b))])
		if b = b[:len(b)+n]; err != nil {
			return b, err
		}
	}
	return b, nil
}

// unread restores a request's body.
func unread(r *http.Request, text string) {
	r.Body = &rest{Reader: io.MultiReader(bytes.NewReader([]byte(text)), r.Body), Closer: r.Body}
}

// rest is a body of which a part has been read.
type rest struct {
	io.Reader
	io.Closer
}

// one serves /v1/introspect.
func (d *Direct) one(w http.ResponseWriter, r *http.Request) bool {
	c, start := &hotCall{}, time.Now()
	c.required = c.few[:0]
	c.Connection = connection.Of(r.Context())
	text, ok := d.read(r, c.Connection)
	if ok && d.refuses(w, r, &c.Call, patdv1.IntrospectionService_Introspect_FullMethodName, len(text), start) {
		return true
	}
	if p := (parser{text}); !ok || !p.request(&c.request) || !p.end() {
		c.Late.Release()
		unread(r, text)
		return false
	}
	d.begin(w, r, &c.Call, patdv1.IntrospectionService_Introspect_FullMethodName)
	d.answer(w, r, &c.Call, func() (err error) {
		defer func() { err = d.service.chain.End(&c.Call, start, recover(), err) }()
		return d.service.answer(c)
	}, func(b []byte) ([]byte, error) { return d.append(b, &c.Introspection) })
	return true
}

// batch serves /v1/introspect:batch.
func (d *Direct) batch(w http.ResponseWriter, r *http.Request) bool {
	c, start := &call.Call{}, time.Now()
	c.Connection = connection.Of(r.Context())
	text, ok := d.read(r, c.Connection)
	if ok && d.refuses(w, r, c, patdv1.IntrospectionService_BatchIntrospect_FullMethodName, len(text), start) {
		return true
	}
	var q batchRequest
	if p := (parser{text}); !ok || !p.batch(&q) || !p.end() {
		c.Late.Release()
		unread(r, text)
		return false
	}
	d.begin(w, r, c, patdv1.IntrospectionService_BatchIntrospect_FullMethodName)
	list, _ := d.buffers.Get().(*[]byte)
	defer d.buffers.Put(list)
	*list = (*list)[:0]
	var odd error
	d.answer(w, r, c, func() (err error) {
		defer func() { err = d.service.chain.End(c, start, recover(), err) }()
		return d.service.decideAll(c, &q, func(in *tokens.Introspection) int {
			before := len(*list)
			if before > 0 {
				*list = append(*list, ',')
			}
			if out, err := d.append(*list, in); err == nil {
				*list = out
			} else {
				odd = err
			}
			return len(*list) - before
		})
	}, func(b []byte) ([]byte, error) {
		b = append(append(b, `{"responses":[`...), *list...)
		return append(b, "]}"...), odd
	})
	return true
}

// refuses finds out who calls before a body of that size is parsed, and refuses an unknown one.
func (d *Direct) refuses(
	w http.ResponseWriter,
	r *http.Request,
	c *call.Call,
	full string,
	size int,
	start time.Time,
) bool {
	if size <= httpx.MaxUndecoded {
		return false
	}
	d.begin(w, r, c, full)
	err := d.service.chain.Known(c)
	if err == nil {
		return false
	}
	d.answer(w, r, c, func() error { return d.service.chain.End(c, start, nil, err) }, nil)
	return true
}

// begin starts a call, whose connection is known, as the front and the chain do for other requests.
func (d *Direct) begin(w http.ResponseWriter, r *http.Request, c *call.Call, full string) {
	chain := d.service.chain
	c.Context, c.Method, c.BehindGateway = r.Context(), chain.Methods[full], true
	c.Credentials, c.Route = r.Header["Authorization"], routeOf(full)
	c.ID = call.RequestID(r.Header.Get("X-Request-Id"))
	c.Peer.IP = d.senders.Client(r)
	c.Actor.Peer = c.Peer
	c.Late.Timeout = chain.Timeout
	chain.TraceDirect(c, r.Header)
	h := w.Header()
	h["X-Request-Id"], h["Cache-Control"], h["X-Content-Type-Options"] = []string{c.ID}, d.noStore, d.noSniff
}

// routeOf returns the route of a method with a direct way, for the log.
func routeOf(full string) string {
	if full == patdv1.IntrospectionService_BatchIntrospect_FullMethodName {
		return "POST " + pathBatch
	}
	return "POST " + pathIntrospect
}

// answer writes the result of a call.
func (d *Direct) answer(
	w http.ResponseWriter,
	r *http.Request,
	c *call.Call,
	decide func() error,
	write func([]byte) ([]byte, error),
) {
	defer func() {
		if v := recover(); v != nil {
			d.service.chain.LogPanic(c, v)
			httpx.WriteError(w, r, fault.Status(fault.Public(nil), c.ID))
		}
	}()
	err := decide()
	if expires := d.service.chain.TokenExpires(c); expires != nil {
		w.Header()[refusal.HeaderExpiresAt] = expires
	}
	if err != nil {
		httpx.WriteError(w, r, status.Convert(err))
		return
	}
	b, _ := d.buffers.Get().(*[]byte)
	defer d.buffers.Put(b)
	out, err := write((*b)[:0])
	if err != nil {
		httpx.WriteError(w, r, fault.Status(fault.Public(err), c.ID))
		return
	}
	*b = append(out, '\n')
	w.Header()["Content-Type"] = d.contentType
	_, _ = w.Write(*b) // a failure means that the client has gone
}

// append writes one response as JSON.
func (d *Direct) append(b []byte, in *tokens.Introspection) ([]byte, error) {
	if out, ok := appendJSON(b, in); ok {
		return out, nil
	}
	text, err := d.codec.Marshal(toIntrospection(in))
	if err != nil {
		return nil, err
	}
	return append(b, bytes.TrimSuffix(text, []byte("\n"))...), nil
}
