package storetest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"patd/tokens"
)

// testInventory holds a store's filter to tokens.Filter.Matches, in every order, page by page.
func testInventory(t *testing.T, f *fixture) {
	all := f.inventory(150)
	filters := map[string]tokens.Filter{
		"all":          {},
		"user":         {User: "u1"},
		"no such user": {User: "nobody"},
		"active":       {State: tokens.StateActive},
		"expired": {
			State: tokens.StateExpired,
		},
		"revoked":             {State: tokens.StateRevoked},
		"not revoked":         {Unrevoked: true},
		"paused or granted":   {Scope: "c.read"},
		"paused with another": {Scope: "d.read"},
		"scope":               {Scope: "a.read"},
		"a part of a scope":   {Scope: "a"},
		"audience":            {Audience: "api"},
		"label":               {Labels: map[string]string{"team": `in"fra`}},
		"empty label":         {Labels: map[string]string{"ü": ""}},
		"labels": {
			Labels: map[string]string{"team": `in"fra`, "k": "<1>"},
		},
		"a quoted key": {Labels: map[string]string{`x,"k`: "v"}},
		"expires": {
			ExpiresBefore: f.now.Add(3 * time.Hour),
		},
		"ends an instant later":  {ExpiresBefore: all[10].ExpireTime},
		"unused":                 {UnusedSince: f.now.Add(-30 * time.Minute)},
		"created":                {CreatedBefore: all[75].IssueTime},
		"name":                   {NameHas: "TOKEN 1"},
		"id":                     {ID: all[42].ID},
		"revoked of a user":      {User: "u2", State: tokens.StateRevoked},
		"revoked and created":    {State: tokens.StateRevoked, CreatedBefore: all[75].IssueTime},
		"expires soon":           {State: tokens.StateActive, ExpiresBefore: f.now.Add(2 * time.Hour)},
		"of a user, unused":      {User: "u1", UnusedSince: f.now.Add(-10 * time.Minute)},
		"scope, audience, label": {Scope: "b.write", Audience: "other", Labels: map[string]string{"k": "v"}},
	}
	for what, filter := range filters {
		var want []tokens.Token
		for _, tok := range all {
			if filter.Matches(tok, f.now) {
				want = append(want, tok)
			}
		}
		if len(want) == 0 && what != "no such user" && what != "a part of a scope" {
			t.Fatalf("%s: no token to find", what)
		}
		for order := tokens.OrderNewest; order <= tokens.OrderFurthestExpiry; order++ {
			slices.SortFunc(want, inventoryOrder(order))
			// As if each stretch of it took too long, too.
			for limit, within := range map[int]time.Duration{31: 0, 300: -1} {
				got := f.pages(tokens.InventoryQuery{Filter: filter, Order: order, Limit: limit, Within: within})
				f.equal(fmt.Sprintf("%s, order %d, %d a page", what, order, limit), got, want)
			}
		}
	}
}

// inventory inserts tokens of all kinds, and returns them as they are read, oldest first.
func (f *fixture) inventory(n int) []tokens.Token {
	f.t.Helper()
	users := []tokens.User{f.user("u1"), f.user("u2"), f.user("u3")}
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) (out []string) {
		for _, s := range from {
			if rnd.IntN(2) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	labels := []map[string]string{
		nil,
		{"team": `in"fra`},
		{"team": `in"fra`, "k": "<1>", "z": "1"},
		{"ü": ""},
		{`x,"k`: "v"},
		{"k": "v"},
	}
	var all []tokens.Token
	f.update(func(tx tokens.Tx) error {
		for i := range n {
			u := users[rnd.IntN(len(users))]
			issue := f.now.Add(time.Duration(i/20-n/20-1) * 5 * time.Minute) // several share an instant
			tok := tokens.Token{
				ID:         f.idAt(issue),
				UserKey:    u.Key,
				User:       u.ID,
				Name:       fmt.Sprintf("token %03d", i),
				Labels:     labels[rnd.IntN(len(labels))],
				Scopes:     append([]string{"a.read"}[:rnd.IntN(2)], "b.write"),
				Audiences:  pick("api", "other"),
				IssueTime:  issue,
				ExpireTime: f.now.Add(time.Duration(rnd.IntN(9)-3) * time.Hour),
			}
			if rnd.IntN(4) == 0 {
				tok.ExpireTime = time.Time{}
			}
			if rnd.IntN(4) == 0 {
				tok.Revocation = &tokens.Revocation{Time: f.now, By: "operator"}
			}
			if err := tx.InsertToken(tok, hash("k1", f.n)); err != nil {
				return err
			}
			if tok.Revocation == nil {
				tok.Paused = pauses(i, f.now)
				if err := tx.UpdateToken(tok); err != nil {
					return err
				}
			}
			all = append(all, tok)
		}
		return nil
	})
	for i := range all {
		if rnd.IntN(2) == 0 {
			at := all[i].IssueTime.Add(time.Duration(rnd.IntN(int(f.now.Sub(all[i].IssueTime))/2 + 1)))
			f.st.RecordUse(tokens.Usage{ID: all[i].ID, Use: tokens.Use{Time: at}})
		}
	}
	f.flush()
	for i := range all {
		all[i] = f.read(all[i].ID)
	}
	return all
}

// pauses are paused scopes: none, or some of which each may be over, or is over right now.
func pauses(i int, now time.Time) []tokens.Pause {
	over, ending := now.Add(-tokens.PauseLife), now.Add(-tokens.PauseLife).Add(time.Microsecond)
	return [][]tokens.Pause{
		nil, nil,
		{{Scope: "c.read", Time: over}},
		{{Scope: "c.read", Time: ending}},
		{{Scope: "c.read", Time: over}, {Scope: "d.read", Time: ending}},
		{{Scope: "c.read", Time: now}, {Scope: "d.read", Time: over}},
		{{Scope: "cc.read", Time: now}},
	}[i%7]
}

func inventoryOrder(o tokens.Order) func(a, b tokens.Token) int {
	return func(a, b tokens.Token) int {
		order := a.IssueTime.Compare(b.IssueTime)
		if o.ByExpiry() {
			never := func(t tokens.Token) int {
				if t.ExpireTime.IsZero() {
					return 1
				}
				return 0
			}
			order = cmp.Or(never(a)-never(b), a.ExpireTime.Compare(b.ExpireTime))
		}
		order = cmp.Or(order, cmp.Compare(a.ID, b.ID))
		if o.Descending() {
			return -order
		}
		return order
	}
}

// pages reads all pages of the inventory.
func (f *fixture) pages(q tokens.InventoryQuery) (list []tokens.Token) {
	f.t.Helper()
	q.Now = f.now
	for range 1000 {
		var page tokens.InventoryPage
		f.view(func(tx tokens.ReadTx) (err error) {
			page, err = tx.Inventory(q)
			return err
		})
		if len(page.Tokens) > q.Limit {
			f.t.Fatalf("a page of %d tokens; want at most %d", len(page.Tokens), q.Limit)
		}
		list = append(list, page.Tokens...)
		if !page.More {
			return list
		}
		q.After = page.Next
	}
	f.t.Fatal("the pages do not end")
	return nil
}
