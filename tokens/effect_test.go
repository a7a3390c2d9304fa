package tokens_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/tokens"
)

// held is a source of features that counts its reads and can be out.
type held struct {
	mu    sync.Mutex
	of    map[string]tokens.Held
	out   map[string]bool
	reads map[string]int
}

func (*held) Local() bool { return false }

func (h *held) Features(_ context.Context, u tokens.User, _ bool) (tokens.Held, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads[u.ID]++
	if h.out[u.ID] {
		return tokens.Held{}, tokens.FeaturesUnavailable("ask", context.DeadlineExceeded)
	}
	return h.of[u.ID], nil
}

func effectsOf(list []tokens.Token) (out []string) {
	for _, t := range list {
		if e := t.InEffect; e == nil {
			out = append(out, t.User+" "+t.Name+" unknown")
		} else {
			out = append(out, fmt.Sprint(t.User, " ", t.Name, " ", e.Effective, e.Suspended, e.Stale))
		}
	}
	return out
}

// TestListsSayWhatIsSuspended holds that reads of tokens tell what is in effect as introspection does, by one read for
// each user, and that a source that does not answer neither fails a list nor shows empty lists as if they were true.
func TestListsSayWhatIsSuspended(t *testing.T) {
	t.Parallel()
	src := &held{
		of:    map[string]tokens.Held{"u1": {Features: []string{"a", "b"}}, "u2": {Features: []string{"a"}}},
		out:   map[string]bool{},
		reads: map[string]int{},
	}
	h := newHouse(t, func(c *tokens.Config) { c.Features = src })
	one := h.mint("u1", "one", "a", "b")
	h.wait(time.Second)
	h.mint("u1", "two", "b")
	h.wait(time.Second)
	h.mint("u2", "three", "a")
	src.of["u1"] = tokens.Held{Features: []string{"a", "z"}}
	clear(src.reads)

	list := func(user string) []string {
		t.Helper()
		found, _, err := h.Tokens(ctx, admin, tokens.TokenFilter{User: user}, tokens.Page{})
		if err != nil {
			t.Fatal(err)
		}
		return effectsOf(found)
	}
	all := func() []string {
		t.Helper()
		found, _, err := h.Inventory(ctx, admin, tokens.Filter{}, "", tokens.Page{})
		if err != nil {
			t.Fatal(err)
		}
		return effectsOf(found)
	}
	same := func(what string, got []string, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", what, d)
		}
	}
	same("a list", list("u1"), "u1 two [] [b] false", "u1 one [a] [b] false")
	if src.reads["u1"] != 1 || src.reads["u2"] != 0 {
		t.Errorf("reads of the source: %v", src.reads)
	}
	clear(src.reads)
	same("the inventory", all(), "u2 three [a] [] false", "u1 two [] [b] false", "u1 one [a] [b] false")
	if src.reads["u1"] != 1 || src.reads["u2"] != 1 {
		t.Errorf("reads of the source: %v", src.reads)
	}
	got, err := h.Token(ctx, admin, "u1", one.Token.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	in := h.ask(one.Secret)
	if d := cmp.Diff(&tokens.InEffect{Effective: in.Effective, Suspended: in.Suspended}, got.InEffect); d != "" {
		t.Errorf("Get and introspection differ:\n%s", d)
	}
	bearer, err := h.Authenticate(ctx, one.Secret, tokens.Peer{})
	if err != nil {
		t.Fatal(err)
	}
	self, err := h.Self(ctx, bearer)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got.InEffect, self.Token.InEffect); d != "" {
		t.Errorf("Get and Self differ:\n%s", d)
	}

	src.out["u1"] = true
	same("a list in an outage", list("u1"), "u1 two unknown", "u1 one unknown")
	same("the inventory in an outage for one user", all(), "u2 three [a] [] false", "u1 two unknown", "u1 one unknown")
	src.out["u1"], src.of["u1"] = false, tokens.Held{Features: []string{"b"}, Stale: true}
	same("the last that was known", list("u1"), "u1 two [b] [] true", "u1 one [b] [a] true")
	if _, err := h.DeleteUser(ctx, admin, "u2", ""); err != nil {
		t.Fatal(err)
	}
	same("a deleted user's", all()[:1], "u2 three [] [a] false")
}
