package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/internal/loopback"
	"patd/internal/secretfile"
	"patd/server"
	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

// PageSettings are those of the pages for people.
type PageSettings struct {
	Origins cli.List

	title, logoFile, accent    string
	clientID, clientSecretFile string
	scopes                     cli.List
	issuer                     string // at which users sign in
}

// Flags adds the flags of the pages.
func (s *PageSettings) Flags(f *pflag.FlagSet) {
	f.StringVar(
		&s.clientID,
		"oidc-client-id",
		"",
		"the `id` of this server as a confidential client of the first --oidc-issuer: users sign in to the page; register the redirect address <issuer>/signin/callback",
	)
	f.StringVar(
		&s.clientSecretFile,
		"oidc-client-secret-file",
		"",
		"`file` with the secret of --oidc-client-id, read at each sign-in",
	)
	f.Var(
		&s.scopes,
		"oidc-scopes",
		"`scopes` to ask the provider for beside openid, comma-separated, such as profile,email,groups",
	)
	f.Var(
		&s.Origins,
		"page-origins",
		"the `origins` that may embed the page and that a hand-off may return to, comma-separated, such as https://app.example.com",
	)
	f.StringVar(&s.title, "page-title", "", "the `title` of the page (default Personal access tokens)")
	f.StringVar(
		&s.logoFile,
		"page-logo-file",
		"",
		"`file` of the logo on the page: PNG, SVG, WebP or JPEG, at most 256 KiB",
	)
	f.StringVar(
		&s.accent,
		"page-accent",
		"",
		"the `colour` of links and buttons on the page, such as #0a5bd3; it must be readable on white",
	)
}

// Read checks the settings. issuers are those of --oidc-issuer.
func (s *PageSettings) Read(issuers []string) error {
	switch {
	case s.clientID != "" && len(issuers) == 0:
		return errors.New("--oidc-client-id needs --oidc-issuer URL")
	case s.clientID != "" && s.clientSecretFile == "":
		return errors.New("--oidc-client-id needs --oidc-client-secret-file FILE")
	case s.clientID == "" && s.clientSecretFile != "":
		return errors.New("--oidc-client-secret-file needs --oidc-client-id ID")
	case s.clientID == "" && len(s.scopes) > 0:
		return errors.New("--oidc-scopes needs --oidc-client-id ID")
	}
	if s.clientID != "" {
		s.issuer = issuers[0]
		if _, err := s.secret(); err != nil {
			return err
		}
	}
	for _, o := range s.Origins {
		if err := checkOrigin(o); err != nil {
			return err
		}
	}
	if s.accent != "" {
		return server.CheckAccent(s.accent)
	}
	return nil
}

// checkOrigin refuses what is no origin (RFC 6454 section 7), and plain http elsewhere than on this machine.
func checkOrigin(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil,
		u.Host == "",
		u.Scheme+"://"+u.Host != text,
		strings.ToLower(text) != text,
		strings.ContainsAny(text, "*'; "):
		return errors.New(
			"--page-origins must be origins such as https://app.example.com: a scheme and a host in lower case, perhaps a port, and nothing after them",
		)
	case u.Scheme == "https", u.Scheme == "http" && loopback.Host(u.Hostname()):
		return nil
	}
	return fmt.Errorf("--page-origins: %s must be https; http is for loopback only", text)
}

func (s *PageSettings) secret() (tokens.Secret, error) {
	text, err := secretfile.ReadLine(s.clientSecretFile)
	if err != nil {
		return tokens.Secret{}, fmt.Errorf("read --oidc-client-secret-file: %w", err)
	}
	return secret.NewSecret(text), nil
}

// Server returns the settings in the server's form. users may be nil.
func (s *PageSettings) Server(users *signin.SignIn) (server.PageConfig, error) {
	c := server.PageConfig{Origins: s.Origins, Look: server.Look{Title: s.title, Accent: s.accent}}
	if s.logoFile != "" {
		logo, err := secretfile.Read(s.logoFile)
		if err != nil {
			return c, fmt.Errorf("read --page-logo-file: %w", err)
		}
		c.Look.Logo = logo
	}
	if s.clientID != "" && users != nil {
		c.Client = &server.PageClient{
			SignIn: users,
			Issuer: s.issuer,
			ID:     s.clientID,
			Secret: s.secret,
			Scopes: s.scopes,
		}
	}
	return c, nil
}
