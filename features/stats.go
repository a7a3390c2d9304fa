package features

import (
	"maps"
	"time"
)

// Stats are the counters of a source, for the program's metrics.
type Stats struct {
	// Requests counts the requests to the source that have ended, Seconds is how long they took together, and Within
	// counts those that took at most as many seconds as the key.
	Requests uint64
	Seconds  float64
	Within   map[float64]uint64
	// Failures counts the requests that failed.
	Failures uint64
	// Stale counts the answers that rest on the last that the source said, since it did not answer.
	Stale uint64
	// Success is when the source last answered; zero: never.
	Success time.Time
	// Failing reports that the newest request failed.
	Failing bool
}

// bounds are the keys of Stats.Within.
var bounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// note counts a request.
func (s *Stats) note(took time.Duration, err error, now time.Time) {
	if s.Within == nil {
		s.Within = map[float64]uint64{}
	}
	s.Requests++
	s.Seconds += took.Seconds()
	for _, b := range bounds {
		if took.Seconds() <= b {
			s.Within[b]++
		}
	}
	if s.Failing = err != nil; s.Failing {
		s.Failures++
	} else {
		s.Success = now
	}
}

// Stats returns the counters.
func (c *Cached) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.stats
	out.Within = map[float64]uint64{}
	for _, b := range bounds {
		out.Within[b] = 0
	}
	maps.Copy(out.Within, c.stats.Within)
	return out
}
