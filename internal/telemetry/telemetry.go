package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// flushTimeout bounds how long the end of the program waits for a collector that does not answer.
const flushTimeout = 3 * time.Second

// Config says what to send.
type Config struct {
	// Getenv returns the variables of the environment; required. The SDK reads its own from the process.
	Getenv func(string) string
	// Version is the program's.
	Version string
}

// Telemetry is what is being sent. It is safe for concurrent use.
type Telemetry struct {
	sampler Sampler
	traces  *sdktrace.TracerProvider // nil: none
	meters  *sdkmetric.MeterProvider // nil: none, or not begun
	metrics bool
	of      *resource.Resource
	close   func() error
}

// New reads the variables, and begins to send spans if they say so. It connects to nothing yet. The error says which
// variable is wrong, and repeats no value.
func New(ctx context.Context, c Config) (*Telemetry, error) {
	t := &Telemetry{}
	t.close = sync.OnceValue(t.flush)
	if strings.EqualFold(strings.TrimSpace(c.Getenv("OTEL_SDK_DISABLED")), "true") {
		return t, nil
	}
	traces, err := wanted(c.Getenv, "TRACES")
	if err != nil {
		return nil, err
	}
	if t.metrics, err = wanted(c.Getenv, "METRICS"); err != nil {
		return nil, err
	}
	if !traces && !t.metrics {
		return t, nil
	}
	// Nothing of the process is in the resource but what the operator puts there: a command line may hold anything.
	t.of, err = resource.New(
		ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			attribute.String("service.name", "patd"),
			attribute.String("service.version", c.Version),
		),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, errors.New("OTEL_RESOURCE_ATTRIBUTES must be key=value, joined by commas")
	}
	if !traces {
		return t, nil
	}
	if t.sampler, err = newSampler(c.Getenv); err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, errors.New("traces cannot be sent: an OTEL_EXPORTER_OTLP_… variable is not valid")
	}
	t.traces = sdktrace.NewTracerProvider(sdktrace.WithResource(t.of), sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.AlwaysSample())) // Sampler has decided before
	return t, nil
}

// wanted reports whether a signal is to be sent.
func wanted(getenv func(string) string, signal string) (bool, error) {
	first := func(names ...string) string {
		for _, name := range names {
			if v := strings.TrimSpace(getenv(name)); v != "" {
				return v
			}
		}
		return ""
	}
	switch exporter := strings.ToLower(first("OTEL_" + signal + "_EXPORTER")); exporter {
	case "none":
		return false, nil
	case "otlp":
	case "":
		if first("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
			return false, nil
		}
	default:
		return false, fmt.Errorf("OTEL_%s_EXPORTER must be otlp or none", signal)
	}
	protocol := first("OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	if protocol != "" && protocol != "http/protobuf" {
		return false, errors.New(
			"OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, which collectors take on port 4318",
		)
	}
	return true, nil
}

// Tracer makes the spans; nil: there are none.
func (t *Telemetry) Tracer() trace.Tracer {
	if t.traces == nil {
		return nil
	}
	return t.traces.Tracer("patd")
}

// Sampler chooses the calls that get a span.
func (t *Telemetry) Sampler() Sampler { return t.sampler }

// Send begins to send the metrics of a registry, if the variables say so: the same as GET /metrics returns.
func (t *Telemetry) Send(ctx context.Context, from prometheus.Gatherer) error {
	if !t.metrics {
		return nil
	}
	exporter, err := otlpmetrichttp.New(ctx)
	if err != nil {
		return errors.New("metrics cannot be sent: an OTEL_EXPORTER_OTLP_… variable is not valid")
	}
	reader := sdkmetric.NewPeriodicReader(
		exporter,
		sdkmetric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(from))),
	)
	t.meters = sdkmetric.NewMeterProvider(sdkmetric.WithResource(t.of), sdkmetric.WithReader(reader))
	return nil
}

// Close sends what is still to be sent, for 3 s at most, and ends the sending. It is called after the last call has
// ended; a second time it does nothing. The error says that something could not be sent.
func (t *Telemetry) Close() error { return t.close() }

func (t *Telemetry) flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	var errs []error
	if t.traces != nil {
		errs = append(errs, t.traces.Shutdown(ctx))
	}
	if t.meters != nil {
		errs = append(errs, t.meters.Shutdown(ctx))
	}
	return errors.Join(errs...)
}
