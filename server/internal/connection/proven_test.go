package connection

import (
	"runtime"
	"strings"
	"testing"

	"patd/internal/waittest"
)

// prove has a value proven as often as it takes to be remembered.
func prove(c *Connection, value string, who any) {
	for range 2 {
		if c.Again(value) {
			c.Prove(value, who)
		}
	}
}

// TestAProofIsOfTheValueItselfAlone holds that the same text in other memory is another value, which may have come from
// anybody, and that the last value takes the place of the one before.
func TestAProofIsOfTheValueItselfAlone(t *testing.T) {
	t.Parallel()
	c := &Connection{}
	value := strings.Repeat("Bearer a", 8)
	if prove(c, value, "a"); c.Proven(value) != "a" {
		t.Fatalf("it is not remembered: %v", c.Proven(value))
	}
	for what, other := range map[string]string{
		"the same text":      strings.Clone(value),
		"a part of it":       value[:len(value)-1],
		"a part, from later": value[1:],
		"nothing":            "",
	} {
		if who := c.Proven(other); who != nil {
			t.Errorf("%s was sent by %v", what, who)
		}
	}
	second := strings.Repeat("Bearer b", 8)
	if prove(c, second, "b"); c.Proven(second) != "b" || c.Proven(value) != nil {
		t.Errorf("the second was sent by %v, and the first by %v", c.Proven(second), c.Proven(value))
	}
	var none *Connection
	if none.Proven(value) != nil || none.Again(value) {
		t.Error("an unknown connection remembers")
	}
}

// TestAProofKeepsNoValue has a value collected whose proof is remembered: a header value holds a secret.
func TestAProofKeepsNoValue(t *testing.T) {
	t.Parallel()
	c := &Connection{}
	value := strings.Repeat("Bearer a", 8)
	prove(c, value, "a")
	p := c.proofs.last.Load()
	if p == nil || p.value.Value() == nil {
		t.Fatal("it is not remembered")
	}
	runtime.KeepAlive(value)
	waittest.Until(t, "the value is collected", func() bool {
		runtime.GC()
		return p.value.Value() == nil
	})
}

// TestAValueThatComesOnceIsNotRemembered, so that clients whose values are never the same memory cost nothing.
func TestAValueThatComesOnceIsNotRemembered(t *testing.T) {
	t.Parallel()
	c := &Connection{}
	a, b := strings.Repeat("Bearer a", 8), strings.Repeat("Bearer b", 8)
	for range 8 {
		for _, value := range []string{a, b} {
			if c.Again(value) {
				t.Fatal("a value that did not come twice in a row is to be remembered")
			}
		}
	}
}
