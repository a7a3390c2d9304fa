package tokens_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/tokens"
)

// crier is a model of the notices before the ends of tokens. It knows nothing of marks: what is due follows from the
// clock, the end, when that was set, and what was written.
type crier struct {
	*house
	other  *tokens.Service // another server on the same store
	n      tokens.Notices
	tokens []*announced
	seen   int       // notices that were compared
	latest time.Time // of the passes
	back   bool      // the clock was set back since the last pass
	number int
}

// announced is a token of the model.
type announced struct {
	m       tokens.Minted
	end     time.Time
	set     time.Time
	gone    bool
	written map[string]bool
}

func (a *announced) key(end time.Time, before time.Duration) string {
	return fmt.Sprint(end.UnixMicro(), " ", before)
}

// due returns the threshold of the only notice that a token may have now.
func (c *crier) due(a *announced) (time.Duration, bool) {
	now := c.now()
	all := append([]time.Duration{0}, c.n.Expiry...)
	slices.Sort(all)
	for _, before := range all {
		at := a.end.Add(-before)
		if at.After(now) {
			continue
		}
		return before, !a.gone && a.set.Before(at) && !a.written[a.key(a.end, before)]
	}
	return 0, false
}

func (c *crier) check(t *rapid.T) {
	if now := c.now(); now.After(c.latest) {
		c.latest = now
	}
	want := map[string]bool{}
	for _, a := range c.tokens {
		if before, ok := c.due(a); ok {
			a.written[a.key(a.end, before)] = true
			want[a.m.Token.ID.String()+" "+a.key(a.end, before)] = true
		}
	}
	one := c.Service
	if rapid.Bool().Draw(t, "the other server") {
		one = c.other
	}
	// Either may have the lease; it ends when the clock does what it likes.
	for _, s := range []*tokens.Service{one, c.Service, c.other} {
		if _, err := s.WriteNotices(ctx); err != nil {
			t.Fatal(err)
		}
	}
	c.back = false
	events := c.noticeEvents()
	got := map[string]bool{}
	for _, e := range events[c.seen:] {
		n, _ := tokens.NoticeOf(e)
		key := fmt.Sprint(e.TokenID, " ", n.ExpireTime.UnixMicro(), " ", n.Threshold)
		if got[key] {
			t.Errorf("%s was written twice", key)
		}
		got[key] = true
	}
	c.seen = len(events)
	for key := range want {
		if !got[key] {
			t.Errorf("at %s: no notice %s", c.now(), key)
		}
	}
	for key := range got {
		if !want[key] {
			t.Errorf("at %s: a notice %s", c.now(), key)
		}
	}
}

func (c *crier) pick(t *rapid.T) *announced {
	if len(c.tokens) == 0 {
		t.Skip("no token yet")
	}
	return c.tokens[rapid.IntRange(0, len(c.tokens)-1).Draw(t, "token")]
}

// active reports whether a token takes a change.
func (c *crier) active(a *announced) bool { return !a.gone && c.now().Before(a.end) }

func ttls() *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		d := rapid.SampledFrom([]time.Duration{time.Hour, tokens.Day, 2 * tokens.Day, 7 * tokens.Day, 10 * tokens.Day, 30 * tokens.Day, 45 * tokens.Day}).
			Draw(t, "days")
		return d + time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds"))*time.Second
	})
}

