package connection

import (
	"sync/atomic"
	"unsafe"
	"weak"
)

// proof remembers who has proven to be the sender of one header value.
type proof struct {
	value  weak.Pointer[byte] // where the value begins, which it does not keep: it holds a secret
	length int
	who    any
}

// proofs remembers the last one of a connection. HTTP/2 clients name a header field that they have sent before by its
// place in a table (RFC 7541), and gRPC then has the same value, the same memory, for each of their calls.
type proofs struct {
	last atomic.Pointer[proof]
	// begins is the address at which the value that was proven last began, and serves to compare only: one that does
	// not come twice in a row is not worth remembering.
	begins atomic.Uintptr
}

// Proven returns who was proven to have sent this value: the same memory, not one with the same text, so that nothing
// is compared that is secret. nil: that is not remembered. c may be nil.
func (c *Connection) Proven(value string) any {
	if c == nil || value == "" {
		return nil
	}
	p := c.proofs.last.Load()
	if p == nil || p.length != len(value) || p.value.Value() != first(value) {
		return nil
	}
	return p.who
}

// Again reports whether a value was proven at the last time too, so that it is worth remembering. c may be nil.
func (c *Connection) Again(value string) bool {
	if c == nil || value == "" {
		return false
	}
	at := uintptr(unsafe.Pointer(first(value))) //nolint:gosec // it is never a pointer again
	return c.proofs.begins.Swap(at) == at
}

// Prove remembers who was proven to have sent a value, in place of another. Whoever asks must check that what the proof
// rests on has not changed since.
func (c *Connection) Prove(value string, who any) {
	c.proofs.last.Store(&proof{value: weak.Make(first(value)), length: len(value), who: who})
}

// first returns where a value begins. Nothing reads or writes there.
func first(value string) *byte { return unsafe.StringData(value) } //nolint:gosec // see above
