package call

import (
	"context"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"patd/internal/tracecontext"
	"patd/server/internal/fault"
	"patd/server/internal/limit"
	"patd/tokens"
	"patd/tokens/secret"
)

// Sampler chooses the calls that get a span. Its methods must neither block nor allocate.
type Sampler interface {
	// Root decides on a call that begins a trace.
	Root() bool
	// Skip returns how many new traces are not chosen before the next that is: the decisions of Root, many at once.
	Skip() uint64
	// Child decides on a call in a trace. believed says that its caller may ask for a span.
	Child(parent tracecontext.Context, believed bool) bool
}

// Tracing makes one span for each call that its sampler chooses. Other calls only pass their caller's trace on, and
// cost nothing more than the decision.
type Tracing struct {
	Tracer  trace.Tracer
	Sampler Sampler
	// UserIDs lets spans have the id of the user that a call is about.
	UserIDs bool

	asked *limit.Limiter // of spans that callers without a good credential ask for
}

// Spans that one address may ask for by traceparent on connections without a good credential, each second and at once.
// Past that the sampler decides as for a new trace: no stranger can have the server trace every call.
const (
	strangersRate  = 10
	strangersBurst = 100
)

// NewTracing returns t, ready for the first call; nil stays nil. A nil clock is time.Now.
func NewTracing(t *Tracing, now func() time.Time) (*Tracing, error) {
	if t == nil || t.Tracer == nil {
		return nil, nil
	}
	ready := *t
	var err error
	ready.asked, err = limit.New(limit.Config{Rate: strangersRate, Burst: strangersBurst, Now: now})
	return &ready, err
}

// callSpan is the span of a call that is sampled.
type callSpan struct {
	trace.Span
	user string // whom the call is about; empty: not known
	at   tracecontext.Context
}

// trace begins the span of a call, if tracing is on and the call is sampled.
func (c *Chain) trace(begun *Call) {
	if c.Tracing != nil && !begun.Method.Open {
		c.Tracing.begin(begun, begun.Header(tracecontext.HeaderParent), begun.Header)
	}
}

// TraceHTTP is the same for a call that net/http serves beside the gateway. It returns ctx with the trace, for what is
// not given the call itself.
func (c *Chain) TraceHTTP(ctx context.Context, begun *Call, h http.Header) context.Context {
	c.TraceDirect(begun, h)
	if begun.parent == "" && begun.span == nil {
		return ctx
	}
	return tracecontext.With(ctx, *begun.position())
}

// TraceDirect is TraceHTTP for a call that is given to all that it needs.
func (c *Chain) TraceDirect(begun *Call, h http.Header) {
	if c.Tracing != nil && !begun.tracked {
		c.Tracing.begin(begun, h.Get(tracecontext.HeaderParent), h.Get)
	}
}

type headersKey struct{}

// WithHeaders lets a call that is made without TraceHTTP or TraceDirect have its span all the same, once it has ended.
func (c *Chain) WithHeaders(ctx context.Context, h http.Header) context.Context {
	if c == nil || c.Tracing == nil {
		return ctx
	}
	return context.WithValue(ctx, headersKey{}, h)
}

// traceLate begins the span of a call that has ended.
func (c *Chain) traceLate(done *Call, took time.Duration) {
	get := done.Header
	if h, ok := done.Context.Value(headersKey{}).(http.Header); ok {
		get = h.Get
	}
	c.Tracing.begin(done, get(tracecontext.HeaderParent), get, trace.WithTimestamp(time.Now().Add(-took)))
}

// begin decides whether a call gets a span, and starts it.
func (t *Tracing) begin(begun *Call, header string, get func(string) string, o ...trace.SpanStartOption) {
	begun.tracked, begun.parent = true, header
	var parent tracecontext.Context
	if header != "" {
		parent = tracecontext.Parse(header)
	}
	switch {
	case !parent.Valid():
		if begun.parent = ""; !t.Sampler.Root() {
			return
		}
	case !t.Sampler.Child(parent, t.believes(begun, parent)):
		return
	}
	if state := get(
		tracecontext.HeaderState,
	); parent.Valid() && len(state) <= tracecontext.MaxState &&
		!secret.MayContainSecret(state) {
		parent.State = state
	}
	t.start(begun, parent, o...)
}

// believes reports whether the caller may ask for a span: its connection has shown a good credential, or strangers have
// not asked for many.
func (t *Tracing) believes(begun *Call, parent tracecontext.Context) bool {
	if !parent.Sampled || begun.Connection != nil && begun.Connection.Known.Load() {
		return parent.Sampled
	}
	ok, _ := t.asked.Allow(limit.Address(begun.Peer.IP))
	return ok
}

