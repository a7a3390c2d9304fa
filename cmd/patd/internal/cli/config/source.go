package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/features"
	"patd/internal/secretfile"
	"patd/tokens/secret"
)

// The sources of features.
const (
	SourceTable    = "table"
	sourceSQL      = "sql"
	SourceCallback = "callback"
	SourceClaim    = "claim"
)

// CallbackKeyVariable holds the key that signs requests to the callback. It has no flag: everybody on the machine can
// read arguments.
const CallbackKeyVariable = "PATD_FEATURES_CALLBACK_KEY"

// SourceSettings say where a user's features come from.
type SourceSettings struct {
	Kind string

	databaseURL                    cli.Hidden
	passwordFile, query, queryFile string

	callbackURL, callbackKeyFile, callbackCAFile string
	allowPrivate                                 cli.Networks

	timeout, ttl, maxStale cli.Duration
	maxRows                int

	Config features.Config // as Read makes it
}

// Flags adds the flags of the source of features.
func (s *SourceSettings) Flags(f *pflag.FlagSet) {
	f.StringVar(
		&s.Kind,
		"features-source",
		SourceTable,
		"where users' features come from: table (patd's own), sql, callback, or claim (of the sign-in token)",
	)
	f.Var(
		&s.databaseURL,
		"features-database-url",
		"sql: the `URL` of the database, postgres://, mysql:// or sqlite:PATH; with a password in it only by variable or file",
	)
	f.StringVar(
		&s.passwordFile,
		"features-database-password-file",
		"",
		"sql: `file` of the database's password; read for each connection",
	)
	f.StringVar(
		&s.query,
		"features-query",
		"",
		"sql: the `SELECT` that gives a user's features, one a row; its one parameter is the user id, $1 or ?",
	)
	f.StringVar(&s.queryFile, "features-query-file", "", "sql: `file` of the query")
	f.StringVar(&s.callbackURL, "features-callback-url", "", "callback: the `URL` to ask, https off this machine")
	f.StringVar(
		&s.callbackKeyFile,
		"features-callback-key-file",
		"",
		"callback: `file` of the key that questions are signed with; or "+CallbackKeyVariable+" holds the key itself",
	)
	f.StringVar(
		&s.callbackCAFile,
		"features-callback-ca-file",
		"",
		"callback: PEM `file` of the authorities to trust, instead of the system's",
	)
	f.Var(
		&s.allowPrivate,
		"features-allow-private",
		"callback: `networks` it may be in although they are not public, comma-separated",
	)
	s.timeout, s.ttl, s.maxStale = cli.Duration(
		2*time.Second,
	), cli.Duration(
		30*time.Second,
	), cli.Duration(
		5*time.Minute,
	)
	f.Var(&s.timeout, "features-timeout", "sql, callback: time limit of one query or request")
	f.Var(
		&s.ttl,
		"features-ttl",
		"sql, callback: how long a result is cached; creating a token always reads afresh; 0s: no cache",
	)
	f.Var(
		&s.maxStale,
		"features-max-stale",
		"sql, callback: how old the last known result may be during an outage; 0s: it is not used",
	)
	s.maxRows = 4096
	f.Var((*cli.Count)(&s.maxRows), "features-max-rows", "sql, callback: at most this many features of one user")
}

// kinds returns the sources and the flags of each; a flag may belong to several.
func (*SourceSettings) kinds() []struct {
	kind  string
	flags []string
} {
	asked := []string{"features-timeout", "features-ttl", "features-max-stale", "features-max-rows"}
	return []struct {
		kind  string
		flags []string
	}{
		{SourceTable, nil},
		{
			sourceSQL,
			append(
				[]string{
					"features-database-url",
					"features-database-password-file",
					"features-query",
					"features-query-file",
				},
				asked...),
		},
		{
			SourceCallback,
			append(
				[]string{
					"features-callback-url",
					"features-callback-key-file",
					"features-callback-ca-file",
					"features-allow-private",
				},
				asked...),
		},
		{SourceClaim, []string{"oidc-features-claim"}},
	}
}

// Read checks the settings without contacting anything, and makes the configuration of the source.
func (s *SourceSettings) Read(c *cli.Command, f *pflag.FlagSet) error {
	key, _ := c.Getenv(CallbackKeyVariable)
	if err := s.OnlyChosen(f, key != ""); err != nil {
		return err
	}
	switch {
	case s.maxStale == 0 || s.maxStale >= s.ttl:
	case f.Changed("features-max-stale"):
		return fmt.Errorf("--features-max-stale %s is less than --features-ttl %s", &s.maxStale, &s.ttl)
	default:
		s.maxStale = s.ttl
	}
	s.Config = features.Config{
		Cache: features.CacheConfig{TTL: orNone(s.ttl), MaxStale: orNone(s.maxStale), Now: c.Now},
	}
	switch s.Kind {
	case sourceSQL:
		return s.readSQL(c)
	case SourceCallback:
		return s.readCallback(c, key)
	case SourceClaim:
		if f.Lookup("oidc-features-claim").Value.String() == "" {
			return errors.New(
				"--features-source claim needs --oidc-features-claim NAME: the claim of the sign-in token that names the user's features",
			)
		}
	}
	return nil
}

