package tokens_test

import (
	"strings"
	"testing"

	"patd/tokens"
)

// TestAClientsOwnNameIsMarkedInTheAuditLog exchanges for clients whose names read like more of the event.
func TestAClientsOwnNameIsMarkedInTheAuditLog(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	for _, c := range []struct {
		client tokens.Client
		want   string // in the detail; empty: no client
	}{
		{tokens.Client{}, ""},
		{tokens.Client{ID: "app"}, `, unverified_client_id "app", scopes a`},
		{tokens.Client{ID: "gw", Authenticated: true}, `, client gw, scopes a`},
		{tokens.Client{ID: `x", client gw, scopes b`}, `, unverified_client_id "x\", client gw, scopes b", scopes a`},
		{tokens.Client{ID: strings.Repeat("y", 255)}, `, unverified_client_id "` + strings.Repeat("y", 64) + `"…, scopes a`},
	} {
		h.exchange(m.Secret, func(r *tokens.ExchangeRequest) { r.Client = c.client })
		events, _, err := h.Events(
			ctx,
			admin,
			tokens.EventFilter{Action: string(tokens.ActionTokenExchange)},
			tokens.Page{Size: 1},
		)
		if err != nil || len(events) != 1 {
			t.Fatal(events, err)
		}
		detail := events[0].Detail
		if c.want == "" && strings.Contains(detail, "client") || !strings.HasSuffix(detail, c.want) {
			t.Errorf("%+v: %s, want the end %s", c.client, detail, c.want)
		}
	}
}
