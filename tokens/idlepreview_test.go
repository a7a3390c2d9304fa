package tokens_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/tokens"
)

// TestAnIdlePreviewIsWhatThePauseThenDoes makes tokens that are used, or not, at times of chance, and asks before each
// pass what it will do: the tokens that it then announces and pauses are as many, and the preview writes nothing.
func TestAnIdlePreviewIsWhatThePauseThenDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouseIn(rt, tempDir(rt), func(c *tokens.Config) {
			c.Notices = tokens.Notices{Idle: 60 * tokens.Day}
			c.Policy.AllowNever = true
		})
		var all []tokens.Minted
		users := []string{"u1", "u2", "u3"}
		for _, user := range users {
			h.give(user, "a")
		}
		for i := range rapid.IntRange(1, 6).Draw(rt, "tokens") {
			user := rapid.SampledFrom(users).Draw(rt, "user")
			m, err := h.Mint(
				ctx,
				admin,
				tokens.MintRequest{
					User:     user,
					Name:     fmt.Sprint(i),
					Scopes:   []string{"a"},
					Lifetime: tokens.Lifetime{Never: true},
				},
			)
			if err != nil {
				rt.Fatal(err)
			}
			all = append(all, m)
			h.wait(time.Duration(rapid.IntRange(0, 40).Draw(rt, "days")) * tokens.Day)
		}
		for range rapid.IntRange(1, 8).Draw(rt, "passes") {
			h.wait(time.Duration(rapid.IntRange(1, 40).Draw(rt, "days")) * tokens.Day)
			switch one := rapid.SampledFrom(all).Draw(rt, "token"); rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				h.ask(one.Secret)
			case 1:
				_, _ = h.ResumeToken(ctx, admin, one.Token.User, one.Token.ID.String())
			case 2:
				_, _ = h.Revoke(ctx, admin, one.Token.User, one.Token.ID.String(), "")
			}
			before := len(h.noticeEvents())
			want, err := h.PreviewIdle(ctx, admin, tokens.IdlePreviewRequest{})
			if err != nil {
				rt.Fatal(err)
			}
			if n := len(h.noticeEvents()); n != before {
				rt.Fatalf("the preview has written %d events", n-before)
			}
			if _, err := h.WriteNotices(ctx); err != nil {
				rt.Fatal(err)
			}
			var announced, paused int64
			for _, e := range h.noticeEvents()[before:] {
				switch e.Action {
				case tokens.ActionTokenIdle:
					announced++
				case tokens.ActionTokenPause:
					paused++
				}
			}
			if announced != want.Announce || paused != want.Pause {
				rt.Fatalf("announced %d and paused %d tokens, as the preview did not say: %+v", announced, paused, want)
			}
			if n := int64(
				len(want.Longest),
			); n != want.Announce+want.Pause+want.Waiting || want.Users > n ||
				(n > 0) != (want.Users > 0) {
				rt.Fatalf("the tokens of %+v", want)
			}
			for _, one := range want.Longest {
				if one.PauseTime.Before(h.now()) {
					rt.Fatalf("%+v is to be paused before now", one)
				}
			}
			after, err := h.PreviewIdle(ctx, admin, tokens.IdlePreviewRequest{})
			if err != nil || after.Announce != 0 || after.Pause != 0 || after.Paused != want.Paused+want.Pause ||
				after.Waiting != want.Waiting+want.Announce {
				rt.Fatalf("before the pass %+v, after it %+v, %v", want, after, err)
			}
		}
	})
}

// TestAnIdlePreviewIsAskedInFull, and names no more tokens than it is asked for.
func TestAnIdlePreviewIsAskedInFull(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for i := range 4 {
		h.give("u1", "a")
		h.mint("u1", fmt.Sprint(i), "a")
		h.wait(time.Minute)
	}
	h.wait(tokens.Day)
	_, err := h.PreviewIdle(ctx, admin, tokens.IdlePreviewRequest{})
	wantReason(t, err, "IDLE_TTL_REQUIRED", "a server without --idle-ttl")
	for _, d := range []time.Duration{-1, time.Millisecond, tokens.MaxNotice + 1} {
		_, err := h.PreviewIdle(ctx, admin, tokens.IdlePreviewRequest{Idle: d})
		wantReason(t, err, "DURATION_OUT_OF_RANGE", d.String())
	}
	_, err = h.PreviewIdle(ctx, admin, tokens.IdlePreviewRequest{Idle: time.Hour, Limit: -1})
	wantReason(t, err, "PAGE_SIZE_INVALID", "a negative limit")
	got, err := h.PreviewIdle(ctx, admin, tokens.IdlePreviewRequest{Idle: time.Hour, Limit: 2})
	if err != nil || got.Active != 4 || got.Announce != 4 || got.Users != 1 || len(got.Longest) != 2 ||
		got.Longest[0].Name != "0" ||
		got.Longest[1].Name != "1" {
		t.Errorf("%+v, %v", got, err)
	}
}
