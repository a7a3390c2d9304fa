package introspect

import (
	"encoding/binary"
	"sync"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto" // registers the codec of all other messages
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/wire"
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
var knownShapes = sync.OnceValue(
	func() *wire.Shapes { return &wire.Shapes{Made: map[protoreflect.FullName]*wire.Shape{}} },
)

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
		one := &oneBuffer{}
		return one.holding(appendIntrospection(one.room[:0], &v.Introspection)), nil
	case *streamResponse:
		one := &oneBuffer{}
		return one.holding(v.append(one.room[:0])), nil
	case *batchResponse:
		return mem.BufferSlice{mem.NewBuffer(v.text, &batchTexts)}, nil
	default:
		return c.generated.Marshal(v)
	}
}

// Unmarshal reads v.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v.(type) {
	case *request, *streamRequest, *batchRequest:
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
	text, plain := textOf(whole), ascii(whole.ReadOnlyData())
	switch v := v.(type) {
	case *streamRequest:
		return v.unmarshal(text, plain)
	case *batchRequest:
		return v.unmarshal(text, plain)
	default:
		return v.(*request).unmarshal(text, plain)
	}
}

// textOf returns what is in a buffer. Only that of a pool is copied: another one belongs to its message alone.
func textOf(b mem.Buffer) string {
	if own, ok := b.(mem.SliceBuffer); ok {
		return unsafe.String(unsafe.SliceData(own), len(own)) //nolint:gosec // see above
	}
	return string(b.ReadOnlyData())
}

// ascii reports whether all bytes are ASCII, so that every text of them is UTF-8.
func ascii(b []byte) bool {
	var all uint64
	for ; len(b) >= 8; b = b[8:] {
		all |= binary.LittleEndian.Uint64(b)
	}
	for _, c := range b {
		all |= uint64(c)
	}
	return all&0x8080808080808080 == 0
}

// oneBuffer is a mem.BufferSlice of one mem.SliceBuffer, in one piece of memory with what most answers need.
type oneBuffer struct {
	list [1]mem.Buffer
	text mem.SliceBuffer
	room [440]byte
}

// holding returns it with a text, which is in its room or, if it is longer, elsewhere.
func (one *oneBuffer) holding(text []byte) mem.BufferSlice {
	one.text = text
	one.list[0] = &one.text
	return one.list[:]
}

// request is an IntrospectRequest. Its strings share memory with one string.
type request struct {
	token, audience, clientIP string
	required                  []string // before it is read, room for them
	size                      int      // in bytes, on the wire
}

// few is room for required scopes in the common case.
type few [4]string

// unmarshal reads an IntrospectRequest; plain: all of it is ASCII.
func (q *request) unmarshal(text string, plain bool) error {
	if q.size = len(text); q.read(text, plain) {
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
func (q *request) take(m *patdv1.IntrospectRequest) {
	q.token, q.audience, q.clientIP, q.required = m.GetToken(), m.GetAudience(), m.GetClientIp(), m.GetRequiredScopes()
}

// read reads the fields, all of them texts. It returns false on anything else, which is left to the generated code.
func (q *request) read(text string, plain bool) bool {
	q.token, q.audience, q.clientIP, q.required = "", "", "", q.required[:0]
	for r := (reader{text}); r.rest != ""; {
		field, value, ok := r.bytes()
		if !ok || !plain && !utf8.ValidString(value) {
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

// streamRequest is an IntrospectStreamRequest.
type streamRequest struct {
	id uint64
	request
}

func (q *streamRequest) unmarshal(text string, plain bool) error {
	if q.size = len(text); q.readItem(text, plain) {
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

func (q *streamRequest) readItem(text string, plain bool) bool {
	q.id = 0
	r, seen := reader{text}, false
	for r.rest != "" {
		if id, ok := r.number(fieldItemID); ok {
			q.id = id
			continue
		}
		field, value, ok := r.bytes()
		if !ok || field != fieldItemRequest || seen || !q.read(value, plain) {
			return false
		}
		seen = true
	}
	return seen
}

// batchRequest is a BatchIntrospectRequest.
type batchRequest struct {
	items []request
	size  int
}

func (q *batchRequest) unmarshal(text string, plain bool) error {
	if q.size = len(text); q.read(text, plain) {
		return nil
	}
	var m patdv1.BatchIntrospectRequest
	if err := decode(text, &m); err != nil {
		return err
	}
	q.items = make([]request, len(m.GetRequests()))
	for i, item := range m.GetRequests() {
		q.items[i].take(item)
	}
	return nil
}

func (q *batchRequest) read(text string, plain bool) bool {
	n := 0
	for r := (reader{text}); r.rest != ""; n++ {
		if field, _, ok := r.bytes(); !ok || field != fieldRequests || n >= wire.MaxMessages {
			return false
		}
	}
	q.items = make([]request, n)
	r := reader{text}
	var room []string // for the scopes of all items, one after the other
	for i := range q.items {
		item := &q.items[i]
		item.required = room
		if _, value, _ := r.bytes(); !item.read(value, plain) {
			return false
		}
		room = item.required[len(item.required):]
		item.required = item.required[:len(item.required):len(item.required)]
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
	if len(r.rest) >= 2 && r.rest[0]|r.rest[1] < 0x80 { // nearly all: tag and length take a byte each
		tag, end := r.rest[0], 2+int(r.rest[1])
		if tag&7 != byte(protowire.BytesType) || end > len(r.rest) {
			return 0, "", false
		}
		value, r.rest = r.rest[2:end], r.rest[end:]
		return uint64(tag >> 3), value, true
	}
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
