package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"patd/server/internal/admin"
	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/server/internal/page"
	"patd/server/internal/rpc"
	"patd/server/signin"
	"patd/tokens"
)

// PageConfig configures the pages for people. The zero value serves them to users who are handed over.
type PageConfig struct {
	// Origins are those that may embed the pages, such as https://app.example.com.
	Origins []string
	// Look is what a company makes its own.
	Look Look
	// Client is this server's registration at the OpenID provider. Nil: nobody signs in here by itself.
	Client *PageClient
}

// Look is what a company makes its own on the pages.
type Look = frame.Look

// CheckAccent returns an error unless a colour can be the accent of the pages.
func CheckAccent(text string) error { return frame.CheckAccent(text) }

// PageClient is a confidential client at an OpenID provider.
type PageClient struct {
	SignIn *signin.SignIn // that has the issuer
	Issuer string
	ID     string
	Secret func() (tokens.Secret, error)
	Scopes []string // beside openid
}

// CLISignIn is how people sign in with a program such as patd's own command line.
type CLISignIn = rpc.SignIn

// HandoffURL returns the address at which the code of a hand-off signs a browser in.
func (s *Server) HandoffURL(code tokens.Secret) string { return rpc.HandoffURL(s.issuer, code) }

// site makes the pages for people.
func (s *Server) site(c Config, network *call.Chain) (*frame.Frame, error) {
	var provider *page.Provider
	setup := frame.Config{
		Chain:   network,
		Service: c.Service,
		Issuer:  s.issuer,
		Origins: c.Page.Origins,
		Look:    c.Page.Look,
	}
	if client := c.Page.Client; client != nil {
		now := c.Now
		if now == nil {
			now = time.Now
		}
		to, err := client.SignIn.ClientOf(client.Issuer)
		if err != nil {
			return nil, fmt.Errorf("make the server: %w", err)
		}
		provider = &page.Provider{
			Issuer:          client.Issuer,
			ClientID:        client.ID,
			Secret:          client.Secret,
			Scopes:          client.Scopes,
			Identify:        client.SignIn.Identify,
			NeedsClaim:      client.SignIn.Lacks,
			VerifySignature: client.SignIn.VerifySignature,
			Client:          to,
			Now:             now,
		}
		setup.SignsIn, setup.FormTargets = func() bool { return true }, provider.Origins
	}
	f, err := frame.New(setup)
	if err != nil {
		return nil, fmt.Errorf("make the server: %w", err)
	}
	page.Add(f, c.Service, provider)
	admin.Add(f, c.Service, admin.Server{Version: c.Version, Store: c.StoreKind, Health: s.healthForOperators})
	return f, nil
}

// healthForOperators returns what /readyz?verbose says.
func (s *Server) healthForOperators(ctx context.Context) admin.Health {
	p, _ := s.health.report(ctx, true) // the log has the cause when a probe asks
	out := admin.Health{Status: p.Status}
	for _, name := range slices.Sorted(maps.Keys(p.Details)) {
		out.Parts = append(out.Parts, admin.Part{Name: name, Cause: call.LogText(p.Details[name])})
	}
	for _, name := range slices.Sorted(maps.Keys(p.Parts)) {
		if _, said := p.Details[name]; !said {
			out.Parts = append(out.Parts, admin.Part{Name: name, Cause: p.Parts[name].Cause})
		}
	}
	return out
}
