package webhook

import (
	"math/rand/v2"
	"time"
)

const (
	// firstRetry is how long after the first failure the next attempt is made at least; it doubles up to lastRetry.
	firstRetry = 5 * time.Second
	lastRetry  = time.Hour
	// giveUpAfter is how long a message is tried, from its first attempt on, before its webhook is disabled.
	giveUpAfter = 72 * time.Hour
)

// retryIn returns how long after the n-th failure of a message, from 1, the next attempt is made: twice as long each
// time, and up to half as long again by chance, so that what failed together is not tried together. An endpoint that
// asks to be left alone for longer is.
func retryIn(n int, o Outcome) time.Duration {
	d := lastRetry
	if n < 11 {
		d = min(firstRetry<<(max(n, 1)-1), lastRetry)
	}
	d += time.Duration(rand.Int64N(int64(d/2) + 1)) //nolint:gosec // not a secret
	return max(d, o.RetryAfter)
}

const (
	// upSlots is how many messages are sent to an endpoint at once, and downSlots how many when it seems to be down:
	// when its last downAfter answers were all failures.
	upSlots, downSlots = 16, 8
	downAfter          = 10
	// While it seems to be down, at most downStarts attempts begin at once, every downPace.
	downStarts = 2
	downPace   = time.Second
)

// health decides how many messages are sent to an endpoint at once. An endpoint that takes nothing is not asked for
// each of the messages that wait for it: a few attempts are enough to notice that it is back, and the rest follow at
// once. One that refuses some messages keeps half of its room for those that were not tried yet, so that these wait for
// no other.
type health struct {
	failures int       // in a row
	started  time.Time // the last attempt
}

func (h *health) note(o Outcome) {
	if h.failures++; o.Accepted() {
		h.failures = 0
	}
}

func (h *health) down() bool { return h.failures >= downAfter }

// room returns how many attempts may begin now: in all, and of messages that were tried before.
func (h *health) room(now time.Time, underWay, retries int) (all, again int) {
	slots, most := upSlots, upSlots
	if h.down() {
		slots, most = downSlots, downStarts
		if now.Before(h.started.Add(downPace)) {
			return 0, 0
		}
	}
	all = min(max(slots-underWay, 0), most)
	return all, min(max(slots/2-retries, 0), (all+1)/2)
}
