package tokens_test

import (
	"testing"

	"patd/tokens"
)

// rekeyCounter counts the digests that are to move.
type rekeyCounter struct {
	tokens.Store
	n int
}

func (c *rekeyCounter) RecordUse(s tokens.Usage) {
	if s.Rekey != nil {
		c.n++
	}
	c.Store.RecordUse(s)
}

// TestADigestMovesToALaterKeyOnly has two servers on one store, of which one has received a rotation and the other
// knows the new key but has it not in front yet. Were each to move digests to its own key, every introspection would be
// a write.
func TestADigestMovesToALaterKeyOnly(t *testing.T) {
	counter := &rekeyCounter{}
	h := newHouse(t, func(c *tokens.Config) { counter.Store, c.Store = c.Store, counter })
	h.give("u", "a")
	m := h.mint("u", "one", "a")
	use := func(lines, wantKey string, wantMoves int) {
		t.Helper()
		keys := parseKeys(t, lines)
		if _, err := tokens.BindKeys(ctx, h.store, keys, "", h.now()); err != nil {
			t.Fatal(err)
		}
		h.ring.Set(keys)
		got, err := h.Introspect(ctx, admin, tokens.IntrospectRequest{Secret: m.Secret})
		if err != nil || got.Decision != tokens.Allow {
			t.Fatalf("with the keys %v: %v, %v", keys.Names(), got.Decision, err)
		}
		if err := h.store.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		cred, err := h.store.Lookup(ctx, m.Token.ID)
		if err != nil || cred.Secrets[0].Hash.Key != wantKey || counter.n != wantMoves {
			t.Errorf(
				"with the keys %v the digest is under %s after %d moves, %v; want %s after %d",
				keys.Names(),
				cred.Secrets[0].Hash.Key,
				counter.n,
				err,
				wantKey,
				wantMoves,
			)
		}
	}
	ahead, behind := lineB+"\n"+lineA, lineA+"\n"+lineB
	use(behind, "a", 0)
	use(ahead, "b", 1)
	use(behind, "b", 1)
	use(ahead, "b", 1)
}
