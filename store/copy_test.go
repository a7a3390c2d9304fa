package store_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/storefill"
)

// copyTokens is how many tokens there are to copy; PATD_COPY_TOKENS=1000000 copies a million.
func copyTokens(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("PATD_COPY_TOKENS"))
	if err != nil {
		return 2000
	}
	return n
}

// emptyDatabase is the URL of a schema that does not exist yet.
func emptyDatabase(server *dbtest.Server) string {
	return fmt.Sprintf("%s&search_path=empty%d", server.PostgresURL(server.Password), schemas.Add(1))
}

// oddRows are what no call makes, or no call makes soon: the ends of what columns hold.
func oddRows() []string {
	return []string{
		`UPDATE keys SET retire_us = 9223372036854775807 WHERE num = 1`,
		`INSERT INTO keys (num, name, check_value, create_us) VALUES (7, 'k-ü', randomblob(32), -1)`,
		`INSERT INTO users (key, user, state, features, create_us, delete_us) VALUES (900000001, 'ghost', 1, NULL, 1, 2), (900000002, 'ghost', 2, '', 3, 4), (900000003, 'ghost', 1, 'a b', 5, NULL)`,
		`INSERT INTO suspended_scopes VALUES (900000001, '', -1), (900000003, 'a b', 9223372036854775807)`,
		`INSERT INTO tokens (id, user, key, digest, rotations, name, name_key, scopes, issue_us, expire_us, audiences, cidrs, labels, description, revoke_us, revoked_by, revoke_reason, last_used_us, last_used_ip, blocked_by)
		 VALUES (-9223372036854775808, 900000001, 7, zeroblob(32), 9223372036854775807, 'naïve 日本語 😀', '', 'a', -9223372036854775808, 9223372036854775807, '', char(10) || char(13) || char(9), '{"a":"\\ '' "" %"}', NULL, 0, '', NULL, 0, x'00000000000000000000000000000000', NULL),
		        (9223372036854775807, 900000002, 1, randomblob(32), 0, '', '\N', 'a', 0, 0, NULL, NULL, NULL, '\.', NULL, NULL, NULL, NULL, x'', 'api' || char(10) || 'b')`,
		`INSERT INTO families VALUES (-5, 9223372036854775807, 0, 'client', 1, 'a', 'api', 1, 2, 3, 'x', NULL, NULL), (6, 9223372036854775807, 1, NULL, 0, 'a', 'api', 1, 2, NULL, NULL, NULL, x'00')`,
		`INSERT INTO refresh_tokens VALUES (1, -5, 7, randomblob(32), 1, 2, NULL), (2, 6, 7, randomblob(32), 1, NULL, x'')`,
		`INSERT INTO access_tokens VALUES (1, 9223372036854775807, 0, -5, 7, randomblob(32), 'a', 'api', 'c', 1, 2, 3, 'x', '', NULL), (2, 9223372036854775807, 0, NULL, 7, randomblob(32), 'a', NULL, NULL, 1, 9223372036854775807, NULL, NULL, NULL, randomblob(19))`,
		`INSERT INTO uses VALUES (-9223372036854775808, 0, x''), (9223372036854775807, 9223372036854775807, NULL), (7, 1, x'00000000000000000000000000000000')`,
		`INSERT INTO features VALUES ('Z', NULL, NULL, 1, 0, 0, 0, 0, ''), ('a', 'Ä', '', 2, 1, 0, 1, 0, 'x'), ('B', NULL, NULL, 3, 0, 1, 0, 1, ' ')`,
		`INSERT INTO audiences VALUES ('Z', NULL, NULL, NULL, NULL, 0, 0, NULL, 1, '', 0), ('a', 'A', 'https://a', 1, 9223372036854775807, 1, 1, 5, 2, 'z', 1)`,
		`INSERT INTO page_sessions VALUES (randomblob(32), -1, 'ghost', NULL, NULL, NULL, '', 1, 2, 9223372036854775807, NULL, x'', '', x'00', NULL), (randomblob(32), 9223372036854775807, 'Ä', 'crm', 'https://a', 'admin', NULL, 1, 2, 3, 4, x'00000000', '%', NULL, x'')`,
		`INSERT INTO page_handoffs VALUES (randomblob(32), 'ghost', '', NULL, 1, 2, NULL), (randomblob(32), 'ghost', 'crm', 'https://a', 1, 2, 3)`,
		`INSERT INTO webhooks VALUES (-1, 'ä', 'https://a', NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, 1, 2, 7, x'', NULL, NULL, NULL, 0, NULL, NULL, 0, NULL), (9223372036854775807, 'Z', '', '', 'token.created', 'u' || char(10) || 'v', 'api', '{"a":"ü"}', 1, 3, 'GONE', 1, 2, 7, randomblob(72), 1, x'00', 4, 9223372036854775807, 'h', 5, 6, x'00')`,
		`INSERT INTO webhook_deliveries VALUES (-1, 1, 4294967296, randomblob(16), 'webhook.test', 'test', NULL, 1, 1, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL), (9223372036854775807, 9223372036854775807, 0, zeroblob(16), '', '', '{}', 3, 1, 2, 3, 4, 5, 6, 7, 500, 'ü', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01')`,
		`INSERT INTO bulk_revocations VALUES (zeroblob(32), 'operator', NULL, NULL, 3, 1, 1, 2, NULL), (randomblob(32), 'service:ops', x'7f000001', 'ü', 0, 0, 1, 2, 3)`,
		`INSERT INTO bulk_parts VALUES (zeroblob(32), 0, x''), (zeroblob(32), 9223372036854775807, zeroblob(16))`,
		`INSERT INTO use_details VALUES (-9223372036854775808, ''), (9223372036854775807, 's a 1 2' || char(10) || 'a 5 - ü' || char(10))`,
		`INSERT INTO use_details_since VALUES (1, 9223372036854775807)`,
		`UPDATE tokens SET paused = '7 b' || char(10) || '8 c', paused_mac = x'00', paused_end_us = 9223372036854775807 WHERE id = 9223372036854775807`,
		`INSERT INTO narrowings VALUES (zeroblob(32), 'operator', NULL, NULL, 0, 3, 1, 2, 1, 2, NULL), (randomblob(32), 'service:ops', x'7f000001', 5, 1, 0, 0, 0, 1, 2, 3)`,
		`INSERT INTO narrowing_parts VALUES (zeroblob(32), 0, x''), (zeroblob(32), 9223372036854775807, zeroblob(16))`,
		`INSERT INTO provisioned_users VALUES (900000001, 'a', 'Ä', 'ä', NULL, NULL, 0, 1, 2, x'00'), (900000003, 'b', ' ', ' ', '', '\N', 1, -9223372036854775808, 9223372036854775807, NULL)`,
		`INSERT INTO security_events VALUES (randomblob(32), 1), (zeroblob(32), 9223372036854775807)`,
		`INSERT INTO notices VALUES (1, 9223372036854775807, -1, 0), (2, 0, 9223372036854775807, 86400000000)`,
		`INSERT INTO notice_marks VALUES ('lease', -1, NULL), ('ü', 9223372036854775807, '')`,
		`INSERT INTO idle_checks VALUES (-5, 1, NULL, NULL, NULL, NULL), (7, 9223372036854775807, 1, 2, 3, 4)`,
		`INSERT INTO requests VALUES (randomblob(32), randomblob(32), -9223372036854775808, NULL, 1), (randomblob(32), randomblob(32), -9223372036854775808, x'00', 1), (randomblob(32), randomblob(32), -9223372036854775808, x'', 1)`,
		`INSERT INTO events (time_us, actor, action, outcome, user, peer_ip, detail) VALUES (1, '', 'ü', 2, '', x'7f000001', 'two
lines')`,
		`INSERT INTO released (one, seq, before_us) VALUES (1, 3, 9223372036854775807)`,
		`INSERT INTO sealed (one, begin_us) VALUES (1, 9223372036854775807)`,
		// A position that was given and whose row is gone: the feed is pruned.
		`DELETE FROM changes`,
		`INSERT INTO changes (time_us, user) VALUES (5, 'u'), (6, NULL)`,
		`DELETE FROM changes WHERE seq = (SELECT max(seq) FROM changes)`,
	}
}

