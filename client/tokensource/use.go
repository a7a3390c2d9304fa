package tokensource

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"patd/client"
	"patd/internal/loopback"
)

// Secret returns the current secret.
func (s *Source) Secret(ctx context.Context) (string, error) {
	s.mu.Lock()
	text, loaded := s.current.Secret, s.loaded
	s.mu.Unlock()
	if loaded {
		return text.Reveal(), nil
	}
	stored, err := s.config.Store.Load(ctx)
	if err != nil {
		return "", err
	}
	return stored.Secret.Reveal(), nil
}

// Credential carries the current secret with every call on a gRPC connection, for grpc.WithPerRPCCredentials.
func (s *Source) Credential() client.Credential { return client.ServiceToken(s.Secret) }

// RoundTripper sends requests with the current secret, by base; nil: http.DefaultTransport. It adds the secret to
// requests to the given origins only, such as https://api.example.com, so that no redirect carries it away; others pass
// as they are. An origin must be https, or lead to this machine; requests to another kind fail.
func (s *Source) RoundTripper(base http.RoundTripper, origins ...string) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &roundTripper{source: s, base: base, origins: origins}
}

type roundTripper struct {
	source  *Source
	base    http.RoundTripper
	origins []string
}

var errPlaintext = errors.New("the secret is not sent in plain text: the origin must begin with https")

// RoundTrip sends a request.
func (t *roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	if !slices.ContainsFunc(t.origins, func(o string) bool { return isOrigin(r.URL, o) }) {
		return t.base.RoundTrip(r)
	}
	if r.URL.Scheme != "https" && !loopback.Host(r.URL.Hostname()) {
		closeBody(r)
		return nil, errPlaintext
	}
	text, err := t.source.Secret(r.Context())
	if err != nil {
		closeBody(r)
		return nil, err
	}
	out := r.Clone(r.Context())
	out.Header.Set("Authorization", "Bearer "+text)
	return t.base.RoundTrip(out)
}

// closeBody closes the body of a request that is not sent, as every RoundTripper must.
func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// isOrigin reports whether a URL is of an origin.
func isOrigin(u *url.URL, origin string) bool {
	o, err := url.Parse(strings.TrimSuffix(origin, "/"))
	return err == nil && o.Scheme == u.Scheme && strings.EqualFold(o.Hostname(), u.Hostname()) && port(o) == port(u)
}

// port returns the port of a URL, also where it is the scheme's own.
func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case u.Scheme == "https":
		return "443"
	default:
		return "80"
	}
}
