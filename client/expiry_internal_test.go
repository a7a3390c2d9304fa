package client

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"patd/tokens/refusal"
)

func TestTheEndOfTheServiceTokenIsLoggedOnceADayFrom30DaysBefore(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	var e serviceExpiry
	end := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	lines := func() int { return strings.Count(text.String(), "expires soon") }
	e.warn(t.Context(), end, log)
	if !e.get().IsZero() || lines() != 0 {
		t.Error("an expiry that nobody told")
	}
	e.learn(metadata.Pairs(refusal.HeaderExpiresAt, end.Format(time.RFC3339)))
	for _, step := range []struct {
		before time.Duration
		lines  int
	}{{31 * 24 * time.Hour, 0}, {30 * 24 * time.Hour, 1}, {29*24*time.Hour + time.Hour, 1}, {29 * 24 * time.Hour, 2}} {
		if e.warn(t.Context(), end.Add(-step.before), log); lines() != step.lines {
			t.Errorf("%v before: %d lines, want %d", step.before, lines(), step.lines)
		}
	}
	// A rotated token ends later, and is not warned of.
	e.learn(metadata.Pairs(refusal.HeaderExpiresAt, end.AddDate(1, 0, 0).Format(time.RFC3339)))
	if e.warn(t.Context(), end, log); lines() != 2 || !e.get().Equal(end.AddDate(1, 0, 0)) {
		t.Errorf("after a rotation: %d lines, %v", lines(), e.get())
	}
}
