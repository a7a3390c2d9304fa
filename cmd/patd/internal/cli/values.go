package cli

import (
	"encoding/csv"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"patd/tokens"
	"patd/tokens/secret"
)

var (
	_ pflag.Value = (*Count)(nil)
	_ pflag.Value = (*Networks)(nil)
	_ pflag.Value = (*List)(nil)
	_ pflag.Value = (*Names)(nil)
	_ pflag.Value = (*Rate)(nil)
	_ pflag.Value = (*Hidden)(nil)
)

// Count is a flag's value: a number from 1.
type Count int

// Set reads a count.
func (n *Count) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		return errors.New("must be a number from 1")
	}
	*n = Count(v)
	return nil
}

// String writes a count.
func (n *Count) String() string { return strconv.Itoa(int(*n)) }

// Type names the value in a command's help.
func (n *Count) Type() string { return "int" }

// Networks is a flag's value: networks in CIDR form, or lone addresses, comma-separated or one at a time.
type Networks []netip.Prefix

// Set adds networks.
func (n *Networks) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		p, err := tokens.ParseCIDR(strings.TrimSpace(part))
		if err != nil {
			return errors.New("must be networks such as 10.0.0.0/8,fd00::/8")
		}
		*n = append(*n, p)
	}
	return nil
}

// String writes networks as Set reads them.
func (n *Networks) String() string {
	var parts []string
	for _, p := range *n {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, ",")
}

// Type names the value in a command's help, and in the configuration file a list.
func (n *Networks) Type() string { return "stringArray" }

// List is a flag's value: texts, comma-separated or one at a time.
type List []string

// Set adds texts.
func (l *List) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		*l = append(*l, strings.TrimSpace(part))
	}
	return nil
}

// String writes texts as Set reads them.
func (l *List) String() string { return strings.Join(*l, ",") }

// Type names the value in a command's help, and in the configuration file a list.
func (l *List) Type() string { return "stringArray" }

// Names is a flag's value: names, comma-separated or one at a time. A name that has a comma stands in double quotes. An
// empty text is an error: it is what a variable holds that was never set.
type Names []string

// Set adds names.
func (n *Names) Set(s string) error {
	parts, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil || slices.ContainsFunc(parts, func(p string) bool { return strings.TrimSpace(p) == "" }) {
		return errors.New(`must be names such as a,b, none of them empty; one that has a comma in double quotes`)
	}
	for _, part := range parts {
		*n = append(*n, strings.TrimSpace(part))
	}
	return nil
}

// String writes names as Set reads them.
func (n *Names) String() string { return strings.Join(*n, ",") }

// Type names the value in a command's help, and in the configuration file a list.
func (n *Names) Type() string { return "stringArray" }

// Rate is a flag's value: how often a second something may happen. 0 is no limit, and so is the word off.
type Rate float64

// Set reads a rate.
func (r *Rate) Set(s string) error {
	if s == off {
		*r = 0
		return nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0) || math.IsInf(v, 0) {
		return errors.New("must be a number of times per second such as 10 or 0.5, or " + off)
	}
	*r = Rate(v)
	return nil
}

// String writes a rate as Set reads it.
func (r *Rate) String() string {
	if *r == 0 {
		return off
	}
	return strconv.FormatFloat(float64(*r), 'f', -1, 64)
}

// Type names the value in a command's help.
func (r *Rate) Type() string { return "rate" }

// Hidden is a flag's value that may hold a secret, and so is never shown.
type Hidden struct{ tokens.Secret }

// Set takes any text.
func (h *Hidden) Set(s string) error {
	h.Secret = secret.NewSecret(s)
	return nil
}

// String returns nothing.
func (*Hidden) String() string { return "" }

// Type names the value in a command's help.
func (*Hidden) Type() string { return "string" }

// ArgumentsOnly keeps the environment and the configuration file away from flags that belong to one call only, but have
// the names of server settings.
func ArgumentsOnly(flags *pflag.FlagSet, names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, flags.SetAnnotation(name, ArgumentOnly, []string{"true"}))
	}
	return errors.Join(errs...)
}

// ArgumentOnly is the annotation of flags that only the command line may set.
const ArgumentOnly = "patd-argument-only"
