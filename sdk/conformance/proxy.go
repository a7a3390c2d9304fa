package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The kinds of traffic that the proxy tells apart.
const (
	kindFeed = "feed" // the watch
	kindAsk  = "ask"  // introspection
	kindUses = "uses" // reports
	kindAcks = "acks" // acknowledgements of what the feed brought
)

// fault is what the proxy does to one kind of traffic.
type fault struct {
	// Do is "" (nothing), or
	//   - cut: what is open is reset, and what is new;
	//   - stall: nothing passes in either direction, and everything stays open;
	//   - hold: requests pass, and answers wait until the next fault, then pass;
	//   - delay: answers come MS later, in order;
	//   - answer: the proxy itself answers, with Status and Body;
	//   - replay: the proxy answers as the last answer that passed, whatever is asked;
	//   - more: of the feed, what follows an event that says that more follow waits until the next fault;
	//   - say-more: each event of the feed says that more follow.
	Do     string `json:"do"`
	MS     int    `json:"ms"`
	Status int    `json:"status"`
	Body   string `json:"body"`
	// Unary refuses streams of introspection with UNIMPLEMENTED, so that gRPC asks by single calls.
	Unary bool `json:"unary"`
}

// proxy stands between a driver and patd. It speaks HTTP/1.1 and HTTP/2 without TLS, and so gRPC.
type proxy struct {
	http, grpc string // its addresses
	servers    []*http.Server
	transport  *http.Transport

	mu     sync.Mutex
	faults map[string]fault
	change chan struct{} // closed when a fault changes
	open   map[*exchange]bool
	asked  int  // tokens that were asked about
	acked  int  // acknowledgements that have begun
	held   bool // by the fault more
	last   *recorded
}

// exchange is one request under way.
type exchange struct {
	kind   string
	stream bool
	cancel context.CancelFunc
}

// recorded is an answer that passed.
type recorded struct {
	status  int
	header  http.Header
	body    []byte
	trailer http.Header
}

// newProxy starts a proxy in front of the addresses of a patd.
func newProxy(http, grpc string) (*proxy, error) {
	p := &proxy{
		faults:    map[string]fault{},
		change:    make(chan struct{}),
		open:      map[*exchange]bool{},
		transport: transport(false),
	}
	for _, to := range []struct {
		upstream string
		listen   *string
		through  roundTripper
	}{{http, &p.http, p.transport}, {grpc, &p.grpc, transport(true)}} {
		if err := p.listen(to.upstream, to.listen, to.through); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

type roundTripper = http.RoundTripper

func transport(http2 bool) *http.Transport {
	t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetUnencryptedHTTP2(http2)
	return t
}

func (p *proxy) listen(upstream string, addr *string, through http.RoundTripper) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	*addr = lis.Addr().String()
	srv := &http.Server{
		Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, upstream, through) }),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	p.servers = append(p.servers, srv)
	go func() { _ = srv.Serve(lis) }() // until close
	return nil
}

func (p *proxy) close() {
	for _, srv := range p.servers {
		_ = srv.Close()
	}
	p.transport.CloseIdleConnections()
}

// set changes what happens to some kinds of traffic.
func (p *proxy) set(faults map[string]fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.faults, faults)
	p.held = false
	close(p.change)
	p.change = make(chan struct{})
	for x := range p.open {
		f := p.faults[x.kind]
		if f.Do == "cut" || x.stream && (f.Unary || f.Do == "answer" || f.Do == "replay") {
			x.cancel()
		}
	}
}

// reset ends all faults.
func (p *proxy) reset() {
	p.set(map[string]fault{kindFeed: {}, kindAsk: {}, kindUses: {}, kindAcks: {}})
}

// acknowledgements returns how many have begun so far.
func (p *proxy) acknowledgements() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}

// holds reports whether events wait behind one that says that more follow.
func (p *proxy) holds() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// asks returns how many tokens patd was asked about so far.
func (p *proxy) asks() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *proxy) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked += n
}

