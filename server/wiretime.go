package server

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"patd/tokens"
)

// toTime leaves out an absent time.
func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func toIP(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func toCIDRs(ps []netip.Prefix) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return out
}

// fromTime reads an optional instant.
func fromTime(field string, t *timestamppb.Timestamp) (*time.Time, error) {
	if t == nil {
		return nil, nil
	}
	if !t.IsValid() {
		return nil, tokens.Invalid("TIME_INVALID", field, "must be an instant of the years 1 to 9999")
	}
	at := t.AsTime()
	return &at, nil
}

// fromDuration reads an optional duration. One too long for Go is the longest there is, which is over every limit.
func fromDuration(field string, d *durationpb.Duration) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	if !d.IsValid() {
		return nil, tokens.Invalid("DURATION_INVALID", field, `must be a duration such as "600s"`)
	}
	v := d.AsDuration()
	return &v, nil
}

// fromIP reads an optional address; false: it is none, and counts as absent. A zone means nothing away from its machine, so an
// address with one is none.
func fromIP(text string) (netip.Addr, bool) {
	if text == "" {
		return netip.Addr{}, true
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a, true
}

func errClientIP() *tokens.Error {
	return tokens.Invalid("CLIENT_IP_INVALID", "client_ip", "must be an IPv4 or IPv6 address")
}
