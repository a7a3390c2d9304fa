package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

// TestInventoryUsesIndexes looks at the plan of each statement, in both databases: none reads all tokens, and only
// those for a few tokens sort.
func TestInventoryUsesIndexes(t *testing.T) {
	t.Parallel()
	lite := open(t, newPath(t), store.Options{})
	for statement, want := range store.InventoryStatements() {
		plan, err := lite.Texts(t.Context(), 3, "EXPLAIN QUERY PLAN "+statement, slices.Repeat([]any{1}, 20)...)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		steps := strings.Join(plan, "\n")
		if !strings.Contains(steps, want.Index) || strings.Contains(steps, "SCAN") ||
			!want.Sorts && strings.Contains(steps, "TEMP B-TREE") {
			t.Errorf("plan of %s\n%s\nwant %s", statement, steps, want.Index)
		}
	}
	big := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
	if _, err := storefill.Load(t.Context(), big, storefill.Config{Tokens: 3000, Users: 300}); err != nil {
		t.Fatal(err)
	}
	analyze(t, big)
	exec1(t, big, `SET plan_cache_mode = force_generic_plan`)
	for statement, want := range store.InventoryStatements() {
		plan, err := big.Plan(t.Context(), statement)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		index, _, _ := strings.Cut(want.Index, " ")
		if index == "INTEGER" {
			index = "tokens_pkey"
		}
		if !strings.Contains(plan, index) || strings.Contains(plan, "Seq Scan on tokens") ||
			!want.Sorts && strings.Contains(plan, "Sort") {
			t.Errorf("%s\nplan\n%s\nwant %s", store.PostgresForm(statement), plan, index)
		}
	}
}

// TestInventoryPagesOfManyTokensAreBounded has more tokens than a page reads rows of: those that match rarely come in
// pages that are not full, and all of them come.
func TestInventoryPagesOfManyTokensAreBounded(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	st := open(t, newPath(t), store.Options{NoSync: true})
	const n = 9000
	now := time.Now()
	ids, err := storefill.Load(t.Context(), st, storefill.Config{Tokens: n, Users: 3, Now: now})
	must(t, err)
	filters := map[string]tokens.Filter{
		"one in sixteen": {NameHas: "7"}, "none": {NameHas: "no such"}, "all": {}, "a user": {User: "user-0000001"},
		"the oldest": {NameHas: "deploy 00000"},
	}
	for what, f := range filters {
		var want int
		for i := range n {
			must(t, st.View(t.Context(), func(tx tokens.ReadTx) error {
				if what != "all" && i%50 != 0 { // a sample is read, to be found again
					return nil
				}
				tok, err := tx.Token(ids[i])
				if f.Matches(tok, now) {
					want++
				}
				return err
			}))
		}
		for order := tokens.OrderNewest; order <= tokens.OrderFurthestExpiry; order++ {
			seen := map[tokens.ID]bool{}
			q := tokens.InventoryQuery{Filter: f, Now: now, Order: order, Limit: 200, Within: -1}
			for more := true; more; {
				must(t, st.View(t.Context(), func(tx tokens.ReadTx) error {
					page, err := tx.Inventory(q)
					for _, tok := range page.Tokens {
						if seen[tok.ID] || !f.Matches(tok, now) {
							t.Errorf("%s, order %d: token %s is listed twice, or does not match", what, order, tok.ID)
						}
						seen[tok.ID] = true
					}
					q.After, more = page.Next, page.More
					return err
				}))
			}
			found := 0
			for i, id := range ids {
				if seen[id] && (what == "all" || i%50 == 0) {
					found++
				}
			}
			if found != want {
				t.Errorf("%s, order %d: %d of %d were listed", what, order, found, want)
			}
		}
	}
}
