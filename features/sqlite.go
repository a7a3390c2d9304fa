package features

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"modernc.org/sqlite"
)

func sqliteEngine() engine {
	return engine{
		name: "SQLite", open: openSQLite, check: checkSQLite, loggable: loggableSQLite,
		// As a subquery it can only be one SELECT, whatever follows a semicolon.
		form: func(q string) string { return "SELECT * FROM (\n" + q + "\n)" },
	}
}

// openSQLite makes a pool that opens the file anew for each request: a replaced file must not go on answering through a
// connection that is still open. Opening costs little, and the cache stands before it.
func openSQLite(c SQLConfig, u *url.URL) (*sql.DB, error) {
	if u.Path == "" || strings.HasPrefix(u.Path, ":memory:") || c.PasswordFile != "" {
		return nil, errors.New("sqlite: needs the path of a file, and no password")
	}
	path, err := filepath.Abs(u.Path)
	if err != nil {
		return nil, fmt.Errorf("find the file: %w", err)
	}
	settings := url.Values{
		"mode": {"ro"}, "_query_only": {"1"}, "_error_rc": {"1"}, "_dqs": {"0"}, "_defensive": {"1"},
		"_busy_timeout": {strconv.FormatInt(c.Timeout.Milliseconds(), 10)},
		"_pragma":       {"trusted_schema(OFF)"},
	}
	escape := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")
	db, err := sql.Open("sqlite", "file:"+escape.Replace(filepath.ToSlash(path))+"?"+settings.Encode())
	if err != nil {
		return nil, fmt.Errorf("open the file: %w", err)
	}
	db.SetMaxIdleConns(-1)
	return db, nil
}

// checkSQLite prepares the query, and checks that it fails without a parameter. A second parameter is detected when the
// query runs.
func checkSQLite(ctx context.Context, conn *sql.Conn, query string) error {
	stmt, err := conn.PrepareContext(ctx, query)
	if err != nil {
		var lite *sqlite.Error
		if errors.As(err, &lite) {
			// It can contain nothing but the query's own words yet.
			return malformed("SQLite: " + lite.Error())
		}
		return err
	}
	defer stmt.Close()
	rows, err := stmt.QueryContext(ctx)
	if err == nil {
		err = rows.Err()
		rows.Close()
		if err == nil {
			return malformed("the query must have exactly one parameter, the user id as ?, and has none")
		}
	}
	rows, err = stmt.QueryContext(ctx, "")
	if err == nil {
		err = rows.Err()
		rows.Close()
	}
	// SQLite itself accepts parameters without a value: the driver refuses them.
	if lite := new(sqlite.Error); err != nil && !errors.As(err, &lite) && ctx.Err() == nil {
		return malformed("the query must have exactly one parameter, the user id as ?, and has others")
	}
	return err
}

// loggableSQLite keeps the code and SQLite's general text for that code.
func loggableSQLite(err error) (ok bool, loggable error) {
	var lite *sqlite.Error
	if !errors.As(err, &lite) {
		return false, nil
	}
	text := sqlite.ErrorCodeString[lite.Code()&0xff]
	if text == "" {
		text = "the query failed"
	}
	return true, fmt.Errorf("%s (code %d)", text, lite.Code())
}
