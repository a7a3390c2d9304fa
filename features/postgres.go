package features

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"patd/internal/loopback"
)

func postgresEngine() engine {
	pooled := new(atomic.Bool)
	return engine{
		name: "PostgreSQL", comments: true, check: checkPostgres, loggable: loggablePostgres,
		open: func(c SQLConfig, u *url.URL) (*sql.DB, error) { return openPostgres(c, u, pooled) },
		form: func(q string) string { return q },
		begun: func(ctx context.Context, c SQLConfig, tx *sql.Tx) error {
			if !pooled.Load() {
				return nil
			}
			_, err := tx.ExecContext(ctx, limitTransaction, serverMilliseconds(c))
			return err
		},
	}
}

const (
	limitSession = `SELECT set_config('default_transaction_read_only', 'on', false), set_config('statement_timeout', $1, false),
set_config('idle_in_transaction_session_timeout', $1, false)`

	limitTransaction = `SELECT set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true)`
)

func serverMilliseconds(c SQLConfig) string {
	return strconv.FormatInt(c.serverLimit().Milliseconds(), 10)
}

// openPostgres makes a pool of sessions that are read-only and end a statement by themselves. Parameters go as text in
// one round trip without prepared statements. So no session's statements are looked for in another behind a pooler, and
// a changed schema does no harm. A pooler would refuse session settings at the start of a connection, and would leak
// later ones to other programs. A pooler is detected because another process sent the greeting. The settings are then
// made in each transaction, and pooled is set.
func openPostgres(c SQLConfig, u *url.URL, pooled *atomic.Bool) (*sql.DB, error) {
	if err := checkPassword(c, u); err != nil {
		return nil, err
	}
	config, err := postgresConfig(u)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = "patd"
	for _, name := range []string{"default_transaction_read_only", "statement_timeout", "idle_in_transaction_session_timeout"} {
		delete(config.RuntimeParams, name) // patd's own count
	}
	config.ConnectTimeout = c.Timeout
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	options := []stdlib.OptionOpenDB{stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		var process uint32
		if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&process); err != nil {
			return err
		}
		if process != conn.PgConn().PID() {
			pooled.Store(true)
			return nil
		}
		_, err := conn.Exec(ctx, limitSession, serverMilliseconds(c))
		return err
	})}
	if c.PasswordFile != "" {
		options = append(options, stdlib.OptionBeforeConnect(func(_ context.Context, next *pgx.ConnConfig) error {
			password, err := readSecretFile(c.PasswordFile)
			next.Password = password.Reveal()
			return err
		}))
	}
	db := stdlib.OpenDB(*config, options...)
	db.SetMaxIdleConns(c.MaxConns)
	db.SetConnMaxIdleTime(time.Minute)
	db.SetConnMaxLifetime(10 * time.Minute)
	return db, nil
}

// postgresConfig reads the URL. A server on another machine must prove its identity, unless sslmode says otherwise: by
// default pgx only prefers TLS, which a man in the middle turns into plain text.
func postgresConfig(u *url.URL) (*pgx.ConnConfig, error) {
	q := u.Query()
	given := q.Get("sslmode") != "" || os.Getenv("PGSSLMODE") != ""
	if !given {
		q.Del("sslmode")
	}
	config, err := parsePostgres(*u, q)
	if err == nil && !given && !postgresHere(config) {
		q.Set("sslmode", "verify-full")
		config, err = parsePostgres(*u, q)
	}
	return config, err
}

func parsePostgres(u url.URL, q url.Values) (*pgx.ConnConfig, error) {
	u.RawQuery = q.Encode()
	config, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, errors.New(
			"the URL has a parameter that PostgreSQL does not know, or a certificate file that cannot be read",
		)
	}
	return config, nil
}

// postgresHere reports whether every host that may be connected to is this machine, whatever names it.
func postgresHere(config *pgx.ConnConfig) bool {
	for _, f := range config.Fallbacks {
		if !loopback.HostOrSocket(f.Host) {
			return false
		}
	}
	return loopback.HostOrSocket(config.Host)
}

// checkPassword refuses two passwords, and a file that cannot be read.
func checkPassword(c SQLConfig, u *url.URL) error {
	if c.PasswordFile == "" {
		return nil
	}
	if _, inURL := u.User.Password(); inURL || u.Query().Has("password") {
		return errors.New("a password is both in the URL and in a file; give one")
	}
	_, err := readSecretFile(c.PasswordFile)
	return err
}

// checkPostgres describes the query without running it. A parameter of another type than text would make some user ids
// an outage, and give one user several spellings: 7, 07 and +7.
func checkPostgres(ctx context.Context, conn *sql.Conn, query string) error {
	return conn.Raw(func(driverConn any) error {
		c, ok := driverConn.(*stdlib.Conn)
		if !ok {
			return malformed("this is not a PostgreSQL connection")
		}
		d, err := c.Conn().Prepare(ctx, "", query)
		if err != nil {
			return err
		}
		switch {
		case len(d.ParamOIDs) != 1:
			return malformed(
				fmt.Sprintf(
					"the query must have exactly one parameter, the user id as $1, and has %d",
					len(d.ParamOIDs),
				),
			)
		case d.ParamOIDs[0] != pgtype.TextOID && d.ParamOIDs[0] != pgtype.VarcharOID:
			return malformed(
				"the query must take the user id as text: cast the column it is compared with, as in user_id::text = $1",
			)
		case len(d.Fields) != 1:
			return malformed(fmt.Sprintf("the query must give exactly one column, and gives %d", len(d.Fields)))
		}
		return nil
	})
}

// loggablePostgres keeps the server's text about connections, rights and the query itself. Errors of other classes may
// quote values, so only their code is kept.
func loggablePostgres(err error) (ok bool, loggable error) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch class := pg.SQLState()[:min(2, len(pg.SQLState()))]; class {
		case "08", "25", "28", "3D", "42", "53", "55", "57":
			return true, fmt.Errorf("%s (SQLSTATE %s)", pg.Message, pg.Code)
		default:
			return true, fmt.Errorf(
				"the query failed with SQLSTATE %s, whose text is withheld because it may quote data",
				pg.Code,
			)
		}
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return true, connect
	}
	return false, nil
}