// everything makes a store in a file with every kind of row.
func everything(t *testing.T, path string, n int) *store.Store {
	t.Helper()
	st := open(t, path, store.Options{FlushInterval: time.Hour}.WithPragmas("synchronous(OFF)"))
	ids, err := storefill.Load(t.Context(), st, storefill.Config{Tokens: n})
	if err != nil {
		t.Fatal(err)
	}
	everyKindOfRow(t, st, ids)
	for _, statement := range oddRows() {
		exec1(t, st, statement)
	}
	return st
}

// fileSums reads a store's file without the store: one sum over each table, as SQLite writes its values, and the
// counters.
func fileSums(t *testing.T, path string) map[string]string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	sums := map[string]string{}
	for _, table := range append(store.CopiedTables(), store.CopiedTable{Name: "sqlite_sequence", Columns: []string{"name", "seq"}, Key: []string{"name"}}) {
		columns := `"` + strings.Join(table.Columns, `", "`) + `"`
		rows, err := db.QueryContext(
			t.Context(),
			`SELECT concat_ws('|', quote(`+strings.ReplaceAll(
				columns,
				`, `,
				`), quote(`,
			)+`)) FROM `+table.Name+` ORDER BY `+strings.Join(
				table.Key,
				", ",
			),
		)
		if err != nil {
			t.Fatal(table.Name, err)
		}
		sum, n := sha256.New(), 0
		for ; rows.Next(); n++ {
			var row string
			if err := rows.Scan(&row); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(sum, row)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
		sums[table.Name] = fmt.Sprintf("%d rows, %x", n, sum.Sum(nil))
	}
	return sums
}

