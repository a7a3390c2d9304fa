package connection

import (
	"bytes"
	"errors"
	"net"
	"sync"
)

// What an unknown peer may make the server hold, in bytes. Share is for one connection, whatever it sends; it is made
// up of CallShare, aheadShare, and 28 KiB for goroutines, buffers and TLS.
const (
	// Share is what one connection without a good credential may cost. What it costs beyond comes out of the Memory of
	// all unknown peers before it is read.
	Share = 64 << 10
	// CallShare is for the headers and messages of the calls under way.
	CallShare = 12 << 10
	// aheadShare is for what no handler has taken over yet: the head of one request, and data over HTTP/2.
	aheadShare = 24 << 10
	// dataShare bounds the data in it: one frame, and a little.
	dataShare = MaxFrame + 1<<10
	// MaxFrame is the largest frame of HTTP/2, which is read whole. The protocol allows no smaller limit.
	MaxFrame = 16 << 10

	// fieldCost is what a header field takes besides its text.
	fieldCost = 128
	// maxUnknownRead bounds one read.
	maxUnknownRead = 4 << 10
	lenPreface     = 24 // of HTTP/2
)

// Memory is what all unknown peers may hold together, beyond their shares. Take returns an error if there is no room.
type Memory interface {
	Take(n int) error
	Give(n int)
}

var errNoMemory = errors.New("unknown peers hold all the memory that is for them")

// intake bounds what the server reads from an unknown peer, so that the bound holds however late the handlers run. At
// most one request's head is read ahead: over HTTP/2 no further frame is read until a handler has taken that request
// over, or the server has answered it. Data is read as far as handlers have asked for it.
type intake struct {
	mu      sync.Mutex
	changed sync.Cond // something that Read waits for may be there
	http2   bool
	over    bool // nothing is to be bounded any more: the peer is known, or the connection is closed

	headBytes, fields int // of the head that is being read or that no handler has taken over
	headTaken         int // of the Memory, for that head

	// HTTP/2.
	in, out   frames
	counter   fieldCounter
	prefix    int  // bytes before the fields of a frame: pad length and priority
	padded    bool // the next of them is the pad length
	rest      int  // bytes of fields that are still to come in a frame
	last      uint32
	pending   uint32 // the stream with that head; 0: there is none
	granted   int    // bytes that handlers have asked for
	delivered int    // bytes of data of the open streams
	open      map[uint32]int

	// HTTP/1.1.
	handled    bool // a handler has taken over the request
	lastRead   int  // the size of the last read, and its lines: the server may have read a part of the next head
	lastFields int
}

func (i *intake) start(http2 bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.changed.L = &i.mu
	i.http2, i.in.preface = http2, lenPreface
	if http2 {
		i.open = map[uint32]int{}
	}
}

// room waits until something may be read, and returns how much of n bytes.
func (i *intake) room(n int) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	for !i.over {
		may := min(n, maxUnknownRead)
		if !i.http2 {
			return may
		}
		_, tracked := i.open[i.in.stream()]
		switch f := &i.in; {
		case f.preface > 0:
			return min(may, f.preface)
		case f.have == 0 && i.pending != 0:
			may = 0
		case f.have < frameHead:
			return min(may, frameHead-f.have)
		case f.kind() == frameData && tracked:
			may = min(may, f.left, dataShare+i.granted-i.delivered)
		default:
			may = min(may, f.left)
		}
		if may > 0 {
			return may
		}
		i.changed.Wait()
	}
	return n
}

// took counts what was read. If it returns an error, there is no room for the head.
func (i *intake) took(p []byte, m Memory) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.over:
		return nil
	case i.http2:
		i.frames(p)
	default:
		if i.lastRead, i.lastFields = len(p), bytes.Count(p, []byte{'\n'}); !i.handled {
			i.headBytes += i.lastRead
			i.fields += i.lastFields
		}
	}
	return i.charge(m)
}

// charge takes what the head costs beyond the share.
func (i *intake) charge(m Memory) error {
	text := i.headBytes
	if text == 0 {
		return nil
	}
	if i.http2 {
		text += text / 5 * 3 // Huffman's code of HPACK takes 5 bits of a character
	}
	more := text + i.fields*fieldCost + max(i.delivered-i.granted, 0) - aheadShare - i.headTaken
	if more <= 0 || m == nil {
		return nil
	}
	if m.Take(more) != nil {
		return errNoMemory
	}
	i.headTaken += more
	return nil
}

