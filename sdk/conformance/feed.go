package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
)

// feed takes the events of a watch from what comes of a response: messages of gRPC, or server-sent events.
type feed struct {
	grpc bool
	rest []byte // of an event that has not come whole
}

// take returns the events that are whole by now.
func (f *feed) take(came []byte) (events [][]byte) {
	f.rest = append(f.rest, came...)
	for {
		n := f.whole()
		if n == 0 {
			return events
		}
		events = append(events, bytes.Clone(f.rest[:n]))
		f.rest = f.rest[n:]
	}
}

// whole returns the length of the event that has come whole; 0: none has.
func (f *feed) whole() int {
	if !f.grpc {
		if end := bytes.Index(f.rest, []byte("\n\n")); end >= 0 {
			return end + 2
		}
		return 0
	}
	if len(f.rest) < grpcHead {
		return 0
	}
	if n := grpcHead + int(binary.BigEndian.Uint32(f.rest[1:])); n <= len(f.rest) {
		return n
	}
	return 0
}

// grpcHead is the length of what precedes each message of gRPC: a flag and a length.
const grpcHead = 5

// moreOfGRPC is the field `more` of WatchInvalidationsResponse, true.
var moreOfGRPC = []byte{9 << 3, 1}

// hasMore reports whether an event says that more changes are known and follow.
func (f *feed) hasMore(event []byte) bool {
	if !f.grpc {
		var says struct{ More bool }
		_ = json.Unmarshal(dataOf(event), &says) // what is no JSON says nothing
		return says.More
	}
	// Its fields are varints, or have a length.
	for rest := event[grpcHead:]; len(rest) > 0; {
		tag, n := binary.Uvarint(rest)
		value, m := binary.Uvarint(rest[max(0, n):])
		if n <= 0 || m <= 0 {
			return false
		}
		if tag == uint64(moreOfGRPC[0]) {
			return value != 0
		}
		rest = rest[n+m:]
		if tag&7 == 2 {
			rest = rest[min(value, uint64(len(rest))):]
		}
	}
	return false
}

// withMore returns an event that says that more changes are known and follow.
func (f *feed) withMore(event []byte) []byte {
	if f.grpc {
		out := append(bytes.Clone(event), moreOfGRPC...)
		binary.BigEndian.PutUint32(out[1:], uint32(len(out)-grpcHead))
		return out
	}
	data := dataOf(event)
	says := map[string]json.RawMessage{}
	if json.Unmarshal(data, &says) != nil {
		return event
	}
	says["more"] = json.RawMessage("true")
	text, err := json.Marshal(says)
	if err != nil {
		return event
	}
	return bytes.Replace(event, data, text, 1)
}

// dataOf returns the data of a server-sent event that has them in one line, as those of patd have.
func dataOf(event []byte) []byte {
	_, data, _ := bytes.Cut(event, []byte("\ndata: "))
	data, _, _ = bytes.Cut(data, []byte("\n"))
	return data
}
