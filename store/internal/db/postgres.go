package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/stdlib"

	"patd/internal/loopback"
)

const (
	// schemaName is the schema that patd's tables are in, unless the URL says otherwise by search_path: a database may
	// be another program's too.
	schemaName = "patd"

	// idleInTransaction is how long a transaction may stand still before the server ends it: the machine that had it
	// may be gone, and the others wait for it.
	idleInTransaction = 3 * time.Second
	// viewIdle is the same for those who only read, and hold up no other.
	viewIdle = time.Minute

	changesChannel = "patd_changes"
	// ListenChanges is what a connection runs to be notified of changes.
	ListenChanges = `LISTEN ` + changesChannel
)

// LockWriter makes one writer wait for another, whichever process it is in: so a transaction reads what no other
// changes meanwhile, as with SQLite, and positions in the change feed are in the order of commits. Without it a
// position could be taken before another and committed after it, and a poll of the feed in between would never see it.
// The server releases the lock when the commit can be seen. It is the lock of a table, which takes a right to the
// table; an advisory lock is open to any role that may connect.
const LockWriter = `LOCK TABLE writers IN EXCLUSIVE MODE`

// PostgresDialect is that of PostgreSQL.
func PostgresDialect() *Dialect {
	return &Dialect{
		Driver: "pgx/v5", form: PostgresForm,
		BeginRead: []string{`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`},
		// Each statement reads what is committed by then.
		BeginWrite: []string{`BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE`, LockWriter},
		Announce:   `NOTIFY ` + changesChannel,
		Remote:     true,
	}
}

// ParsePostgresURL reads the URL of a database, which may hold a password: no error repeats it. Away from this machine
// the server must prove who it is, unless sslmode says otherwise.
func ParsePostgresURL(text string) (*pgx.ConnConfig, error) {
	malformed := errors.New("open the store: the database URL is not one; " +
		"it looks like postgres://user@host:5432/database")
	u, err := url.Parse(text)
	if err != nil {
		return nil, malformed
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, malformed
	}
	if !q.Has("search_path") {
		q.Set("search_path", schemaName)
	}
	if path := q.Get("search_path"); !schemaForm.MatchString(path) || strings.HasPrefix(path, "pg_") {
		return nil, errors.New("open the store: search_path in the database URL must name one schema, " +
			"in small letters, digits and underscores")
	}
	given := q.Get("sslmode") != "" || os.Getenv("PGSSLMODE") != ""
	if !given {
		q.Del("sslmode")
	}
	config, err := parseURL(u, q)
	if err == nil && !given && !onThisMachine(config) {
		q.Set("sslmode", "verify-full")
		config, err = parseURL(u, q)
	}
	if err != nil {
		return nil, err
	}
	// Of several hosts the one that takes changes, also after a failover: a standby might have missed some.
	config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	// Whatever the role or the database would have otherwise.
	config.RuntimeParams["client_encoding"] = "UTF8"
	config.RuntimeParams["default_transaction_isolation"] = "read committed"
	return config, nil
}

var schemaForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func parseURL(u *url.URL, q url.Values) (*pgx.ConnConfig, error) {
	whole := *u
	whole.RawQuery = q.Encode()
	config, err := pgx.ParseConfig(whole.String())
	if err != nil {
		return nil, errors.New("open the store: the database URL has a part that PostgreSQL does not know, " +
			"or names a file that cannot be read")
	}
	return config, nil
}

// onThisMachine reports whether every host that may be connected to is this machine, wherever its name came from.
func onThisMachine(config *pgx.ConnConfig) bool {
	hosts := []string{config.Host}
	for _, other := range config.Fallbacks {
		hosts = append(hosts, other.Host)
	}
	return !slices.ContainsFunc(hosts, func(host string) bool { return !loopback.HostOrSocket(host) })
}

// Settings are what connections need to know, beside where the database is.
type Settings struct {
	// BusyTimeout is how long to wait for another process that is writing, or to be connected.
	BusyTimeout time.Duration
	// Password returns that of PostgreSQL, for each connection; nil: it is in the URL, or there is none.
	Password func() (string, error)
	// Pragmas are further ones for SQLite's writer.
	Pragmas []string
	// Version is that of the program, which PostgreSQL shows in the names of connections; empty: it does not.
	Version string
}

// name is what a connection is called in PostgreSQL's lists. It cuts off what is longer than 63 bytes.
func (o Settings) name(what string) string {
	if o.Version == "" {
		return what
	}
	return what + " " + o.Version
}

