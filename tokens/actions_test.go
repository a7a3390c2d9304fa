package tokens_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"patd/tokens"
)

// TestEveryActionIsListed, so that none is refused as a filter.
func TestEveryActionIsListed(t *testing.T) {
	text, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`\bAction[A-Za-z]+ +Action += "([a-z_.]+)"`).FindAllStringSubmatch(string(text), -1)
	if len(found) != len(tokens.Actions()) {
		t.Errorf("%d actions, of which %d are listed", len(found), len(tokens.Actions()))
	}
	for _, f := range found {
		if !slices.Contains(tokens.Actions(), tokens.Action(f[1])) {
			t.Errorf("%s is not listed", f[1])
		}
	}
}