func rowsOf(list []store.Copied) (n int64) {
	for _, c := range list {
		n += c.Rows
	}
	return n
}

// copyInto copies and tells how long it took.
func copyInto(t *testing.T, st *store.Store, to, what string) []store.Copied {
	t.Helper()
	began := time.Now()
	list, err := st.Copy(t.Context(), to, store.Options{})
	if err != nil {
		t.Fatal(what, err)
	}
	took := time.Since(began)
	t.Logf(
		"%s: %d rows in %s, %.0f a second",
		what,
		rowsOf(list),
		took.Round(time.Millisecond),
		float64(rowsOf(list))/took.Seconds(),
	)
	return list
}

func TestACopyThereAndBackIsByteEqual(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	dir := t.TempDir()
	origin := filepath.Join(dir, "origin.db")
	st := everything(t, origin, copyTokens(t))
	want := fileSums(t, origin)
	for table, sum := range want {
		if strings.HasPrefix(sum, "0 rows") {
			t.Errorf("there is no row of %s: the test proves nothing of it", table)
		}
	}

	url := emptyDatabase(server)
	there := copyInto(t, st, url, "from SQLite into PostgreSQL")
	remote := openURL(t, url, store.Options{FlushInterval: time.Hour})
	back := filepath.Join(dir, "back.db")
	if d := cmp.Diff(there, copyInto(t, remote, "sqlite:"+back, "from PostgreSQL into SQLite")); d != "" {
		t.Errorf("tables on the way there and back (-there +back):\n%s", d)
	}
	if d := cmp.Diff(want, fileSums(t, back)); d != "" {
		t.Errorf("the file after the way there and back (-want +got):\n%s", d)
	}
	other := emptyDatabase(server)
	if d := cmp.Diff(there, copyInto(t, remote, other, "from PostgreSQL into PostgreSQL")); d != "" {
		t.Errorf("tables copied within PostgreSQL (-want +got):\n%s", d)
	}
	local := filepath.Join(dir, "local.db")
	copyInto(t, st, "sqlite:"+local, "from SQLite into SQLite")
	if d := cmp.Diff(want, fileSums(t, local)); d != "" {
		t.Errorf("the file copied into another (-want +got):\n%s", d)
	}
	for _, name := range []string{back, local} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: %v, %v", filepath.Base(name), info.Mode(), err)
		}
	}
}

