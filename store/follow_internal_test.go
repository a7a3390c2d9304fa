package store

import (
	"testing"
	"time"
)

// TestAFeedIsSilentByEitherClock holds that nothing is answered from memory by a machine that has slept, before it has
// looked at the feed again, nor by one that hangs while its clock is set back.
func TestAFeedIsSilentByEitherClock(t *testing.T) {
	now := time.Now()
	f := &Feed{now: func() time.Time { return now }, start: now.Add(-time.Hour)}
	heard := func(mono, wall time.Duration) {
		f.heard.Store(int64(time.Hour - mono))
		f.heardWall.Store(now.Add(-wall).UnixNano())
	}
	for _, c := range []struct {
		what       string
		mono, wall time.Duration
		want       bool
	}{
		{"just heard", 0, 0, true},
		{"nearly silent for too long", trustFeed - 1, trustFeed - 1, true},
		{"silent for too long", trustFeed, trustFeed, false},
		{"the machine slept", 0, time.Hour, false},
		{"the clock was set back", trustFeed, -time.Hour, false},
	} {
		if heard(c.mono, c.wall); f.live() != c.want {
			t.Errorf("%s: live %t", c.what, f.live())
		}
	}
	if f.heard.Store(-1); f.live() {
		t.Error("it was never heard, and is live")
	}
}
