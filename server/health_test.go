package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

func TestHealthDoesNotFlapOnOneFailure(t *testing.T) {
	t.Parallel()
	h := newHealthState(nil, slog.New(slog.DiscardHandler))
	ctx, fault := context.Background(), errors.New("no answer")
	for i, step := range []struct {
		err  error
		want healthv1.HealthCheckResponse_ServingStatus
	}{
		{fault, healthv1.HealthCheckResponse_SERVING}, {nil, healthv1.HealthCheckResponse_SERVING},
		{fault, healthv1.HealthCheckResponse_SERVING}, {fault, healthv1.HealthCheckResponse_SERVING}, {fault, healthv1.HealthCheckResponse_NOT_SERVING},
		{fault, healthv1.HealthCheckResponse_NOT_SERVING}, {nil, healthv1.HealthCheckResponse_SERVING},
	} {
		h.note(ctx, step.err)
		got, err := h.grpc.Check(ctx, &healthv1.HealthCheckRequest{})
		if err != nil || got.GetStatus() != step.want {
			t.Errorf("step %d: %v %v, want %s", i, got, err, step.want)
		}
	}
	h.drain()
	h.note(ctx, nil)
	if got, err := h.grpc.Check(
		ctx,
		&healthv1.HealthCheckRequest{},
	); err != nil ||
		got.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("while draining: %v %v", got, err)
	}
}
