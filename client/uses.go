package client

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
)

const (
	// usesPerCall is the limit of ReportUses.
	usesPerCall = 1000
	// useGrain is the resolution of uses: a token in constant use is not recorded each time.
	useGrain = 100 * time.Millisecond
	// useBytes estimates from above what one use holds: its usage in the queue, and its place in the pending map.
	useBytes = 256
)

// uses collects the latest use of each token that passed from the cache, for the report. It references no entry, which
// may be large and may have been evicted.
type uses struct {
	rpc     patdv1.IntrospectionServiceClient
	limit   int
	dropped atomic.Uint64
	filling chan struct{} // signals that the queue is half full

	mu    sync.Mutex
	queue []*usage // used since the last report

	reporting sync.Mutex
	pending   map[string]use // not reported yet, by token id
}

// usage is the last use of an answer: the part of an entry that the report needs.
type usage struct {
	tokenID string
	queued  atomic.Bool // waits to be reported

	mu  sync.Mutex
	use use
}

type use struct {
	time int64 // microseconds
	ip   netip.Addr
}

func (r *usage) set(u use) {
	r.mu.Lock()
	r.use = u
	r.mu.Unlock()
}

func (r *usage) get() use {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.use
}

func newUses(rpc patdv1.IntrospectionServiceClient, limit int) *uses {
	return &uses{rpc: rpc, limit: max(1, limit), pending: map[string]use{}, filling: make(chan struct{}, 1)}
}

// note counts a use. Every check calls it: most only read, and no more than the entry itself.
func (u *uses) note(e *entry, ip netip.Addr, now time.Time) {
	at, before := now.UnixMicro(), e.used.Load()
	if at >= before && at-before < useGrain.Microseconds() {
		return
	}
	e.used.Store(at)
	r := e.usage
	r.set(use{at, ip})
	if r.queued.Swap(true) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.queue) >= u.limit {
		u.dropped.Add(1)
		r.queued.Store(false)
		return
	}
	u.queue = append(u.queue, r)
	if len(u.queue) == (u.limit+1)/2 {
		select {
		case u.filling <- struct{}{}:
		default: // already signalled
		}
	}
}

// run reports at intervals, and early when the queue fills, until ctx ends. Close reports the rest.
func (u *uses) run(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-u.filling:
		}
		_ = u.report(ctx) // uses that failed are reported next time
	}
}

// report reports all pending uses. Those that it cannot report stay for the next time.
func (u *uses) report(ctx context.Context) error {
	u.reporting.Lock()
	defer u.reporting.Unlock()
	u.gather()
	for len(u.pending) > 0 {
		r := &patdv1.ReportUsesRequest{}
		for id, use := range u.pending {
			r.Uses = append(r.Uses, &patdv1.ReportUsesRequest_Use{TokenId: id, Time: timestamppb.New(time.UnixMicro(use.time)), ClientIp: address(use.ip)})
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

// gather merges the queue into the pending map: of each token the latest use.
func (u *uses) gather() {
	u.mu.Lock()
	queue := u.queue
	u.queue = nil
	u.mu.Unlock()
	for _, r := range queue {
		r.queued.Store(false) // before the use is read, so that one in between queues it again
		latest := r.get()
		before, known := u.pending[r.tokenID]
		switch {
		case known && before.time >= latest.time:
		case !known && len(u.pending) >= u.limit:
			u.dropped.Add(1)
		default:
			u.pending[r.tokenID] = latest
		}
	}
}
