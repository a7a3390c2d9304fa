package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/storefill"
)

// Both engines tell the same of a schema in lines: columns with their types, keys, indexes, references and triggers.
const (
	sqliteColumns = `
SELECT m.name || '.' || c.name || ' ' || c.type || CASE WHEN c."notnull" OR c.pk > 0 THEN ' not null' ELSE '' END || CASE WHEN c.pk > 0 THEN ' key ' || c.pk ELSE '' END
FROM sqlite_schema m, pragma_table_info(m.name) c
WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name <> 'goose_db_version' ORDER BY 1`

	postgresColumns = `
SELECT c.relname || '.' || a.attname || ' ' || CASE format_type(a.atttypid, a.atttypmod) WHEN 'bigint' THEN 'INTEGER' WHEN 'text' THEN 'TEXT' WHEN 'bytea' THEN 'BLOB' ELSE format_type(a.atttypid, a.atttypmod) END
  || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END || coalesce(' key ' || array_position(k.conkey, a.attnum), '')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
WHERE c.relkind = 'r' AND c.relnamespace = CAST(current_schema() AS regnamespace) AND c.relname NOT IN ('patd_schema_version', 'rates', 'writers') ORDER BY 1`

	sqliteIndexes = `
SELECT i.name || CASE WHEN i."unique" THEN ' unique' ELSE '' END || CASE WHEN i.partial THEN ' partial' ELSE '' END || ' (' || group_concat(CASE x.cid WHEN -2 THEN 'expression' ELSE coalesce(x.name, 'rowid') END, ' ' ORDER BY x.seqno) || ')'
FROM sqlite_schema m, pragma_index_list(m.name) i, pragma_index_xinfo(i.name) x
WHERE m.type = 'table' AND i.origin = 'c' AND x.key GROUP BY i.name ORDER BY 1`

	postgresIndexes = `
SELECT i.relname || CASE WHEN x.indisunique THEN ' unique' ELSE '' END || CASE WHEN x.indpred IS NOT NULL THEN ' partial' ELSE '' END
  || ' (' || string_agg(CASE x.indkey[a.attnum - 1] WHEN 0 THEN 'expression' ELSE a.attname END, ' ' ORDER BY a.attnum) || ')'
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_attribute a ON a.attrelid = i.oid
WHERE i.relnamespace = CAST(current_schema() AS regnamespace) AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.oid)
GROUP BY i.relname, x.indisunique, x.indpred IS NOT NULL ORDER BY 1`

	sqliteReferences = `
SELECT m.name || '.' || f."from" || ' to ' || f."table" || '.' || f."to" FROM sqlite_schema m, pragma_foreign_key_list(m.name) f
WHERE m.type = 'table' ORDER BY 1`

	postgresReferences = `
SELECT c.relname || '.' || a.attname || ' to ' || p.relname || '.' || b.attname
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1] JOIN pg_attribute b ON b.attrelid = p.oid AND b.attnum = k.confkey[1]
WHERE k.contype = 'f' AND k.connamespace = CAST(current_schema() AS regnamespace) ORDER BY 1`

	sqliteTriggers = `SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY 1`

	// TRUNCATE is PostgreSQL's alone, and so is what keeps it from the audit log.
	postgresTriggers = `
SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgname <> 'events_no_truncate' AND c.relnamespace = CAST(current_schema() AS regnamespace) ORDER BY 1`

	sqliteChecks = `
SELECT m.name || ' ' || ((length(m.sql) - length(replace(m.sql, 'CHECK (', ''))) / 7) FROM sqlite_schema m
WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name <> 'goose_db_version' AND m.sql LIKE '%CHECK (%' ORDER BY 1`

	postgresChecks = `
SELECT c.relname || ' ' || count(*) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.contype = 'c' AND k.connamespace = CAST(current_schema() AS regnamespace) GROUP BY c.relname ORDER BY 1`
)

