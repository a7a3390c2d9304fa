package storetest

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"patd/tokens"
	"patd/tokens/secret"
)

// testUserPages holds the list of a user's tokens to the state, the name and the audience, page by page.
func testUserPages(t *testing.T, f *fixture) {
	all := f.inventory(150)
	slices.SortFunc(all, inventoryOrder(tokens.OrderNewest))
	for _, filter := range []tokens.Filter{
		{}, {State: tokens.StateActive}, {State: tokens.StateExpired}, {State: tokens.StateRevoked}, {NameHas: "TOKEN 1"},
		{Audience: "api"}, {State: tokens.StateActive, NameHas: "1"}, {State: tokens.StateRevoked, Audience: "api"},
	} {
		for _, user := range []string{"u1", "u2"} {
			filter.User = user
			var want []tokens.Token
			var key int64
			for _, tok := range all {
				if filter.Matches(tok, f.now) {
					want, key = append(want, tok), tok.UserKey
				}
			}
			if len(want) == 0 {
				t.Fatalf("%+v: %d tokens to find", filter, len(want))
			}
			for _, limit := range []int{1, 4, 100} {
				q := tokens.TokenQuery{
					UserKey:  key,
					State:    filter.State,
					NameHas:  filter.NameHas,
					Audience: filter.Audience,
					Now:      f.now,
					Limit:    limit,
				}
				var got []tokens.Token
				for more := true; more; {
					var page []tokens.Token
					f.view(func(tx tokens.ReadTx) (err error) {
						page, err = tx.Tokens(q)
						return err
					})
					if more = len(page) == limit; more {
						q.Before = page[limit-1].ID
					}
					got = append(got, page...)
				}
				f.equal(fmt.Sprintf("%+v, %d a page", filter, limit), got, want)
			}
		}
	}
}

// testPositions holds what versions of patd make of one another's positions in the order of issue, while both run:
// those up to schema 24 go by the instant of issue and then by the id, and later ones by the id. Neither leaves a token
// out that the other had not listed.
func testPositions(t *testing.T, f *fixture) {
	u := f.user("u")
	base := f.now.Truncate(time.Millisecond).Add(-time.Second)
	var all []tokens.Token
	for i := range 18 { // of three milliseconds, and in each the ids are in the opposite order of the instants
		issue := base.Add(time.Duration(i/6)*time.Millisecond + time.Duration(i%6/2)*300*time.Microsecond)
		all = append(all, f.token(u, fmt.Sprint("token ", i), func(tok *tokens.Token) {
			tok.ID, tok.IssueTime = secret.FirstID(issue)+tokens.ID(100-i), issue
		}))
	}
	byID := func(order tokens.Order) func(a, b tokens.Token) int {
		return func(a, b tokens.Token) int {
			a.IssueTime, b.IssueTime = time.Time{}, time.Time{}
			return inventoryOrder(order)(a, b)
		}
	}
	for order, end := range map[tokens.Order]tokens.ID{tokens.OrderNewest: math.MaxInt64, tokens.OrderOldest: 1 << 63} {
		before := inventoryOrder(order)
		for _, last := range all {
			for what, id := range map[string]tokens.ID{"a token": last.ID, "an instant": end} {
				from := tokens.InventoryPosition{ID: id, Time: last.IssueTime}
				at := tokens.Token{ID: id, IssueTime: last.IssueTime}
				if id == end {
					at.ID = 0 // before all of the instant
					if order.Descending() {
						at.ID = math.MaxInt64
					}
				}
				got := f.pages(tokens.InventoryQuery{Order: order, Limit: 4, After: from})
				if !slices.IsSortedFunc(got, byID(order)) {
					t.Errorf("order %d, after %s: the list is not in the order of ids", order, what)
				}
				for _, tok := range all {
					listed := slices.ContainsFunc(got, func(g tokens.Token) bool { return g.ID == tok.ID })
					if before(at, tok) < 0 && !listed {
						t.Errorf(
							"order %d, after %s at %v: %s at %v is left out",
							order,
							what,
							from,
							tok.Name,
							tok.IssueTime,
						)
					}
				}
			}
		}
		q, rest := tokens.InventoryQuery{Order: order, Limit: 1, Now: f.now}, slices.Clone(all)
		slices.SortFunc(rest, byID(order))
		for len(rest) > 0 {
			var page tokens.InventoryPage
			f.view(func(tx tokens.ReadTx) (err error) {
				page, err = tx.Inventory(q)
				return err
			})
			f.equal("the next token", page.Tokens, rest[:1])
			if rest = rest[1:]; page.More != (len(rest) > 0) {
				t.Fatalf("order %d: %d tokens are left, and there are more: %v", order, len(rest), page.More)
			}
			q.After = page.Next
			for _, tok := range rest {
				if before(tokens.Token{ID: q.After.ID, IssueTime: q.After.Time}, tok) >= 0 {
					t.Errorf("order %d: an earlier version leaves %s out after %+v", order, tok.Name, q.After)
				}
			}
		}
	}
}
