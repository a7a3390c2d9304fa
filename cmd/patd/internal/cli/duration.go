package cli

import (
	"time"

	"github.com/spf13/pflag"

	"patd/tokens"
)

// Duration is a flag's value: 90s, 12h, 180d, 1h30m, 1d12h. A day is 24 hours.
type Duration time.Duration

var _ pflag.Value = (*Duration)(nil)

// Set reads a duration.
func (d *Duration) Set(s string) error {
	v, err := tokens.ParseDuration(s)
	if err == nil {
		*d = Duration(v)
	}
	return err
}

// String writes a duration as Set reads it.
func (d *Duration) String() string { return tokens.FormatDuration(time.Duration(*d)) }

// Type names the value in a command's help.
func (d *Duration) Type() string { return "duration" }
