package tokens

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var errDuration = errors.New("must be a duration such as 90s, 12h, 180d or 1h30m")

// ParseDuration reads a duration that is not negative: 90s, 12h, 180d, 1h30m, 1d12h. A day is 24 hours. The command
// line, the configuration file and JSON all take this form.
func ParseDuration(s string) (time.Duration, error) {
	var days time.Duration
	rest := s
	if digits, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			return 0, errDuration
		}
		if n > uint64(math.MaxInt64/Day) {
			return 0, fmt.Errorf("%w, of at most %dd", errDuration, math.MaxInt64/Day)
		}
		if days, rest = time.Duration(n)*Day, after; rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.HasPrefix(rest, "+") || strings.HasPrefix(rest, "-") {
		return 0, errDuration
	}
	if days > math.MaxInt64-d {
		return 0, fmt.Errorf("%w, of at most %dd", errDuration, math.MaxInt64/Day)
	}
	return days + d, nil
}

// FormatDuration formats a duration for the command line: in days if it is a whole number of days.
func FormatDuration(d time.Duration) string {
	if d > 0 && d%Day == 0 {
		return fmt.Sprintf("%dd", d/Day)
	}
	return d.String()
}

// WholeSeconds returns the whole seconds of a duration. What is left of a second is not promised to a caller.
func WholeSeconds(d time.Duration) time.Duration { return d.Truncate(time.Second) }
