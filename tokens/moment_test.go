package tokens_test

import (
	"context"
	"testing"
	"time"

	"patd/store/cache"
	"patd/tokens"
)

// slow is a source of features that takes so long for its answers.
type slow struct {
	h    *house
	days int
}

func (s *slow) Features(context.Context, tokens.User, bool) (tokens.Held, error) {
	s.h.wait(time.Duration(s.days) * tokens.Day)
	return tokens.Held{Features: []string{"a"}}, nil
}

func (*slow) Local() bool { return false }

// behindCache is the store of a house behind a cache, some of whose lookups take long.
type behindCache struct {
	*cache.Cache
	h    *house
	slow map[tokens.ID]time.Duration
}

func (b *behindCache) Recall(now time.Time, id tokens.ID, room *tokens.Lists) (tokens.Credential, bool) {
	if b.slow[id] > 0 {
		return tokens.Credential{}, false
	}
	return b.Cache.Recall(now, id, room)
}

func (b *behindCache) Lookup(ctx context.Context, id tokens.ID) (tokens.Credential, error) {
	b.h.wait(b.slow[id])
	return b.Cache.Lookup(ctx, id)
}

// decideAll asks about many secrets at once.
func (h *house) decideAll(a tokens.Actor, rs ...tokens.IntrospectRequest) (all []tokens.Decision, err error) {
	err = h.IntrospectEach(ctx, &a, rs, func(in *tokens.Introspection) int {
		all = append(all, in.Decision)
		return 0
	})
	return all, err
}

// TestWhatIsDecidedAfterAWaitIsDecidedAtItsOwnTime asks a batch whose first lookup takes until the second token has
// expired.
func TestWhatIsDecidedAfterAWaitIsDecidedAtItsOwnTime(t *testing.T) {
	t.Parallel()
	var b *behindCache
	h := newHouse(t, func(c *tokens.Config) {
		own, _ := c.Store.(cache.Source)
		b = &behindCache{Cache: cache.New(own, cache.Options{}), slow: map[tokens.ID]time.Duration{}}
		c.Store = b
	})
	b.h = h
	h.give("u", "a")
	first, second := h.made("first", 30*tokens.Day), h.made("second", 10*tokens.Day)
	ask := []tokens.IntrospectRequest{{Secret: first.Secret}, {Secret: second.Secret}}
	for range 2 { // the second time from memory
		got, err := h.decideAll(gw, ask...)
		if err != nil || got[0] != tokens.Allow || got[1] != tokens.Allow {
			t.Fatalf("%v, %v", got, err)
		}
	}
	if b.Stats().Hits == 0 {
		t.Fatal("nothing was read from memory")
	}
	b.slow[first.Token.ID] = 20 * tokens.Day
	got, err := h.decideAll(gw, ask...)
	if err != nil || got[0] != tokens.Allow || got[1] != tokens.Expired {
		t.Errorf("%v, %v", got, err)
	}
}

// TestACallerThatExpiresDuringADecisionIsToldNothing has the source of features take until the calling service has
// expired.
func TestACallerThatExpiresDuringADecisionIsToldNothing(t *testing.T) {
	t.Parallel()
	s := &slow{}
	h := newHouse(t, func(c *tokens.Config) {
		own, _ := c.Store.(cache.Source)
		c.Store, c.Features = cache.New(own, cache.Options{}), s
	})
	s.h = h
	m := h.mint("u", "m", "a")
	ask := tokens.IntrospectRequest{Secret: m.Secret}
	for name, introspect := range map[string]func(tokens.Actor) error{
		"one": func(a tokens.Actor) error { _, err := h.Introspect(ctx, a, ask); return err },
		"batch": func(a tokens.Actor) error {
			_, err := h.decideAll(a, ask)
			return err
		},
	} {
		s.days = 0
		service := h.newService("for-"+name, 10*tokens.Day)
		caller, err := h.Authenticate(ctx, service.Secret, tokens.Peer{})
		if err != nil {
			t.Fatal(err)
		}
		if err := introspect(caller); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.days = 20; reason(introspect(caller)) != "CREDENTIAL_INVALID" {
			t.Errorf("%s: a service is answered that has expired meanwhile", name)
		}
	}
}

// elsewhere is a source of features that says what it is told to say.
type elsewhere struct{ features []string }

func (s *elsewhere) Features(context.Context, tokens.User, bool) (tokens.Held, error) {
	return tokens.Held{Features: s.features}, nil
}

func (*elsewhere) Local() bool { return false }

// TestWhatARecordSaysIsNotWhatASourceSays has users whose records have all scopes of their tokens, which memory knows,
// and a source of features that takes them away.
func TestWhatARecordSaysIsNotWhatASourceSays(t *testing.T) {
	t.Parallel()
	var memory *cache.Cache
	h := newHouse(t, func(c *tokens.Config) {
		own, _ := c.Store.(cache.Source)
		memory = cache.New(own, cache.Options{})
		c.Store = memory
	})
	prefixes, err := tokens.BindKeys(ctx, memory, h.ring.Get(), "", h.now())
	if err != nil {
		t.Fatal(err)
	}
	s := &elsewhere{}
	other, err := tokens.NewService(
		tokens.Config{Store: memory, Keys: h.ring, Prefixes: prefixes, Now: h.now, Features: s},
	)
	if err != nil {
		t.Fatal(err)
	}
	var made []tokens.Minted
	for _, user := range []string{"u1", "u2", "u3"} { // lists are shared from the second record on
		h.give(user, "a")
		made = append(made, h.mint(user, "m", "a"))
	}
	known := 0
	for _, features := range [][]string{{"a"}, nil} {
		s.features = features
		for range 2 { // the second time from memory
			for _, m := range made {
				if c, ok := memory.Recall(h.now(), m.Token.ID, nil); ok && c.HoldsScopes {
					known++
				}
				in, err := other.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: m.Secret})
				if err != nil || len(in.Effective) != len(features) || len(in.Suspended) != 1-len(features) {
					t.Errorf("of %v %v are in effect, and %v suspended; %v", features, in.Effective, in.Suspended, err)
				}
			}
		}
	}
	if known == 0 {
		t.Error("memory never knew that a user holds all scopes")
	}
}
