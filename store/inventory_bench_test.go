package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

// BenchmarkInventory reads pages of 50 of the inventory by the filters that have no index of their own, in a store of
// PATD_BENCH_TOKENS tokens (100,000 otherwise), beside a statement that selects the same by SQL alone. Of each filter
// there is one that selects a few in a hundred tokens, and one that selects one in a hundred thousand.
//
//   - page-ms: the longest of the pages up to the fiftieth match, or the last one (reach: 50)
//   - pages, all-ms: how many pages that takes, and how long
//   - sql-ms: the statement
func BenchmarkInventory(b *testing.B) {
	n := 100_000
	if s := os.Getenv("PATD_BENCH_TOKENS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatalf("PATD_BENCH_TOKENS: %v", err)
		}
	}
	b.Run("sqlite", func(b *testing.B) {
		st := open(b, filepath.Join(b.TempDir(), "inventory.db"), store.Options{})
		if err := st.Exec(
			b.Context(),
			`PRAGMA cache_size = -1000000`,
		); err != nil { // of the writer: for what makes the rows
			b.Fatal(err)
		}
		benchInventory(b, st, n,
			`SELECT name FROM pragma_table_info('tokens')`)
	})
	b.Run("postgres", func(b *testing.B) {
		server := dbtest.Postgres(b, "fsync=off", "shared_buffers=512MB")
		st := openURL(b, newSchema(b, server), store.Options{BusyTimeout: time.Minute})
		if err := st.Exec(
			b.Context(),
			`SET statement_timeout = 0`,
		); err != nil { // of the writer: for what makes the rows
			b.Fatal(err)
		}
		benchInventory(
			b,
			st,
			n,
			`SELECT column_name::text FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'tokens'`,
		)
	})
}

// multiply makes copies of the tokens of a store until there are n, each issued a little later than the one before it.
func multiply(b *testing.B, st *store.Store, columns string, base, n int) error {
	b.Helper()
	names, err := st.Texts(b.Context(), 0, columns)
	if err != nil {
		return err
	}
	gap := 170 * tokens.Day / time.Duration(n)
	var values []string
	for i, c := range names {
		names[i] = `"` + c + `"`
		switch c {
		case "id":
			values = append(values, fmt.Sprintf(`id + CAST(i AS BIGINT) * %d`, gap.Milliseconds()<<22))
		case "issue_us", "expire_us":
			values = append(values, fmt.Sprintf(`%s + CAST(i AS BIGINT) * %d`, c, gap.Microseconds()))
		default:
			values = append(values, names[i])
		}
	}
	const part = 2000
	err = st.Exec(b.Context(), `CREATE TABLE base AS SELECT * FROM tokens`)
	for from := 0; from < base && err == nil; from += part { // in the order of ids, which is that of the table
		err = st.Exec(
			b.Context(),
			fmt.Sprintf(`WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < %d)
INSERT INTO tokens (%s) SELECT %s FROM (SELECT * FROM base ORDER BY id LIMIT %d OFFSET %d) AS some CROSS JOIN s WHERE i < %[1]d`,
				n/base, strings.Join(names, ", "), strings.Join(values, ", "), part, from),
		)
	}
	if err == nil {
		err = st.Exec(b.Context(), `DROP TABLE base`)
	}
	return err
}

// rareOf is how many tokens there are for each that a rare filter selects.
const rareOf = 100_000

