package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"patd/tokens"
)

// A connection pooler such as PgBouncer refuses most parameters at the start of a connection, and can be told to ignore
// them, in which case they are lost in silence. So a session's settings are made after connecting. That is of use only
// where a session of patd's is one of the server's: LISTEN, prepared statements and the lock of migrations need that
// too. A pooler that gives each transaction another session is refused.

// startParameters are what poolers take at the start of a connection: the others are set after it.
var startParameters = []string{"application_name", "client_encoding", "options", "replication"}

// sessionSettings takes the settings that are made after connecting out of a configuration.
func sessionSettings(config *pgx.ConnConfig) map[string]string {
	settings := maps.Clone(config.RuntimeParams)
	for _, name := range startParameters {
		delete(settings, name)
	}
	for name := range settings {
		delete(config.RuntimeParams, name)
	}
	return settings
}

const makeSettings = `SELECT set_config(s.name, s.value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)`

// setUp makes the settings of a new connection and looks whether they are there, for what they say of the schema must
// be so.
func setUp(ctx context.Context, c *pgx.Conn, settings map[string]string) error {
	if limit := c.Config().ConnectTimeout; limit > 0 {
		within, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		ctx = within
	}
	names := slices.Sorted(maps.Keys(settings))
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = settings[name]
	}
	args := [][]byte{textArray(names), textArray(values)}
	made := c.PgConn().ExecParams(ctx, makeSettings, args, nil, nil, nil).Read()
	if made.Err != nil {
		return fmt.Errorf("set up the session: %w", made.Err)
	}
	path, err := ask(ctx, c.PgConn(), `SELECT current_setting('search_path')`)
	if err != nil {
		return fmt.Errorf("set up the session: %w", err)
	}
	if want := settings["search_path"]; path != want {
		return fmt.Errorf("%w: the session's search_path is %q after it was set to %q: %s",
			ErrSchema, path, want, sessionMode)
	}
	return nil
}

// textArray is an array of PostgreSQL's in text.
func textArray(list []string) []byte {
	quoted := make([]string, len(list))
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for i, text := range list {
		quoted[i] = `"` + escape.Replace(text) + `"`
	}
	return []byte("{" + strings.Join(quoted, ",") + "}")
}

// ask returns the only value of a query, without a prepared statement.
func ask(ctx context.Context, c *pgconn.PgConn, query string) (string, error) {
	r := c.ExecParams(ctx, query, nil, nil, nil, nil).Read()
	switch {
	case r.Err != nil:
		return "", r.Err
	case len(r.Rows) != 1 || len(r.Rows[0]) != 1:
		return "", errors.New("unexpected response")
	}
	return string(r.Rows[0][0]), nil
}

const sessionMode = "connect to PostgreSQL directly, or set pool_mode = session in the pooler"

const (
	selectProcess    = `SELECT pg_backend_pid()`
	beginTransaction = `BEGIN`
	poolerRounds     = 3
)

// RefusePooler refuses a pooler that gives each transaction another session of the server. Where the server's process
// is the one that greeted, there is no pooler. Otherwise another connection holds a transaction: should it be given the
// session of the first, or the first another than before, sessions are not kept.
//
// It sets nothing: with such a pooler that would reach other programs.
func RefusePooler(ctx context.Context, config *pgx.ConnConfig, o Settings) error {
	const op = "open the store"
	config = config.Copy()
	_ = sessionSettings(config)
	if config.ConnectTimeout <= 0 {
		config.ConnectTimeout = o.BusyTimeout
	}
	within, cancel := context.WithTimeout(ctx, 2*o.BusyTimeout)
	defer cancel()
	if err := o.authenticate(config); err != nil {
		return err
	}
	first, err := pgconn.ConnectConfig(within, &config.Config)
	if err != nil {
		return poolerFault(op, err)
	}
	defer func() { _ = first.Close(within) }()
	process, err := ask(within, first, selectProcess)
	if err != nil {
		return poolerFault(op, err)
	}
	if process == strconv.FormatUint(uint64(first.PID()), 10) {
		return nil
	}
	for range poolerRounds {
		kept, err := keepsSession(within, config, first, process)
		if err != nil {
			return poolerFault(op, err)
		}
		if !kept {
			return fmt.Errorf(
				"%s: a connection pooler is in between that gives each transaction another session of the "+
					"server (pool_mode = transaction or statement), and patd listens, locks and prepares statements: %s",
				op,
				sessionMode,
			)
		}
	}
	return nil
}

// keepsSession reports whether a connection has the server's session that it had, while another is in a transaction.
func keepsSession(ctx context.Context, config *pgx.ConnConfig, first *pgconn.PgConn, process string) (bool, error) {
	other, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return false, err
	}
	defer func() { _ = other.Close(ctx) }()
	if _, err := other.Exec(ctx, beginTransaction).ReadAll(); err != nil {
		if IsState(err, "08P01") { // a pooler that takes single statements only
			err = nil
		}
		return false, err
	}
	taken, err := ask(ctx, other, selectProcess)
	if err != nil {
		return false, err
	}
	now, err := ask(ctx, first, selectProcess)
	return taken != process && now == process, err
}

// poolerFault is connectFault, with what to do where a pooler refuses a parameter.
func poolerFault(op string, err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "08P01" && strings.Contains(pe.Message, "startup parameter") {
		return fmt.Errorf(
			"%s: a connection pooler refuses a parameter that the database URL has; take it out of the URL, or "+
				"add it to ignore_startup_parameters in the pooler: %w",
			op,
			tokens.StoreUnavailable(op, err),
		)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = &statementTimeout{err}
	}
	return ConnectFault(op, err)
}

// SelectSchema reads the schema that a session is in; empty: the one meant does not exist.
const SelectSchema = `SELECT coalesce(current_schema(), '')`

// SchemaFault returns why tables would go into another schema than the one meant; nil: they would not. An empty name
// says that the schema does not exist.
func SchemaFault(have, want string) error {
	if have == want || have == "" {
		return nil
	}
	return fmt.Errorf("%w: the session is in the schema %q and not in %q; %s", ErrSchema, have, want, sessionMode)
}
