package cache

import (
	"math/rand/v2"
	"testing"

	"patd/tokens"
)

// TestUsersAreForgottenByTheirIDs has users come, go, be evicted and be dropped by ids that several had.
func TestUsersAreForgottenByTheirIDs(t *testing.T) {
	t.Parallel()
	const keys, ids = 150, 40
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var u users
		u.init(32 << 10)
		idOf := func(key int64) string { return "user" + string(rune('a'+key%ids)) }
		for range 1500 {
			key := rnd.Int64N(keys) + 1
			switch op := rnd.IntN(100); {
			case op < 60:
				f := []string{"a", "b", "c", "d"}[:rnd.IntN(5)]
				u.put(tokens.User{Key: key, ID: idOf(key), Features: f, State: tokens.UserActive}, u.seq.Load())
			case op < 99:
				u.drop(idOf(key))
				for k := key % ids; k <= keys; k += ids {
					if _, there := u.get(k, new(tokens.User)); k > 0 && there {
						t.Fatal("a user that was forgotten is there")
					}
				}
			default:
				u.clear()
			}
			for k := range int64(keys) {
				var got tokens.User
				if _, there := u.get(k+1, &got); there && (got.Key != k+1 || got.ID != idOf(k+1)) {
					t.Fatal("another user")
				}
			}
			for i := range u.shards {
				if a, b := u.shards[i].log.Stats().Records, u.shards[i].byID.Len(); a != b {
					t.Fatalf("%d records, %d by id", a, b)
				}
			}
		}
	}
}
