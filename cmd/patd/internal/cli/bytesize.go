package cli

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

var _ pflag.Value = (*ByteSize)(nil)

// ByteSize is a flag's value: a number of bytes with its unit, such as 256MiB.
type ByteSize int64

var byteUnits = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// Set reads a size.
func (b *ByteSize) Set(s string) error {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseInt(digits, 10, 64)
		if err == nil && v > 0 && v <= math.MaxInt64/u.size {
			*b = ByteSize(v * u.size)
			return nil
		}
	}
	return errors.New("must be a size such as 256MiB or 1GiB")
}

// String writes a size as Set reads it.
func (b *ByteSize) String() string {
	for _, u := range byteUnits {
		if n := int64(*b); n > 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return ""
}

// Type names the value in a command's help.
func (*ByteSize) Type() string { return "size" }

// OptionalSize is a byteSize that may be 0: none.
type OptionalSize ByteSize

var _ pflag.Value = (*OptionalSize)(nil)

// Set reads a size, or 0.
func (o *OptionalSize) Set(s string) error {
	if s == "0" {
		*o = 0
		return nil
	}
	return (*ByteSize)(o).Set(s)
}

// String writes a size as Set reads it.
func (o *OptionalSize) String() string {
	if *o == 0 {
		return "0"
	}
	return (*ByteSize)(o).String()
}

// Type names the value in a command's help.
func (*OptionalSize) Type() string { return "size" }
