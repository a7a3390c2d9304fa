package features

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"patd/internal/tracecontext"
	"patd/tokens"
)

// SQLConfig says which database to ask, and how.
type SQLConfig struct {
	// URL names the database: postgres://user@host/db, mysql://user@host/db, or sqlite:<path>. A server on another
	// machine is reached over TLS only, and must prove by its certificate that it is the host named, unless sslmode
	// (PostgreSQL) or tls (MySQL) in the URL says otherwise.
	URL tokens.Secret
	// PasswordFile holds the password, instead of the URL. It is read for each new connection, so that a changed
	// password needs no restart.
	PasswordFile string
	// Query returns the features of one user, one a row, in its only column. Its only parameter is the user id: $1 for
	// PostgreSQL, ? for the others.
	Query string
	// MaxRows is how many rows an answer may have; 0: 4096. One more is an outage, not a shorter answer.
	MaxRows int
	// Timeout bounds one request, including the wait for a connection; 0: 2 s.
	Timeout time.Duration
	// MaxConns is how many connections may be open at a time; 0: 8. Fewer than 4 cannot be divided between fresh and
	// other answers, quick and slow.
	MaxConns int
}

func (c SQLConfig) withDefaults() SQLConfig {
	if c.MaxRows <= 0 {
		c.MaxRows = defaultMaxFeatures
	}
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Second
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 8
	}
	return c
}

// SQL is a source that asks a database with the operator's query. It is safe for concurrent use.
type SQL struct {
	db     *sql.DB
	engine engine
	config SQLConfig
	query  string
}

var _ tokens.FeatureSource = (*SQL)(nil)

// engine is the part that differs between databases.
type engine struct {
	name string
	// comments says that the statements of a call that is sampled have its trace as a comment.
	comments bool
	// open makes a pool whose sessions are read-only and give up after the time limit by themselves.
	open func(SQLConfig, *url.URL) (*sql.DB, error)
	// begun prepares the transaction in which the query will run; nil: nothing to do.
	begun func(context.Context, SQLConfig, *sql.Tx) error
	// form returns the query as it is sent.
	form func(query string) string
	// check checks that the query has one text parameter and one column, as far as possible without running it.
	check func(ctx context.Context, conn *sql.Conn, query string) error
	// loggable turns an error of the driver into one without row data; ok is false for any other error.
	loggable func(error) (ok bool, loggable error)
}

// NewSQL connects, and checks the query: one parameter, one column, nothing written. It runs the query once for the
// empty user id, which belongs to no user.
func NewSQL(ctx context.Context, c SQLConfig) (*SQL, error) {
	c = c.withDefaults()
	query := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(c.Query), ";"))
	if query == "" {
		return nil, errors.New(
			"open the features database: a query is needed, such as SELECT feature FROM user_features WHERE user_id = …",
		)
	}
	e, u, err := parseSQLURL(c.URL.Reveal())
	if err != nil {
		return nil, err
	}
	db, err := e.open(c, u)
	if err != nil {
		return nil, fmt.Errorf("open the features database: %w", err)
	}
	db.SetMaxOpenConns(c.MaxConns)
	s := &SQL{db: db, engine: e, config: c, query: e.form(query)}
	if err := s.check(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("check the features query: %w", err), db.Close())
	}
	return s, nil
}

// serverLimit is the server's own time limit: a little above ours, so that ours is the one reported, and the server's
// only ends work that has no reader any more.
func (c SQLConfig) serverLimit() time.Duration { return c.Timeout + c.Timeout/4 }

// parseSQLURL chooses the engine by the scheme. Its errors do not repeat the URL, which may hold a password.
func parseSQLURL(text string) (engine, *url.URL, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		return engine{}, nil, errors.New(
			"open the features database: none of postgres://, mysql:// and sqlite: begins its URL",
		)
	}
	if scheme == "sqlite" {
		return sqliteEngine(), &url.URL{Scheme: scheme, Path: rest}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return engine{}, nil, errors.New(
			"open the features database: its URL cannot be read; characters such as @ / : # % in a password are written percent-encoded",
		)
	}
	switch scheme {
	case "postgres", "postgresql":
		return postgresEngine(), u, nil
	case "mysql", "mariadb":
		return mysqlEngine(), u, nil
	default:
		return engine{}, nil, errors.New(
			"open the features database: none of postgres://, mysql:// and sqlite: begins its URL",
		)
	}
}

func (s *SQL) check(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	conn, err := s.db.Conn(limited)
	if err != nil {
		return s.loggable(limited, err)
	}
	defer conn.Close()
	if err := s.engine.check(limited, conn, s.query); err != nil {
		return s.loggable(limited, err)
	}
	_, err = s.ask(limited, conn, "")
	return err
}