// now returns what happens to a kind of traffic, and a channel that is closed when that changes.
func (p *proxy) now(kind string) (fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[kind], p.change
}

// pass waits while a kind of traffic is in one of some states. An error means that the request is over.
func (p *proxy) pass(ctx context.Context, kind string, states ...string) error {
	for {
		f, change := p.now(kind)
		if !contains(states, f.Do) {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

// kindOf returns the kind of a request, and whether it is a stream of questions.
func kindOf(path string) (kind string, stream bool) {
	switch {
	case strings.HasSuffix(path, "/WatchInvalidations"), path == "/v1/invalidations":
		return kindFeed, false
	case strings.HasSuffix(path, "/ReportUses"), path == "/v1/uses:report":
		return kindUses, false
	case strings.HasSuffix(path, "/AcknowledgeInvalidations"), path == "/v1/invalidations:acknowledge":
		return kindAcks, false
	default:
		return kindAsk, strings.HasSuffix(path, "/IntrospectStream")
	}
}

// serve passes one request on. A request that comes to a bad end is reset, without a word.
func (p *proxy) serve(w http.ResponseWriter, r *http.Request, upstream string, through http.RoundTripper) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	kind, stream := kindOf(r.URL.Path)
	x := &exchange{kind: kind, stream: stream, cancel: cancel}
	p.mu.Lock()
	p.open[x] = true
	if kind == kindAcks {
		p.acked++
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, x)
	}()
	if p.pass(ctx, kind, "stall") != nil {
		panic(http.ErrAbortHandler)
	}
	switch f, _ := p.now(kind); {
	case f.Do == "cut":
		panic(http.ErrAbortHandler)
	case stream && (f.Unary || f.Do == "answer" || f.Do == "replay"):
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "12")
		return
	case f.Do == "answer":
		p.countOf(r, nil, kind)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
		return
	case f.Do == "replay":
		p.countOf(r, nil, kind)
		p.replay(w)
		return
	}
	out := r.Clone(ctx)
	out.RequestURI, out.Host = "", upstream
	out.URL.Scheme, out.URL.Host = "http", upstream
	out.Header.Del("Connection")
	p.countOf(r, out, kind)
	resp, err := through.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	if p.copy(ctx, w, resp, kind) != nil {
		panic(http.ErrAbortHandler)
	}
}

// countOf counts the tokens that a request asks about. out is the request that is passed on; nil: it is not.
func (p *proxy) countOf(r, out *http.Request, kind string) {
	switch {
	case kind != kindAsk:
	case out != nil && strings.HasSuffix(r.URL.Path, "/IntrospectStream"):
		out.Body = &messages{ReadCloser: r.Body, each: func() { p.count(1) }}
	case r.URL.Path == "/v1/introspect:batch":
		text, _ := io.ReadAll(r.Body) // what is missing will be missed by patd
		var batch struct{ Requests []json.RawMessage }
		_ = json.Unmarshal(text, &batch)
		p.count(len(batch.Requests))
		if out != nil {
			out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		}
	default:
		p.count(1)
	}
}

func (p *proxy) replay(w http.ResponseWriter) {
	p.mu.Lock()
	last := p.last
	p.mu.Unlock()
	if last == nil {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), last.header)
	w.WriteHeader(last.status)
	_, _ = w.Write(last.body)
	trail(w, last.trailer)
}

func trail(w http.ResponseWriter, trailer http.Header) {
	for name, values := range trailer {
		for _, v := range values {
			w.Header().Add(http.TrailerPrefix+name, v)
		}
	}
}

