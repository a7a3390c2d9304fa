package tokens_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/tokens"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

func reason(err error) string {
	var e *tokens.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestExpiryFollowsThePolicy(t *testing.T) {
	ttl := func(d time.Duration) tokens.Lifetime { return tokens.Lifetime{TTL: &d} }
	at := func(t time.Time) tokens.Lifetime { return tokens.Lifetime{ExpireTime: &t} }
	week := tokens.Policy{MaxTTL: 7 * tokens.Day, DefaultTTL: 30 * tokens.Day}
	both := at(noon.Add(time.Hour))
	both.Never = true
	for name, c := range map[string]struct {
		p      tokens.Policy
		l      tokens.Lifetime
		want   time.Time
		reason string
	}{
		"nothing":           {l: tokens.Lifetime{}, want: noon.Add(180 * tokens.Day)},
		"ttl":               {l: ttl(time.Hour), want: noon.Add(time.Hour)},
		"ttl at maximum":    {l: ttl(366 * tokens.Day), want: noon.Add(366 * tokens.Day)},
		"ttl past maximum":  {l: ttl(366*tokens.Day + time.Microsecond), reason: "TTL_ABOVE_MAXIMUM"},
		"endless ttl":       {l: ttl(1<<63 - 1), reason: "TTL_ABOVE_MAXIMUM"},
		"no ttl at all":     {l: ttl(0), reason: "EXPIRE_TIME_PAST"},
		"negative ttl":      {l: ttl(-time.Hour), reason: "EXPIRE_TIME_PAST"},
		"below resolution":  {l: ttl(time.Nanosecond), reason: "EXPIRE_TIME_PAST"},
		"instant":           {l: at(noon.Add(time.Second)), want: noon.Add(time.Second)},
		"instant cut to µs": {l: at(noon.Add(1999 * time.Nanosecond)), want: noon.Add(time.Microsecond)},
		"now":               {l: at(noon), reason: "EXPIRE_TIME_PAST"},
		"instant past max":  {l: at(noon.Add(367 * tokens.Day)), reason: "TTL_ABOVE_MAXIMUM"},
		"year 9999":         {l: at(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), reason: "TTL_ABOVE_MAXIMUM"},
		"never":             {l: tokens.Lifetime{Never: true}, reason: "NEVER_NOT_ALLOWED"},
		"never, allowed":    {p: tokens.Policy{AllowNever: true}, l: tokens.Lifetime{Never: true}},
		"two of them":       {p: tokens.Policy{AllowNever: true}, l: both, reason: "LIFETIME_AMBIGUOUS"},
		"default over max":  {p: week, want: noon.Add(7 * tokens.Day)},
		"over a short max":  {p: week, l: ttl(8 * tokens.Day), reason: "TTL_ABOVE_MAXIMUM"},
	} {
		got, err := c.p.Expiry(c.l, noon)
		if reason(err) != c.reason || !got.Equal(c.want) {
			t.Errorf("%s: %s, %v; want %s, %q", name, got, err, c.want, c.reason)
		}
		if c.reason == "TTL_ABOVE_MAXIMUM" && !strings.Contains(err.Error(), "d") {
			t.Errorf("%s: %v does not name the limit", name, err)
		}
	}
}

func TestExpiryNeverPassesTheMaximum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := tokens.Policy{
			DefaultTTL: time.Duration(
				rapid.Int64().Draw(t, "default"),
			),
			MaxTTL: time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "max")),
		}
		var l tokens.Lifetime
		switch d := time.Duration(rapid.Int64().Draw(t, "d")); rapid.IntRange(0, 2).Draw(t, "form") {
		case 1:
			l.TTL = &d
		case 2:
			at := noon.Add(d)
			l.ExpireTime = &at
		}
		limit := p.MaxTTL
		if limit <= 0 {
			limit = tokens.MaxTTL
		}
		at, err := p.Expiry(l, noon)
		if err == nil && (!at.After(noon) || at.After(noon.Add(limit))) {
			t.Errorf("%+v under %+v ends at %s", l, p, at)
		}
	})
}

func TestActiveUntilTheMicrosecond(t *testing.T) {
	tok := tokens.Token{ExpireTime: noon}
	for _, c := range []struct {
		at   time.Time
		want tokens.State
	}{{noon.Add(-time.Microsecond), tokens.StateActive}, {noon, tokens.StateExpired}, {noon.Add(time.Microsecond), tokens.StateExpired}} {
		if got := tok.Status(c.at); got != c.want {
			t.Errorf("at %s: %v, want %v", c.at, got, c.want)
		}
	}
	if got := (tokens.Token{}).Status(noon); got != tokens.StateActive {
		t.Errorf("a token that never expires is %v", got)
	}
	tok.Revocation = &tokens.Revocation{Time: noon.Add(time.Hour)}
	if got := tok.Status(noon.Add(-time.Hour)); got != tokens.StateRevoked {
		t.Errorf("revoked, and the clock set back: %v", got)
	}
}
