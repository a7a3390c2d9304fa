package store

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

// Options adjust a Store. The zero value is sensible.
type Options struct {
	// FlushInterval is how long uses that Touch notes are gathered before they are written; 0: 5 s.
	FlushInterval time.Duration
	// Now is the clock for the store's own housekeeping; nil: the system's.
	Now func() time.Time
	// Logger hears of failures in the background; nil: nobody does.
	Logger *slog.Logger
	// Readers is the number of connections for lookups, and of those for listing; 0: one per processor, 2 to 8.
	Readers int
	// BusyTimeout is how long to wait for another process that is writing; 0: 5 s.
	BusyTimeout time.Duration

	pragmas    []string                    // further ones for the writer, for tests
	beforeFeed func(context.Context) error // put before each look at the change feed, for tests
}

func (o Options) withDefaults() Options {
	if o.FlushInterval <= 0 {
		o.FlushInterval = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Readers <= 0 {
		o.Readers = min(max(runtime.GOMAXPROCS(0), 2), 8)
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 5 * time.Second
	}
	return o
}

// Store keeps patd's records in a database. It is safe for concurrent use, and several processes may have the same
// database open.
type Store struct {
	path    string
	options Options
	lookups *pool // for point lookups, which nothing slow may hold up
	views   *pool
	writer  *pool
	group   *group // who uses the writer

	feed     *Feed
	sequence atomic.Uint64
	keyNames atomic.Pointer[map[int64]string]
	seen     *seenBuffer

	done      chan struct{} // closed: no new work
	loop      sync.WaitGroup
	stopLoop  context.CancelFunc
	closeOnce sync.Once
	closeErr  error

	loopCtx    context.Context // of the store's goroutines
	followOnce sync.Once
}

var _ tokens.Store = (*Store)(nil)

// Open opens the store that url names, sqlite:<path>, makes it when there is none, and brings its schema up to date.
// A file that is not a patd database, or has a newer schema, is refused and not changed.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	path, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if err := createFile(path); err != nil {
		return nil, err
	}
	if err := migrate(ctx, path, o); err != nil {
		return nil, err
	}
	s := &Store{path: path, options: o, done: make(chan struct{}), seen: newSeenBuffer()}
	s.keyNames.Store(&map[int64]string{})
	s.feed = newFeed(s)
	if s.writer, err = newPool(writerDSN(path, o), 1, s.done); err != nil {
		return nil, err
	}
	s.group = &group{writer: s.writer}
	if s.lookups, err = newPool(readerDSN(path, o), o.Readers, s.done); err == nil {
		s.views, err = newPool(readerDSN(path, o), o.Readers, s.done)
	}
	if err == nil {
		err = s.Ready(ctx)
	}
	if err == nil {
		err = s.catchUp(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.closePools())
	}
	s.loopCtx, s.stopLoop = context.WithCancel(context.WithoutCancel(ctx))
	s.loop.Go(func() { s.writeBehind(s.loopCtx) })
	return s, nil
}

const readReady = `SELECT coalesce(max(seq), 0) FROM changes`

// Ready reads from the database, and says what is wrong when that fails.
func (s *Store) Ready(ctx context.Context) error {
	var seq int64
	return s.lookup(ctx, "check that the store answers", func(ctx context.Context, c *conn) error {
		return c.one(ctx, readReady, []any{&seq})
	})
}

const checkpoint = `PRAGMA wal_checkpoint(TRUNCATE)`

// Close writes what Touch noted, waits for the calls under way and for the store's goroutines, and closes the
// database. Calls that come later fail. Its error says that noted uses could not be written, or that the database
// did not close; a second call answers the same.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.stopLoop()
		s.loop.Wait()
		ctx := context.Background()
		flushErr := s.Flush(ctx)
		if c, err := s.writer.get(ctx); err == nil {
			// Best effort: the last connection to close does it too, and what remains is replayed at the next start.
			_, _ = c.exec(ctx, checkpoint)
			s.writer.put(c)
		}
		s.closeErr = errors.Join(flushErr, s.closePools())
	})
	return s.closeErr
}

// closePools closes the writer last: the connection that checkpoints at the end must be able to write.
func (s *Store) closePools() error {
	close(s.done)
	s.group.close()
	var errs []error
	for _, p := range []*pool{s.lookups, s.views, s.writer} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	return errors.Join(errs...)
}

// lookup runs fn on a connection for point lookups. The wait for one heeds ctx; the statements, which take
// microseconds, get a context that does not end, for to heed it costs the driver a goroutine each.
func (s *Store) lookup(ctx context.Context, op string, fn func(context.Context, *conn) error) error {
	c, err := s.lookups.get(ctx)
	if err != nil {
		return fault(op, err)
	}
	defer s.lookups.put(c)
	return fault(op, fn(context.WithoutCancel(ctx), c))
}