// TestACopyGivesNoPositionTwice writes to each copy: no number that the origin ever gave is given anew.
func TestACopyGivesNoPositionTwice(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	st := everything(t, newPath(t), 10)
	exec1(t, st, `DELETE FROM changes`)
	given, err := st.Texts(
		t.Context(),
		0,
		`SELECT seq FROM sqlite_sequence WHERE name IN ('changes', 'events') ORDER BY name`,
	)
	if err != nil {
		t.Fatal(err)
	}
	url, path := emptyDatabase(server), newPath(t)
	copyInto(t, st, url, "into PostgreSQL")
	remote := openURL(t, url, store.Options{})
	copyInto(t, remote, "sqlite:"+path, "and back")
	for name, to := range map[string]*store.Store{"postgres": remote, "sqlite": open(t, path, store.Options{})} {
		put(t, to, "fresh"+name)
		got, err := to.Texts(t.Context(), 0, `SELECT max(seq) FROM changes UNION ALL SELECT max(seq) FROM events`)
		if err != nil {
			t.Fatal(err)
		}
		for i, table := range []string{"changes", "events"} {
			was, _ := strconv.Atoi(given[i])
			if now, _ := strconv.Atoi(got[i]); now != was+1 {
				t.Errorf("%s: after position %d of %s comes %d", name, was, table, now)
			}
		}
	}
}

// catalogue lists every column of a database with the number that orders the primary key, and what is numbered.
const (
	columnsOfSQLite = `SELECT m.name || '.' || c.name || ' ' || CASE c.type WHEN 'INTEGER' THEN 'bigint' WHEN 'BLOB' THEN 'bytea' ELSE 'text' END || ' ' || c.pk
FROM sqlite_schema m JOIN pragma_table_info(m.name) c
WHERE m.type = 'table' AND m.name NOT IN ('sqlite_sequence', 'goose_db_version', 'compatibility', 'servers')`

	columnsOfPostgres = `SELECT c.table_name || '.' || c.column_name || ' ' || c.data_type || ' ' || coalesce(array_position(
  (SELECT i.indkey::int[] FROM pg_index i WHERE i.indrelid = c.table_name::regclass AND i.indisprimary), c.ordinal_position::int) + 1, 0)
FROM information_schema.columns c
WHERE c.table_schema = current_schema() AND c.table_name NOT IN ('patd_schema_version', 'compatibility', 'rates', 'servers')`
)

