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
	leastConnections     = 4
	// UnknownRetryAfter is the Retry-After for a caller when no memory is left.
	UnknownRetryAfter = time.Second
	// ReasonUnknownMemory is the reason of that error.
	ReasonUnknownMemory = "UNKNOWN_CALLER_MEMORY"
)

// UnknownMemory bounds the memory that all unknown callers hold together, in bytes. It never rejects a known caller.
// Each connection without a good credential has a share of its own, see connection.Share; they are limited in number by
// ConnectionsOf, to half of the bound. The other half, most, is for what exceeds those shares.
type UnknownMemory struct {
	most    int64
	used    atomic.Int64
	refused prometheus.Counter
}

var _ connection.Memory = (*UnknownMemory)(nil)

// ConnectionsOf returns how many connections without a good credential each of the two listeners may have, if all
// unknown callers together may hold so many bytes: a few at least, for a probe. 0: the default.
func ConnectionsOf(unknown int64) int {
	return max(int(min(ofUnknown(unknown)/4/connection.Share, 1<<20)), leastConnections)
}

func ofUnknown(bytes int64) int64 {
	if bytes <= 0 {
		return defaultUnknownMemory
	}
	return bytes
}

// NewUnknownMemory makes the budget; 0: the default.
func NewUnknownMemory(bytes int64, m *metrics.Set) *UnknownMemory {
	u := &UnknownMemory{most: ofUnknown(bytes) / 2, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "patd_unknown_caller_refusals_total",
		Help: "Requests refused because unknown callers together held --unknown-caller-memory.",
	})}
	m.Registry.MustRegister(u.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "patd_unknown_caller_memory_bytes",
		Help: "Bytes of messages and headers that unknown callers hold beyond the shares of their connections.",
	}, func() float64 { return float64(u.used.Load()) }))
	return u
}

// Apart returns a budget of its own, of so many bytes, for one kind of message. Its refusals are counted with the
// others.
func (u *UnknownMemory) Apart(most int64) *UnknownMemory {
	return &UnknownMemory{most: most, refused: u.refused}
}

// Take reserves n bytes. If it returns an error, nothing is reserved.
func (u *UnknownMemory) Take(n int) error {
	if u.take(n) {
		return nil
	}
	return u.refusal()
}

func (u *UnknownMemory) take(n int) bool {
	if u.used.Add(int64(n)) <= u.most {
		return true
	}
	u.used.Add(-int64(n))
	return false
}

func (u *UnknownMemory) refusal() *fault.TooOften {
	u.refused.Inc()
	return &fault.TooOften{
		Refusal: tokens.Fail(
			tokens.CodeExhausted,
			ReasonUnknownMemory,
			"callers without a good credential hold all the memory that is for them; try again in "+fault.WholeSeconds(
				UnknownRetryAfter,
			)+" s",
		),
		After: UnknownRetryAfter,
	}
}

// Give releases n reserved bytes.
func (u *UnknownMemory) Give(n int) { u.used.Add(-int64(n)) }

const (
	// streamSize and fieldSize are the overhead of a stream and of each of its headers, besides their text.
	streamSize = 4 << 10
	fieldSize  = 112
)

// Held is the memory that a call of an unknown caller holds: out of the share of its connection, as long as that
// lasts, and then out of the budget. The zero Held holds nothing and charges nothing.
type Held struct {
	memory      *UnknownMemory
	connection  *connection.Connection // nil: unknown
	own, shared int
	granted     int
}

// Hold returns the memory of a call on a connection, which may be nil.
func (u *UnknownMemory) Hold(c *connection.Connection) Held { return Held{memory: u, connection: c} }

// Head reserves the memory of a request's headers and stream. If its connection has shown a good credential, it
// reserves nothing.
func (h *Held) Head(n int) *fault.TooOften {
	if h.connection == nil || h.connection.Known.Load() {
		return nil
	}
	if !h.take(n) {
		h.connection.Refused()
		return h.memory.refusal()
	}
	h.connection.Handled()
	return nil
}

// Data reserves n bytes of a message. As much may then be read from the connection.
func (h *Held) Data(n int) *fault.TooOften {
	if !h.take(n) {
		return h.memory.refusal()
	}
	n += lenPrefix
	h.granted += n
	h.connection.Grant(n)
	return nil
}

func (h *Held) take(n int) bool {
	if c := h.connection; c != nil {
		if c.Held.Add(int64(n)) <= connection.CallShare {
			h.own += n
			return true
		}
		c.Held.Add(-int64(n))
	}
	if !h.memory.take(n) {
		return false
	}
	h.shared += n
	return true
}

// Done releases the memory of messages that were read. What follows them on the stream may be read.
func (h *Held) Done(n int) {
	back := min(n, h.shared)
	h.give(n-back, back)
}

func (h *Held) give(own, shared int) {
	h.own, h.shared = h.own-own, h.shared-shared
	if own != 0 {
		h.connection.Held.Add(-int64(own))
	}
	if shared != 0 {
		h.memory.Give(shared)
	}
}

// Release releases all that is held.
func (h *Held) Release() {
	h.give(h.own, h.shared)
	if h.granted != 0 {
		h.connection.Grant(-h.granted)
		h.granted = 0
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

// UnknownTooLarge returns the error for a message that is too large for an unknown caller.
func UnknownTooLarge() *tokens.Error {
	return tokens.Fail(
		tokens.CodeExhausted,
		fault.ReasonTooLarge,
		"a request whose caller is not known before it is read holds at most 64 KiB",
	)
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
	return received(c.receiveMessage(ctx, v, MaxTransportMessage, nil))
}

// receiveUnknown reads an unknown caller's message into v: at most MaxUnknown bytes, both on the wire and decompressed.
// The caller releases what is then held.
func (c *Chain) receiveUnknown(ctx context.Context, v any, held *Held) error {
	return c.receiveMessage(ctx, v, MaxUnknown, held)
}

func (c *Chain) receiveMessage(ctx context.Context, v any, most int, held *Held) error {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(messageStream)
	if !ok {
		return errNoMessageStream
	}
	_, err := c.receiveFrom(stream, v, most, held)
	return err
}

// receiveFrom reads a message, and returns how many bytes it has added to held. held is nil if the caller is known.
func (c *Chain) receiveFrom(stream messageStream, v any, most int, held *Held) (taken int, err error) {
	tooMuch := TooLarge
	if held != nil {
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
	if held != nil {
		if stream.RecvCompress() != "" { // the response is not compressed: a compressor holds far more than the message
			_ = stream.SetSendCompress(encoding.Identity) // it fails only if the response has begun, and it has not
		}
		taken = int(length)
		if compressed {
			taken += most
		}
		if full := held.Data(taken); full != nil {
			return 0, full
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
var prefixes = sync.Pool{New: func() any { return new([lenPrefix]byte) }}

// lenPrefix is the size of what stands before each message.
const lenPrefix = 5

func readPrefix(s messageStream) (compressed bool, length uint32, err error) {
	header, _ := prefixes.Get().(*[lenPrefix]byte)
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
