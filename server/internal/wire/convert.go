package wire

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"patd/tokens"
)

// ToTime returns nil for the zero time.
func ToTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// ToIP writes an address, or "" for none.
func ToIP(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// ToCIDRs writes networks.
func ToCIDRs(ps []netip.Prefix) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return out
}

// FromTime reads an optional instant.
func FromTime(field string, t *timestamppb.Timestamp) (*time.Time, error) {
	if t == nil {
		return nil, nil
	}
	if !t.IsValid() {
		return nil, tokens.Invalid("TIME_INVALID", field, "must be an instant of the years 1 to 9999")
	}
	at := t.AsTime()
	return &at, nil
}

// FromDuration reads an optional duration. One too long for Go becomes the longest, which is over every limit.
func FromDuration(field string, d *durationpb.Duration) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	if !d.IsValid() {
		return nil, tokens.Invalid("DURATION_INVALID", field, `must be a duration such as "600s"`)
	}
	v := d.AsDuration()
	return &v, nil
}

// FromIP parses an optional address; false: it is not an address, and is treated as absent. Nor is one with a zone,
// which means nothing on another machine.
func FromIP(text string) (netip.Addr, bool) {
	if text == "" {
		return netip.Addr{}, true
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a, true
}

// ErrClientIP returns the error for a client_ip that is not an address.
func ErrClientIP() *tokens.Error {
	return tokens.Invalid("CLIENT_IP_INVALID", "client_ip", "must be an IPv4 or IPv6 address")
}