// TestNoTableAndNoColumnIsForgottenByACopy compares the list of a copy with the schemas that the migrations make.
func TestNoTableAndNoColumnIsForgottenByACopy(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	file, remote := open(t, newPath(t), store.Options{}), openURL(t, newSchema(t, server), store.Options{})
	var want, numbered, counted []string
	for _, table := range store.CopiedTables() {
		for _, c := range table.Columns {
			want = append(want, fmt.Sprintf("%s.%s %d", table.Name, c, slices.Index(table.Key, c)+1))
		}
		if table.Sequence != "" {
			numbered = append(numbered, table.Name+"."+table.Sequence)
		}
		if table.Autoincrement {
			counted = append(counted, table.Name)
		}
	}
	ask := func(st *store.Store, query string) []string {
		list, err := st.Texts(t.Context(), 0, query)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(list)
		return list
	}
	local, there := ask(file, columnsOfSQLite), ask(remote, columnsOfPostgres)
	if d := cmp.Diff(local, there); d != "" {
		t.Errorf("the two schemas differ in columns (-sqlite +postgres):\n%s", d)
	}
	for i, c := range local {
		local[i] = strings.NewReplacer(" bigint", "", " bytea", "", " text", "").Replace(c)
	}
	slices.Sort(want)
	if d := cmp.Diff(want, local); d != "" {
		t.Errorf("columns (-copied +schema):\n%s", d)
	}
	slices.Sort(numbered)
	if d := cmp.Diff(
		numbered,
		ask(
			remote,
			`SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema() AND is_identity = 'YES' AND table_name <> 'patd_schema_version'`,
		),
	); d != "" {
		t.Errorf("sequences (-copied +schema):\n%s", d)
	}
	slices.Sort(counted)
	if d := cmp.Diff(
		counted,
		ask(file, `SELECT name FROM sqlite_schema WHERE sql LIKE '%AUTOINCREMENT%' AND name <> 'goose_db_version'`),
	); d != "" {
		t.Errorf("counters (-copied +schema):\n%s", d)
	}
}

// refused wants an error with a text, and nothing copied.
func refused(t *testing.T, st *store.Store, to string, o store.Options, want string) {
	t.Helper()
	list, err := st.Copy(t.Context(), to, o)
	if err == nil || !strings.Contains(err.Error(), want) || list != nil {
		t.Errorf("copy into %s: %v, %v; want %q", strings.SplitN(to, ":", 2)[0], list, err, want)
	}
}

func wantNoRows(t *testing.T, url string) {
	t.Helper()
	st := openURL(t, url, store.Options{FlushInterval: time.Hour})
	for _, table := range store.CopiedTables() {
		if n := count(t, st, table.Name); n != "0" {
			t.Errorf("%s rows of %s are there", n, table.Name)
		}
	}
}

func wantNoFiles(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("files that are left: %v, %v", left, err)
	}
}

