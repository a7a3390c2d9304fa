package webhook

import (
	"sync/atomic"
	"time"
)

// counts are what this process did.
type counts struct {
	accepted, failed   atomic.Uint64
	gone, failingSince atomic.Uint64
}

func (c *counts) attempt(o Outcome) {
	if o.Accepted() {
		c.accepted.Add(1)
	} else {
		c.failed.Add(1)
	}
}

func (c *counts) disable(reason string) {
	if reason == CauseGone {
		c.gone.Add(1)
	} else {
		c.failingSince.Add(1)
	}
}

// Stats are figures of an engine.
type Stats struct {
	Accepted, Failed uint64            // attempts of this process
	Disabled         map[string]uint64 // webhooks that it disabled, by reason
	Webhooks         int               // that it delivers for now
	Down             int               // those of them whose endpoint takes nothing now
	Oldest           time.Duration     // for how long the oldest delivery of those waits, counted every 10 s; 0: none does
}

// Stats returns the figures now.
func (e *Engine) Stats() Stats {
	s := Stats{
		Accepted: e.counts.accepted.Load(), Failed: e.counts.failed.Load(),
		Disabled: map[string]uint64{CauseGone: e.counts.gone.Load(), CauseFailing: e.counts.failingSince.Load()},
	}
	now := e.Now()
	for _, w := range e.workers() {
		s.Webhooks++
		if w.failing.Load() {
			s.Down++
		}
		if at := w.oldest.Load(); at != 0 {
			s.Oldest = max(s.Oldest, now.Sub(time.UnixMicro(at)))
		}
	}
	return s
}