func TestEveryThresholdOfEveryEndIsWrittenExactlyOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := tokens.Notices{Expiry: thresholds}
		h := newHouseIn(t, tempDir(t), withNotices(n), func(c *tokens.Config) { c.Limits.ActiveTokens = 1000 })
		c := &crier{house: h, n: n}
		another := func() *tokens.Service {
			prefixes, err := tokens.BindKeys(ctx, h.store, h.ring.Get(), "", h.now())
			if err != nil {
				t.Fatal(err)
			}
			s, err := tokens.NewService(
				tokens.Config{Store: h.store, Keys: h.ring, Prefixes: prefixes, Now: h.now, Notices: n},
			)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		c.other = another()
		h.give("alice", "a")
		c.check(t)
		t.Repeat(map[string]func(*rapid.T){
			"mint": func(t *rapid.T) {
				ttl := ttls().Draw(t, "ttl")
				c.number++
				m, err := h.Mint(
					ctx,
					admin,
					tokens.MintRequest{
						User:     "alice",
						Name:     fmt.Sprint("token ", c.number),
						Scopes:   []string{"a"},
						Lifetime: tokens.Lifetime{TTL: &ttl},
					},
				)
				if err != nil {
					t.Fatal(err)
				}
				c.tokens = append(
					c.tokens,
					&announced{m: m, end: m.Token.ExpireTime, set: c.now(), written: map[string]bool{}},
				)
			},
			"rotate": func(t *rapid.T) {
				a := c.pick(t)
				r := tokens.RotateRequest{User: "alice", TokenID: a.m.Token.ID.String(), Force: true}
				if kind := rapid.IntRange(0, 2).Draw(t, "lifetime"); kind == 1 {
					r.Renew = true
				} else if kind == 2 {
					ttl := ttls().Draw(t, "ttl")
					r.Lifetime.TTL = &ttl
				}
				got, err := h.Rotate(ctx, admin, r)
				if !c.active(a) {
					wantReason(t, err, "TOKEN_NOT_ACTIVE", "rotate an expired token")
					return
				}
				if r.Renew && (reason(err) == "TTL_ABOVE_MAXIMUM" || reason(err) == "EXPIRE_TIME_PAST") {
					return // the lifetime that it had makes no sense since the clock was set back
				}
				if err != nil {
					t.Fatal(err)
				}
				if got.Change != tokens.ExpiryKept {
					a.end, a.set = got.Token.ExpireTime, c.now()
				}
			},
			"cancel": func(t *rapid.T) {
				a := c.pick(t)
				got, err := h.CancelRotation(ctx, admin, "alice", a.m.Token.ID.String())
				if err == nil && !got.ExpireTime.Equal(a.end) {
					a.end, a.set = got.ExpireTime, c.now()
				}
			},
			"bring forward": func(t *rapid.T) {
				a := c.pick(t)
				at := c.now().Add(ttls().Draw(t, "ttl"))
				if !c.active(a) || !at.Before(a.end) {
					t.Skip("it would be no change")
				}
				if _, err := h.UpdateToken(
					ctx,
					admin,
					"alice",
					a.m.Token.ID.String(),
					tokens.TokenChange{ExpireTime: &at},
				); err != nil {
					t.Fatal(err)
				}
				a.end, a.set = at, c.now()
			},
			"revoke": func(t *rapid.T) {
				a := c.pick(t)
				if _, err := h.Revoke(ctx, admin, "alice", a.m.Token.ID.String(), ""); err != nil {
					t.Fatal(err)
				}
				a.gone = true
			},
			"wait": func(t *rapid.T) {
				h.wait(
					rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, tokens.Day, 3 * tokens.Day, 20 * tokens.Day}).
						Draw(t, "for"),
				)
			},
			"set the clock": func(t *rapid.T) {
				by := rapid.SampledFrom([]time.Duration{-time.Millisecond, -time.Hour, -5 * tokens.Day, -40 * tokens.Day, 100 * tokens.Day}).
					Draw(t, "by")
				if c.now().Add(by).Before(c.latest.Add(-89 * tokens.Day)) {
					t.Skip("what was written of ends over 90 days ago is forgotten")
				}
				c.back = c.back || by < 0
				h.wait(by)
			},
			"restart": func(t *rapid.T) {
				if c.back { // a server notices that within a minute, and it is not what a restart is about
					c.check(t)
				}
				h.Service, c.other = another(), another()
				h.wait(4 * time.Minute) // until the lease of those from before has ended
				c.check(t)              // as each server does first
			},
			"pass": c.check,
		})
		c.check(t)
	})
}