// start starts the span of a call, as a child of parent if that is valid.
func (t *Tracing) start(begun *Call, parent tracecontext.Context, o ...trace.SpanStartOption) {
	ctx := context.Background()
	if parent.Valid() {
		// A state that is not well formed is dropped.
		state, _ := trace.ParseTraceState(parent.State)
		flags := trace.TraceFlags(0)
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID:    parent.TraceID,
			SpanID:     parent.SpanID,
			TraceFlags: flags.WithSampled(parent.Sampled),
			TraceState: state,
			Remote:     true,
		}))
	}
	_, span := t.Tracer.Start(ctx, begun.Method.name, append(o, trace.WithSpanKind(trace.SpanKindServer))...)
	of := span.SpanContext()
	begun.span = &callSpan{Span: span, at: tracecontext.Context{
		TraceID: of.TraceID(), SpanID: of.SpanID(), Sampled: true, State: of.TraceState().String(),
	}}
}

// Items chooses the requests of a stream that get a span. Its zero value has chosen none yet. It is not safe for
// concurrent use.
type Items struct {
	skip  uint64 // how many requests get none before the next that does
	drawn bool
}

// chosen reports whether the next request is chosen. Most cost no draw.
func (i *Items) chosen(s Sampler) bool {
	if !i.drawn {
		i.skip, i.drawn = s.Skip(), true
	}
	if i.skip > 0 {
		i.skip--
		return false
	}
	i.drawn = false
	return true
}

// TraceItem begins the span of one request of a stream, a trace of its own with a link to the stream's. The caller's
// decision counts for the stream alone: it lasts for hours, and would have every request traced.
func (c *Chain) TraceItem(items *Items, begun, stream *Call) {
	if c.Tracing == nil {
		return
	}
	begun.span, begun.tracked = nil, true
	if !items.chosen(c.Tracing.Sampler) {
		return
	}
	var links []trace.SpanStartOption
	if stream.span != nil {
		links = append(links, trace.WithLinks(trace.Link{SpanContext: stream.span.SpanContext()}))
	}
	c.Tracing.start(begun, tracecontext.Context{}, links...)
}

// TraceUser notes whom a call is about, for its span.
func (c *Call) TraceUser(user string) {
	if c.span != nil {
		c.span.user = user
	}
}

// position returns where in a trace the call is: at its own span, or at its caller's.
func (c *Call) position() *tracecontext.Context {
	if c.span != nil {
		return &c.span.at
	}
	parent := tracecontext.Parse(c.parent)
	parent.Sampled = false // no span follows
	return &parent
}

// EndSpan ends the span of a call. It has nothing that a log line would not have, and the id of a user only if that was
// asked for; no message and no private cause.
func (c *Chain) EndSpan(done *Call, code codes.Code) {
	t := done.span
	if t == nil {
		return
	}
	done.span = nil
	name := fault.CodeName(code)
	attrs := append(make([]attribute.KeyValue, 0, 16),
		attribute.String("rpc.system", "grpc"), attribute.String("rpc.method", done.Method.name),
		attribute.Int("rpc.grpc.status_code", int(code)), attribute.String("patd.code", name),
		attribute.String("patd.request_id", done.RequestID()))
	if method, route, ok := strings.Cut(done.route(), " "); ok {
		attrs = append(attrs, attribute.String("http.request.method", method), attribute.String("http.route", route))
		if done.Status != 0 {
			attrs = append(attrs, attribute.Int("http.response.status_code", done.Status))
		}
	}
	if done.Decision != 0 {
		attrs = append(attrs, attribute.String("patd.decision", done.Decision.String()))
	}
	if done.Reason != "" {
		attrs = append(attrs, attribute.String("patd.reason", done.Reason))
	}
	if done.Subject != 0 {
		attrs = append(attrs, attribute.String("patd.token_id", done.Subject.String()))
	}
	if done.Actor.Kind == tokens.ServiceActor {
		attrs = append(attrs, attribute.String("patd.service", LogText(done.Actor.Name)))
	}
	if c.Tracing.UserIDs {
		user := t.user
		if user == "" {
			user = done.Actor.User
		}
		if user != "" {
			attrs = append(attrs, attribute.String("enduser.id", LogText(user)))
		}
	}
	t.SetAttributes(attrs...)
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		t.SetStatus(otelcodes.Error, name)
	}
	t.End()
}

// EndItem ends the span of one request of a stream that was decided.
func (c *Chain) EndItem(done *Call, in *tokens.Introspection) {
	if done.span == nil {
		return
	}
	done.Decision, done.Subject = in.Decision, in.SubjectID()
	done.TraceUser(in.Token.User)
	c.EndSpan(done, codes.OK)
	done.Decision, done.Subject = 0, 0
}
