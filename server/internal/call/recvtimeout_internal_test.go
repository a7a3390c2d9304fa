package call

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endings notes when a stream was ended.
type endings struct{ at []time.Time }

func (e *endings) WriteStatus(s *status.Status) error {
	if s.Code() == codes.DeadlineExceeded {
		e.at = append(e.at, time.Now())
	}
	return nil
}

// TestEachCallWaitsItsOwnTime reuses what ends calls whose message does not come, while its timer runs for an earlier
// call: with the same time limit, with a shorter one, and with a longer one.
func TestEachCallWaitsItsOwnTime(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{10 * time.Second, 3 * time.Second, 25 * time.Second} {
		t.Run(limit.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, first, second := newRecvTimeout(), &endings{}, &endings{}
				w.await(first, time.Now().Add(10*time.Second))
				w.arrived()
				<-time.After(4 * time.Second)
				until := time.Now().Add(limit)
				w.await(second, until)
				<-time.After(time.Minute)
				w.arrived()
				if len(first.at) > 0 {
					t.Error("a call is ended whose message came")
				}
				if len(second.at) != 1 || !second.at[0].Equal(until) {
					t.Errorf("a call that should end at %v ends at %v", until, second.at)
				}
				third := &endings{}
				w.await(third, time.Now().Add(limit))
				<-time.After(limit - time.Nanosecond)
				w.arrived()
				<-time.After(time.Minute)
				w.arrived()
				if len(third.at) > 0 {
					t.Error("a call is ended whose message came in time")
				}
			})
		})
	}
}
