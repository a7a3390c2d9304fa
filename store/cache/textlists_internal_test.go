package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"patd/store/cache/internal/reclog"
	"patd/tokens"
)

// TestNumbersOfListsStayGood has more different lists come than are shared: what a number names does not change, the
// memory of all is bounded, and what came once only gets no number.
func TestNumbersOfListsStayGood(t *testing.T) {
	t.Parallel()
	var l textLists
	const most = 40_000
	given := make(map[int]uint32)
	list := func(i int) []string { return []string{fmt.Sprintf("reports.%06d", i), "reports.read"} }
	for i := range most {
		if n := l.number(list(i)); n != 0 {
			t.Fatalf("list %d has the number %d when it came once", i, n)
		}
		if n := l.number(list(i)); n != 0 {
			given[i] = n
		}
	}
	if len(given) == 0 || len(given) == most || l.size > sharedLists {
		t.Fatalf("%d of %d lists are shared, which take %d bytes", len(given), most, l.size)
	}
	all := l.all()
	for i, n := range given {
		if again := l.number(list(i)); again != n || !slices.Equal(all[n-1], list(i)) {
			t.Fatalf("list %d had the number %d and has %d, which is %v", i, n, again, all[n-1])
		}
	}
	if n := l.number([]string{strings.Repeat("x", sharedLists/16)}); n != 0 {
		t.Error("a list that would take the room of many is shared")
	}
}

// TestTokensShareScopes: a token is read as it was put, whether its record has its scopes or the number of a list, and
// the second of two tokens with the same scopes has no room for them.
func TestTokensShareScopes(t *testing.T) {
	t.Parallel()
	var l textLists
	rnd := rand.New(rand.NewPCG(1, 5))
	first := func(string) (uint16, bool) { return 0, true }
	for id := range tokens.ID(300) {
		c := tokens.Credential{
			Token: tokens.Token{
				ID: id, Name: strings.Repeat("n", rnd.IntN(20)), Scopes: scopesOf(tokens.ID(rnd.IntN(6))),
				Description: strings.Repeat("d", rnd.IntN(2)), Audiences: []string{"a", "b"}[:rnd.IntN(3)],
			},
			Secrets: make([]tokens.StoredSecret, 1),
		}
		list := l.number(c.Token.Scopes)
		r, ok := packToken(&c, first, list)
		if !ok {
			t.Fatal("a record does not hold a token")
		}
		own, _ := packToken(&c, first, 0)
		if list != 0 && len(own)-len(r) < len(strings.Join(c.Token.Scopes, " "))-reclog.Align {
			t.Errorf("a record with shared scopes takes %d bytes, and with its own %d", len(r), len(own))
		}
		var got, alone tokens.Credential
		tokenRecord(r).read(&got, nil, []string{"k"}, l.all())
		tokenRecord(own).read(&alone, nil, []string{"k"}, nil)
		for _, read := range []tokens.Token{got.Token, alone.Token} {
			if !slices.Equal(read.Scopes, c.Token.Scopes) || read.Name != c.Token.Name ||
				read.Description != c.Token.Description || !slices.Equal(read.Audiences, c.Token.Audiences) {
				t.Fatalf("%+v is read as %+v", c.Token, read)
			}
			if cap(read.Scopes) != len(read.Scopes) {
				t.Fatal("who appends to the scopes of one token writes to those of others")
			}
		}
	}
	if len(l.all()) != 6 {
		t.Errorf("%d lists are shared", len(l.all()))
	}
}
