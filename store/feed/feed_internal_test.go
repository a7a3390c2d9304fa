package feed

import (
	"testing"
	"time"
)

// TestAFeedIsSilentByEitherClock holds that nothing is answered from memory by a machine that has slept, before it has
// looked at the feed again, nor by one that hangs while its clock is set back.
func TestAFeedIsSilentByEitherClock(t *testing.T) {
	now := time.Now()
	f := &Feed{now: func() time.Time { return now }, start: now.Add(-time.Hour)}
	received := func(mono, wall time.Duration) {
		f.received.Store(int64(time.Hour - mono))
		f.receivedWall.Store(now.Add(-wall).UnixNano())
	}
	for _, c := range []struct {
		what       string
		mono, wall time.Duration
		want       bool
	}{
		{"just received", 0, 0, true},
		{"nearly silent for too long", trustFor - 1, trustFor - 1, true},
		{"silent for too long", trustFor, trustFor, false},
		{"the machine slept", 0, time.Hour, false},
		{"the clock was set back", trustFor, -time.Hour, false},
	} {
		if received(c.mono, c.wall); f.Live() != c.want {
			t.Errorf("%s: live %t", c.what, f.Live())
		}
	}
	if f.received.Store(-1); f.Live() {
		t.Error("it was never received, and is live")
	}
}
