package introspect

import (
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto" // registers the codec of all other messages
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/wire"
	"patd/tokens"
	"patd/tokens/secret"
)

// Field numbers of proto/patd/v1/introspection.proto. A test compares what is written and read here with the generated
// code, for all field values.
const (
	fieldToken, fieldAudience, fieldRequired, fieldClientIP = 1, 2, 3, 4

	fieldActive, fieldDecision, fieldTokenID, fieldUser, fieldName   = 1, 2, 3, 4, 5
	fieldScopes, fieldGranted, fieldSuspended, fieldMissing          = 6, 7, 8, 9
	fieldAudiences, fieldLabels, fieldIssueTime, fieldExpireTime     = 10, 11, 12, 13
	fieldExpiresIn, fieldCacheFor, fieldSequence, fieldStale         = 14, 15, 16, 17
	fieldAccessID, fieldClientID, fieldAnyClientIP, fieldEndTime     = 18, 19, 20, 21
	fieldEffective, fieldPaused                                      = 22, 23
	fieldRequests, fieldResponses                                    = 1, 1
	fieldItemID, fieldItemRequest, fieldItemResponse, fieldItemError = 1, 2, 2, 3
	fieldErrorCode, fieldErrorReason, fieldErrorMessage              = 1, 2, 3
	fieldSeconds, fieldNanos, fieldMapKey, fieldMapValue             = 1, 2, 1, 2
)

// Codec reads and writes the messages of introspection without reflection, and leaves all others, and anything unusual,
// to gRPC's own codec. The result on the wire is the same.
type Codec struct {
	generated encoding.CodecV2
	shapes    *wire.Shapes
}

var _ encoding.CodecV2 = Codec{}

// NewCodec makes the codec.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(protocodec.Name), knownShapes()} }

// knownShapes returns the shapes of all message types, which every codec shares.
var knownShapes = sync.OnceValue(func() *wire.Shapes { return &wire.Shapes{Made: map[protoreflect.FullName]*wire.Shape{}} })

// decode reads a message with the generated code, after a check of how many items its repeated fields hold.
func decode(text string, m proto.Message) error {
	b := []byte(text)
	if err := knownShapes().CheckText(b, m); err != nil {
		return err
	}
	return proto.Unmarshal(b, m) //nolint:wrapcheck // gRPC says what failed
}

// Name returns the name of the codec that this one replaces.
func (Codec) Name() string { return protocodec.Name }

// Marshal writes v.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *introspection:
		return buffers(v.size(), func(b []byte) []byte { return appendIntrospection(b, &v.Introspection) }), nil
	case *streamAnswer:
		return buffers(v.size(), v.append), nil
	case *batchAnswer:
		return buffers(v.size(), v.append), nil
	default:
		return c.generated.Marshal(v)
	}
}

// Unmarshal reads v.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v.(type) {
	case *question, *streamQuestion, *batchQuestion:
	default:
		if m, ok := v.(proto.Message); ok {
			if err := c.shapes.Check(data, m); err != nil {
				return err
			}
		}
		err := c.generated.Unmarshal(data, v)
		if r, ok := v.(*patdv1.ReportLeaksRequest); ok && err != nil && wire.ReadLeaks(data.Materialize(), r) {
			return nil
		}
		return err
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	text := string(whole.ReadOnlyData())
	switch v := v.(type) {
	case *streamQuestion:
		return v.unmarshal(text)
	case *batchQuestion:
		return v.unmarshal(text)
	default:
		return v.(*question).unmarshal(text)
	}
}

// buffers writes a message of about that size into a buffer, taken from the pool if it is large.
func buffers(size int, write func([]byte) []byte) mem.BufferSlice {
	if mem.IsBelowBufferPoolingThreshold(size) {
		one := &oneBuffer{text: write(make([]byte, 0, size))}
		one.list[0] = &one.text
		return one.list[:]
	}
	pool := mem.DefaultBufferPool()
	b := pool.Get(size)
	*b = write((*b)[:0])
	return mem.BufferSlice{mem.NewBuffer(b, pool)}
}

// oneBuffer is a mem.BufferSlice of one mem.SliceBuffer, in one piece of memory.
type oneBuffer struct {
	list [1]mem.Buffer
	text mem.SliceBuffer
}

// question is an IntrospectRequest. Its strings share memory with one string.
type question struct {
	token, audience, clientIP string
	required                  []string
	few                       [4]string // room for required in the common case
	size                      int       // in bytes, on the wire
}

// unmarshal reads an IntrospectRequest.
func (q *question) unmarshal(text string) error {
	if q.size = len(text); q.read(text) {
		return nil
	}
	var m patdv1.IntrospectRequest
	if err := decode(text, &m); err != nil {
		return err
	}
	q.take(&m)
	return nil
}

// take copies a message that the generated code has decoded.
func (q *question) take(m *patdv1.IntrospectRequest) {
	q.token, q.audience, q.clientIP, q.required = m.GetToken(), m.GetAudience(), m.GetClientIp(), m.GetRequiredScopes()
}

