package metrics

import (
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"patd/server/internal/fault"
)

// lastCode is the highest gRPC code.
const lastCode = codes.Unauthenticated

// Set counts and times calls. Its labels are methods and codes: none identifies a user or a token.
type Set struct {
	Registry *prometheus.Registry
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	// Limited counts refusals by limit. Unrecorded counts refused attempts that the audit log does not record.
	Limited    *prometheus.CounterVec
	Unrecorded prometheus.Counter
	Streamed   *codeCounters
	Methods    map[string]*Method // of every served method; not changed after watch
}

// Method holds the metrics of one method, so that a call does not look up labels.
type Method struct {
	codes    *codeCounters
	duration prometheus.Observer
}

// codeCounters are counters by code, each looked up on first use.
type codeCounters struct {
	find     func(code string) prometheus.Counter
	counters [lastCode + 1]atomic.Pointer[prometheus.Counter]
}

func (c *codeCounters) Count(code codes.Code) {
	if code > lastCode {
		return
	}
	counter := c.counters[code].Load()
	if counter == nil {
		found := c.find(fault.CodeName(code))
		counter = &found
		c.counters[code].Store(counter)
	}
	(*counter).Inc()
}

// New returns the metrics of a server of a version.
func New(version string) *Set {
	m := &Set{
		Registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "patd_calls_total", Help: "Calls by method and code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "patd_call_duration_seconds", Help: "How long calls took, by method.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method"}),
		Limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "patd_rate_limited_total", Help: "Calls refused for being too many, by what was limited.",
		}, []string{"limit"}),
		Unrecorded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "patd_refusals_unrecorded_total",
			Help: "Refused attempts left out of the audit log, since their caller made too many.",
		}),
		Methods: map[string]*Method{},
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "patd_build_info", Help: "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "patd_stream_answers_total", Help: "Answers on streams of IntrospectStream, by code.",
	}, []string{"code"})
	m.Streamed = &codeCounters{find: func(code string) prometheus.Counter { return answers.WithLabelValues(code) }}
	m.Registry.MustRegister(m.calls, m.duration, m.Limited, m.Unrecorded, answers, build)
	// The package that replaces these depends on database/sql, which this one must not.
	m.Registry.MustRegister(
		prometheus.NewGoCollector(),                                       //nolint:staticcheck // see above
		prometheus.NewProcessCollector(prometheus.ProcessCollectorOpts{})) //nolint:staticcheck // see above
	m.Watch(MethodHTTP)
	return m
}

// MethodHTTP is the method label of requests that the HTTP front itself serves.
const MethodHTTP = "/http"

// Watch adds a method. It is called before the first call, never with a name that a caller chose.
func (m *Set) Watch(fullMethod string) {
	name := fullMethod[1:]
	byCode := &codeCounters{find: func(code string) prometheus.Counter { return m.calls.WithLabelValues(name, code) }}
	m.Methods[fullMethod] = &Method{codes: byCode, duration: m.duration.WithLabelValues(name)}
}

// Observe counts and times a call. A nil Method, that of an unserved method, counts nothing.
func (mm *Method) Observe(code codes.Code, took time.Duration) {
	if mm == nil {
		return
	}
	mm.codes.Count(code)
	mm.duration.Observe(took.Seconds())
}

// Handler serves the metrics.
func (m *Set) Handler() http.Handler {
	return promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{})
}
