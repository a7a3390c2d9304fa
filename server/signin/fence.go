package signin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"

	"patd/internal/loopback"
)

// fenceKey is the context key of a request's fence.
type fenceKey struct{}

// fence rejects addresses after name resolution, so a name that resolves to another address the next time gains
// nothing.
type fence struct{ private, loopback bool } // whether such addresses are allowed

// control is a net.Dialer's ControlContext.
func control(ctx context.Context, _, address string, _ syscall.RawConn) error {
	f, ok := ctx.Value(fenceKey{}).(fence)
	if !ok {
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("refuse to connect to what is no address: %w", err)
	}
	return f.check(at.Addr())
}

func (f fence) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	switch {
	case (a.IsLoopback() || a.IsUnspecified()) && !f.loopback, inner(a) && !f.private:
		return misconfigured(
			fmt.Sprintf(
				"the discovery document leads to %v, a loopback or private address, and the issuer is elsewhere",
				a,
			),
		)
	}
	return nil
}

// inner reports whether an address is in a private network: neither public nor of this machine.
func inner(a netip.Addr) bool { return !a.IsLoopback() && !a.IsUnspecified() && !loopback.Public(a) }

// noting returns a context for a request, and a function that returns the address it connected to.
func noting(ctx context.Context) (context.Context, func() netip.Addr) {
	var seen atomic.Pointer[netip.Addr]
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if at, err := netip.ParseAddrPort(i.Conn.RemoteAddr().String()); err == nil {
			a := at.Addr().Unmap()
			seen.Store(&a)
		}
	}}
	return httptrace.WithClientTrace(ctx, trace), func() netip.Addr {
		if a := seen.Load(); a != nil {
			return *a
		}
		return netip.Addr{}
	}
}

// fenced limits where keys may be fetched from. For an issuer on this machine there is no limit. For others, keys must
// be at public addresses; on the issuer's own host they may also be in the private network that the discovery document
// came from. A proxy makes the connection itself, so behind one only an address in the URL can be checked.
func fenced(ctx context.Context, issuer, keys *url.URL, from netip.Addr) (context.Context, error) {
	if loopback.Host(issuer.Hostname()) {
		return ctx, nil
	}
	same := strings.EqualFold(issuer.Hostname(), keys.Hostname())
	f := fence{private: same && inner(from), loopback: same && from.IsLoopback()}
	if literal, err := netip.ParseAddr(keys.Hostname()); err == nil {
		if err := f.check(literal); err != nil {
			return nil, err
		}
	} else if loopback.Host(keys.Hostname()) && !f.loopback {
		return nil, misconfigured("the discovery document leads to this machine, and the issuer is elsewhere")
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: keys}); err == nil && proxy != nil {
		return ctx, nil
	}
	return context.WithValue(ctx, fenceKey{}, f), nil
}

// fencing is a transport that limits where an issuer's discovery document may lead, as fenced does.
type fencing struct {
	http.RoundTripper
	issuer *url.URL
	from   atomic.Pointer[netip.Addr] // where the discovery document came from
}

// RoundTrip makes one request.
func (f *fencing) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := reachable(r.URL); err != nil {
		return nil, misconfigured("an endpoint of the discovery document: " + err.Error())
	}
	if strings.HasSuffix(r.URL.Path, wellKnown) && r.URL.Host == f.issuer.Host {
		ctx, seen := noting(r.Context())
		resp, err := f.RoundTripper.RoundTrip(r.WithContext(ctx))
		if at := seen(); err == nil && at.IsValid() {
			f.from.Store(&at)
		}
		return resp, err
	}
	from := netip.Addr{}
	if at := f.from.Load(); at != nil {
		from = *at
	}
	ctx, err := fenced(r.Context(), f.issuer, r.URL, from)
	if err != nil {
		return nil, err
	}
	return f.RoundTripper.RoundTrip(r.WithContext(ctx))
}

// CloseIdleConnections forwards the call, for http.Client.
func (f *fencing) CloseIdleConnections() {
	if c, ok := f.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
