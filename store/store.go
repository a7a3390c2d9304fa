package store

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"patd/store/feed"
	"patd/store/internal/db"
	"patd/store/usage"
	"patd/tokens"
)

// Options adjust a Store. The zero value is sensible.
type Options struct {
	// FlushInterval is how long it takes until all recorded uses are written, a part at a time, and an eighth of how
	// long when they are many; 0: 5 s.
	FlushInterval time.Duration
	// Now is the clock for the store's own housekeeping; nil: the system's.
	Now func() time.Time
	// Logger logs failures in the background; nil: they are not logged.
	Logger *slog.Logger
	// Connections is the number of connections for lookups, and of those for listing; 0: with SQLite one per processor,
	// 2 to 8, and with PostgreSQL, where a lookup waits for the network, 8. PostgreSQL has three more from each
	// process.
	Connections int
	// BusyTimeout is how long to wait for another process that is writing, or to be connected; 0: 5 s.
	BusyTimeout time.Duration
	// StatementTimeout is how long PostgreSQL may take for a statement of a lookup or a change, and a twelfth of what
	// one of a list may take; 0: 5 s.
	StatementTimeout time.Duration
	// Password returns that of PostgreSQL, for each connection; nil: it is in the URL, or there is none.
	Password func() (string, error)

	// Version is that of the program, which PostgreSQL shows in the names of connections; empty: it does not.
	Version string

	// Reserve is how many bytes of a file's disk are set aside beside it for changes that only take away, such as
	// revocations; 0: none, and one that is there is used and not restored. PostgreSQL has none.
	Reserve int64

	// NoSync is for tests and measurements: a commit in a file is not put on disk before it returns. It outlives the
	// process, and a power loss can damage the file.
	NoSync bool

	pragmas    []string                    // further ones for the writer, for tests
	beforeFeed func(context.Context) error // put before each reading of the change feed, for tests
	usesRoom   int64                       // how many last uses may wait, for tests; 0: a million
	// copied is put between the writing of a copy and its verification, for tests.
	copied func(context.Context, *db.Conn) error
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
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 5 * time.Second
	}
	if o.StatementTimeout <= 0 {
		o.StatementTimeout = 5 * time.Second
	}
	return o
}

// Store keeps patd's records in a database. It is safe for concurrent use, and several processes may have the same
// database open.
type Store struct {
	path    string          // of SQLite's file
	config  *pgx.ConnConfig // of PostgreSQL
	options Options
	dialect *db.Dialect
	lookups *db.Pool // for point lookups, which nothing slow may hold up
	news    *db.Pool // for the change feed, which lookups that wait for the network must not hold up; nil: lookups
	views   *db.Pool
	writer  *db.Pool
	group   *group // who uses the writer

	failing       failing
	member        atomic.Pointer[Membership] // nil: it is none of the servers
	feed          *feed.Feed
	deletedEvents atomic.Uint64

	keyNames atomic.Pointer[map[int64]string]
	rows     rowGuard
	uses     *usage.Buffer

	done      chan struct{} // closed: no new work
	loop      sync.WaitGroup
	stopLoop  context.CancelFunc
	closeOnce sync.Once
	closeErr  error

	loopCtx    context.Context // of the store's goroutines
	followOnce sync.Once
	followed   atomic.Bool
}

var (
	_ tokens.Store     = (*Store)(nil)
	_ tokens.RowKeeper = (*Store)(nil)
)

// Open opens the store that url names: sqlite:<path>, or postgres://….
//
// A file is made when there is none, and its schema brought up to date. One that is not a patd database, or has a newer
// schema whose minimum compatible version this program is below, is refused and not changed. PostgreSQL, which others
// may be using, must have a schema that this program knows (see Migrate).
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	open, rest, err := engine(url)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	s, err := openReady(ctx, open, rest, o)
	if db.IsFull(err) && !IsPostgres(url) && o.newReserve(rest).Release() {
		s, err = openReady(ctx, open, rest, o)
	}
	if err != nil {
		return nil, err
	}
	s.loopCtx, s.stopLoop = context.WithCancel(context.WithoutCancel(ctx))
	s.loop.Go(func() { s.writeBehind(s.loopCtx) })
	s.loop.Go(func() { s.probeChanges(s.loopCtx) })
	if s.group.reserve != nil && o.Reserve > 0 {
		s.group.reserve.Make()
		s.loop.Go(func() { s.group.reserve.Watch(s.loopCtx) })
	}
	return s, nil
}

