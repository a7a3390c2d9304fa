package webhook

import (
	"context"
	"crypto/x509"
	"net"

	"patd/tokens"
)

// WithResolver makes a sender look names up with another resolver, and trust other authorities.
func (c SenderConfig) WithResolver(r *net.Resolver, roots *x509.CertPool) SenderConfig {
	c.resolver, c.roots = r, roots
	return c
}

// SendFunc stands for a sender in tests.
type SendFunc func(ctx context.Context, url, id string, body []byte, secrets []tokens.Secret) Outcome

// WithSender makes an engine send by a function.
func (c Config) WithSender(send SendFunc) Config {
	c.open = func(s SenderConfig) (sender, error) { return stub{s.URL, send}, nil }
	return c
}

type stub struct {
	url  string
	send SendFunc
}

func (s stub) Send(ctx context.Context, id string, body []byte, secrets ...tokens.Secret) Outcome {
	return s.send(ctx, s.url, id, body, secrets)
}
func (stub) Close() {}