// orNone turns 0s into the value for none in package features.
func orNone(d cli.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

// OnlyChosen refuses settings of a source that is not the chosen one: the operator expects them to count.
func (s *SourceSettings) OnlyChosen(f *pflag.FlagSet, keyGiven bool) error {
	var kinds, mine []string
	for _, k := range s.kinds() {
		if kinds = append(kinds, k.kind); k.kind == s.Kind {
			mine = k.flags
		}
	}
	if !slices.Contains(kinds, s.Kind) {
		return errors.New(
			"--features-source must be " + strings.Join(kinds[:len(kinds)-1], ", ") + " or " + kinds[len(kinds)-1],
		)
	}
	for _, k := range s.kinds() {
		for _, name := range k.flags {
			if f.Changed(name) && !slices.Contains(mine, name) {
				return fmt.Errorf(
					"--%s is a setting of --features-source %s, which is not chosen: the source is %s",
					name,
					s.owners(name),
					s.Kind,
				)
			}
		}
	}
	if keyGiven && s.Kind != SourceCallback {
		return fmt.Errorf(
			"%s is a setting of --features-source %s, which is not chosen: the source is %s",
			CallbackKeyVariable,
			SourceCallback,
			s.Kind,
		)
	}
	return nil
}

// owners lists the sources that have a flag.
func (s *SourceSettings) owners(flag string) string {
	var names []string
	for _, k := range s.kinds() {
		if slices.Contains(k.flags, flag) {
			names = append(names, k.kind)
		}
	}
	return strings.Join(names, " or ")
}

func (s *SourceSettings) readSQL(c *cli.Command) error {
	query := s.query
	switch {
	case s.databaseURL.IsEmpty():
		return errors.New(
			"--features-source sql needs --features-database-url URL: postgres://, mysql:// or sqlite:PATH",
		)
	case c.Arguments["features-database-url"] && holdsPassword(s.databaseURL.Reveal()):
		return fmt.Errorf(
			"the password in --features-database-url can be read by everybody on this machine; give the URL by %s or --config, or the password by --features-database-password-file",
			Variable("features-database-url"),
		)
	case mangled(s.databaseURL.Reveal()):
		return errors.New(
			"--features-database-url cannot be read; characters such as @ / : # % in a password are written percent-encoded",
		)
	case s.query != "" && s.queryFile != "":
		return errors.New("give the query by --features-query or by --features-query-file, not by both")
	case s.queryFile != "":
		text, err := secretfile.Read(s.queryFile) // a pipe would hold up the start, and the signal that ends it
		if err != nil {
			return fmt.Errorf("read --features-query-file: %w", err)
		}
		query = string(text)
	}
	if strings.TrimSpace(query) == "" {
		return errors.New(
			"--features-source sql needs --features-query or --features-query-file, such as SELECT feature FROM user_features WHERE user_id = …",
		)
	}
	if s.timeout == 0 {
		return errors.New("--features-timeout must be longer than 0s")
	}
	s.Config.Kind = features.KindSQL
	s.Config.SQL = features.SQLConfig{
		URL:          s.databaseURL.Secret,
		PasswordFile: s.passwordFile,
		Query:        query,
		MaxRows:      s.maxRows,
		Timeout:      time.Duration(s.timeout),
	}
	return nil
}

// holdsPassword reports whether a database's URL contains a password. Text that is no URL counts as if it did.
func holdsPassword(text string) bool {
	if strings.HasPrefix(text, "sqlite:") {
		return false
	}
	u, err := url.Parse(text)
	if err != nil {
		return true
	}
	_, given := u.User.Password()
	return given || u.Query().Has("password") || u.Query().Has("sslpassword")
}

// mangled reports whether a character of its password cut a URL in the wrong place: part of the password would then be
// taken for a host or a database, and appear in errors.
func mangled(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Opaque == "" &&
		(u.Fragment != "" || strings.Contains(u.Path, "@") || strings.ContainsAny(strings.SplitN(u.RawQuery, "=", 2)[0], "@/"))
}

func (s *SourceSettings) readCallback(c *cli.Command, key string) error {
	switch {
	case s.callbackURL == "":
		return errors.New("--features-source callback needs --features-callback-url URL")
	case key != "" && s.callbackKeyFile != "":
		return errors.New(
			"give the callback's key by --features-callback-key-file or by " + CallbackKeyVariable + ", not by both",
		)
	case key == "" && s.callbackKeyFile == "":
		return errors.New(
			"--features-source callback needs the key that questions are signed with: --features-callback-key-file FILE or " + CallbackKeyVariable,
		)
	case s.timeout == 0:
		return errors.New("--features-timeout must be longer than 0s")
	}
	s.Config.Kind = features.KindCallback
	s.Config.Callback = features.CallbackConfig{
		URL: s.callbackURL, HMACKeyFile: s.callbackKeyFile, CACertFile: s.callbackCAFile, AllowPrivate: s.allowPrivate,
		Timeout: time.Duration(s.timeout), MaxFeatures: s.maxRows, Now: c.Now,
	}
	if key != "" {
		s.Config.Callback.HMACKey = secret.NewSecret(key)
	}
	return nil
}
