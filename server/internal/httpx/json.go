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
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
	"patd/tokens/secret"
)

// JSONCodec reads and writes the JSON of the REST API: snake_case names, unset booleans and empty lists included,
// absent times omitted, unknown fields rejected.
type JSONCodec struct{ runtime.JSONPb }

var _ runtime.Marshaler = (*JSONCodec)(nil)

// NewJSONCodec returns the codec of the REST API.
func NewJSONCodec() *JSONCodec {
	return &JSONCodec{runtime.JSONPb{
		MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true},
	}}
}

// errBody stands for an error that the Body itself keeps: the gateway would turn it into a text.
var errBody = errors.New("the body is refused")

// Marshal writes a message and a newline, for output in a shell. It removes white space, which the protobuf package
// places differently in each build.
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

// NewDecoder returns a decoder of one message, which must be all that r contains.
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
			return io.EOF // the gateway treats it as an empty message
		}
		if len(text) > MaxUndecoded && !b.known && b.Identify != nil {
			if b.stranger = b.Identify(); b.stranger != nil {
				return errBody
			}
		}
		if err := wire.CountJSON(text); err != nil {
			errors.As(err, &b.refused)
			return errBody
		}
		text = wire.ImpactOfAll(text, m)
		if err := decode(text, m); err != nil && !wire.ReadLeaksJSON(text, m) {
			b.refused = badJSON(text, m)
			return errBody
		}
		put()
		return nil
	})
}

// target returns the message that a decoder fills in: v itself or, if the body is one field of the request, a new
// message that put stores in that field.
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

// MaxUndecoded is how many bytes of JSON are decoded before their caller is known. A few bytes may stand for a message
// of a hundred, which is held as long as the caller's credential is looked up.
const MaxUndecoded = 1 << 10

// Body is a request's body, and the reason why it was rejected. Up to call.MaxUnknown bytes are read from any caller,
// within the budget that all unknown callers share; the rest is read from a known caller only.
type Body struct {
	io.ReadCloser
	Empty    bool
	refused  *tokens.Error
	stranger *status.Status // why the caller is refused; nil: it is not

	// Identify returns why the caller may not make the request, or nil. A body of more than MaxUndecoded bytes is not
	// decoded before. nil: anybody may.
	Identify func() *status.Status

	held  call.Held
	more  *call.Held   // for what exceeds call.MaxUnknown; nil: only a known caller may send that
	know  func() error // returns nil if the caller is known
	known bool
	taken int // bytes read while the caller was not known
}

// Read reads on, and identifies the caller if the body is larger than an unknown caller may send, or than there is
// room for.
func (b *Body) Read(p []byte) (int, error) {
	held := &b.held
	if b.more != nil && b.taken >= call.MaxUnknown {
		held = b.more
	} else if !b.known && b.taken >= call.MaxUnknown {
		if err := b.know(); err != nil {
			return 0, err
		}
		b.known = true
		b.Release()
	}
	if !b.known && held == &b.held {
		p = p[:min(len(p), call.MaxUnknown-b.taken)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.taken += n; !b.known && n > 0 {
		if full := held.Data(n); full != nil {
			if b.know() != nil { // only unknown callers are rejected
				return n, full
			}
			b.known = true
			b.Release()
		}
	}
	return n, err //nolint:wrapcheck // it is net/http's, or io.EOF
}

// Extend lets an unknown caller send more than call.MaxUnknown bytes, out of a budget apart.
func (b *Body) Extend(more call.Held) { b.more = &more }

// Release returns the body's bytes to the budget.
func (b *Body) Release() {
	b.held.Release()
	if b.more != nil {
		b.more.Release()
	}
}

// UnreadBody returns the error of a body that did not arrive whole.
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

// SafeName reports whether a name from the caller may be repeated: it is short and looks like a field name.
func SafeName(s string) bool { return nameForm.MatchString(s) && !secret.MayContainSecret(s) }
