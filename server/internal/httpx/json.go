package httpx

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
	"patd/tokens/secret"
)

// JSONCodec reads and writes the JSON of the REST interface: snake_case names, unset booleans and empty lists shown, absent times
// left out, unknown fields refused.
type JSONCodec struct{ runtime.JSONPb }

var _ runtime.Marshaler = (*JSONCodec)(nil)

// NewJSONCodec makes the codec of the REST interface.
func NewJSONCodec() *JSONCodec {
	return &JSONCodec{runtime.JSONPb{
		MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true},
	}}
}

// errBody stands for an error of a body, which is kept in the body itself: the gateway would make a text of it.
var errBody = errors.New("the body is refused")

// Marshal writes a message and ends the line, as a shell expects of an answer. It leaves out white space, which the
// protobuf package sprinkles in differently with each build.
func (c *JSONCodec) Marshal(v any) ([]byte, error) {
	text, err := c.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(len(text) + 1)
	if err := json.Compact(&out, text); err != nil {
		return nil, fmt.Errorf("compact an answer: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// NewDecoder answers a decoder of one message, which is all that the reader may hold.
func (c *JSONCodec) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		b, isBody := r.(*Body)
		m, put, isMessage := target(v)
		if !isBody || !isMessage {
			return fmt.Errorf("decode a request: a %T from a %T", v, r)
		}
		text, err := io.ReadAll(b)
		if err != nil {
			b.refused = UnreadBody(err)
			return errBody
		}
		if len(bytes.TrimSpace(text)) == 0 {
			b.Empty = true
			return io.EOF // which the gateway takes for an empty message
		}
		if err := wire.CountJSON(text); err != nil {
			errors.As(err, &b.refused)
			return errBody
		}
		if err := c.UnmarshalOptions.Unmarshal(text, m); err != nil && !wire.ReadLeaksJSON(text, m) {
			b.refused = badJSON(text, m)
			return errBody
		}
		put()
		return nil
	})
}

// target is the message that a decoder fills in: v itself or, where the body is one field of the request, a new message
// that put makes the field's value.
func target(v any) (m proto.Message, put func(), ok bool) {
	if m, ok := v.(proto.Message); ok {
		return m, func() {}, true
	}
	field := reflect.ValueOf(v)
	if field.Kind() != reflect.Pointer || field.IsNil() || field.Elem().Kind() != reflect.Pointer {
		return nil, nil, false
	}
	value := reflect.New(field.Type().Elem().Elem())
	m, ok = value.Interface().(proto.Message)
	return m, func() { field.Elem().Set(value) }, ok
}

// Body is a request's body, with the reason why it was refused. Up to maxUnknown bytes of it are read of anybody, out of what
// all unknown callers share; what comes after is read of a caller that is known.
type Body struct {
	io.ReadCloser
	Empty   bool
	refused *tokens.Error

	unknown *call.UnknownMemory
	know    func() error // returns nil if the caller is known
	known   bool
	Taken   int
	taken   int // of unknown
}

// Read reads on, and finds out who calls when there is more than an unknown caller may send.
func (b *Body) Read(p []byte) (int, error) {
	if !b.known && b.Taken >= call.MaxUnknown {
		if err := b.know(); err != nil {
			return 0, err
		}
		b.known = true
		b.Release()
	}
	if !b.known {
		p = p[:min(len(p), call.MaxUnknown-b.Taken)]
	}
	n, err := b.ReadCloser.Read(p)
	b.Taken += n
	if !b.known && n > 0 {
		if full := b.unknown.Take(n); full == nil {
			b.taken += n
		} else if b.know() != nil { // only callers that are not known are refused
			return 0, full
		} else {
			b.known = true
			b.Release()
		}
	}
	return n, err //nolint:wrapcheck // it is net/http's, or io.EOF
}

// Release gives back what the body has taken of the budget.
func (b *Body) Release() {
	b.unknown.Give(b.taken)
	b.taken = 0
}

// UnreadBody is the error of a body that did not arrive whole.
func UnreadBody(err error) *tokens.Error {
	var ours *tokens.Error
	if errors.As(err, &ours) {
		return ours
	}
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return call.TooLarge()
	}
	return tokens.Invalid("BODY_INCOMPLETE", "", "the body did not arrive whole")
}

var nameForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]{0,31}$`)

// SafeName reports whether a name that the caller sent may be repeated: it is short and looks like the name of a field.
func SafeName(s string) bool { return nameForm.MatchString(s) && !secret.MayContainSecret(s) }