func TestACopyReplacesNothing(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st := everything(t, path, 10)
	before := fileSums(t, path)
	refused(t, st, "sqlite:"+path, store.Options{}, "both are the same store")
	refused(t, st, "mysql://u@h/d", store.Options{}, "unknown")

	dir := t.TempDir()
	for _, name := range []string{"taken", "log-wal", "log-journal"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"taken", "log"} {
		if _, err := st.Copy(
			t.Context(),
			"sqlite:"+filepath.Join(dir, name),
			store.Options{},
		); !errors.Is(
			err,
			fs.ErrExist,
		) {
			t.Errorf("onto %s: %v", name, err)
		}
	}
	if _, err := st.Copy(
		t.Context(),
		"sqlite:"+filepath.Join(dir, "no", "copy"),
		store.Options{},
	); !errors.Is(
		err,
		fs.ErrNotExist,
	) {
		t.Errorf("into a directory that does not exist: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 3 {
		t.Errorf("files after refused copies: %v, %v", left, err)
	}
	if d := cmp.Diff(before, fileSums(t, path)); d != "" {
		t.Errorf("the origin after refused copies (-want +got):\n%s", d)
	}
}

func TestACopyIntoPostgresReplacesNothing(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	st := everything(t, newPath(t), 10)
	url := newSchema(t, server)
	remote := openURL(t, url, store.Options{})
	for _, table := range []string{`prefixes (prefix) VALUES ('acme')`, `changes (time_us) VALUES (1)`} {
		exec1(t, remote, `INSERT INTO `+table)
		refused(t, st, url, store.Options{}, "there is a store in that database already")
		exec1(t, remote, `DELETE FROM `+strings.Fields(table)[0])
	}
	refused(t, remote, url, store.Options{}, "both are the same store")
	refused(t, remote, strings.Replace(url, "127.0.0.1", "localhost", 1), store.Options{}, "both are the same store")

	// Another program's schema: it may have what this one does not copy.
	exec1(
		t,
		remote,
		fmt.Sprintf(`INSERT INTO patd_schema_version (version_id, is_applied) VALUES (%d, true)`, store.NewestSchema+1),
	)
	only := fmt.Sprintf("copies version %d only", store.NewestSchema)
	refused(t, st, url, store.Options{}, only)
	refused(t, remote, "sqlite:"+newPath(t), store.Options{}, only)
}

func TestTextThatPostgresCannotKeepIsNamedAndNotCopied(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	for what, text := range map[string]string{
		"holds a NUL character": `'a' || char(0) || 'b'`, "is not UTF-8": `CAST(x'61ff62' AS TEXT)`,
	} {
		st := everything(t, newPath(t), 10)
		exec1(
			t,
			st,
			`INSERT INTO events (seq, time_us, actor, action, outcome, detail, writer) VALUES (4711, 1, 'a', 'b', 1, `+text+`, 26)`,
		)
		url := emptyDatabase(server)
		refused(t, st, url, store.Options{}, "copy the store: the table events, row 4711: its detail "+what)
		wantNoRows(t, url)
		copyInto(t, st, "sqlite:"+newPath(t), "the same into a file")
	}
}

// TestACopyThatArrivesOtherwiseDidNotHappen changes what was written before it is read back.
func TestACopyThatArrivesOtherwiseDidNotHappen(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	st := everything(t, newPath(t), 10)
	url, dir := emptyDatabase(server), t.TempDir()
	for damage, want := range map[string]string{
		`UPDATE tokens SET last_used_us = 1 WHERE last_used_us = 0`:                                               "the table tokens has arrived otherwise",
		`UPDATE users SET features = '' WHERE features IS NULL`:                                                   "the table users has arrived otherwise",
		`DELETE FROM refresh_tokens WHERE use_us IS NULL`:                                                         "the table refresh_tokens has 2 rows, and 1 have arrived",
		`INSERT INTO prefixes (prefix) VALUES ('zzz')`:                                                            "the table prefixes has 1 rows, and 2 have arrived",
		`UPDATE keys SET check_value = digest FROM tokens WHERE keys.num = 7 AND tokens.id = 9223372036854775807`: "the table keys has arrived otherwise",
	} {
		o := store.Options{}.BeforeVerify(func(exec func(string) error) error { return exec(damage) })
		refused(t, st, "sqlite:"+filepath.Join(dir, "copy.db"), o, want)
		refused(t, st, url, o, want)
	}
	wantNoRows(t, url)
	wantNoFiles(t, dir)
	copyInto(t, st, url, "after copies that failed")
}

func TestARowThatPointsToNothingIsNotCopied(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	for _, damage := range []string{
		`UPDATE tokens SET key = 77 WHERE id = 9223372036854775807`, `UPDATE access_tokens SET family = 78 WHERE id = 1`,
	} {
		st := everything(t, newPath(t), 10)
		exec1(t, st, `PRAGMA foreign_keys = OFF`)
		exec1(t, st, damage)
		url, dir := emptyDatabase(server), t.TempDir()
		refused(t, st, url, store.Options{}, "a row breaks a rule of the schema")
		refused(t, st, "sqlite:"+filepath.Join(dir, "copy.db"), store.Options{}, "a row breaks a rule of the schema")
		wantNoRows(t, url)
		wantNoFiles(t, dir)
	}
}

func TestACancelledCopyLeavesNothing(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	st := everything(t, newPath(t), 10)
	url, dir := emptyDatabase(server), t.TempDir()
	for _, to := range []string{url, "sqlite:" + filepath.Join(dir, "copy.db")} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := st.Copy(ctx, to, store.Options{}.BeforeVerify(func(func(string) error) error {
			cancel()
			return nil
		}))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled copy: %v", err)
		}
	}
	wantNoRows(t, url)
	wantNoFiles(t, dir)
}
