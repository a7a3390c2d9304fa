package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/internal/telemetry"
	"patd/server"
)

// openTelemetry begins to send traces if the OTEL_… variables say so.
func openTelemetry(ctx context.Context, c *cli.Command) (*telemetry.Telemetry, error) {
	return telemetry.New(ctx, telemetry.Config{Version: version(), Getenv: func(name string) string {
		v, _ := c.Getenv(name)
		return v
	}})
}

// closeTelemetry sends what is left. A collector that is out does not make the end of the server a failure.
func closeTelemetry(t *telemetry.Telemetry, log *slog.Logger) {
	if err := t.Close(); err != nil {
		log.Warn("the last traces or metrics could not be sent", "cause", cli.Redact(err.Error()))
	}
}

// tracingOf returns how the server makes spans; nil: it makes none.
func tracingOf(t *telemetry.Telemetry, userIDs bool) *server.Tracing {
	tracer := t.Tracer()
	if tracer == nil {
		return nil
	}
	return &server.Tracing{Tracer: tracer, Sampler: t.Sampler(), UserIDs: userIDs}
}

// telemetryFaultEvery is how often the log reports that traces or metrics cannot be sent.
const telemetryFaultEvery = time.Minute

// telemetryFaults logs what goes wrong in the background of the OpenTelemetry SDK, which tries again every few seconds.
type telemetryFaults struct {
	log  *libraryLog
	last atomic.Int64 // when it was logged last, in nanoseconds
}

// Handle logs an error, unless one was logged in the last minute.
func (f *telemetryFaults) Handle(err error) {
	now, last := time.Now().UnixNano(), f.last.Load()
	if now-last >= int64(telemetryFaultEvery) && f.last.CompareAndSwap(last, now) {
		f.log.say(slog.LevelWarn, "traces or metrics could not be sent: "+err.Error())
	}
}
