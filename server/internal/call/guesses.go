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
)

// Credentials are looked at before anything is limited, so that a good one passes whatever others at its address do. What is
// limited are the bad ones of an address, by two counts. One is of all of them: past it, a bad one is RATE_LIMITED instead of
// UNAUTHENTICATED. The other, which is larger, is of those that cost a read of the store only to be of no record: past it,
// the credentials of the address are known from memory or not at all. A credential that has ended is no guess, and in neither.

// Failed counts a credential that was not good, and returns what its caller is told: err, or RATE_LIMITED past the limit. An
// outage, or a caller that went away, says nothing of the credential, and is returned as it is. memory is what fromMemory returned.
func (l *Limits) Failed(from netip.Addr, memory *FromMemoryOnly, err error) error {
	key := limit.Address(from)
	if memory != nil && memory.asked.Load() {
		return l.Refuse(limitFailures, memory.after, "too many unknown credentials came from this address, and this one is not in memory")
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

// FromMemory returns nil, or a context with which to look at a credential from an address that has used up its reads of the
// store. It costs next to nothing while no address is near that.
func (l *Limits) FromMemory(ctx context.Context, from netip.Addr) *FromMemoryOnly {
	blocked, after := l.reads.Blocked(limit.Address(from))
	if !blocked {
		return nil
	}
	return &FromMemoryOnly{Context: ctx, after: after}
}

// FromMemoryOnly is a context that has ended for all who ask, as they do before a wait: what is in memory is found without.
type FromMemoryOnly struct {
	context.Context
	after time.Duration // until there may be a read again
	asked atomic.Bool
}

// Deadline is that of the call.
func (m *FromMemoryOnly) Deadline() (time.Time, bool) {
	m.asked.Store(true)
	return m.Context.Deadline()
}

// Done has ended.
func (m *FromMemoryOnly) Done() <-chan struct{} {
	m.asked.Store(true)
	return closed
}

// Err says so.
func (m *FromMemoryOnly) Err() error {
	m.asked.Store(true)
	return context.Canceled
}

var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// HasEnded reports whether an error says that a credential is genuine, but no longer good.
func HasEnded(err error) bool {
	var ended *tokens.EndedError
	return errors.As(err, &ended)
}

// IsBadCredential reports whether an error says that what a caller presented as its own is no good.
func IsBadCredential(err error) bool {
	var e *tokens.Error
	return errors.As(err, &e) && (e.Code == tokens.CodeUnauthenticated || e.Reason == fault.ReasonSubject || e.Reason == fault.ReasonGrant)
}

// CauseOf is the private cause of an error of the domain: what the log says, and the limits go by.
func CauseOf(err error) error {
	var e *tokens.Error
	if errors.As(err, &e) {
		return e.Cause
	}
	return nil
}
