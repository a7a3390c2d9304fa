// Package loopback decides by one rule which hosts are this machine, so that plain text and unverified connections stay
// on it, and which addresses are public, so that a URL that others chose leads to nothing inside. No name is resolved:
// a name server could say anything.
package loopback

import (
	"net/netip"
	"strings"
)

// Host reports whether a host is this machine: it is the name localhost, in any case, or a loopback address, also in
// its IPv4-mapped form. IPv6 addresses stand without brackets, as net.SplitHostPort and url.URL.Hostname return them.
func Host(host string) bool {
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.IsLoopback()
}

// HostOrSocket reports whether the host of a database connection is this machine: one that Host accepts, or the
// absolute path of a Unix socket.
func HostOrSocket(host string) bool { return strings.HasPrefix(host, "/") || Host(host) }
