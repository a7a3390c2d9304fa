package call

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/metrics"
	"patd/tokens"
)

const (
	// MaxUnknown is how many bytes of one message are read of a caller that is not known yet, or will not be.
	MaxUnknown           = 64 << 10
	defaultUnknownMemory = 64 << 20
	// UnknownRetryAfter is what Retry-After says to a caller that finds no memory left.
	UnknownRetryAfter = time.Second
	// ReasonUnknownMemory is the reason of that refusal.
	ReasonUnknownMemory = "UNKNOWN_CALLER_MEMORY"
)

// UnknownMemory bounds the bytes that all callers who are not known hold together. A caller that is known is never refused by it.
type UnknownMemory struct {
	most    int64
	used    atomic.Int64
	waiting atomic.Int64 // the part of used that callers hold who wait to be identified
	refused prometheus.Counter
}

func newUnknownMemory(most int64, m *metrics.Set) *UnknownMemory {
	if most <= 0 {
		most = defaultUnknownMemory
	}
	u := &UnknownMemory{most: most, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "patd_unknown_caller_refusals_total",
		Help: "Requests refused because unknown callers together held --unknown-caller-memory.",
	})}
	m.Registry.MustRegister(u.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "patd_unknown_caller_memory_bytes", Help: "Bytes of messages that unknown callers hold now.",
	}, func() float64 { return float64(u.used.Load()) }))
	return u
}

// Take reserves n bytes. An error reserves nothing.
func (u *UnknownMemory) Take(n int) error {
	if u.used.Add(int64(n)) <= u.most {
		return nil
	}
	u.used.Add(-int64(n))
	return u.refusal()
}

func (u *UnknownMemory) refusal() *fault.TooOften {
	u.refused.Inc()
	return &fault.TooOften{
		Refusal: tokens.Fail(tokens.CodeExhausted, ReasonUnknownMemory,
			"callers without a good credential hold all the memory that is for them; try again in "+fault.WholeSeconds(UnknownRetryAfter)+" s"),
		After: UnknownRetryAfter,
	}
}

// Give gives back n bytes that were taken.
func (u *UnknownMemory) Give(n int) { u.used.Add(-int64(n)) }

const (
	// maxConnectionHeld is how many bytes the calls of a connection without a good credential hold without being charged, so that
	// a probe is served whatever other strangers hold.
	maxConnectionHeld = 16 << 10
	// streamSize and fieldSize are what a stream and each of its headers take besides their text.
	streamSize = 4 << 10
	fieldSize  = 112
)

// Held is what a call holds besides its message.
type Held struct {
	connection *connection.Connection
	memory     *UnknownMemory // nil: the connection's own room sufficed
	bytes      int
}

// Hold reserves what a call on a connection without a good credential holds besides its message. Nothing is reserved on others,
// nor where the connection is not known.
func (u *UnknownMemory) Hold(c *connection.Connection, n int) (Held, *fault.TooOften) {
	if c == nil || c.Known.Load() {
		return Held{}, nil
	}
	if c.Held.Add(int64(n)) <= maxConnectionHeld {
		return Held{connection: c, bytes: n}, nil
	}
	c.Held.Add(-int64(n))
	if u.used.Add(int64(n)) > u.most {
		u.used.Add(-int64(n))
		return Held{}, u.refusal()
	}
	return Held{memory: u, bytes: n}, nil
}

// Release gives it back.
func (h Held) Release() {
	switch {
	case h.memory != nil:
		h.memory.Give(h.bytes)
	case h.connection != nil:
		h.connection.Held.Add(-int64(h.bytes))
	}
}

// SizeOfHeaders is about what the headers of a call take in memory, with the call's stream.
func SizeOfHeaders(headers map[string][]string) int {
	n := streamSize
	for name, values := range headers {
		for _, v := range values {
			n += len(name) + len(v) + fieldSize
		}
	}
	return n
}

// wait reserves what the stream of a caller that waits to be identified may hold. Messages of strangers make no such
// caller wait outside, since it may well be a good one: it is refused only where those that wait hold all by themselves.
func (u *UnknownMemory) wait() error {
	if u.waiting.Add(MaxUnknown) > max(u.most, MaxUnknown) {
		u.waiting.Add(-MaxUnknown)
		return u.refusal()
	}
	u.used.Add(MaxUnknown)
	return nil
}

