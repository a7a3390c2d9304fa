package main

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

var _ pflag.Value = (*byteSize)(nil)

// byteSize is a flag's value: a number of bytes with its unit, such as 256MiB.
type byteSize int64

var byteUnits = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// Set reads a size.
func (b *byteSize) Set(s string) error {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseInt(digits, 10, 64)
		if err == nil && v > 0 && v <= math.MaxInt64/u.size {
			*b = byteSize(v * u.size)
			return nil
		}
	}
	return errors.New("must be a size such as 256MiB or 1GiB")
}

// String writes a size as Set reads it.
func (b *byteSize) String() string {
	for _, u := range byteUnits {
		if n := int64(*b); n > 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return ""
}

// Type names the value in a command's help.
func (*byteSize) Type() string { return "size" }

// optionalSize is a byteSize that may be 0: none.
type optionalSize byteSize

var _ pflag.Value = (*optionalSize)(nil)

// Set reads a size, or 0.
func (o *optionalSize) Set(s string) error {
	if s == "0" {
		*o = 0
		return nil
	}
	return (*byteSize)(o).Set(s)
}

// String writes a size as Set reads it.
func (o *optionalSize) String() string {
	if *o == 0 {
		return "0"
	}
	return (*byteSize)(o).String()
}

// Type names the value in a command's help.
func (*optionalSize) Type() string { return "size" }
