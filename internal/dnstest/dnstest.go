// Package dnstest has a DNS server for tests of what is connected to.
package dnstest

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Resolver asks a DNS server that returns address i to the i-th question about any name, and the last one from then on.
func Resolver(tb testing.TB, addresses ...string) *net.Resolver {
	tb.Helper()
	var listen net.ListenConfig
	server, err := listen.ListenPacket(tb.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(server, addresses)
	}()
	tb.Cleanup(func() { _ = server.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// serve answers until the connection is closed.
func serve(server net.PacketConn, addresses []string) {
	asked := 0
	buf := make([]byte, 1500)
	for {
		n, peer, err := server.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		a := netip.MustParseAddr(addresses[min(asked, len(addresses)-1)])
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: a.As4()}}}
			asked++
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}}}
			asked++
		}
		m.Response, m.Additionals = true, nil
		if packed, err := m.Pack(); err == nil {
			_, _ = server.WriteTo(packed, peer)
		}
	}
}