// copy passes a response on, chunk by chunk, as the faults of its kind allow.
func (p *proxy) copy(ctx context.Context, w http.ResponseWriter, resp *http.Response, kind string) error {
	kept := &recorded{status: resp.StatusCode, header: resp.Header.Clone()}
	maps.Copy(w.Header(), resp.Header)
	chunks := make(chan chunk, 4096)
	read := make(chan error, 1)
	go func() {
		defer close(chunks)
		buf := make([]byte, 32<<10)
		for {
			n, err := resp.Body.Read(buf)
			if n > 0 {
				select {
				case chunks <- chunk{time.Now(), bytes.Clone(buf[:n])}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				read <- err
				return
			}
		}
	}()
	begun := false
	write := func(text []byte) error {
		if !begun {
			w.WriteHeader(resp.StatusCode)
			begun = true
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	events := &feed{grpc: strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc")}
	for c := range chunks {
		if kind == kindFeed {
			if err := p.events(ctx, events, c, write); err != nil {
				return err
			}
			continue
		}
		if err := p.due(ctx, kind, c.at); err != nil {
			return err
		}
		if kept.body = append(kept.body, c.text...); int64(len(kept.body)) == resp.ContentLength {
			p.keep(kind, kept) // before the driver has all of it
		}
		if err := write(c.text); err != nil {
			return err
		}
	}
	if len(events.rest) > 0 {
		if err := write(events.rest); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := <-read; err != nil {
		return err
	}
	if !begun {
		if err := p.due(ctx, kind, time.Now()); err != nil {
			return err
		}
		w.WriteHeader(resp.StatusCode)
	}
	kept.trailer = resp.Trailer.Clone()
	p.keep(kind, kept)
	trail(w, resp.Trailer)
	return nil
}

// events passes on the events of a feed that a chunk completes.
func (p *proxy) events(ctx context.Context, f *feed, c chunk, write func([]byte) error) error {
	for _, event := range f.take(c.text) {
		if err := p.due(ctx, kindFeed, c.at); err != nil {
			return err
		}
		more := f.hasMore(event)
		if now, _ := p.now(kindFeed); now.Do == "say-more" {
			event = f.withMore(event)
		}
		if err := write(event); err != nil {
			return err
		}
		if more {
			p.hold()
			if err := p.pass(ctx, kindFeed, "more"); err != nil {
				return err
			}
		}
	}
	return nil
}

// hold takes note that events wait, if the fault is more.
func (p *proxy) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = p.faults[kindFeed].Do == "more"
}

// keep keeps an answer for replay.
func (p *proxy) keep(kind string, r *recorded) {
	if kind != kindAsk || len(r.body) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = r
}

// chunk is a part of a response.
type chunk struct {
	at   time.Time // when it came
	text []byte
}

// due waits until what came at some time may be passed on.
func (p *proxy) due(ctx context.Context, kind string, at time.Time) error {
	for {
		if err := p.pass(ctx, kind, "stall", "hold"); err != nil {
			return err
		}
		f, change := p.now(kind)
		if f.Do != "delay" {
			return ctx.Err()
		}
		wait := time.Until(at.Add(time.Duration(f.MS) * time.Millisecond))
		if wait <= 0 {
			return ctx.Err()
		}
		late := time.NewTimer(wait)
		select {
		case <-late.C:
		case <-change:
		case <-ctx.Done():
		}
		late.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// messages counts the messages of a gRPC stream as they are read.
type messages struct {
	io.ReadCloser
	each func()
	head []byte // the part of a message's head that was read
	left int    // of its body
}

// Read reads, and counts the messages that begin.
func (m *messages) Read(b []byte) (int, error) {
	n, err := m.ReadCloser.Read(b)
	for rest := b[:n]; len(rest) > 0; {
		if m.left > 0 {
			skip := min(m.left, len(rest))
			m.left, rest = m.left-skip, rest[skip:]
			continue
		}
		take := min(5-len(m.head), len(rest))
		m.head, rest = append(m.head, rest[:take]...), rest[take:]
		if len(m.head) == 5 {
			m.left = int(m.head[1])<<24 | int(m.head[2])<<16 | int(m.head[3])<<8 | int(m.head[4])
			m.head = m.head[:0]
			m.each()
		}
	}
	return n, err
}
