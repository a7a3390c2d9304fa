package call

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"patd/internal/cputime"
	"patd/internal/tracecontext"
	"patd/tokens"
)

const parentSampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// each is a sampler that chooses every nth new trace, and what callers ask for if they are believed.
type each struct {
	n     uint64
	count *uint64
}

func (e each) Root() bool {
	*e.count++
	return e.n > 0 && *e.count%e.n == 0
}

func (e each) Skip() uint64 {
	if e.n == 0 {
		return 1 << 63
	}
	return e.n - 1
}

func (e each) Child(parent tracecontext.Context, believed bool) bool {
	if parent.Sampled && !believed {
		return e.Root()
	}
	return parent.Sampled
}

// tracingChain is a chain that only traces; every 0th: no call, nil: off.
func tracingChain(tb testing.TB, on bool, every uint64, into sdktrace.SpanProcessor) *Chain {
	tb.Helper()
	if !on {
		return &Chain{}
	}
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(into)).Tracer("patd")
	t, err := NewTracing(&Tracing{Tracer: tracer, Sampler: each{every, new(uint64)}}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return &Chain{Tracing: t}
}

func incoming(headers ...string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs(append([]string{
		"authorization",
		"Bearer x",
		"user-agent",
		"test",
		"content-type",
		"application/grpc",
		":authority",
		"x",
	}, headers...)...))
}

// traceOne is what tracing adds to a call.
func traceOne(c *Chain, begun *Call, ctx context.Context, m *Method) { //nolint:revive // as Begin
	*begun = Call{Context: ctx, Method: m}
	c.trace(begun)
	begun.Decision = tokens.Allow
	if begun.span != nil {
		c.EndSpan(begun, codes.OK)
	}
}

func TestOnlyCallsThatAreSampledAllocate(t *testing.T) {
	for _, c := range []struct {
		name    string
		on      bool
		every   uint64
		headers []string
		most    float64
	}{
		{"off", false, 0, nil, 0},
		{"off, in a trace", false, 0, []string{"traceparent", parentSampled}, 0},
		{"on, not sampled", true, 0, nil, 0},
		// The header is read: gRPC copies what it returns.
		{"on, in a trace that is not sampled", true, 0, []string{"traceparent", strings.TrimSuffix(parentSampled, "1") + "0"}, 1},
	} {
		chain, m, ctx, begun := tracingChain(
			t,
			c.on,
			c.every,
			tracetest.NewSpanRecorder(),
		), &Method{
			name: "x",
		}, incoming(
			c.headers...), new(
			Call,
		)
		if n := testing.AllocsPerRun(1000, func() { traceOne(chain, begun, ctx, m) }); n > c.most {
			t.Errorf("%s: %v allocations, at most %v", c.name, n, c.most)
		}
	}
}

// TestStrangersCannotHaveEveryCallTraced sends a flood of calls that ask for a span.
func TestStrangersCannotHaveEveryCallTraced(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	chain := tracingChain(t, true, 0, spans)
	for range 10 * strangersBurst {
		traceOne(chain, new(Call), incoming("traceparent", parentSampled), &Method{name: "x"})
	}
	if n := len(spans.Ended()); n < strangersBurst || n > 5*strangersBurst {
		t.Errorf("%d of %d calls of strangers are traced, want about %d", n, 10*strangersBurst, strangersBurst)
	}
}

func TestAStateWithASecretIsNotPassedOn(t *testing.T) {
	t.Parallel()
	const held = "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0"
	for state, want := range map[string]string{
		"vendor=1": "vendor=1", "vendor=" + held: "", "not a state": "", "a=" + strings.Repeat("1", tracecontext.MaxState): "",
	} {
		chain, begun := tracingChain(
			t,
			true,
			1,
			tracetest.NewSpanRecorder(),
		), &Call{
			Context: incoming("traceparent", parentSampled, "tracestate", state),
			Method:  &Method{name: "x"},
		}
		chain.trace(begun)
		if at := tracecontext.Of(
			begun,
		); at.State != want || !at.Sampled ||
			at.TraceID != tracecontext.Parse(parentSampled).TraceID {
			t.Errorf("with the state %q the call is at %+v", state, at)
		}
	}
}

