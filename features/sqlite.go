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
		name: "SQLite", open: openSQLite, check: checkSQLite, tell: tellSQLite,
		// As a part of another the query can only be one SELECT, whatever follows a semicolon.
		form: func(q string) string { return "SELECT * FROM (\n" + q + "\n)" },
	}
}

// openSQLite makes a pool that opens the file anew for each question: a file that was replaced must not go on
// answering because somebody still has the old one open. Opening costs little, and the cache stands before it.
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

// checkSQLite prepares the query, and finds that it fails for want of a parameter when it is given none. That it takes no
// more than one shows when it is run.
func checkSQLite(ctx context.Context, conn *sql.Conn, query string) error {
	stmt, err := conn.PrepareContext(ctx, query)
	if err != nil {
		var lite *sqlite.Error
		if errors.As(err, &lite) {
			// Nothing but the query's own words can be in it yet.
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
	// SQLite itself says nothing of parameters without a value: it is the driver that refuses them.
	if lite := new(sqlite.Error); err != nil && !errors.As(err, &lite) && ctx.Err() == nil {
		return malformed("the query must have exactly one parameter, the user id as ?, and has others")
	}
	return err
}

// tellSQLite keeps the code and what SQLite says of that code in general.
func tellSQLite(err error) (ok bool, told error) {
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
