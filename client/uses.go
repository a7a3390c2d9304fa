package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
)

const (
	// usesPerCall is what ReportUses takes.
	usesPerCall = 1000
	// useGrain is how finely uses are told apart: a token used all the time is not written to each time.
	useGrain = 100 * time.Millisecond
)

// uses gathers which tokens passed out of memory, the latest use of each, for the report.
type uses struct {
	rpc     patdv1.IntrospectionServiceClient
	limit   int
	dropped atomic.Uint64

	mu    sync.Mutex
	queue []*entry // used since the last report

	reporting sync.Mutex
	pending   map[string]use // not reported yet, by token id
}

type use struct {
	time int64 // microseconds
	ip   string
}

func newUses(rpc patdv1.IntrospectionServiceClient, limit int) *uses {
	return &uses{rpc: rpc, limit: limit, pending: map[string]use{}}
}

// note counts a use. It is on the way of every check: most of them only read.
func (u *uses) note(e *entry, now time.Time) {
	at := now.UnixMicro()
	if at-e.used.Load() >= useGrain.Microseconds() {
		e.used.Store(at)
	}
	if e.queued.Load() || e.queued.Swap(true) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.queue) >= u.limit {
		u.dropped.Add(1)
		e.queued.Store(false)
		return
	}
	u.queue = append(u.queue, e)
}

// run reports until ctx ends. What is left then is Close's to report.
func (u *uses) run(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			_ = u.report(ctx) // what failed is reported next time
		}
	}
}

// report reports all that is known. What it cannot report stays for the next time.
func (u *uses) report(ctx context.Context) error {
	u.reporting.Lock()
	defer u.reporting.Unlock()
	u.gather()
	for len(u.pending) > 0 {
		r := &patdv1.ReportUsesRequest{}
		for id, use := range u.pending {
			r.Uses = append(r.Uses, &patdv1.ReportUsesRequest_Use{TokenId: id, Time: timestamppb.New(time.UnixMicro(use.time)), ClientIp: use.ip})
			if len(r.GetUses()) == usesPerCall {
				break
			}
		}
		if _, err := u.rpc.ReportUses(ctx, r); err != nil {
			return fmt.Errorf("report %d uses: %w", len(u.pending), err)
		}
		for _, use := range r.GetUses() {
			delete(u.pending, use.GetTokenId())
		}
	}
	return nil
}

// gather merges the queue into what is pending: of each token the latest use.
func (u *uses) gather() {
	u.mu.Lock()
	queue := u.queue
	u.queue = nil
	u.mu.Unlock()
	for _, e := range queue {
		e.queued.Store(false) // before the time is read, so that a use in between queues it again
		latest := use{time: e.used.Load(), ip: e.ip}
		before, known := u.pending[e.token.ID]
		switch {
		case known && before.time >= latest.time:
		case !known && len(u.pending) >= u.limit:
			u.dropped.Add(1)
		default:
			u.pending[e.token.ID] = latest
		}
	}
}
