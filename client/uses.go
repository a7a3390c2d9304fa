package client

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
	useBytes = 1 << 10
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

	needed atomic.Pointer[needs] // since the last report; nil: nothing

	mu  sync.Mutex
	use use
}

// use is what is reported of the uses of a token.
type use struct {
	time  int64 // microseconds, of the last one
	ip    netip.Addr
	needs needs // since the last report
}

// needs are the scopes that uses needed. The list is never written to, only replaced.
type needs struct {
	scopes   []string // at most maxUseScopes
	unscoped bool     // some uses named none, or there were too many
}

// maxUseScopes and maxScope, in bytes, bound what one use holds; see useBytes. A token whose programs need more counts
// as used in any scope.
const (
	maxUseScopes = 4
	maxScope     = 128
)

// has reports whether a use adds nothing to what is known.
func (n *needs) has(scopes []string) bool {
	if n.unscoped {
		return len(scopes) == 0 || len(n.scopes) == maxUseScopes
	}
	for _, s := range scopes {
		if !slices.Contains(n.scopes, s) {
			return false
		}
	}
	return len(scopes) > 0
}

// with returns what is known after a use.
func (n needs) with(scopes []string) needs {
	n.unscoped = n.unscoped || len(scopes) == 0
	for _, s := range scopes {
		switch {
		case slices.Contains(n.scopes, s):
		case len(n.scopes) == maxUseScopes || len(s) > maxScope:
			n.unscoped = true
		default: // a copy, since the text may be a part of what is large
			n.scopes = append(slices.Clone(n.scopes), strings.Clone(s))
		}
	}
	return n
}

func (r *usage) set(at int64, ip netip.Addr, scopes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.use.time, r.use.ip = at, ip
	if r.use.needs.has(scopes) {
		return
	}
	all := r.use.needs.with(scopes)
	r.use.needs = all
	r.needed.Store(&all)
}

// take returns the use, and begins another list of scopes.
func (r *usage) take() use {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.use
	r.use.needs = needs{}
	r.needed.Store(nil)
	return taken
}

func newUses(rpc patdv1.IntrospectionServiceClient, limit int) *uses {
	return &uses{rpc: rpc, limit: max(1, limit), pending: map[string]use{}, filling: make(chan struct{}, 1)}
}

// note counts a use. Every check calls it: most only read, and no more than the entry itself.
func (u *uses) note(e *entry, ip netip.Addr, needed []string, now time.Time) {
	at, before := now.UnixMicro(), e.used.Load()
	r := e.usage
	if at >= before && at-before < useGrain.Microseconds() {
		if known := r.needed.Load(); known != nil && known.has(needed) {
			return
		}
	}
	e.used.Store(at)
	r.set(at, ip, needed)
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
			r.Uses = append(r.Uses, &patdv1.ReportUsesRequest_Use{
				TokenId:  id,
				Time:     timestamppb.New(time.UnixMicro(use.time)),
				ClientIp: address(use.ip),
				Scopes:   use.needs.scopes,
				Unscoped: use.needs.unscoped,
			})
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
		latest := r.take()
		if latest.needs.scopes == nil && !latest.needs.unscoped {
			continue // it was queued twice
		}
		before, known := u.pending[r.tokenID]
		if known { // of another answer about the token, or not reported the last time
			if len(before.needs.scopes) > 0 {
				latest.needs = latest.needs.with(before.needs.scopes)
			}
			latest.needs.unscoped = latest.needs.unscoped || before.needs.unscoped
			if before.time > latest.time {
				latest.time, latest.ip = before.time, before.ip
			}
		}
		switch {
		case !known && len(u.pending) >= u.limit:
			u.dropped.Add(1)
		default:
			u.pending[r.tokenID] = latest
		}
	}
}
