package storetest

import (
	"fmt"
	"slices"
	"testing"

	"patd/tokens"
)

// testGranted reads the live tokens that were granted a scope, in batches, and holds them to what there is. A store may
// return other live tokens for many scopes.
func testGranted(t *testing.T, f *fixture) {
	all := f.inventory(150)
	slices.SortFunc(all, func(a, b tokens.Token) int {
		if a.UserKey != b.UserKey {
			return int(a.UserKey - b.UserKey)
		}
		return int(int64(a.ID>>1) - int64(b.ID>>1))
	})
	many := []string{"a.read"}
	for i := range 20 {
		many = append(many, fmt.Sprint("other", i))
	}
	for what, scopes := range map[string][]string{"one": {"a.read"}, "a part": {"a"}, "two": {"a.read", "b.write"}, "many": many} {
		for _, user := range []int64{0, all[0].UserKey, all[len(all)-1].UserKey} {
			has := func(s string) bool { return slices.Contains(scopes, s) }
			var want, got []tokens.Token
			for _, tok := range all {
				if tok.Status(f.now) == tokens.StateActive && (user == 0 || tok.UserKey == user) &&
					slices.ContainsFunc(tok.Scopes, has) {
					want = append(want, tok)
				}
			}
			if len(want) == 0 && what != "a part" {
				t.Fatalf("%s: no token to find", what)
			}
			q := tokens.GrantedQuery{Scopes: scopes, User: user, Now: f.now, Limit: 7}
			for full := true; full; {
				var batch []tokens.Token
				f.view(func(tx tokens.ReadTx) (err error) { batch, err = tx.Granted(q); return err })
				if full = len(batch) == q.Limit; full {
					q.AfterUser, q.AfterID = batch[6].UserKey, batch[6].ID
				}
				got = append(got, batch...)
			}
			got = slices.DeleteFunc(got, func(tok tokens.Token) bool { return !slices.ContainsFunc(tok.Scopes, has) })
			f.equal(fmt.Sprintf("%s, user %d", what, user), got, want)
		}
	}
}
