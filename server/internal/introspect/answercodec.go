package introspect

import (
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"patd/tokens"
	"patd/tokens/secret"
)

// introspection is an IntrospectResponse.
type introspection struct{ tokens.Introspection }

// streamResponse is an IntrospectStreamResponse.
type streamResponse struct {
	id     uint64
	answer *tokens.Introspection // nil: none
	failed *tokens.Error         // the error in place of an answer
	code   int32                 // of failed
}

func (a *streamResponse) append(b []byte) []byte {
	b = appendNumber(b, fieldItemID, a.id)
	if a.answer != nil {
		b, at := open(b, fieldItemResponse)
		return shut(appendIntrospection(b, a.answer), at)
	}
	b, at := open(b, fieldItemError)
	b = appendNumber(b, fieldErrorCode, uint64(a.code))
	b = appendText(b, fieldErrorReason, a.failed.Reason)
	b = appendText(b, fieldErrorMessage, a.failed.Message)
	return shut(b, at)
}

// batchResponse is a BatchIntrospectResponse, as it is on the wire, in a buffer of batchTexts.
type batchResponse struct{ text *[]byte }

// appendBatchItem writes one response of a BatchIntrospectResponse.
func appendBatchItem(b []byte, in *tokens.Introspection) []byte {
	b, at := open(b, fieldResponses)
	return shut(appendIntrospection(b, in), at)
}

// texts pools buffers of answers to batches. Unlike the pool of gRPC it does not clear all of one before it is used
// again: nothing behind what was written is sent. It keeps none that is much larger than usual.
type texts struct{ pool sync.Pool }

var (
	batchTexts texts

	_ mem.BufferPool = (*texts)(nil)
)

const (
	usualTexts = 32 << 10
	mostTexts  = 256 << 10
)

// Get implements mem.BufferPool.
func (t *texts) Get(length int) *[]byte {
	b, _ := t.pool.Get().(*[]byte)
	if b == nil {
		made := make([]byte, 0, max(length, usualTexts))
		b = &made
	}
	*b = slices.Grow((*b)[:0], length)[:length]
	return b
}

// Put implements mem.BufferPool.
func (t *texts) Put(b *[]byte) {
	if cap(*b) <= mostTexts {
		t.pool.Put(b)
	}
}

// appendIntrospection writes a response like toIntrospection and the generated code, with its labels in order.
func appendIntrospection(b []byte, in *tokens.Introspection) []byte {
	active := in.Decision.Active()
	if active {
		b = appendNumber(b, fieldActive, 1)
	}
	b = appendNumber(b, fieldDecision, uint64(toDecision(in.Decision)))
	if !active {
		if in.Ended != nil {
			b = appendTime(b, fieldExpireTime, in.Ended.Refusal.ExpireTime)
			b = appendTime(b, fieldEndTime, in.Ended.Refusal.Since)
		}
		return b
	}
	t := &in.Token
	b = appendTag(b, fieldTokenID, protowire.BytesType)
	b = append(b, secret.IDLen)
	b = t.ID.Append(b)
	b = appendText(b, fieldUser, t.User)
	b = appendText(b, fieldName, t.Name)
	var written *writtenList
	if in.EffectiveShared {
		written = sharedLists.of(in.Effective)
	}
	if written != nil && sameMemory(in.Granted, in.Effective) {
		b = append(append(b, written.scopes...), written.granted...)
	} else {
		b = appendTexts(b, fieldScopes, in.Effective)
		b = appendTexts(b, fieldGranted, in.Granted)
	}
	b = appendTexts(b, fieldSuspended, in.Suspended)
	b = appendTexts(b, fieldMissing, in.Missing)
	b = appendTexts(b, fieldAudiences, in.Audiences)
	b = appendLabels(b, t.Labels)
	b = appendTime(b, fieldIssueTime, in.IssueTime)
	b = appendTime(b, fieldExpireTime, in.ExpireTime)
	if !in.ExpireTime.IsZero() {
		b = appendDuration(b, fieldExpiresIn, in.ExpiresIn)
	}
	b = appendDuration(b, fieldCacheFor, in.CacheFor)
	b = appendNumber(b, fieldSequence, in.Sequence)
	if in.Stale {
		b = appendNumber(b, fieldStale, 1)
	}
	if in.AccessID != 0 {
		b = appendTag(b, fieldAccessID, protowire.BytesType)
		b = append(b, secret.IDLen)
		b = in.AccessID.Append(b)
		b = appendText(b, fieldClientID, in.ClientID)
	}
	if in.Token.AnyAddress {
		b = appendNumber(b, fieldAnyClientIP, 1)
	}
	if written != nil {
		b = append(b, written.effective...)
	} else {
		b = appendTexts(b, fieldEffective, in.Effective)
	}
	return appendTexts(b, fieldPaused, in.Paused)
}

func appendLabels(b []byte, labels map[string]string) []byte {
	if len(labels) == 0 {
		return b
	}
	var at int
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		b, at = open(b, fieldLabels)
		b = appendAlways(b, fieldMapKey, k) // a map entry has both fields, even if empty
		b = shut(appendAlways(b, fieldMapValue, labels[k]), at)
	}
	return b
}

// appendTime writes a google.protobuf.Timestamp, unless t is zero.
func appendTime(b []byte, field protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendSpan(b, field, t.Unix(), int64(t.Nanosecond()))
}

// appendDuration writes a google.protobuf.Duration.
func appendDuration(b []byte, field protowire.Number, d time.Duration) []byte {
	return appendSpan(b, field, int64(d/time.Second), int64(d%time.Second))
}

// appendSpan writes a message of two numbers, whose length takes one byte.
func appendSpan(b []byte, field protowire.Number, seconds, nanos int64) []byte {
	b, at := open(b, field)
	b = appendNumber(b, fieldSeconds, uint64(seconds))
	b = appendNumber(b, fieldNanos, uint64(nanos))
	b[at-1] = byte(len(b) - at)
	return b
}

// appendNumber writes a number, unless it is 0.
func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return appendVarint(appendTag(b, field, protowire.VarintType), v)
}

// appendVarint is protowire.AppendVarint in few instructions, most of them for short numbers.
func appendVarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// appendTag writes the tag of a field, whose number must be less than 2048.
func appendTag(b []byte, field protowire.Number, kind protowire.Type) []byte {
	tag := uint16(field)<<3 | uint16(kind)
	if tag < 0x80 {
		return append(b, byte(tag))
	}
	return append(b, byte(tag)|0x80, byte(tag>>7))
}

// appendText writes a text, unless it is empty.
func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return appendAlways(b, field, s)
}

func appendAlways(b []byte, field protowire.Number, s string) []byte {
	return append(appendVarint(appendTag(b, field, protowire.BytesType), uint64(len(s))), s...)
}

func appendTexts(b []byte, field protowire.Number, list []string) []byte {
	for _, s := range list {
		b = appendAlways(b, field, s)
	}
	return b
}

// open begins a message within a message, with room for a length of one byte; shut ends it and writes the length.
func open(b []byte, field protowire.Number) (opened []byte, at int) {
	b = append(appendTag(b, field, protowire.BytesType), 0)
	return b, len(b)
}

func shut(b []byte, at int) []byte {
	n := len(b) - at
	if n < 0x80 {
		b[at-1] = byte(n)
		return b
	}
	var more [9]byte
	wide := protowire.SizeVarint(uint64(n)) - 1
	b = append(b, more[:wide]...)
	copy(b[at+wide:], b[at:at+n])
	appendVarint(b[:at-1], uint64(n))
	return b
}
