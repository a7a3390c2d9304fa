package server

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"patd/server/limit"
	"patd/tokens"
)

// Credentials are looked at before anything is limited, so that a good one passes whatever others at its address do. What is
// limited are the bad ones of an address, by two counts. One is of all of them: past it, a bad one is RATE_LIMITED instead of
// UNAUTHENTICATED. The other, which is larger, is of those that cost a read of the store only to be of no record: past it,
// the credentials of the address are known from memory or not at all. A credential that has ended is no guess, and in neither.

// failed counts a credential that was not good, and returns what its caller is told: err, or RATE_LIMITED past the limit. An
// outage, or a caller that went away, says nothing of the credential, and is returned as it is. memory is what fromMemory returned.
func (l *limits) failed(from netip.Addr, memory *fromMemory, err error) error {
	key := limit.Address(from)
	if memory != nil && memory.asked.Load() {
		return l.refuse(limitFailures, memory.after, "too many unknown credentials came from this address, and this one is not in memory")
	}
	if !isBadCredential(err) || hasEnded(err) {
		return err
	}
	if errors.Is(err, tokens.ErrUnknownCredential) {
		l.reads.Fail(key)
	}
	if ok, after := l.failures.Allow(key); !ok {
		refused := l.refuse(limitFailures, after, "too many bad credentials came from this address")
		refused.refusal.Cause = causeOf(err) // for the log
		return refused
	}
	return err
}

// fromMemory returns nil, or a context with which to look at a credential from an address that has used up its reads of the
// store. It costs next to nothing while no address is near that.
func (l *limits) fromMemory(ctx context.Context, from netip.Addr) *fromMemory {
	blocked, after := l.reads.Blocked(limit.Address(from))
	if !blocked {
		return nil
	}
	return &fromMemory{Context: ctx, after: after}
}

// fromMemory is a context that has ended for all who ask, as they do before a wait: what is in memory is found without.
type fromMemory struct {
	context.Context
	after time.Duration // until there may be a read again
	asked atomic.Bool
}

// Deadline is that of the call.
func (m *fromMemory) Deadline() (time.Time, bool) {
	m.asked.Store(true)
	return m.Context.Deadline()
}

// Done has ended.
func (m *fromMemory) Done() <-chan struct{} {
	m.asked.Store(true)
	return closed
}

// Err says so.
func (m *fromMemory) Err() error {
	m.asked.Store(true)
	return context.Canceled
}

var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// hasEnded reports whether an error says that a credential is genuine, but no longer good.
func hasEnded(err error) bool {
	var ended *tokens.EndedError
	return errors.As(err, &ended)
}

// isBadCredential reports whether an error says that what a caller presented as its own is no good.
func isBadCredential(err error) bool {
	var e *tokens.Error
	return errors.As(err, &e) && (e.Code == tokens.CodeUnauthenticated || e.Reason == reasonSubject || e.Reason == reasonGrant)
}