// read reads the fields, all of them texts. It returns false on anything else, which is left to the generated code.
func (q *question) read(text string) bool {
	q.token, q.audience, q.clientIP, q.required = "", "", "", q.few[:0]
	for r := (reader{text}); r.rest != ""; {
		field, value, ok := r.bytes()
		if !ok || !utf8.ValidString(value) {
			return false
		}
		switch field {
		case fieldToken:
			q.token = value
		case fieldAudience:
			q.audience = value
		case fieldRequired:
			if len(q.required) == wire.MaxTexts {
				return false
			}
			q.required = append(q.required, value)
		case fieldClientIP:
			q.clientIP = value
		default:
			return false
		}
	}
	return true
}

// streamQuestion is an IntrospectStreamRequest.
type streamQuestion struct {
	id uint64
	question
}

func (q *streamQuestion) unmarshal(text string) error {
	if q.size = len(text); q.readItem(text) {
		return nil
	}
	var m patdv1.IntrospectStreamRequest
	if err := decode(text, &m); err != nil {
		return err
	}
	q.id = m.GetId()
	q.take(m.GetRequest())
	return nil
}

func (q *streamQuestion) readItem(text string) bool {
	q.id = 0
	r, seen := reader{text}, false
	for r.rest != "" {
		if id, ok := r.number(fieldItemID); ok {
			q.id = id
			continue
		}
		field, value, ok := r.bytes()
		if !ok || field != fieldItemRequest || seen || !q.read(value) {
			return false
		}
		seen = true
	}
	return seen
}

// batchQuestion is a BatchIntrospectRequest.
type batchQuestion struct {
	items []question
	size  int
}

func (q *batchQuestion) unmarshal(text string) error {
	if q.size = len(text); q.read(text) {
		return nil
	}
	var m patdv1.BatchIntrospectRequest
	if err := decode(text, &m); err != nil {
		return err
	}
	q.items = make([]question, len(m.GetRequests()))
	for i, item := range m.GetRequests() {
		q.items[i].take(item)
	}
	return nil
}

func (q *batchQuestion) read(text string) bool {
	n := 0
	for r := (reader{text}); r.rest != ""; n++ {
		if field, _, ok := r.bytes(); !ok || field != fieldRequests || n >= wire.MaxMessages {
			return false
		}
	}
	q.items = make([]question, n)
	r := reader{text}
	for i := range q.items {
		if _, value, _ := r.bytes(); !q.items[i].read(value) {
			return false
		}
	}
	return true
}

// reader reads the fields of a message.
type reader struct{ rest string }

// varint reads a number of at most ten bytes.
func (r *reader) varint() (v uint64, ok bool) {
	for i := 0; i < len(r.rest) && i < 10; i++ {
		b := r.rest[i]
		if i == 9 && b > 1 {
			return 0, false
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.rest = r.rest[i+1:]
			return v, true
		}
	}
	return 0, false
}

// bytes reads a length-delimited field.
func (r *reader) bytes() (field uint64, value string, ok bool) {
	tag, ok := r.varint()
	if !ok || tag&7 != uint64(protowire.BytesType) {
		return 0, "", false
	}
	n, ok := r.varint()
	if !ok || n > uint64(len(r.rest)) {
		return 0, "", false
	}
	value, r.rest = r.rest[:n], r.rest[n:]
	return tag >> 3, value, true
}

// number reads a numeric field if it comes next and its tag is one byte.
func (r *reader) number(field protowire.Number) (uint64, bool) {
	if r.rest[0] != byte(protowire.EncodeTag(field, protowire.VarintType)) {
		return 0, false
	}
	was := r.rest
	r.rest = r.rest[1:]
	v, ok := r.varint()
	if !ok {
		r.rest = was
	}
	return v, ok
}

// introspection is an IntrospectResponse.
type introspection struct{ tokens.Introspection }

// size returns about how many bytes a response takes.
func (in *introspection) size() int { return sizeOf(&in.Introspection) }

func sizeOf(in *tokens.Introspection) int {
	if !in.Decision.Active() {
		return 40
	}
	return in.Size() + 64
}

// streamAnswer is an IntrospectStreamResponse.
type streamAnswer struct {
	id     uint64
	answer *tokens.Introspection // nil: none
	failed *tokens.Error         // the error in place of an answer
	code   int32                 // of failed
}

func (a *streamAnswer) size() int {
	if a.answer == nil {
		return 40 + len(a.failed.Reason) + len(a.failed.Message)
	}
	return 16 + sizeOf(a.answer)
}

func (a *streamAnswer) append(b []byte) []byte {
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

// batchAnswer is a BatchIntrospectResponse.
type batchAnswer struct{ answers []tokens.Introspection }

func (a *batchAnswer) size() int {
	n := 0
	for i := range a.answers {
		n += 8 + sizeOf(&a.answers[i])
	}
	return n
}

func (a *batchAnswer) append(b []byte) []byte {
	var at int
	for i := range a.answers {
		b, at = open(b, fieldResponses)
		b = shut(appendIntrospection(b, &a.answers[i]), at)
	}
	return b
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
	b = appendTexts(b, fieldScopes, in.Effective)
	b = appendTexts(b, fieldGranted, in.Granted)
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
	b = appendTexts(b, fieldEffective, in.Effective)
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
