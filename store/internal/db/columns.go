package db

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"patd/tokens"
)

// How the fields of records become columns and back. What is empty is NULL.

// LineEnd is the end of a line within a statement: lists whose elements may have spaces in them stand on lines.
const LineEnd = "'\n'"

// Never is the expiry of what does not expire: it compares as later than everything.
const Never = math.MaxInt64

// Expiry is how the end of something is stored.
func Expiry(t time.Time) int64 {
	if t.IsZero() {
		return Never
	}
	return Micros(t)
}

// ExpiryTime reads what Expiry wrote.
func ExpiryTime(us int64) time.Time {
	if us == Never {
		return time.Time{}
	}
	return Instant(us)
}

// NullText is a text, or NULL when it is empty.
func NullText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// TextOf returns a text, or NULL, as it is read again.
func TextOf(v any) sql.NullString {
	s, ok := v.(string)
	return sql.NullString{String: s, Valid: ok}
}

// NullID is an id, or NULL for zero.
func NullID(id tokens.ID) any {
	if id == 0 {
		return nil
	}
	return int64(id)
}

// NullTime is an instant, or NULL for the zero time.
func NullTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return Micros(t)
}

// Flag is 0 or 1: not every driver stores a bool in a column of integers.
func Flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// NullFlag is a flag that may be left open.
func NullFlag(b *bool) any {
	if b == nil {
		return nil
	}
	return Flag(*b)
}

// Join is a list as a text, or NULL when it is empty.
func Join(list []string, sep string) any { return NullText(strings.Join(list, sep)) }

// Split reads what Join wrote.
func Split(s, sep string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, sep)
}

// AddrBytes is 4 or 16 bytes, or NULL for an address that is not known.
func AddrBytes(a netip.Addr) any {
	if !a.IsValid() {
		return nil
	}
	return a.Unmap().AsSlice()
}

// LabelsText is labels as JSON, or NULL when there are none.
func LabelsText(labels map[string]string) (any, error) {
	if len(labels) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(labels)
	if err != nil {
		return nil, fmt.Errorf("encode labels: %w", err)
	}
	return string(b), nil
}

// ParseLabels reads what LabelsText wrote.
func ParseLabels(s string) (labels map[string]string, err error) {
	if s == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(s), &labels); err != nil {
		return nil, fmt.Errorf("decode labels: %w", err)
	}
	return labels, nil
}

// CIDRsText is a list of networks as a text, or NULL when it is empty.
func CIDRsText(nets []netip.Prefix) any {
	list := make([]string, len(nets))
	for i, p := range nets {
		list[i] = p.String()
	}
	return Join(list, "\n")
}

// ParseCIDRs reads what CIDRsText wrote.
func ParseCIDRs(s string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, text := range Split(s, "\n") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("decode networks: %w", err)
		}
		nets = append(nets, p)
	}
	return nets, nil
}

// Revocation splits a revocation into its columns; all NULL when there is none.
func Revocation(r *tokens.Revocation) (us, by, reason any) {
	if r == nil {
		return nil, nil, nil
	}
	return Micros(r.Time), r.By, NullText(r.Reason)
}

// Micros is how instants are stored.
func Micros(t time.Time) int64 { return t.UnixMicro() }

// Instant reads what Micros wrote.
func Instant(us int64) time.Time { return time.UnixMicro(us).UTC() }
