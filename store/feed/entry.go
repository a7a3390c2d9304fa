package feed

import (
	"encoding/binary"
	"hash/fnv"
	"io"

	"patd/tokens"
)

// Entry is an entry of the change feed.
type Entry struct {
	tokens.Change
	// Mark tells the entry from one at the same position of another history, as after a restore. It is never 0.
	Mark uint64
	// StartOver makes every cache empty and every position of a watcher lost: any record may have changed.
	StartOver bool
}

// Heads are the newest positions at one moment.
type Heads struct {
	// Event is the newest position of the audit log, and Change that of the change feed.
	Event, Change int64
	// Changed reports whether the audit log has had a change since the position that was asked about. Refused attempts
	// are none: they have no entry in the feed.
	Changed bool
}

// Mark is the mark of an entry that was written at a time, in microseconds of Unix time.
func Mark(us int64, c tokens.Change) uint64 {
	h := fnv.New64a()
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(us))
	binary.BigEndian.PutUint64(b[8:], uint64(c.TokenID))
	_, _ = h.Write(b[:])
	_, _ = io.WriteString(h, c.User+"\x00"+c.Service)
	return max(h.Sum64(), 1)
}

// ChangeOf is what the entry of an audit event names: the token, or else the user, or else the service.
func ChangeOf(e tokens.Event) tokens.Change {
	switch {
	case e.TokenID != 0:
		return tokens.Change{TokenID: e.TokenID}
	case e.User != "":
		return tokens.Change{User: e.User}
	default:
		return tokens.Change{Service: e.Service}
	}
}
