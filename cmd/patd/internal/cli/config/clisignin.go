package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/login"
	"patd/server"
)

// cliSettings say how people sign in with `patd login`.
type cliSettings struct {
	clientID           string
	scopes, parameters cli.List
	port               int
}

func (s *cliSettings) flags(f *pflag.FlagSet) {
	f.StringVar(
		&s.clientID,
		"oidc-cli-client-id",
		"",
		"the `id` of a public client of the first --oidc-issuer, as which people sign in with patd login; register the redirect address http://127.0.0.1/callback",
	)
	f.Var(
		&s.scopes,
		"oidc-cli-scopes",
		"`scopes` that patd login asks for beside openid, comma-separated (default offline_access)",
	)
	f.Var(
		&s.parameters,
		"oidc-cli-parameters",
		"further parameters of patd login, `NAME=VALUE`, comma-separated: audience, resource, prompt, organization",
	)
	f.IntVar(
		&s.port,
		"oidc-cli-port",
		0,
		"the `port` of the redirect address of patd login, for providers that do not allow any; 0: any",
	)
}

// read makes the server's setting; nil: there is none. audiences are those of the first issuer.
func (s *cliSettings) read(issuer string, audiences []string) (*server.CLISignIn, error) {
	switch {
	case s.clientID == "" && (len(s.scopes) > 0 || len(s.parameters) > 0 || s.port != 0):
		return nil, errors.New(
			"--oidc-cli-scopes, --oidc-cli-parameters and --oidc-cli-port need --oidc-cli-client-id ID",
		)
	case s.clientID == "":
		return nil, nil
	case issuer == "":
		return nil, errors.New("--oidc-cli-client-id needs --oidc-issuer URL")
	case len(audiences) == 0:
		return nil, errors.New(
			"--oidc-cli-client-id needs --oidc-audience: what the tokens of people who sign in with patd login are for",
		)
	case s.port < 0 || s.port > 65535:
		return nil, errors.New("--oidc-cli-port must be a port, or 0 for any")
	}
	out := &server.CLISignIn{
		Issuer:       issuer,
		ClientID:     s.clientID,
		Scopes:       []string{"openid"},
		Audiences:    audiences,
		Parameters:   map[string]string{},
		RedirectPort: s.port,
	}
	if s.scopes == nil {
		s.scopes = cli.List{"offline_access"}
	}
	for _, scope := range s.scopes {
		if scope != "" && !slices.Contains(out.Scopes, scope) {
			out.Scopes = append(out.Scopes, scope)
		}
	}
	for _, p := range s.parameters {
		name, value, ok := strings.Cut(p, "=")
		if _, twice := out.Parameters[name]; !ok || value == "" || twice ||
			!slices.Contains(login.ParameterNames(), name) {
			return nil, fmt.Errorf(
				"--oidc-cli-parameters must be NAME=VALUE, each name once, of %s",
				strings.Join(login.ParameterNames(), ", "),
			)
		}
		out.Parameters[name] = value
	}
	return out, nil
}
