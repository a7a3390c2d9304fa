package tokens_test

import (
	"testing"
	"time"

	"patd/tokens"
)

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "12h": 12 * time.Hour, "180d": 180 * 24 * time.Hour, "1h30m": 90 * time.Minute,
		"1d12h": 36 * time.Hour, "0s": 0, "0d": 0, "1.5h": 90 * time.Minute, "106751d": 106751 * 24 * time.Hour,
	} {
		got, err := tokens.ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "d", "90", "-1h", "+1h", "-1d", "1d-1h", "1d+1h", "1.5d", "12hd", "h", "1w", "180 d", "1d2d", "106752d", "99999999999d", "106751d24h", "pat_x",
	} {
		if got, err := tokens.ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", text, got)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"90s", "180d", "1d12h", "-1s", "9223372036854775807ns", "106751d23h47m"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := tokens.ParseDuration(text)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("ParseDuration(%q) = %s, which is negative", text, d)
		}
		written := tokens.FormatDuration(d)
		if again, err := tokens.ParseDuration(written); err != nil || again != d {
			t.Fatalf("%q is written as %s, which is read as %s, %v", text, written, again, err)
		}
	})
}
