package call

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"patd/server/internal/fault"
	"patd/server/internal/limit"
	"patd/tokens"
	"patd/tokens/refusal"
)

// Credentials are checked before anything is limited, so that a good one passes whatever others at its address do. The
// limits are on an address's bad ones, by two counts. The first counts all bad ones: past it they get RATE_LIMITED
// instead of UNAUTHENTICATED. The second, which is larger, counts those that cost a read of the store and have no
// record: past it, credentials from the address are looked up in memory only. An expired or revoked credential is not a
// guess, and neither counts it.

// Failed counts a bad credential and returns the public error: err, or RATE_LIMITED past the limit. The error of an
// outage or a canceled call is returned unchanged: it says nothing about the credential. memory is the result of
// FromMemory.
func (l *Limits) Failed(from netip.Addr, memory *FromMemoryOnly, err error) error {
	key := limit.Address(from)
	if memory != nil && memory.asked.Load() {
		return l.Refuse(
			limitFailures,
			memory.after,
			"too many unknown credentials came from this address, and this one is not in memory",
		)
	}
	if !IsBadCredential(err) || HasEnded(err) {
		return err
	}
	if errors.Is(err, tokens.ErrUnknownCredential) {
		l.reads.Fail(key)
	}
	if ok, after := l.failures.Allow(key); !ok {
		refused := l.Refuse(limitFailures, after, "too many bad credentials came from this address")
		refused.Refusal.Cause = CauseOf(err) // for the log
		return refused
	}
	return err
}

// FromMemory returns nil, or, for an address that has used up its reads of the store, a context that allows lookups in
// memory only. While no address is near the limit the call costs next to nothing.
func (l *Limits) FromMemory(ctx context.Context, from netip.Addr) *FromMemoryOnly {
	if l.reads.Quiet() {
		return nil
	}
	blocked, after := l.reads.Blocked(limit.Address(from))
	if !blocked {
		return nil
	}
	return &FromMemoryOnly{Context: ctx, after: after}
}

// FromMemoryOnly is a context that has ended. Waits check that first, so only lookups in memory succeed.
type FromMemoryOnly struct {
	context.Context
	after time.Duration // until the next read is allowed
	asked atomic.Bool
}

// Deadline returns the deadline of the call.
func (m *FromMemoryOnly) Deadline() (time.Time, bool) {
	m.asked.Store(true)
	return m.Context.Deadline()
}

// Done returns a closed channel.
func (m *FromMemoryOnly) Done() <-chan struct{} {
	m.asked.Store(true)
	return closed
}

// Err returns a non-nil error.
func (m *FromMemoryOnly) Err() error {
	m.asked.Store(true)
	return context.Canceled
}

var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// EndedToken returns the token whose secret matched, of an error about a credential that is not valid any more; 0:
// none.
func EndedToken(err error) tokens.ID {
	var ended *tokens.EndedError
	if errors.As(err, &ended) {
		return ended.Holder.TokenID
	}
	return 0
}

// HasEnded reports whether err means that a credential is genuine but no longer valid.
func HasEnded(err error) bool {
	var ended *tokens.EndedError
	return errors.As(err, &ended)
}

// IsBadCredential reports whether err means that the caller's own credential is invalid.
func IsBadCredential(err error) bool {
	var e *tokens.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Reason {
	case refusal.NotValid, fault.ReasonSubject, fault.ReasonGrant:
		return true
	default:
		return e.Code == tokens.CodeUnauthenticated
	}
}

// CauseOf returns the private cause of a domain error, for the log and the limits.
func CauseOf(err error) error {
	var e *tokens.Error
	if errors.As(err, &e) {
		return e.Cause
	}
	return nil
}
