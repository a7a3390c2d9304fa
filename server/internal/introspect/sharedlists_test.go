package introspect

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"patd/tokens"
)

// TestSharedListsAreWrittenAsTheGeneratedCodeDoes has more lists than there are places for them, each more than once,
// whole and without its last text, as all that is granted and as a part of it.
func TestSharedListsAreWrittenAsTheGeneratedCodeDoes(t *testing.T) {
	const lists = 2 << writtenBits
	var all [][]string
	for i := range lists {
		var list []string
		for j := range i % 5 {
			list = append(list, "scope."+strconv.Itoa(i)+strings.Repeat("x", j*60))
		}
		all = append(all, list)
	}
	for i := range sharedLists { // other tests have lists there
		sharedLists[i].Store(nil)
	}
	for range 2 {
		for i, whole := range all {
			for _, list := range [][]string{whole, whole[:max(len(whole)-1, 0)]} {
				in := &tokens.Introspection{
					Decision:        tokens.Allow,
					Effective:       list,
					EffectiveShared: true,
					Granted:         list,
					Paused:          []string{"a"},
				}
				if i%3 == 0 {
					in.Granted = append(slices.Clone(list), "z")
				}
				got, want := appendIntrospection(nil, in), generated(t, toIntrospection(in))
				if !bytes.Equal(got, want) {
					t.Fatalf("list %d: %x, want %x", i, got, want)
				}
			}
		}
	}
}

// TestAListKeepsItsPlace has a list, and a part of it that begins where it begins.
func TestAListKeepsItsPlace(t *testing.T) {
	var l writtenLists
	list := []string{"a", "b"}
	first := l.of(list)
	if first == nil || !bytes.Equal(first.scopes, appendTexts(nil, fieldScopes, list)) {
		t.Fatalf("%+v is what is written of %q", first, list)
	}
	if part := l.of(list[:1]); part != nil {
		t.Errorf("%+v is what is written of %q", part, list[:1])
	}
	if again := l.of(list); again != first {
		t.Errorf("it is written again, as %+v", again)
	}
}
