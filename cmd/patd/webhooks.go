package main

import (
	"crypto/rand"
	"log/slog"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/storeadmin"
	"patd/server"
	"patd/server/webhook"
	"patd/tokens"
)

// webhookEngine returns what sends to webhooks.
func webhookEngine(
	o *storeadmin.Opened,
	service *tokens.Service,
	s *config.Settings,
	now func() time.Time,
	log *slog.Logger,
) *webhook.Engine {
	return webhook.New(webhook.Config{
		Queue:        o.Store,
		Domain:       service,
		News:         o.Feed().News,
		Holder:       rand.Text(),
		AllowPrivate: s.Webhooks.AllowPrivate(),
		Now:          now,
		Logger:       log,
		Failed:       func(err error) { log.Debug("webhooks are held up", "error", cli.Redact(err.Error())) },
	})
}

// webhookFigures returns the metrics of webhooks.
func webhookFigures(e *webhook.Engine) []server.Figure {
	s := e.Stats()
	out := []server.Figure{
		{Name: "patd_webhooks_held", Help: "Webhooks that this server sends to now.", Value: float64(s.Webhooks)},
		{Name: "patd_webhooks_down", Help: "Those of them whose endpoint takes nothing now.", Value: float64(s.Down)},
		{
			Name:  "patd_webhook_oldest_seconds",
			Help:  "Seconds for which the oldest message to those waits; 0: none does.",
			Value: s.Oldest.Seconds(),
		},
	}
	for result, n := range map[string]uint64{"accepted": s.Accepted, "failed": s.Failed} {
		out = append(out, server.Figure{
			Name: "patd_webhook_attempts_total", Help: "Attempts to send a message to a webhook, by result.",
			Labels: map[string]string{"result": result}, Total: true, Value: float64(n),
		})
	}
	for reason, n := range s.Disabled {
		out = append(out, server.Figure{
			Name: "patd_webhooks_disabled_total", Help: "Webhooks that this server disabled, by reason.",
			Labels: map[string]string{"reason": reason}, Total: true, Value: float64(n),
		})
	}
	return out
}
