package config

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/server"
	"patd/server/signin"
	"patd/tokens"
)

// signInSettings say who may sign users in.
type signInSettings struct {
	issuers, audiences, prefixes, algorithms cli.List

	userClaim, featuresClaim, permissionsClaim string

	permissions cli.List

	leeway cli.Duration
	config *signin.Config // as Read makes it; nil: no sign-in

	cli cliSettings
	// CLI is how people sign in with patd login, as Read makes it; nil: they do not.
	CLI *server.CLISignIn
}

func (s *signInSettings) Flags(f *pflag.FlagSet) {
	f.Var(
		&s.issuers,
		"oidc-issuer",
		"`URL` of an OpenID provider whose JWTs sign users in, exactly as its iss; repeat, or separate by commas",
	)
	f.Var(
		&s.audiences,
		"oidc-audience",
		"the `audience` that these JWTs are for: one per issuer in the same order, or one for all; several of a single issuer",
	)
	f.StringVar(&s.userClaim, "oidc-user-claim", "sub", "the `claim` that is the user's id")
	f.Var(
		&s.prefixes,
		"oidc-user-prefix",
		"the `prefix` that stands before the claim in the user's id, one per issuer: for issuers that do not trust each other",
	)
	f.StringVar(
		&s.featuresClaim,
		"oidc-features-claim",
		"",
		"the `claim` that names the user's features, with --features-source claim",
	)
	f.StringVar(
		&s.permissionsClaim,
		"oidc-permissions-claim",
		"",
		"the `claim`, such as groups, whose names make a signed-in user of the first issuer an operator",
	)
	f.Var(
		&s.permissions,
		"oidc-permissions",
		"what these names permit, `NAME=PERMISSION+PERMISSION`, comma-separated: tokens, users, catalog, audit, admin",
	)
	f.Var(
		&s.algorithms,
		"oidc-algorithms",
		"signature `algorithms` to accept, comma-separated (default RS256,PS256,ES256,EdDSA)",
	)
	s.leeway = cli.Duration(30 * time.Second)
	f.Var(&s.leeway, "oidc-leeway", "how far the provider's clock may be off, up to 5m")
	s.cli.flags(f)
}

// Read checks the combination of settings, and makes the configuration.
func (s *signInSettings) Read(c *cli.Command, f *pflag.FlagSet, page *PageSettings) error {
	if err := page.Read(s.issuers); err != nil {
		return err
	}
	if len(s.issuers) == 0 {
		if _, err := s.cli.read("", nil); err != nil {
			return err
		}
		for _, name := range []string{"oidc-audience", "oidc-user-claim", "oidc-user-prefix", "oidc-features-claim", "oidc-permissions-claim", "oidc-permissions", "oidc-algorithms", "oidc-leeway"} {
			if f.Changed(name) {
				return fmt.Errorf("--%s needs --oidc-issuer URL: without an issuer nobody signs in", name)
			}
		}
		return nil
	}
	issuers, err := s.paired()
	if err != nil {
		return err
	}
	if issuers[0].Permissions, err = s.operators(); err != nil {
		return err
	}
	issuers[0].PermissionsClaim = s.permissionsClaim
	if page.clientID != "" && len(s.audiences) == 0 {
		for i := range issuers {
			issuers[i].NoBearer = true
		}
	}
	if s.CLI, err = s.cli.read(issuers[0].URL, issuers[0].Audiences); err != nil {
		return err
	}
	// 0 would be the default of package signin; 1 ns is as good as no leeway.
	s.config = &signin.Config{Issuers: issuers, Leeway: max(time.Duration(s.leeway), 1), Now: c.Now}
	return nil
}

// operators reads what the names in the permissions claim permit.
func (s *signInSettings) operators() (map[string]tokens.Permission, error) {
	if (s.permissionsClaim == "") != (len(s.permissions) == 0) {
		return nil, errors.New(
			"--oidc-permissions-claim and --oidc-permissions need each other: a claim, and what its names permit",
		)
	}
	all := map[string]tokens.Permission{}
	for _, entry := range s.permissions {
		at := strings.LastIndexByte(entry, '=')
		if at <= 0 {
			return nil, fmt.Errorf("--oidc-permissions %q must be NAME=PERMISSION, with + between several", entry)
		}
		name := entry[:at]
		p, err := tokens.ParsePermissions(strings.Split(entry[at+1:], "+"))
		if err != nil || p&tokens.PermIntrospect != 0 {
			return nil, fmt.Errorf(
				"--oidc-permissions %q: the permissions of people are tokens, users, catalog, audit and admin",
				entry,
			)
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("--oidc-permissions names %q twice; write its permissions with + between them", name)
		}
		all[name] = p
	}
	return all, nil
}

// paired joins each issuer with its audiences and its prefix. An issuer that is named again gets one more audience.
func (s *signInSettings) paired() ([]signin.Issuer, error) {
	n := len(s.issuers)
	audiences := [][]string{}
	switch {
	case n == 1:
		audiences = append(audiences, s.audiences)
	case len(s.audiences) == 1:
		for range n {
			audiences = append(audiences, s.audiences)
		}
	case len(s.audiences) == n:
		for _, a := range s.audiences {
			audiences = append(audiences, []string{a})
		}
	default:
		return nil, fmt.Errorf(
			"--oidc-audience must be one for all issuers, or one for each in the same order: there are %d issuers and %d audiences",
			n,
			len(s.audiences),
		)
	}
	if len(s.prefixes) != 0 && len(s.prefixes) != n {
		return nil, fmt.Errorf(
			"--oidc-user-prefix must be one for each issuer in the same order: there are %d issuers and %d prefixes",
			n,
			len(s.prefixes),
		)
	}
	var out []signin.Issuer
	at := map[string]int{}
	for i, url := range s.issuers {
		prefix := ""
		if len(s.prefixes) > 0 {
			prefix = s.prefixes[i]
		}
		j, again := at[url]
		switch {
		case !again:
			at[url] = len(out)
			out = append(out, signin.Issuer{
				URL: url, Audiences: audiences[i], UserClaim: s.userClaim, UserPrefix: prefix,
				FeaturesClaim: s.featuresClaim, Algorithms: s.algorithms,
			})
		case out[j].UserPrefix != prefix:
			return nil, errors.New("--oidc-user-prefix differs for one issuer that is named twice")
		default:
			out[j].Audiences = append(out[j].Audiences[:len(out[j].Audiences):len(out[j].Audiences)], audiences[i]...)
		}
	}
	return out, nil
}

// Open makes the verifier of JWTs; nil: no sign-in. It sends providers no request yet.
func (s *signInSettings) Open(log *slog.Logger) (*signin.SignIn, error) {
	if s.config == nil {
		return nil, nil
	}
	s.config.Logger = log
	return signin.New(*s.config)
}
