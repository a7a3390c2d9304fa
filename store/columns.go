package store

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"patd/tokens"
)

// How the fields of records become columns and back. What is empty is NULL.

// line is the end of a line within a statement: lists whose elements may have spaces in them stand on lines.
const line = "'\n'"

// never is the expiry of what does not expire: it compares as later than everything.
const never = math.MaxInt64

func expiry(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return micros(t)
}

func expiryTime(us int64) time.Time {
	if us == never {
		return time.Time{}
	}
	return instant(us)
}

func nullText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func nullID(id tokens.ID) any {
	if id == 0 {
		return nil
	}
	return int64(id)
}

func nullTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return micros(t)
}

// flag is 0 or 1: not every driver stores a bool in a column of integers.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// nullFlag is a flag that may be left open.
func nullFlag(b *bool) any {
	if b == nil {
		return nil
	}
	return flag(*b)
}

func joined(list []string, sep string) any { return nullText(strings.Join(list, sep)) }

func split(s, sep string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, sep)
}

// addrBytes is 4 or 16 bytes, or NULL for an address that is not known.
func addrBytes(a netip.Addr) any {
	if !a.IsValid() {
		return nil
	}
	return a.Unmap().AsSlice()
}

func labelsText(labels map[string]string) (any, error) {
	if len(labels) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(labels)
	if err != nil {
		return nil, fmt.Errorf("encode labels: %w", err)
	}
	return string(b), nil
}

func parseLabels(s string) (labels map[string]string, err error) {
	if s == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(s), &labels); err != nil {
		return nil, fmt.Errorf("decode labels: %w", err)
	}
	return labels, nil
}

func cidrsText(nets []netip.Prefix) any {
	list := make([]string, len(nets))
	for i, p := range nets {
		list[i] = p.String()
	}
	return joined(list, "\n")
}

func parseCIDRs(s string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, text := range split(s, "\n") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("decode networks: %w", err)
		}
		nets = append(nets, p)
	}
	return nets, nil
}

// revocation splits a revocation into its columns; all NULL when there is none.
func revocation(r *tokens.Revocation) (us, by, reason any) {
	if r == nil {
		return nil, nil, nil
	}
	return micros(r.Time), r.By, nullText(r.Reason)
}

// micros is how instants are stored.
func micros(t time.Time) int64 { return t.UnixMicro() }

func instant(us int64) time.Time { return time.UnixMicro(us).UTC() }
