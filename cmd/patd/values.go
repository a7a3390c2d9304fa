package main

import (
	"errors"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"patd/tokens"
)

var (
	_ pflag.Value = (*count)(nil)
	_ pflag.Value = (*networks)(nil)
	_ pflag.Value = (*list)(nil)
	_ pflag.Value = (*rate)(nil)
	_ pflag.Value = (*hidden)(nil)
)

// count is a flag's value: a number from 1.
type count int

// Set reads a count.
func (n *count) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		return errors.New("must be a number from 1")
	}
	*n = count(v)
	return nil
}

// String writes a count.
func (n *count) String() string { return strconv.Itoa(int(*n)) }

// Type names the value in a command's help.
func (n *count) Type() string { return "int" }

// networks is a flag's value: networks in CIDR form, or lone addresses, comma-separated or one at a time.
type networks []netip.Prefix

// Set adds networks.
func (n *networks) Set(s string) error {
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
func (n *networks) String() string {
	var parts []string
	for _, p := range *n {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, ",")
}

// Type names the value in a command's help, and in the configuration file a list.
func (n *networks) Type() string { return "stringArray" }

// list is a flag's value: texts, comma-separated or one at a time.
type list []string

// Set adds texts.
func (l *list) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		*l = append(*l, strings.TrimSpace(part))
	}
	return nil
}

// String writes texts as Set reads them.
func (l *list) String() string { return strings.Join(*l, ",") }

// Type names the value in a command's help, and in the configuration file a list.
func (l *list) Type() string { return "stringArray" }

// rate is a flag's value: how often a second something may happen. 0 is no limit, and so is the word off.
type rate float64

// Set reads a rate.
func (r *rate) Set(s string) error {
	if s == "off" {
		*r = 0
		return nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0) || math.IsInf(v, 0) {
		return errors.New("must be a number of times per second such as 10 or 0.5, or off")
	}
	*r = rate(v)
	return nil
}

// String writes a rate as Set reads it.
func (r *rate) String() string {
	if *r == 0 {
		return "off"
	}
	return strconv.FormatFloat(float64(*r), 'f', -1, 64)
}

// Type names the value in a command's help.
func (r *rate) Type() string { return "rate" }

// hidden is a flag's value that may hold a secret, and so is never shown.
type hidden struct{ tokens.Secret }

// Set takes any text.
func (h *hidden) Set(s string) error {
	h.Secret = tokens.NewSecret(s)
	return nil
}

// String answers nothing.
func (*hidden) String() string { return "" }

// Type names the value in a command's help.
func (*hidden) Type() string { return "string" }
