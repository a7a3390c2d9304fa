package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"patd/tokens"
)

// TestWhatAUserHoldsIsNotMixedUp asks about many more pairs of lists than are remembered, many times in any order.
func TestWhatAUserHoldsIsNotMixedUp(t *testing.T) {
	t.Parallel()
	const kinds = 80
	rnd := rand.New(rand.NewPCG(3, 4))
	lists := make([][]string, kinds)
	for i := range lists {
		for s := range 6 {
			if rnd.IntN(3) > 0 {
				lists[i] = append(lists[i], fmt.Sprint("s", s))
			}
		}
	}
	var h holdings
	yes, no := 0, 0
	for range 100_000 {
		scopes, features := rnd.IntN(kinds), rnd.IntN(kinds)
		c := tokens.Credential{
			Token: tokens.Token{Scopes: lists[scopes]}, User: tokens.User{Features: lists[features]},
		}
		want := !slices.ContainsFunc(
			lists[scopes],
			func(s string) bool { return !slices.Contains(lists[features], s) },
		)
		if got := h.all(uint32(scopes)+1, uint32(features)+1, &c); got != want {
			t.Fatalf("%v of %v: %v", lists[scopes], lists[features], got)
		}
		if want {
			yes++
		} else {
			no++
		}
		if h.all(0, uint32(features)+1, &c) || h.all(uint32(scopes)+1, 0, &c) {
			t.Fatal("a list without a number is known")
		}
	}
	if yes < 1000 || no < 1000 {
		t.Errorf("%d held, %d not", yes, no)
	}
}
