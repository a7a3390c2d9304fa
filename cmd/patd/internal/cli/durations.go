package cli

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"patd/tokens"
)

// Durations is a flag's value: durations, comma-separated or one at a time, or the word off, which is none. The first
// that is set takes the place of the default.
type Durations struct {
	List  []time.Duration
	given bool
}

var _ pflag.Value = (*Durations)(nil)

// Set adds durations.
func (d *Durations) Set(s string) error {
	var list []time.Duration
	if s != off {
		for part := range strings.SplitSeq(s, ",") {
			v, err := tokens.ParseDuration(strings.TrimSpace(part))
			if err != nil {
				return errors.New("must be durations such as 30d,7d,1d, or " + off)
			}
			list = append(list, v)
		}
	}
	if !d.given {
		d.List, d.given = nil, true
	}
	d.List = append(d.List, list...)
	return nil
}

// String writes durations as Set reads them.
func (d *Durations) String() string {
	if len(d.List) == 0 {
		return off
	}
	var parts []string
	for _, one := range d.List {
		parts = append(parts, tokens.FormatDuration(one))
	}
	return strings.Join(parts, ",")
}

// Type names the value in a command's help, and in the configuration file a list.
func (d *Durations) Type() string { return "stringArray" }

// off is the word for none.
const off = "off"
