package tokens_test

import (
	"slices"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/tokens"
)

// earliestNotice returns the earliest end of a token of which a notice is recorded; zero: there is none.
func (h *house) earliestNotice() (at time.Time) {
	h.t.Helper()
	_ = h.store.View(ctx, func(tx tokens.ReadTx) (err error) {
		at, err = tx.EarliestNotice(tokens.NoticeOfToken)
		return err
	})
	return at
}

// TestNoticesOfLongAgoAreForgottenAndNotWrittenAgain, whatever the clock does then; those of the last months are kept.
func TestNoticesOfLongAgoAreForgottenAndNotWrittenAgain(t *testing.T) {
	t.Parallel()
	n := tokens.Notices{Expiry: []time.Duration{tokens.Day}}
	h := newHouse(t, withNotices(n))
	h.SweepEachPass()
	h.wantPass("nothing is there")
	h.made("first", 36*time.Hour)
	h.made("second", 60*time.Hour)
	h.wait(13 * time.Hour)
	h.wantPass("the day before", "token.expiring 1d")
	h.wait(60 * time.Hour)
	h.wantPass("they ended", "token.expired 0s", "token.expired 0s")
	first := h.earliestNotice()
	if first.IsZero() {
		t.Fatal("no notice is recorded")
	}
	h.wait(60 * tokens.Day)
	for range 3 {
		h.wantPass("two months later")
	}
	if at := h.earliestNotice(); !at.Equal(first) {
		t.Errorf("the first record is of %s, want %s", at, first)
	}
	h.wait(32 * tokens.Day)
	h.wantPass("three months later")
	if at := h.earliestNotice(); !at.After(first) {
		t.Errorf("the record of %s is kept", first)
	}
	h.wait(2 * tokens.Day)
	for range 3 {
		h.wantPass("later")
	}
	if at := h.earliestNotice(); !at.IsZero() {
		t.Errorf("a record of %s is kept", at)
	}
	h.made("third", 48*time.Hour)
	h.wait(25 * time.Hour)
	h.wantPass("another one", "token.expiring 1d")
	// A machine that wakes up in another year, and then knows better.
	h.wait(-50 * 365 * tokens.Day)
	h.wantPass("the clock is wrong")
	h.wait(50 * 365 * tokens.Day)
	h.wantPass("and right again")
	h.wait(tokens.Day)
	h.wantPass("the end", "token.expired 0s")
}

// TestAClockFarAheadForgetsLittle: what was forgotten meanwhile is a day at each sweep, from the earliest on.
func TestAClockFarAheadForgetsLittle(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withNotices(tokens.Notices{Expiry: []time.Duration{tokens.Day}}))
	h.SweepEachPass()
	h.made("soon", 2*time.Hour)
	h.made("later", 10*tokens.Day)
	h.wait(3 * time.Hour)
	h.wantPass("the first ended")
	h.wait(3650 * tokens.Day)
	h.wantPass("the clock is far ahead", "token.expired 0s")
	h.wantPass("again")
	h.wait(-3650 * tokens.Day)
	h.wantPass("it is right again")
	h.wait(10 * tokens.Day)
	if got := h.pass(); slices.Contains(got, "token.expired 0s") {
		t.Errorf("a notice is written twice: %v", got)
	}
}

// TestEndsAreNotBehindUnusedTokens: looking for many tokens that are not used is broken off after a minute, and the
// notices of ends come first. None is lost, or written twice.
func TestEndsAreNotBehindUnusedTokens(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	slow := make(chan time.Duration, 1) // what each look at the clock takes
	h := &house{}
	h = newHouse(
		t,
		withNotices(tokens.Notices{Expiry: []time.Duration{time.Hour}, Unused: 10 * tokens.Day}),
		func(c *tokens.Config) {
			now := c.Now
			c.Now = func() time.Time {
				select {
				case d := <-slow:
					slow <- d
					h.wait(d)
				default:
				}
				return now()
			}
			c.Limits.ActiveTokens = 10_000
		},
	)
	h.give("alice", "a")
	const many = 350
	mint := func(name string, ttl time.Duration) {
		_, err := h.Mint(
			ctx,
			admin,
			tokens.MintRequest{User: "alice", Name: name, Scopes: []string{"a"}, Lifetime: tokens.Lifetime{TTL: &ttl}},
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range many {
		mint("t"+string(rune('a'+i%26))+time.Duration(i).String(), 100*tokens.Day)
	}
	h.wait(12 * tokens.Day)
	slow <- 12 * time.Second
	passes, unused, ends := 0, 0, 0
	for left := true; left; passes++ {
		if passes == 1 {
			<-slow
			mint("ends", time.Hour+time.Second) // its notice is due in a second
			slow <- 12 * time.Second
			h.wait(2 * time.Second)
		}
		var err error
		if left, err = h.WriteNotices(ctx); err != nil {
			t.Fatal(err)
		}
		unused, ends = 0, 0
		for _, n := range h.notices() {
			if n == "token.unused 10d" {
				unused++
			} else {
				ends++
			}
		}
		if passes == 1 && (ends != 1 || unused == many || !left) {
			t.Errorf(
				"after the second pass there are %d notices of ends and %d of unused tokens; left %v",
				ends,
				unused,
				left,
			)
		}
		if passes > 100 {
			t.Fatal("it does not end")
		}
	}
	if unused != many || ends != 1 {
		t.Errorf("after %d passes there are %d notices of unused tokens and %d of ends", passes, unused, ends)
	}
}
