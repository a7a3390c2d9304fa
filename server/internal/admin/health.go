package admin

import (
	"context"
	"net/http"

	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
)

// Health is the state of the server.
type Health struct {
	Status string
	Parts  []Part
}

// Part is one part of the server.
type Part struct {
	Name  string
	Cause string // what is wrong; empty: it is well
}

// health shows what /readyz?verbose says, and what runs here.
func (p *Pages) health(q *frame.Request) error {
	var h Health
	err := q.Operate(call.AdminHealth, nil, func(ctx context.Context, _ tokens.Actor) error {
		h = p.server.Health(ctx)
		return nil
	})
	if err != nil {
		return err
	}
	q.Render(
		http.StatusOK,
		"admin-health",
		map[string]any{"Health": h, "Version": p.server.Version, "Store": p.server.Store, "Ready": h.Status == "ready"},
	)
	return nil
}
