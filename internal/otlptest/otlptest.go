// Package otlptest receives OTLP over HTTP for tests, as a collector does: it decodes what a program sends, and keeps
// the bytes too.
package otlptest

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// patience bounds the wait for what is sent in the background.
const patience = 60 * time.Second

// Span is a span with the attributes of its resource.
type Span struct {
	*tracev1.Span
	Resource map[string]string
}

// Attribute returns an attribute as text; empty: there is none.
func (s Span) Attribute(name string) string { return attributes(s.GetAttributes())[name] }

// TraceID returns the id of its trace in hexadecimal digits.
func (s Span) TraceID() string { return hex.EncodeToString(s.GetTraceId()) }

// Parent returns the id of the span above in hexadecimal digits; empty: none.
func (s Span) Parent() string { return hex.EncodeToString(s.GetParentSpanId()) }

// Context returns the traceparent of what is a child of the span.
func (s Span) Context() string {
	return "00-" + s.TraceID() + "-" + hex.EncodeToString(s.GetSpanId()) + "-01"
}

// Receiver is a collector.
type Receiver struct {
	URL string

	mu      sync.Mutex
	spans   []Span
	metrics map[string]bool
	bytes   strings.Builder
	changed chan struct{}
}

// New starts a receiver for the duration of a test.
func New(tb testing.TB) *Receiver {
	tb.Helper()
	r := &Receiver{metrics: map[string]bool{}, changed: make(chan struct{})}
	server := httptest.NewServer(r)
	tb.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// Env returns the variables that make a program send to the receiver at once, as NAME=VALUE.
func (r *Receiver) Env() []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL,
		"OTEL_BSP_SCHEDULE_DELAY=20",
		"OTEL_METRIC_EXPORT_INTERVAL=200",
	}
}

// ServeHTTP receives one export.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if err := r.receive(q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(http.StatusOK) // an empty message: all was taken
}

func (r *Receiver) receive(q *http.Request) error {
	body := io.Reader(q.Body)
	if q.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(q.Body)
		if err != nil {
			return err
		}
		body = unzipped
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes.Write(text)
	fmt.Fprintf(&r.bytes, "%v", q.Header)
	defer func() {
		close(r.changed)
		r.changed = make(chan struct{})
	}()
	switch q.URL.Path {
	case "/v1/traces":
		var m collectortrace.ExportTraceServiceRequest
		if err := proto.Unmarshal(text, &m); err != nil {
			return err
		}
		for _, of := range m.GetResourceSpans() {
			for _, scope := range of.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					r.spans = append(r.spans, Span{s, attributes(of.GetResource().GetAttributes())})
				}
			}
		}
	case "/v1/metrics":
		var m collectormetrics.ExportMetricsServiceRequest
		if err := proto.Unmarshal(text, &m); err != nil {
			return err
		}
		for _, of := range m.GetResourceMetrics() {
			for _, scope := range of.GetScopeMetrics() {
				for _, one := range scope.GetMetrics() {
					r.metrics[one.GetName()] = true
				}
			}
		}
	default:
		return fmt.Errorf("nothing is received under %s", q.URL.Path)
	}
	return nil
}

// Bytes returns all that was received.
func (r *Receiver) Bytes() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes.String()
}

// Spans returns the spans that were received.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Span(nil), r.spans...)
}

// Await waits until ready returns true of what was received, and fails the test if it never does.
func (r *Receiver) Await(tb testing.TB, what string, ready func(spans []Span, metrics map[string]bool) bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for {
		r.mu.Lock()
		ok, changed := ready(r.spans, r.metrics), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			tb.Fatalf("the receiver did not get %s; it has the spans %v", what, r.Spans())
		}
	}
}

// OfTrace waits for the first span of a trace.
func (r *Receiver) OfTrace(tb testing.TB, what, traceID string) (found Span) {
	tb.Helper()
	r.Await(tb, "a span of "+what, func(spans []Span, _ map[string]bool) bool {
		for _, s := range spans {
			if s.TraceID() == traceID {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

func attributes(list []*commonv1.KeyValue) map[string]string {
	found := map[string]string{}
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			found[a.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			found[a.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			found[a.GetKey()] = a.GetValue().String()
		}
	}
	return found
}
