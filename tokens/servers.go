package tokens

import "context"

// StoreServer is another server of the store, as this one finds it there.
type StoreServer struct {
	ID   string
	Name string // for people
	// Ended reports that it left, or was counted as gone. From then on no reading of the change feed renews its trust in
	// what it has in memory: what it read before may. It does not go on.
	Ended bool
	// Left reports that it ended in order: from then on it answers no call.
	Left bool
	// Unknown reports a program that keeps no record of itself: one of an earlier version. It is never asked.
	Unknown bool

	Asks     uint64 // the number of its latest request
	Answered uint64 // the number of its latest request that this server has answered
	Answers  uint64 // the number of this server's latest request that it has answered
}

// Servers are the servers of the store, as they know one another through it. One goroutine at a time may call its
// methods.
//
// A server is in the store before it first reads the change feed, and trusts its memory for a bounded time after each
// reading that found it there and not ended. So a server that is not returned after a change was committed, or later
// on, has read the change before it trusts anything.
type Servers interface {
	// Others returns the other servers, read after the call has begun. One that has ended is returned until End.
	Others(ctx context.Context) ([]StoreServer, error)
	// Ask makes a request to all others, and returns its number, which is above those before.
	Ask(ctx context.Context) (number uint64, err error)
	// Answer answers the requests of others up to a number, by their id.
	Answer(ctx context.Context, upTo map[string]uint64) error
	// End counts servers as gone that do not answer, and forgets those that ended so long ago that they trust nothing.
	End(ctx context.Context, gone, forget []string) error
	// Changed returns a channel that is closed when something of this has changed since the call.
	Changed() <-chan struct{}
}