// waited gives it back.
func (u *UnknownMemory) waited() {
	u.used.Add(-MaxUnknown)
	u.waiting.Add(-MaxUnknown)
}

// UnknownTooLarge is the refusal of a message that is too large for a caller that is not known.
func UnknownTooLarge() *tokens.Error {
	return tokens.Fail(tokens.CodeExhausted, fault.ReasonTooLarge, "a request whose caller is not known before it is read holds at most 64 KiB")
}

// messageStream is the part of gRPC's transport stream that reads one message. A test holds gRPC to it.
type messageStream interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
	RecvCompress() string
	SetSendCompress(name string) error
}

var errNoMessageStream = errors.New("read a message: gRPC's stream has changed its form")

// Receive reads the message of a known caller into v: at most maxTransportMessage bytes. gRPC's own reading would send its
// error to the caller at once, before the chain can say what it is, and Envoy a denial.
func (c *Chain) Receive(ctx context.Context, v any) error {
	_, err := c.receiveMessage(ctx, v, MaxTransportMessage, false)
	return received(err)
}

// receiveUnknown reads a message of a caller that is not known into v: at most maxUnknown bytes, on the wire and after
// decompression, out of the budget. It returns how many bytes the caller has to give back.
func (c *Chain) receiveUnknown(ctx context.Context, v any) (taken int, err error) {
	return c.receiveMessage(ctx, v, MaxUnknown, true)
}

func (c *Chain) receiveMessage(ctx context.Context, v any, most int, budgeted bool) (taken int, err error) {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(messageStream)
	if !ok {
		return 0, errNoMessageStream
	}
	return c.receiveFrom(stream, v, most, budgeted)
}

func (c *Chain) receiveFrom(stream messageStream, v any, most int, budgeted bool) (taken int, err error) {
	tooMuch := TooLarge
	if budgeted {
		tooMuch = UnknownTooLarge
	}
	compressed, length, err := readPrefix(stream)
	if err != nil {
		return 0, err
	}
	if encodingRefused(stream) && compressed {
		return 0, errEncoding()
	}
	if int64(length) > int64(most) {
		return 0, tooMuch()
	}
	if budgeted {
		if stream.RecvCompress() != "" { // the answer is not compressed: a compressor holds far more than the message
			_ = stream.SetSendCompress(encoding.Identity) // it fails if the answer has begun, and nothing has
		}
		taken = int(length)
		if compressed {
			taken += most
		}
		if err := c.Unknown.Take(taken); err != nil {
			return 0, err
		}
	}
	data, err := stream.Read(int(length))
	if err != nil {
		return taken, unfinished(err)
	}
	defer data.Free()
	if !compressed {
		return taken, c.codec.Unmarshal(data, v)
	}
	compressor := encoding.GetCompressor(stream.RecvCompress())
	if compressor == nil {
		return taken, errUnreadable()
	}
	plain, err := compressor.Decompress(data.Reader())
	if err != nil {
		return taken, errUnreadable()
	}
	if closer, ok := plain.(io.Closer); ok { // which puts it back into its pool
		defer closer.Close()
	}
	text, err := io.ReadAll(io.LimitReader(plain, int64(most)+1))
	switch {
	case err != nil:
		return taken, errUnreadable()
	case len(text) > most:
		return taken, tooMuch()
	}
	return taken, c.codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(text)}, v)
}

// prefixes are the five bytes before each message, which reading from the stream would have allocated anew each time.
var prefixes = sync.Pool{New: func() any { return new([5]byte) }}

func readPrefix(s messageStream) (compressed bool, length uint32, err error) {
	header, _ := prefixes.Get().(*[5]byte)
	defer prefixes.Put(header)
	if err := s.ReadMessageHeader(header[:]); err != nil {
		return false, 0, err //nolint:wrapcheck // it is gRPC's, or io.EOF
	}
	return header[0] != 0, binary.BigEndian.Uint32(header[1:]), nil
}

// unfinished is the error of a message that ended before its length: the end of a stream is one only between messages.
func unfinished(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
