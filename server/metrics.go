package server

import (
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"
)

// lastCode is the highest code that gRPC knows.
const lastCode = codes.Unauthenticated

// metrics counts and times calls. Its labels are methods and codes: nothing in them names a user or a token.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	// limited counts refusals by what was limited, and unrecorded the refused attempts that the audit log does not hold.
	limited    *prometheus.CounterVec
	unrecorded prometheus.Counter
	streamed   *codeCounters
	methods    map[string]*methodMetrics // of every served method; not changed after watch
}

// methodMetrics holds what one method's calls add to, found once, so that a call does not look labels up.
type methodMetrics struct {
	codes    *codeCounters
	duration prometheus.Observer
}

// codeCounters are counters by code, each found when it is first needed.
type codeCounters struct {
	find     func(code string) prometheus.Counter
	counters [lastCode + 1]atomic.Pointer[prometheus.Counter]
}

func (c *codeCounters) count(code codes.Code) {
	if code > lastCode {
		return
	}
	counter := c.counters[code].Load()
	if counter == nil {
		found := c.find(classOfCode(code))
		counter = &found
		c.counters[code].Store(counter)
	}
	(*counter).Inc()
}

func newMetrics(version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "patd_calls_total", Help: "Calls by method and code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "patd_call_duration_seconds", Help: "How long calls took, by method.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "patd_rate_limited_total", Help: "Calls refused for being too many, by what was limited.",
		}, []string{"limit"}),
		unrecorded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "patd_refusals_unrecorded_total", Help: "Refused attempts left out of the audit log, since their caller made too many.",
		}),
		methods: map[string]*methodMetrics{},
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "patd_build_info", Help: "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "patd_stream_answers_total", Help: "Answers on streams of IntrospectStream, by code.",
	}, []string{"code"})
	m.streamed = &codeCounters{find: func(code string) prometheus.Counter { return answers.WithLabelValues(code) }}
	m.registry.MustRegister(m.calls, m.duration, m.limited, m.unrecorded, answers, build)
	// The package that these have moved to depends on database/sql, which this one must not.
	m.registry.MustRegister(
		prometheus.NewGoCollector(),                                       //nolint:staticcheck // see above
		prometheus.NewProcessCollector(prometheus.ProcessCollectorOpts{})) //nolint:staticcheck // see above
	m.watch(methodHTTP)
	return m
}

// methodHTTP is the method of requests that the HTTP front answered itself.
const methodHTTP = "/http"

// watch makes a method known. It is called before the first call, never with a name that a caller chose.
func (m *metrics) watch(fullMethod string) {
	name := fullMethod[1:]
	byCode := &codeCounters{find: func(code string) prometheus.Counter { return m.calls.WithLabelValues(name, code) }}
	m.methods[fullMethod] = &methodMetrics{codes: byCode, duration: m.duration.WithLabelValues(name)}
}

// observe counts and times a call. A nil methodMetrics, that of a method which is not served, counts nothing.
func (mm *methodMetrics) observe(code codes.Code, took time.Duration) {
	if mm == nil {
		return
	}
	mm.codes.count(code)
	mm.duration.Observe(took.Seconds())
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