// TestTheSchemasAreTheSame holds that a migration of one number means the same in both engines.
func TestTheSchemasAreTheSame(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	lite := open(t, newPath(t), store.Options{})
	big := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
	tell := func(st *store.Store, query string) []string {
		t.Helper()
		lines, err := st.Texts(t.Context(), 0, query)
		if err != nil || len(lines) == 0 {
			t.Fatalf("%d lines, %v", len(lines), err)
		}
		return lines
	}
	for what, queries := range map[string][2]string{
		"columns": {sqliteColumns, postgresColumns}, "references": {sqliteReferences, postgresReferences},
		"triggers": {sqliteTriggers, postgresTriggers}, "checks": {sqliteChecks, postgresChecks},
	} {
		if d := cmp.Diff(tell(lite, queries[0]), tell(big, queries[1])); d != "" {
			t.Errorf("%s (-SQLite +PostgreSQL):\n%s", what, d)
		}
	}
	// An index of SQLite's ends in the row's id by itself.
	ending := strings.NewReplacer(" id)", ")", " seq)", ")")
	indexes := tell(big, postgresIndexes)
	for i, line := range tell(lite, sqliteIndexes) {
		if i >= len(indexes) || line != indexes[i] && line != ending.Replace(indexes[i]) {
			t.Errorf(
				"index %s; PostgreSQL has %s",
				line,
				fmt.Sprint(indexes[min(i, len(indexes)):min(i+1, len(indexes))]),
			)
		}
	}
	if len(indexes) != len(tell(lite, sqliteIndexes)) {
		t.Errorf("PostgreSQL has the indexes %v", indexes)
	}
	versions := func(st *store.Store, table string) []string {
		return tell(st, `SELECT version_id FROM `+table+` WHERE version_id > 0 ORDER BY version_id`)
	}
	a, b := versions(lite, "goose_db_version"), versions(big, "patd_schema_version")
	if !slices.Equal(a, b) || a[len(a)-1] != fmt.Sprint(store.NewestSchema) {
		t.Errorf("migrations %v and %v; this program says %d", a, b, store.NewestSchema)
	}
}

// TestPostgresLookupsUseIndexes has a store of some size, for PostgreSQL reads small tables whole.
func TestPostgresLookupsUseIndexes(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
	if _, err := storefill.Load(t.Context(), st, storefill.Config{Tokens: 3000, Users: 300}); err != nil {
		t.Fatal(err)
	}
	analyze(t, st)
	exec1(t, st, `SET enable_seqscan = off`) // where there is an index it is used
	exec1(t, st, `SET plan_cache_mode = force_generic_plan`)
	for statement, index := range map[string]string{
		store.CredentialQuery: "tokens_pkey",
		store.LiveTokensQuery: "tokens_user",
		store.RevokedQuery:    "tokens_user",
		store.UnrevokedQuery:  "tokens_user",
		store.ExceedingQuery:  "tokens_exceeding",
		store.EntriesQuery:    "changes_pkey",
		store.EventsOfUser:    "events_user",
		store.EventsOfToken:   "events_token",
		store.UserQuery:       "users_live",
		store.RevokeTokens:    "tokens_",
	} {
		plan, err := st.Plan(t.Context(), statement)
		if err != nil {
			t.Errorf("%s: %v", statement, err)
			continue
		}
		if !strings.Contains(plan, index) || strings.Contains(plan, "Seq Scan on tokens") {
			t.Errorf("%s\nplan\n%s\nwant %s", statement, plan, index)
		}
	}
}

func TestPostgresFormOfStatements(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		`SELECT a FROM t WHERE b = ? AND c = ?`:                           `SELECT a FROM t WHERE b = $1 AND c = $2`,
		`UPDATE t SET a = ?2, b = ?12 WHERE c = ?1`:                       `UPDATE t SET a = $2, b = $12 WHERE c = $1`,
		`SELECT '?', "?" FROM t INDEXED BY t_x CROSS JOIN u ON u.a = t.b`: `SELECT '?', "?" FROM t  JOIN u ON u.a = t.b`,
		`SELECT CAST(a || b AS BLOB) FROM t`:                              `SELECT CAST(a || b AS bytea) FROM t`,
	} {
		if got := store.PostgresForm(given); got != want {
			t.Errorf("%s\nbecomes %s\nwant    %s", given, got, want)
		}
	}
}