// openReady opens a store and reads from it.
func openReady(ctx context.Context, open func(context.Context, string, Options) (*Store, error), rest string,
	o Options) (*Store, error) {
	s, err := open(ctx, rest, o)
	if err != nil {
		return nil, err
	}
	if err = s.Ready(ctx); err == nil {
		err = errors.Join(s.catchUp(ctx), s.readSealed(ctx))
	}
	if err != nil {
		return nil, errors.Join(err, s.closePools())
	}
	return s, nil
}

// engine finds out which database a URL is of.
func engine(url string) (open func(context.Context, string, Options) (*Store, error), rest string, err error) {
	scheme, path, ok := strings.Cut(url, ":")
	switch {
	case !ok:
		return nil, "", errors.New("open the store: its URL must be sqlite:<path> or postgres://…")
	case IsPostgres(url):
		return openPostgres, url, nil
	case scheme == "sqlite":
		return openSQLite, path, nil
	default:
		return nil, "", errors.New("open the store: the scheme of its URL is unknown; " +
			"use sqlite:<path> or postgres://…")
	}
}

// IsPostgres reports whether a URL is one of PostgreSQL.
func IsPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

func newStore(o Options, d *db.Dialect) *Store {
	s := &Store{options: o, dialect: d, done: make(chan struct{}), uses: usage.NewBuffer(o.usesRoom)}
	s.group = &group{store: s}
	s.rows.logger, s.rows.short = o.Logger, !d.Remote
	s.failing.wake = make(chan struct{}, 1)
	s.keyNames.Store(&map[int64]string{})
	s.feed = feed.New(feed.Config{Source: changes{s}, Now: o.Now, Logger: o.Logger})
	return s
}

const readReady = `SELECT coalesce(max(seq), 0) FROM changes`

// Ready reads from the database, and says what is wrong when that fails. Unlike a lookup it ends with ctx at the
// latest, at the cost of a connection.
func (s *Store) Ready(ctx context.Context) error {
	const op = "check the store"
	var seq int64
	if !s.dialect.Remote {
		return s.lookup(ctx, op, func(ctx context.Context, c *db.Conn) error {
			return c.One(ctx, readReady,
				[]any{&seq})
		})
	}
	return db.Fault(op, s.lookups.Use(ctx, func(c *db.Conn) error { return c.One(ctx, readReady, []any{&seq}) }))
}

// Close writes recorded uses, waits for the calls under way and for the store's goroutines, and closes the
// database. Calls that come later fail. Its error says that noted uses could not be written, or that the database
// did not close; a second call returns the same.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.stopLoop()
		s.loop.Wait()
		ctx := context.Background()
		flushErr := s.Flush(ctx)
		if m := s.member.Load(); m != nil {
			m.leave(ctx)
		}
		if c, err := s.writer.Get(ctx); err == nil {
			if s.dialect.AtClose != "" {
				_, _ = c.Exec(ctx, s.dialect.AtClose)
			}
			s.writer.Put(c)
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
	for _, p := range []*db.Pool{s.lookups, s.news, s.views, s.writer} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// lookup runs fn on a connection for point lookups, perhaps twice. The wait for one heeds ctx; the statements get a
// context that does not end: they take microseconds with SQLite, whose driver would need a goroutine each to heed it,
// and with PostgreSQL a caller who goes away would cost a connection.
func (s *Store) lookup(ctx context.Context, op string, fn func(context.Context, *db.Conn) error) error {
	within := context.WithoutCancel(ctx)
	return db.Fault(op, s.lookups.Use(ctx, func(c *db.Conn) error { return fn(within, c) }))
}