func benchInventory(b *testing.B, st *store.Store, n int, columns string) {
	b.Helper()
	start := time.Now()
	now := start.UTC().Truncate(time.Microsecond)
	base := min(n, rareOf)
	_, err := storefill.Load(
		b.Context(),
		st,
		storefill.Config{Tokens: base, Now: now, Vary: func(n int, t *tokens.Token) {
			t.Labels = map[string]string{"team": fmt.Sprintf("team-%02d", n%50)}
			t.Audiences = []string{fmt.Sprintf("https://api-%02d.example.com", n%20)}
			if n%rareOf == rareOf/2 {
				t.Labels["rare"] = "yes"
				t.Audiences = append(t.Audiences, "https://rare.example.com")
				t.Scopes = append(t.Scopes[:len(t.Scopes):len(t.Scopes)], "unusual.run")
			}
		}},
	)
	if err == nil {
		err = multiply(b, st, columns, base, n)
	}
	if err != nil {
		b.Fatal(err)
	}
	used := now.Add(-24 * time.Hour).UnixMicro()
	for _, statement := range []string{
		fmt.Sprintf(`UPDATE tokens SET last_used_us = %d WHERE id %% 50 <> 0`, used),
		`ANALYZE`,
	} {
		if err := st.Exec(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("filled with %d tokens in %s", n, time.Since(start).Round(time.Second))
	month, soon := now.Add(-30*tokens.Day), now.Add(11*tokens.Day)
	for _, c := range []struct {
		name   string
		filter tokens.Filter
		where  string
	}{
		{"newest", tokens.Filter{}, `TRUE`},
		{"active", tokens.Filter{State: tokens.StateActive}, fmt.Sprintf(`revoke_us IS NULL AND expire_us > %d`, now.UnixMicro())},
		{"expires", tokens.Filter{ExpiresBefore: soon}, fmt.Sprintf(`expire_us < %d`, soon.UnixMicro())},
		{"created", tokens.Filter{CreatedBefore: month}, fmt.Sprintf(`issue_us < %d`, month.UnixMicro())},
		{"user", tokens.Filter{User: "user-0000007"}, `"user" = (SELECT key FROM users WHERE "user" = 'user-0000007' AND delete_us IS NULL)`},
		{"scope", tokens.Filter{Scope: "billing.read"}, `instr(' ' || scopes || ' ', ' billing.read ') > 0`},
		{"scope-rare", tokens.Filter{Scope: "unusual.run"}, `instr(' ' || scopes || ' ', ' unusual.run ') > 0`},
		{"audience", tokens.Filter{Audience: "https://api-07.example.com"}, `instr(audiences, 'https://api-07.example.com') > 0`},
		{"audience-rare", tokens.Filter{Audience: "https://rare.example.com"}, `instr(audiences, 'https://rare.example.com') > 0`},
		{"label", tokens.Filter{Labels: map[string]string{"team": "team-07"}}, `instr(labels, '"team":"team-07"') > 0`},
		{"label-rare", tokens.Filter{Labels: map[string]string{"rare": "yes"}}, `instr(labels, '"rare":"yes"') > 0`},
		{"unused", tokens.Filter{UnusedSince: month}, fmt.Sprintf(`issue_us < %d AND (last_used_us IS NULL OR last_used_us < %[1]d)`, month.UnixMicro())},
		{"unused-rare", tokens.Filter{UnusedSince: month, Labels: map[string]string{"rare": "yes"}},
			fmt.Sprintf(`issue_us < %d AND (last_used_us IS NULL OR last_used_us < %[1]d) AND instr(labels, '"rare":"yes"') > 0`, month.UnixMicro())},
	} {
		b.Run(c.name, func(b *testing.B) {
			var longest, all, raw time.Duration
			var pages, found int
			order, err := tokens.ParseOrder("", c.filter)
			if err != nil {
				b.Fatal(err)
			}
			by := `issue_us`
			if order.ByExpiry() {
				by = `expire_us`
			}
			for b.Loop() {
				longest, all, pages, found = walkInventory(
					b,
					st,
					tokens.InventoryQuery{Filter: c.filter, Now: now, Order: order, Limit: 50},
				)
				at := time.Now()
				list, err := st.Texts(
					b.Context(),
					0,
					`SELECT id FROM tokens WHERE `+c.where+` ORDER BY `+by+` DESC, id DESC LIMIT 50`,
				)
				if raw = time.Since(at); err != nil || len(list) != min(found, 50) {
					b.Fatalf("the statement selects %d, the inventory %d: %v", len(list), found, err)
				}
			}
			b.ReportMetric(0, "ns/op")
			for name, d := range map[string]time.Duration{"page-ms": longest, "all-ms": all, "sql-ms": raw} {
				b.ReportMetric(float64(d.Microseconds())/1000, name)
			}
			b.ReportMetric(float64(pages), "pages")
		})
	}
}

// walkInventory reads pages until there is a whole one, or no more.
func walkInventory(
	b *testing.B,
	st *store.Store,
	q tokens.InventoryQuery,
) (longest, all time.Duration, pages, found int) {
	b.Helper()
	for more := true; more && found < q.Limit; {
		start := time.Now()
		err := st.View(b.Context(), func(tx tokens.ReadTx) error {
			page, err := tx.Inventory(q)
			q.After, more = page.Next, page.More
			found += len(page.Tokens)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		pages, all, longest = pages+1, all+took, max(longest, took)
	}
	return longest, all, pages, found
}