// Features asks the database, whether fresh or not.
func (s *SQL) Features(ctx context.Context, u tokens.User, _ bool) (tokens.Held, error) {
	limited, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	names, err := s.ask(limited, s.db, u.ID)
	if err == nil {
		var held tokens.Held
		if held, err = answered(names); err == nil {
			return held, nil
		}
	}
	return tokens.Held{}, outage(ctx, "ask the features database", err)
}

// Local returns false: features change without patd.
func (*SQL) Local() bool { return false }

// Close closes the connections.
func (s *SQL) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the features database: %w", err)
	}
	return nil
}

// beginner is a pool or one connection of it.
type beginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// ask runs the query for one user. If the server has ended the connection, which is no fault of the query, it runs once
// more on a fresh one.
func (s *SQL) ask(ctx context.Context, db beginner, user string) ([]string, error) {
	names, err := s.once(ctx, db, user)
	if pool, ok := db.(*sql.DB); ok && err != nil && ctx.Err() == nil && ended(err) {
		dropIdle(pool, s.config.MaxConns) // they are likely to have ended with it
		names, err = s.once(ctx, pool, user)
	}
	if err != nil {
		return nil, s.loggable(ctx, err)
	}
	return names, nil
}

// once runs the query in a read-only transaction, which is rolled back whatever happens.
func (s *SQL) once(ctx context.Context, db beginner, user string) ([]string, error) {
	// Ending the context keeps an oversized result from being read to its end.
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	tx, err := db.BeginTx(within, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	var names []string
	if s.engine.begun != nil {
		err = s.engine.begun(within, s.config, tx)
	}
	if err == nil {
		names, err = s.rows(within, tx, user)
	}
	if err != nil {
		cancel()
	}
	if rerr := tx.Rollback(); rerr != nil && err == nil {
		return nil, rerr
	}
	return names, err
}

// dropIdle closes the idle connections of a pool, so that the next one is fresh.
func dropIdle(pool *sql.DB, keep int) {
	pool.SetMaxIdleConns(-1)
	pool.SetMaxIdleConns(keep)
}

// ended reports whether an error means that the connection has ended, by the server or on the way.
func ended(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "57P01", "57P02", "57P03", "57P05", "25P03", "08000", "08003", "08006":
			return true
		}
		return false
	}
	var my *mysql.MySQLError
	if errors.As(err, &my) {
		switch my.Number {
		case 1053,
			1152,
			1158,
			1159,
			1160,
			1161,
			1184,
			1927,
			3169,
			4031: // ER_SERVER_SHUTDOWN to ER_CLIENT_INTERACTION_TIMEOUT
			return true
		}
		return false
	}
	var network *net.OpError
	for _, known := range []error{
		driver.ErrBadConn, mysql.ErrInvalidConn, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.EPIPE,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return errors.As(err, &network) && network.Op != "dial"
}

func (s *SQL) rows(ctx context.Context, tx *sql.Tx, user string) (names []string, err error) {
	query := s.query
	if s.engine.comments {
		query += tracecontext.SQLComment(ctx)
	}
	rows, err := tx.QueryContext(ctx, query, user)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	if n := len(columns); n != 1 {
		return nil, malformed("the query must give exactly one column, and gives " + fmt.Sprint(n))
	}
	for rows.Next() {
		if len(names) == s.config.MaxRows {
			return nil, malformed(tooMany(s.config.MaxRows).Error())
		}
		var value any
		if err := rows.Scan(&value); err != nil {
			return nil, malformed("a row cannot be read")
		}
		switch v := value.(type) {
		case string:
			names = append(names, v)
		case []byte:
			names = append(names, string(v))
		case nil:
			return nil, malformed("a feature is NULL")
		default:
			return nil, malformed(fmt.Sprintf("the query's column must be text, and is %T", v))
		}
	}
	return names, rows.Err()
}

// malformed is a fixed text about what is wrong with an answer or a query.
type malformed string

func (m malformed) Error() string { return string(m) }

// loggable turns an error into one that can be logged: drivers' errors may quote rows, or the converted user id.
func (s *SQL) loggable(ctx context.Context, err error) error {
	var bad malformed
	if errors.As(err, &bad) {
		return bad
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s gave no answer within %v", s.engine.name, s.config.Timeout)
	}
	if ok, known := s.engine.loggable(err); ok {
		return fmt.Errorf("%s: %w", s.engine.name, known)
	}
	return fmt.Errorf("%s: %w", s.engine.name, loggable(err))
}