// frames follows what the peer sends over HTTP/2.
func (i *intake) frames(p []byte) {
	for f := &i.in; len(p) > 0; {
		var began, whole bool
		var payload []byte
		began, whole, payload, p = f.next(p)
		switch kind := f.kind(); {
		case kind == frameData:
			if _, ok := i.open[f.stream()]; ok {
				i.open[f.stream()] += len(payload)
				i.delivered += len(payload)
			}
		case kind == frameReset && whole:
			i.ended(f.stream())
		case kind == frameHeaders || kind == frameContinuation:
			i.block(began, payload)
			if whole && f.flag(flagEndHeaders) {
				i.headComplete(f.stream())
			}
		}
	}
}

// block counts a part of a frame with header fields.
func (i *intake) block(began bool, payload []byte) {
	if f := &i.in; began {
		if i.rest, i.prefix, i.padded = f.left, 0, false; f.kind() == frameHeaders {
			if i.padded = f.flag(flagPadded); i.padded {
				i.prefix++
			}
			if f.flag(flagPriority) {
				i.prefix += 5
			}
			i.prefix = min(i.prefix, f.left)
		}
		return
	}
	i.headBytes += len(payload)
	for ; i.prefix > 0 && len(payload) > 0; i.prefix-- {
		if i.rest--; i.padded {
			i.rest, i.padded = max(i.rest-int(payload[0]), 0), false
		}
		payload = payload[1:]
	}
	n := min(i.rest, len(payload))
	i.rest -= n
	i.counter.add(payload[:n])
	i.fields = i.counter.n
}

// headComplete notes that the head of a request, or the trailer of one, was read.
func (i *intake) headComplete(stream uint32) {
	i.counter = fieldCounter{}
	if stream <= i.last {
		return // a trailer; it is counted until the next request is taken over
	}
	i.last, i.pending = stream, stream
	i.open[stream] = 0
}

// ended notes that nothing more is held for a stream's data.
func (i *intake) ended(stream uint32) {
	i.delivered -= i.open[stream]
	delete(i.open, stream)
	i.changed.Broadcast()
}

// wrote follows what the server sends over HTTP/2.
func (i *intake) wrote(p []byte, m Memory) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over || !i.http2 {
		return
	}
	for f := &i.out; len(p) > 0; {
		var began bool
		began, _, _, p = f.next(p)
		if !began {
			continue
		}
		kind, stream := f.kind(), f.stream()
		if kind == frameReset || (kind == frameHeaders || kind == frameData) && f.flag(flagEndStream) {
			i.ended(stream)
		}
		if stream == i.pending && (kind == frameReset || kind == frameHeaders) {
			i.handle(m)
		}
	}
}

// handle notes that a handler has taken over the request whose head was read last. i.mu must be held.
func (i *intake) handle(m Memory) {
	if i.headTaken > 0 {
		m.Give(i.headTaken)
	}
	i.headBytes, i.fields, i.headTaken, i.pending, i.handled = 0, 0, 0, 0, true
	i.changed.Broadcast()
}

// end ends all bounds.
func (i *intake) end(m Memory) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.over {
		i.handle(m)
		i.over, i.open = true, nil
	}
}

// Handled records that a handler has taken over the request whose head was read last: from now on the handler's call
// is charged for it. c may be nil: an unknown connection.
func (c *Connection) Handled() {
	if c == nil || c.Known.Load() {
		return
	}
	c.intake.mu.Lock()
	defer c.intake.mu.Unlock()
	if !c.intake.over {
		c.intake.handle(c.gate.Memory)
	}
}

// Refused records that the request whose head was read last was refused. Over HTTP/1.1 its body is then read, to be
// dropped; over HTTP/2 nothing is read until the response is written. c may be nil.
func (c *Connection) Refused() {
	if c != nil && !c.intake.http2 {
		c.Handled()
	}
}

// Grant lets n more bytes of data be read from an unknown peer: a handler is charged for them. A negative n takes them
// back. c may be nil.
func (c *Connection) Grant(n int) {
	if c == nil || c.Known.Load() {
		return
	}
	c.intake.mu.Lock()
	defer c.intake.mu.Unlock()
	if !c.intake.over {
		c.intake.granted += n
		c.intake.changed.Broadcast()
	}
}

// Idle records that the request of an HTTP/1.1 connection has been answered: the next head is counted.
func Idle(c net.Conn) {
	own, ok := c.(*Connection)
	if !ok || own.Known.Load() {
		return
	}
	i := &own.intake
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.http2 {
		i.handled, i.headBytes, i.fields = false, i.lastRead, i.lastFields
	}
}
