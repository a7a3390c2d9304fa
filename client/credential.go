package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/credentials"

	"patd/internal/secretfile"
	"patd/tokens/secret"
)

// Credential carries a service token with every call on a connection, for grpc.WithPerRPCCredentials. It refuses a
// connection that does not keep the token secret. Plain text is refused, unless the connection uses
// google.golang.org/grpc/credentials/local, which reaches this machine only, or AllowPlaintext permits it.
type Credential struct {
	source    func(context.Context) (string, error)
	plaintext bool
}

var _ credentials.PerRPCCredentials = Credential{}

// ServiceToken makes a Credential from a source, which is read at each call: a replaced token takes effect at the next
// call. See [TokenFile].
func ServiceToken(source func(context.Context) (string, error)) Credential {
	return Credential{source: source}
}

// TokenFile is a source for [ServiceToken]: a file that holds the token, optionally with a line end.
func TokenFile(path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		content, err := secretfile.Read(path)
		if err != nil {
			return "", fmt.Errorf("read the service token: %w", err)
		}
		return strings.TrimRight(string(content), "\r\n"), nil
	}
}

// AllowPlaintext returns a Credential that crosses any connection, for networks that are encrypted by other means.
func (c Credential) AllowPlaintext() Credential {
	c.plaintext = true
	return c
}

// GetRequestMetadata returns the authorization header, if the connection may carry it.
func (c Credential) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if err := c.safe(ctx); err != nil {
		return nil, err
	}
	token, err := c.source(ctx)
	if err != nil {
		return nil, err
	}
	if token == "" || len(token) > secret.MaxInput ||
		strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("what should be a service token is something other than one token")
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (c Credential) safe(ctx context.Context) error {
	if c.plaintext {
		return nil
	}
	info, ok := credentials.RequestInfoFromContext(ctx)
	if !ok || info.AuthInfo == nil {
		return errors.New("the service token is not sent: nothing is known of the connection's security")
	}
	if info.AuthInfo.AuthType() == "local" {
		return nil
	}
	if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
		return fmt.Errorf("the service token is not sent in plain text: %w", err)
	}
	return nil
}

// RequireTransportSecurity returns false: GetRequestMetadata checks more closely than this allows.
func (Credential) RequireTransportSecurity() bool { return false }
