package dialguard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"syscall"
	"time"
)

// ClientConfig says how a client of [Guard.Client] connects. Timeout and MaxHeader must be given.
type ClientConfig struct {
	Timeout   time.Duration  // of connecting, and of the TLS handshake; a request is bounded by its context
	MaxHeader int64          // bytes of the headers of a response
	Roots     *x509.CertPool // who signs certificates; nil: the system's
	Idle      int            // how many connections are kept for later requests; 0: none
	Most      int            // how many connections there are at once; 0: no limit
	Resolver  *net.Resolver  // nil: the system's

	// Refused makes the error of a connection that the guard refuses; nil: it stays as it is.
	Refused func(error) error
}

// Client returns a client that dials only addresses that the guard allows. It follows no redirect, uses no proxy, and
// leaves bodies as they are on the wire, so that a bound of their bytes is one of memory too.
func (g Guard) Client(c ClientConfig) *http.Client {
	control := g.Control
	if c.Refused != nil {
		control = func(ctx context.Context, network, address string, conn syscall.RawConn) error {
			if err := g.Control(ctx, network, address, conn); err != nil {
				return c.Refused(err)
			}
			return nil
		}
	}
	dialer := &net.Dialer{
		Timeout:        c.Timeout,
		KeepAlive:      15 * time.Second,
		Resolver:       c.Resolver,
		ControlContext: control,
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots},
			TLSHandshakeTimeout:    c.Timeout,
			ForceAttemptHTTP2:      true,
			DisableKeepAlives:      c.Idle == 0,
			DisableCompression:     true,
			MaxIdleConns:           c.Idle,
			MaxIdleConnsPerHost:    c.Idle,
			MaxConnsPerHost:        c.Most,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: c.MaxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