// BenchmarkTrace is what tracing adds to a call: off, on for calls that are not sampled, for one in a hundred, and for
// all. An introspection over gRPC takes about 30 µs of CPU altogether.
func BenchmarkTrace(b *testing.B) {
	for _, c := range []struct {
		name    string
		on      bool
		every   uint64
		headers []string
	}{
		{"off", false, 0, nil}, {"unsampled", true, 0, nil},
		{"unsampledParent", true, 0, []string{"traceparent", strings.TrimSuffix(parentSampled, "1") + "0"}},
		{"onePercent", true, 100, nil}, {"all", true, 1, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			chain, m, ctx, begun := tracingChain(
				b,
				c.on,
				c.every,
				discarded{},
			), &Method{
				name: "x",
			}, incoming(
				c.headers...), new(
				Call,
			)
			b.ReportAllocs()
			for b.Loop() {
				traceOne(chain, begun, ctx, m)
			}
		})
	}
}

// BenchmarkTraceItem is what tracing adds to a request of a stream, which takes about 17,500 instructions altogether.
func BenchmarkTraceItem(b *testing.B) {
	for _, c := range []struct {
		name  string
		on    bool
		every uint64
	}{{"off", false, 0}, {"unsampled", true, 0}, {"onePercent", true, 100}, {"all", true, 1}} {
		b.Run(c.name, func(b *testing.B) {
			chain := tracingChain(b, c.on, c.every, discarded{})
			stream := &Call{Context: incoming(), Method: &Method{name: "x"}}
			item, in := &Call{Context: stream.Context, Method: stream.Method, ID: "1"}, new(tokens.Introspection)
			var items Items
			b.ReportAllocs()
			for b.Loop() {
				chain.TraceItem(&items, item, stream)
				chain.EndItem(item, in)
			}
		})
	}
}

// BenchmarkTraceItemSent is the processor time that a span of a stream's request takes until it is sent, the sending and
// the collector's receiving included, which are in this process too.
func BenchmarkTraceItemSent(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	b.Cleanup(collector.Close)
	exporter, err := otlptracehttp.New(b.Context(), otlptracehttp.WithEndpointURL(collector.URL+"/v1/traces"))
	if err != nil {
		b.Fatal(err)
	}
	sender := sdktrace.NewBatchSpanProcessor(exporter, sdktrace.WithBlocking())
	chain := tracingChain(b, true, 1, sender)
	stream := &Call{Context: incoming(), Method: &Method{name: "x"}}
	item, in := &Call{
		Context: stream.Context,
		Method:  stream.Method,
		ID:      "1",
	}, &tokens.Introspection{
		Decision: tokens.Allow,
	}
	var items Items
	begun := cputime.Process()
	for b.Loop() {
		chain.TraceItem(&items, item, stream)
		chain.EndItem(item, in)
	}
	if err := sender.ForceFlush(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cputime.Process()-begun)/float64(b.N), "cpu-ns/span")
}

// TestItemsGetSpansAsTheSamplerSays holds that of the requests of a stream each that the sampler chooses has its span, and
// no other.
func TestItemsGetSpansAsTheSamplerSays(t *testing.T) {
	t.Parallel()
	for every, want := range map[uint64]int{0: 0, 1: 1000, 10: 100} {
		spans := tracetest.NewSpanRecorder()
		chain := tracingChain(t, true, every, spans)
		stream := &Call{Context: incoming(), Method: &Method{name: "x"}}
		item := &Call{Context: stream.Context, Method: stream.Method, ID: "1"}
		var items Items
		for range 1000 {
			chain.TraceItem(&items, item, stream)
			chain.EndItem(item, &tokens.Introspection{Decision: tokens.Allow})
		}
		if n := len(spans.Ended()); n != want {
			t.Errorf("every %d: %d spans, want %d", every, n, want)
		}
	}
}

// discarded is a processor that keeps no span.
type discarded struct{}

func (discarded) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discarded) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discarded) Shutdown(context.Context) error                  { return nil }
func (discarded) ForceFlush(context.Context) error                { return nil }

// TestACallThatNobodyTracedHasItsSpanAllTheSame is for endpoints to come, which make their call themselves.
func TestACallThatNobodyTracedHasItsSpanAllTheSame(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	chain := tracingChain(t, true, 0, spans)
	chain.logger = slog.New(slog.DiscardHandler)
	ctx := chain.WithHeaders(t.Context(), http.Header{"Traceparent": {parentSampled}})
	chain.Log(&Call{Context: ctx, Method: &Method{name: "x"}}, codes.OK, time.Second)
	chain.Log(&Call{Context: ctx, Method: &Method{name: "probe", Right: Right{Open: true}}}, codes.OK, time.Second)
	ended := spans.Ended()
	if len(ended) != 1 || ended[0].Name() != "x" || ended[0].Parent().SpanID().String() != parentSampled[36:52] ||
		ended[0].EndTime().Sub(ended[0].StartTime()) < time.Second {
		t.Errorf("the spans are %v", ended)
	}
}
