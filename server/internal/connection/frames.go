package connection

import "encoding/binary"

// The parts of HTTP/2 (RFC 9113 section 4.1 and 6) that an intake looks at.
const (
	frameHead = 9

	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameContinuation = 9

	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// frames follows the frames of one direction of an HTTP/2 connection.
type frames struct {
	preface int // bytes of the client's preface that are still to come
	head    [frameHead]byte
	have    int // bytes of head
	left    int // bytes of the payload that are still to come
}

func (f *frames) kind() byte           { return f.head[3] }
func (f *frames) flag(which byte) bool { return f.head[4]&which != 0 }
func (f *frames) stream() uint32       { return binary.BigEndian.Uint32(f.head[5:]) &^ (1 << 31) }

// next follows p up to the next step: began reports that a frame's head is complete, payload is a part of the payload,
// and whole reports that the frame is complete.
func (f *frames) next(p []byte) (began, whole bool, payload, rest []byte) {
	switch {
	case f.preface > 0:
		n := min(len(p), f.preface)
		f.preface -= n
		return false, false, nil, p[n:]
	case f.have < frameHead:
		n := copy(f.head[f.have:], p)
		if f.have += n; f.have < frameHead {
			return false, false, nil, p[n:]
		}
		f.left = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
		began, rest = true, p[n:]
	default:
		n := min(len(p), f.left)
		f.left -= n
		payload, rest = p[:n], p[n:]
	}
	if f.left == 0 {
		f.have, whole = 0, true
	}
	return began, whole, payload, rest
}
