// Package telemetry sends traces and metrics by OTLP, as the OTEL_* variables of the OpenTelemetry SDK say. Without any
// of them there is nothing: no SDK is started, and the server makes no span.
//
// What an operator sets:
//
//   - OTEL_EXPORTER_OTLP_ENDPOINT, or that of one signal, turns both signals, or that one, on. So does
//     OTEL_TRACES_EXPORTER=otlp or OTEL_METRICS_EXPORTER=otlp; none turns the signal off, and OTEL_SDK_DISABLED=true both.
//   - OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG choose the calls that get a span. The decision is made here and
//     not by the SDK, which allocates for calls that are not sampled, too.
//   - Headers, certificates, time limits, compression, batches, intervals and the resource are the SDK's own.
//
// The protocol is http/protobuf. The SDK sends in the background: a collector that is out costs calls nothing, and
// spans beyond the SDK's queue are dropped.
package telemetry