// PostgresPool makes a pool. A statement may take as long as limit, by the server's clock, and a little longer by ours.
// One that heeds its caller's context ends with it too; the server is asked to give up then, and the connection is
// kept.
func PostgresPool(
	config *pgx.ConnConfig, d *Dialect, n int, limit time.Duration, heeds bool, o Settings, done <-chan struct{},
) *Pool {
	config = config.Copy()
	idle := idleInTransaction
	if heeds {
		idle = viewIdle
		config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: time.Second}
		}
	}
	for name, value := range map[string]time.Duration{
		"lock_timeout": min(o.BusyTimeout, limit*4/5), "statement_timeout": limit,
		"idle_in_transaction_session_timeout": idle,
	} {
		config.RuntimeParams[name] = Milliseconds(value)
	}
	config.RuntimeParams["application_name"] = o.name("patd")
	config.ConnectTimeout = o.BusyTimeout
	return newPool(d, OpenPostgres(config, o), n, limit+time.Second, done)
}

// OpenPostgres makes the connections of a pool, each with the password of the moment and the settings of the
// configuration.
func OpenPostgres(config *pgx.ConnConfig, o Settings) *sql.DB {
	config = config.Copy()
	settings := sessionSettings(config)
	return stdlib.OpenDB(*config, stdlib.OptionBeforeConnect(func(_ context.Context, next *pgx.ConnConfig) error {
		return o.authenticate(next)
	}), stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error { return setUp(ctx, c, settings) }))
}

func (o Settings) authenticate(config *pgx.ConnConfig) error {
	if o.Password == nil {
		return nil
	}
	password, err := o.Password()
	if err != nil {
		return fmt.Errorf("read the database's password: %w", err)
	}
	config.Password = password
	return nil
}

// Milliseconds is a duration as a setting of PostgreSQL.
func Milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// disconnected reports whether a connection to PostgreSQL is of no use any more.
func disconnected(raw *sql.Conn) bool {
	closed := true
	_ = raw.Raw(func(dc any) error {
		if c, ok := dc.(*stdlib.Conn); ok {
			closed = c.Conn().IsClosed()
		}
		return nil
	})
	return closed
}

// InTransaction reports whether a connection to PostgreSQL is in a transaction that has not failed.
func (c *Conn) InTransaction() bool {
	in := false
	_ = c.raw.Raw(func(dc any) error {
		if c, ok := dc.(*stdlib.Conn); ok {
			in = c.Conn().PgConn().TxStatus() == 'T'
		}
		return nil
	})
	return in
}

// cutOff closes a connection to PostgreSQL without a message to the server, which may not be listening.
func cutOff(raw *sql.Conn) error {
	err := raw.Raw(func(dc any) error {
		if c, ok := dc.(*stdlib.Conn); ok {
			_ = c.Conn().PgConn().Conn().Close()
		}
		return driver.ErrBadConn
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("close a connection: %w", err)
	}
	return nil
}

// Pauses of the listener between two tries to connect.
const (
	listenPause    = 100 * time.Millisecond
	listenPauseMax = 5 * time.Second
)

// Listen calls notify when another process says that it has changed something, until ctx ends. While it is not
// connected it misses that; it calls notify when it is again.
func Listen(ctx context.Context, config *pgx.ConnConfig, o Settings, notify func()) {
	pause := listenPause
	for ctx.Err() == nil {
		if listenOnce(ctx, config, o, notify) {
			pause = listenPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, listenPauseMax)
		}
	}
}

// listenOnce listens until its connection ends; it reports whether it could begin to.
func listenOnce(ctx context.Context, config *pgx.ConnConfig, o Settings, notify func()) bool {
	config = config.Copy()
	config.RuntimeParams["application_name"] = o.name("patd listener")
	config.ConnectTimeout = o.BusyTimeout
	within, cancel := context.WithTimeout(ctx, o.BusyTimeout)
	defer cancel()
	if err := o.authenticate(config); err != nil {
		return false
	}
	settings := sessionSettings(config)
	c, err := pgx.ConnectConfig(within, config)
	if err != nil {
		return false
	}
	defer func() { _ = c.PgConn().Conn().Close() }()
	if err := setUp(within, c, settings); err != nil {
		return false
	}
	if _, err := c.Exec(within, ListenChanges); err != nil {
		return false
	}
	for {
		notify() // once for what was missed meanwhile
		if _, err := c.WaitForNotification(ctx); err != nil {
			return true
		}
	}
}
