package tokens

import (
	"strings"
	"testing"

	"patd/tokens/secret"
)

func pageKeys(tb testing.TB, lines ...string) *Keys {
	tb.Helper()
	ks, err := secret.ParseKeys(strings.Join(lines, "\n"))
	if err != nil {
		tb.Fatal(err)
	}
	return ks
}

func FuzzPageToken(f *testing.F) {
	a, b := "a:"+strings.Repeat("ab", 32), "b:"+strings.Repeat("cd", 32)
	ks := pageKeys(f, b, a)
	mine := lister{keys: ks, query: framed("tokens", "u1")}
	f.Add(mine.next("15ODq7pq8Hy"), "15ODq7pq8Hy")
	f.Add(lister{keys: ks, query: framed("tokens", "u2")}.next("x"), "")
	f.Add("", "u\x00")
	f.Add("AAAA", "\xff")
	f.Fuzz(func(t *testing.T, given, position string) {
		// A token that was not made for this query says nothing.
		if after, _, err := mine.page(Page{Token: given}); err == nil && given != "" && mine.next(after) != given {
			t.Fatalf("%q is taken as %q", given, after)
		}
		if position == "" {
			return
		}
		token := mine.next(position)
		after, limit, err := mine.page(Page{Token: token})
		if err != nil || after != position || limit != defaultPageSize {
			t.Fatalf("page(next(%q)) = %q, %d, %v", position, after, limit, err)
		}
		for _, other := range []lister{{keys: ks, query: framed("tokens", "u2")}, {keys: ks, query: framed("tokensu1")}, {keys: pageKeys(t, a), query: mine.query}} {
			if after, _, err := other.page(Page{Token: token}); err == nil {
				t.Fatalf("taken by another query or key as %q", after)
			}
		}
		older := lister{keys: pageKeys(t, a), query: mine.query}
		if after, _, err := mine.page(Page{Token: older.next(position)}); err != nil || after != position {
			t.Fatalf("a page token from before the keys were rotated: %q, %v", after, err)
		}
	})
}

func TestPageSize(t *testing.T) {
	l := lister{keys: pageKeys(t, "a:"+strings.Repeat("ab", 32))}
	for size, want := range map[int]int{0: 50, 1: 1, 200: 200, 201: 200, 1 << 30: 200} {
		if _, limit, err := l.page(Page{Size: size}); err != nil || limit != want {
			t.Errorf("size %d: %d, %v; want %d", size, limit, err, want)
		}
	}
	if _, _, err := l.page(Page{Size: -1}); err == nil {
		t.Error("a negative size is taken")
	}
}
