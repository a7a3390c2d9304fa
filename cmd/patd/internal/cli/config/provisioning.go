package config

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/server"
	"patd/server/signin"
	"patd/tokens"
)

// provisioningSettings say how identity providers tell of users who come and go.
type provisioningSettings struct {
	// SCIMUserID is the attribute of SCIM that is patd's user id.
	SCIMUserID string

	issuers, audiences, keys, actions cli.List

	subject string
	config  *signin.EventsConfig // as Read makes it; nil: no security events
	does    map[string]tokens.SecurityAction
}

func (s *provisioningSettings) Flags(f *pflag.FlagSet) {
	f.StringVar(
		&s.SCIMUserID,
		"scim-user-id",
		"externalId",
		"the `attribute` of SCIM users that is the user's id in patd: externalId, userName or id",
	)
	f.Var(
		&s.issuers,
		"security-event-issuer",
		"take security events that this `URL` signed, exactly as their iss; repeat, or separate by commas",
	)
	f.Var(
		&s.audiences,
		"security-event-audience",
		"the `audience` that these events are for; repeat, or separate by commas",
	)
	f.Var(
		&s.keys,
		"security-event-keys-url",
		"`URL` of the keys of these issuers, one per issuer in the same order; without it their discovery documents say it",
	)
	f.StringVar(
		&s.subject,
		"security-event-user",
		"subject",
		"what of an event's subject is the user's id in patd: subject, its own id at the issuer, or email",
	)
	f.Var(
		&s.actions,
		"security-event-actions",
		"what types of events do, `TYPE=ACTION+ACTION`, comma-separated: suspend, revoke (the tokens), delete (the user) or notify "+
			"(default account-disabled=suspend,account-purged=delete,credential-compromise=revoke,session-revoked=notify)",
	)
}

// Read checks the combination of settings, and makes the configuration. signIn is read already.
func (s *provisioningSettings) Read(c *cli.Command, f *pflag.FlagSet, signIn *signInSettings) (err error) {
	if !slices.Contains([]string{"externalId", "userName", "id"}, s.SCIMUserID) {
		return errors.New("--scim-user-id must be externalId, userName or id")
	}
	if s.does, err = s.readActions(); err != nil {
		return err
	}
	if len(s.issuers) == 0 {
		for _, name := range []string{"security-event-audience", "security-event-keys-url", "security-event-user", "security-event-actions"} {
			if f.Changed(name) {
				return fmt.Errorf("--%s needs --security-event-issuer URL: without an issuer no events are taken", name)
			}
		}
		return nil
	}
	switch {
	case len(s.audiences) == 0:
		return errors.New("--security-event-issuer needs --security-event-audience: an event for others is not taken")
	case len(s.keys) != 0 && len(s.keys) != len(s.issuers):
		return fmt.Errorf(
			"--security-event-keys-url must be one for each issuer in the same order: there are %d issuers and %d addresses",
			len(s.issuers),
			len(s.keys),
		)
	case s.subject != "subject" && s.subject != "email":
		return errors.New("--security-event-user must be subject or email")
	}
	var prefixes []string
	of := map[string]string{}
	if signIn.config != nil {
		for _, i := range signIn.config.Issuers {
			prefixes, of[i.URL] = append(prefixes, i.UserPrefix), i.UserPrefix
		}
	}
	s.config = &signin.EventsConfig{Now: c.Now}
	for n, url := range s.issuers {
		i := signin.EventIssuer{URL: url, Audiences: s.audiences, UserPrefix: of[url], ByEmail: s.subject == "email"}
		if len(s.keys) > 0 {
			i.KeysURL = s.keys[n]
		}
		for _, p := range prefixes {
			if len(p) > len(i.UserPrefix) && strings.HasPrefix(p, i.UserPrefix) {
				i.Foreign = append(i.Foreign, p)
			}
		}
		s.config.Issuers = append(s.config.Issuers, i)
	}
	return nil
}

// readActions reads what each type of event does.
func (s *provisioningSettings) readActions() (map[string]tokens.SecurityAction, error) {
	does := map[string]tokens.SecurityAction{
		"account-disabled":      tokens.SecuritySuspend,
		"account-purged":        tokens.SecurityDelete,
		"credential-compromise": tokens.SecurityRevoke | tokens.SecurityEndSessions,
		"session-revoked":       0,
	}
	said := map[string]bool{}
	for _, entry := range s.actions {
		name, text, ok := strings.Cut(entry, "=")
		switch {
		case !ok || !slices.Contains(signin.EventTypes(), name):
			return nil, fmt.Errorf(
				"--security-event-actions %q must be TYPE=ACTION; the types are %s",
				entry,
				strings.Join(signin.EventTypes(), ", "),
			)
		case said[name]:
			return nil, fmt.Errorf(
				"--security-event-actions names %s twice; write its actions with + between them",
				name,
			)
		}
		action, err := tokens.ParseSecurityAction(text)
		if err != nil {
			return nil, fmt.Errorf("--security-event-actions %s: %w", name, err)
		}
		does[name], said[name] = action, true
	}
	return does, nil
}

// Open makes the verifier of security events; nil: none are taken. It sends no request yet.
func (s *provisioningSettings) Open(log *slog.Logger) (*signin.Events, error) {
	if s.config == nil {
		return nil, nil
	}
	s.config.Logger = log
	return signin.NewEvents(*s.config)
}

// Apply writes the settings into a server's configuration. events may be nil.
func (s *provisioningSettings) Apply(c *server.Config, events *signin.Events) {
	c.SCIMUserID = s.SCIMUserID
	if events != nil {
		c.SecurityEvents = server.SecurityEvents{Verifier: events, Actions: s.does}
	}
}
