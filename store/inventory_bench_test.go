package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
		benchInventory(b, open(b, filepath.Join(b.TempDir(), "inventory.db"), store.Options{}), n)
	})
	b.Run("postgres", func(b *testing.B) {
		server := dbtest.Postgres(b, "fsync=off", "shared_buffers=512MB")
		st := openURL(b, newSchema(b, server), store.Options{BusyTimeout: time.Minute})
		if err := st.Exec(b.Context(), `SET statement_timeout = 0`); err != nil { // of the writer: for what makes the rows
			b.Fatal(err)
		}
		benchInventory(b, st, n)
	})
}

// rareOf is how many tokens there are for each that a rare filter selects.
const rareOf = 100_000

func benchInventory(b *testing.B, st *store.Store, n int) {
	b.Helper()
	start := time.Now()
	now := start.UTC().Truncate(time.Microsecond)
	_, err := storefill.Load(b.Context(), st, storefill.Config{Tokens: n, Now: now, Vary: func(n int, t *tokens.Token) {
		t.Labels = map[string]string{"team": fmt.Sprintf("team-%02d", n%50)}
		t.Audiences = []string{fmt.Sprintf("https://api-%02d.example.com", n%20)}
		if n%rareOf == rareOf/2 {
			t.Labels["rare"] = "yes"
			t.Audiences = append(t.Audiences, "https://rare.example.com")
			t.Scopes = append(t.Scopes[:len(t.Scopes):len(t.Scopes)], "unusual.run")
		}
	}})
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
	month := now.Add(-30 * tokens.Day)
	for _, c := range []struct {
		name   string
		filter tokens.Filter
		where  string
	}{
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
			for b.Loop() {
				longest, all, pages, found = walkInventory(b, st, tokens.InventoryQuery{Filter: c.filter, Now: now, Order: tokens.OrderNewest, Limit: 50})
				at := time.Now()
				list, err := st.Texts(b.Context(), 0, `SELECT id FROM tokens WHERE `+c.where+` ORDER BY issue_us DESC, id DESC LIMIT 50`)
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
func walkInventory(b *testing.B, st *store.Store, q tokens.InventoryQuery) (longest, all time.Duration, pages, found int) {
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
