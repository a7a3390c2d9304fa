package main

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
)

// messageOf returns a message as gRPC sends it.
func messageOf(t *testing.T, m *patdv1.WatchInvalidationsResponse) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, grpcHead)
	binary.BigEndian.PutUint32(out[1:], uint32(len(body)))
	return append(out, body...)
}

// TestEventsOfAFeedAreTakenWhole takes two events in pieces of any size, of which the second says that more follow, and
// has the first one say so.
func TestEventsOfAFeedAreTakenWhole(t *testing.T) {
	t.Parallel()
	first := &patdv1.WatchInvalidationsResponse{Sequence: 300, History: "HH", Users: []string{"HH", ""}, ElapsedMs: 1}
	last := &patdv1.WatchInvalidationsResponse{Sequence: 301, History: "h", TokenIds: []string{"a"}, More: true}
	both := &patdv1.WatchInvalidationsResponse{
		Sequence: 300, History: "HH", Users: []string{"HH", ""}, ElapsedMs: 1, More: true,
	}
	for name, c := range map[string]struct {
		grpc              bool
		first, last, both string
	}{
		"gRPC": {true, string(messageOf(t, first)), string(messageOf(t, last)), string(messageOf(t, both))},
		"server-sent events": {
			false,
			"retry: 1\nevent: heartbeat\nid: 7-h\ndata: {\"sequence\":\"7\", \"more\": false}\n\n",
			"event: invalidations\nid: 8-h\ndata: {\"sequence\":\"8\",\"more\":true}\n\n",
			"retry: 1\nevent: heartbeat\nid: 7-h\ndata: {\"more\":true,\"sequence\":\"7\"}\n\n",
		},
	} {
		for size := 1; size <= len(c.first+c.last); size++ {
			f := &feed{grpc: c.grpc}
			var got []string
			for rest := []byte(c.first + c.last); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				for _, event := range f.take(rest[:min(size, len(rest))]) {
					got = append(got, string(event))
				}
			}
			if diff := cmp.Diff([]string{c.first, c.last}, got); diff != "" || len(f.rest) > 0 {
				t.Fatalf("%s in pieces of %d: %s", name, size, diff)
			}
		}
		f := &feed{grpc: c.grpc}
		if f.hasMore([]byte(c.first)) || !f.hasMore([]byte(c.last)) {
			t.Errorf("%s: which one has more", name)
		}
		if got := f.withMore([]byte(c.first)); !f.hasMore(got) || string(got) != c.both {
			t.Errorf("%s: with more: %q, want %q", name, got, c.both)
		}
	}
}
