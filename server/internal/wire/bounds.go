package wire

import (
	"math"
	"strconv"
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"patd/tokens"
)

const (
	// MaxMessages is the limit on the items of one repeated message field. The domain's own limits are lower; this one
	// is checked before anything is allocated.
	MaxMessages = 2 * tokens.MaxBatch
	// MaxTexts is the limit on the items of one repeated text field.
	MaxTexts = 10_000
	// maxNested is the limit on all messages within one message, and maxDepth on their depth.
	maxNested = 16_000
	maxDepth  = 64
)

// Shape lists the fields to count in messages of one type.
type Shape struct {
	fields map[protowire.Number]*shapeField
}

type shapeField struct {
	most int    // items; 0: the field is not repeated
	sub  *Shape // nil: not a message
}

// counted are the items counted in one message. A field that is not repeated may occur many times on the wire and is
// then merged, so its counts add up.
type counted struct {
	items map[protowire.Number]int
	subs  map[protowire.Number]*counted
}

// Shapes holds the shapes of message types, each made on first use.
type Shapes struct {
	mu   sync.Mutex
	Made map[protoreflect.FullName]*Shape
}

func (s *Shapes) of(m protoreflect.MessageDescriptor) *Shape {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.make(m)
}

func (s *Shapes) make(m protoreflect.MessageDescriptor) *Shape {
	if known, ok := s.Made[m.FullName()]; ok {
		return known
	}
	made := &Shape{fields: map[protowire.Number]*shapeField{}}
	s.Made[m.FullName()] = made // before its fields: a type may contain itself
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		field := &shapeField{most: mostOf(f)}
		if f.Message() != nil {
			field.sub = s.make(f.Message())
		}
		if field.most > 0 || field.sub != nil {
			made.fields[f.Number()] = field
		}
	}
	return made
}

// mostOf returns how many items a field may hold; 0: the field is not repeated.
func mostOf(f protoreflect.FieldDescriptor) int {
	switch {
	case f.Cardinality() != protoreflect.Repeated:
		return 0
	case f.Message() != nil:
		return MaxMessages
	case f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind:
		return MaxTexts
	default:
		return math.MaxInt // numbers take at most eight times their bytes in memory
	}
}

// Check counts the repeated fields of a message on the wire.
func (s *Shapes) Check(data mem.BufferSlice, m proto.Message) error {
	if data.Len() < 2*min(MaxMessages, MaxTexts) { // an item takes at least two bytes
		return nil
	}
	text := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer text.Free()
	return s.CheckText(text.ReadOnlyData(), m)
}

// CheckText is Check for a contiguous message.
func (s *Shapes) CheckText(text []byte, m proto.Message) error {
	nested := 0
	return s.of(m.ProtoReflect().Descriptor()).walk(text, &counted{}, &nested, 0)
}

// walk counts. Malformed messages are left for the decoder to reject.
func (s *Shape) walk(b []byte, seen *counted, nested *int, depth int) error {
	if depth > maxDepth {
		return errTooMany()
	}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(number, kind, b)
		if size < 0 {
			return nil
		}
		value := b[:size]
		b = b[size:]
		field := s.fields[number]
		if field == nil || kind != protowire.BytesType {
			continue
		}
		if field.most > 0 {
			if seen.items == nil {
				seen.items = map[protowire.Number]int{}
			}
			if seen.items[number]++; seen.items[number] > field.most {
				return errTooMany()
			}
		}
		if field.sub == nil {
			continue
		}
		if *nested++; *nested > maxNested {
			return errTooMany()
		}
		inner, _ := protowire.ConsumeBytes(value)
		if err := field.sub.walk(inner, seen.of(number, field), nested, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// of returns the counts for the next message of a field.
func (c *counted) of(number protowire.Number, field *shapeField) *counted {
	if field.most > 0 {
		return &counted{}
	}
	sub := c.subs[number]
	if sub == nil {
		if sub = (&counted{}); c.subs == nil {
			c.subs = map[protowire.Number]*counted{}
		}
		c.subs[number] = sub
	}
	return sub
}

func errTooMany() *tokens.Error {
	return tokens.Fail(
		tokens.CodeExhausted,
		"TOO_MANY_ITEMS",
		"a list holds at most "+strconv.Itoa(
			MaxMessages,
		)+" messages or "+strconv.Itoa(
			MaxTexts,
		)+" texts, and often fewer",
	)
}

// CountJSON rejects a JSON text with too many items in a list or object, before it is decoded. Malformed text is left
// for the decoder to reject.
func CountJSON(text []byte) error {
	type level struct {
		commas int
		nested bool // it holds lists or objects
	}
	var levels []level
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if len(levels) > maxDepth {
				return errTooMany()
			}
			if len(levels) > 0 {
				levels[len(levels)-1].nested = true
			}
			levels = append(levels, level{})
		case (c == '}' || c == ']') && len(levels) > 0:
			levels = levels[:len(levels)-1]
		case c == ',' && len(levels) > 0:
			top := &levels[len(levels)-1]
			top.commas++
			if top.commas >= MaxTexts || top.nested && top.commas >= MaxMessages {
				return errTooMany()
			}
		}
	}
	return nil
}
