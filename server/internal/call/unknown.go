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
	// MaxUnknown is how many bytes of one message are read while its caller is not known.
	MaxUnknown           = 64 << 10
	defaultUnknownMemory = 64 << 20
	// UnknownRetryAfter is the Retry-After for a caller when no memory is left.
	UnknownRetryAfter = time.Second
	// ReasonUnknownMemory is the reason of that error.
	ReasonUnknownMemory = "UNKNOWN_CALLER_MEMORY"
)

// UnknownMemory bounds the memory that all unknown callers hold together, in bytes. It never rejects a known caller.
type UnknownMemory struct {
	most    int64
	used    atomic.Int64
	waiting atomic.Int64 // the part of used held by callers that wait to be identified
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

// Take reserves n bytes. If it returns an error, nothing is reserved.
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

// Give releases n reserved bytes.
func (u *UnknownMemory) Give(n int) { u.used.Add(-int64(n)) }

const (
	// maxConnectionHeld is how many bytes the calls of a connection without a good credential may hold without a
	// charge, so that a probe is served whatever other unknown callers hold.
	maxConnectionHeld = 16 << 10
	// streamSize and fieldSize are the overhead of a stream and of each of its headers, besides their text.
	streamSize = 4 << 10
	fieldSize  = 112
)

// Held is the memory that a call holds besides its message.
type Held struct {
	connection *connection.Connection
	memory     *UnknownMemory // nil: the connection's own allowance sufficed
	bytes      int
}

// Hold reserves what a call holds besides its message, if its connection has not shown a good credential. On other
// connections, and if the connection is unknown, it reserves nothing.
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

// Release releases the reserved memory.
func (h Held) Release() {
	switch {
	case h.memory != nil:
		h.memory.Give(h.bytes)
	case h.connection != nil:
		h.connection.Held.Add(-int64(h.bytes))
	}
}

// SizeOfHeaders returns roughly how much memory a call's headers and its stream take.
func SizeOfHeaders(headers map[string][]string) int {
	n := streamSize
	for name, values := range headers {
		for _, v := range values {
			n += len(name) + len(v) + fieldSize
		}
	}
	return n
}

// wait reserves what the stream of a caller may hold while it waits to be identified. Messages of unknown callers do
// not keep it out, since it may be a good one: it is rejected only if the waiting callers alone hold everything.
func (u *UnknownMemory) wait() error {
	if u.waiting.Add(MaxUnknown) > max(u.most, MaxUnknown) {
		u.waiting.Add(-MaxUnknown)
		return u.refusal()
	}
	u.used.Add(MaxUnknown)
	return nil
}

// waited releases what wait reserved.
func (u *UnknownMemory) waited() {
	u.used.Add(-MaxUnknown)
	u.waiting.Add(-MaxUnknown)
}

// UnknownTooLarge returns the error for a message that is too large for an unknown caller.
func UnknownTooLarge() *tokens.Error {
	return tokens.Fail(tokens.CodeExhausted, fault.ReasonTooLarge, "a request whose caller is not known before it is read holds at most 64 KiB")
}

// messageStream is the part of gRPC's transport stream that reads one message. A test checks that gRPC implements it.
type messageStream interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
	RecvCompress() string
	SetSendCompress(name string) error
}

var errNoMessageStream = errors.New("read a message: gRPC's stream has changed its form")

// Receive reads a known caller's message into v: at most maxTransportMessage bytes. gRPC's own read would send its
// error to the client at once, before the chain can map it or, for Envoy, turn it into a denial.
func (c *Chain) Receive(ctx context.Context, v any) error {
	_, err := c.receiveMessage(ctx, v, MaxTransportMessage, false)
	return received(err)
}

// receiveUnknown reads an unknown caller's message into v: at most MaxUnknown bytes, both on the wire and decompressed,
// from the shared budget. It returns how many bytes its caller has to give back.
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
		if stream.RecvCompress() != "" { // the response is not compressed: a compressor holds far more than the message
			_ = stream.SetSendCompress(encoding.Identity) // it fails only if the response has begun, and it has not
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
	if closer, ok := plain.(io.Closer); ok { // which returns it to its pool
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

// prefixes pools the five bytes before each message, which a read from the stream would otherwise allocate each time.
var prefixes = sync.Pool{New: func() any { return new([5]byte) }}

func readPrefix(s messageStream) (compressed bool, length uint32, err error) {
	header, _ := prefixes.Get().(*[5]byte)
	defer prefixes.Put(header)
	if err := s.ReadMessageHeader(header[:]); err != nil {
		return false, 0, err //nolint:wrapcheck // it is gRPC's, or io.EOF
	}
	return header[0] != 0, binary.BigEndian.Uint32(header[1:]), nil
}

// unfinished returns the error of a message that ended early: io.EOF is the end of a stream only between messages.
func unfinished(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
