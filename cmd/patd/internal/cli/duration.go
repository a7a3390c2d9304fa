package cli

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"patd/tokens"
)

// Duration is a flag's value: 90s, 12h, 180d, 1h30m, 1d12h. A day is 24 hours.
type Duration time.Duration

var _ pflag.Value = (*Duration)(nil)

var errDuration = errors.New("must be a duration such as 90s, 12h, 180d or 1h30m")

// parseDuration reads a duration that is not negative: whole days, or what time.ParseDuration reads, or both.
func parseDuration(s string) (time.Duration, error) {
	var days time.Duration
	rest := s
	if digits, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			return 0, errDuration
		}
		if n > uint64(math.MaxInt64/tokens.Day) {
			return 0, fmt.Errorf("%w, of at most %dd", errDuration, math.MaxInt64/tokens.Day)
		}
		if days, rest = time.Duration(n)*tokens.Day, after; rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.HasPrefix(rest, "+") || strings.HasPrefix(rest, "-") {
		return 0, errDuration
	}
	if days > math.MaxInt64-d {
		return 0, fmt.Errorf("%w, of at most %dd", errDuration, math.MaxInt64/tokens.Day)
	}
	return days + d, nil
}

// Set reads a duration.
func (d *Duration) Set(s string) error {
	v, err := parseDuration(s)
	if err == nil {
		*d = Duration(v)
	}
	return err
}

// String writes a duration as Set reads it.
func (d *Duration) String() string { return tokens.FormatDuration(time.Duration(*d)) }

// Type names the value in a command's help.
func (d *Duration) Type() string { return "duration" }
