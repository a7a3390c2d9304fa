package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"patd/features"
	"patd/tokens"
)

// The sources of features.
const (
	sourceTable    = "table"
	sourceSQL      = "sql"
	sourceCallback = "callback"
	sourceClaim    = "claim"
)

// callbackKeyVariable holds the key that questions to the callback are signed with. There is no flag for it: arguments
// are for all to see.
const callbackKeyVariable = "PATD_FEATURES_CALLBACK_KEY"

// sourceSettings say where a user's features come from.
type sourceSettings struct {
	kind string

	databaseURL                    hidden
	passwordFile, query, queryFile string

	callbackURL, callbackKeyFile, callbackCAFile string
	allowPrivate                                 networks

	timeout, ttl, maxStale duration
	maxRows                int

	config features.Config // as read makes it
}

func (s *sourceSettings) flags(f *pflag.FlagSet) {
	f.StringVar(&s.kind, "features-source", sourceTable, "where users' features come from: table (patd's own), sql, callback, or claim (of the sign-in token)")
	f.Var(&s.databaseURL, "features-database-url", "sql: the `URL` of the database, postgres://, mysql:// or sqlite:PATH; with a password in it only by variable or file")
	f.StringVar(&s.passwordFile, "features-database-password-file", "", "sql: `file` of the database's password; read for each connection")
	f.StringVar(&s.query, "features-query", "", "sql: the `SELECT` that gives a user's features, one a row; its one parameter is the user id, $1 or ?")
	f.StringVar(&s.queryFile, "features-query-file", "", "sql: `file` of the query")
	f.StringVar(&s.callbackURL, "features-callback-url", "", "callback: the `URL` to ask, https off this machine")
	f.StringVar(&s.callbackKeyFile, "features-callback-key-file", "", "callback: `file` of the key that questions are signed with; or "+callbackKeyVariable+" holds the key itself")
	f.StringVar(&s.callbackCAFile, "features-callback-ca-file", "", "callback: PEM `file` of the authorities to trust, instead of the system's")
	f.Var(&s.allowPrivate, "features-allow-private", "callback: `networks` it may be in although they are not public, comma-separated")
	s.timeout, s.ttl, s.maxStale = duration(2*time.Second), duration(30*time.Second), duration(5*time.Minute)
	f.Var(&s.timeout, "features-timeout", "sql, callback: time limit of one query or request")
	f.Var(&s.ttl, "features-ttl", "sql, callback: how long a result is cached; creating a token always reads afresh; 0s: no cache")
	f.Var(&s.maxStale, "features-max-stale", "sql, callback: how old the last known result may be during an outage; 0s: it is not used")
	s.maxRows = 4096
	f.Var((*count)(&s.maxRows), "features-max-rows", "sql, callback: at most this many features of one user")
}

// kinds are the sources and the flags that belong to each, and to no other but those that name them too.
func (*sourceSettings) kinds() []struct {
	kind  string
	flags []string
} {
	asked := []string{"features-timeout", "features-ttl", "features-max-stale", "features-max-rows"}
	return []struct {
		kind  string
		flags []string
	}{
		{sourceTable, nil},
		{sourceSQL, append([]string{"features-database-url", "features-database-password-file", "features-query", "features-query-file"}, asked...)},
		{sourceCallback, append([]string{"features-callback-url", "features-callback-key-file", "features-callback-ca-file", "features-allow-private"}, asked...)},
		{sourceClaim, []string{"oidc-features-claim"}},
	}
}

// read checks the settings as far as that needs nobody else, and makes the configuration of the source.
func (s *sourceSettings) read(c *command, f *pflag.FlagSet) error {
	key, _ := c.Getenv(callbackKeyVariable)
	if err := s.onlyChosen(f, key != ""); err != nil {
		return err
	}
	switch {
	case s.maxStale == 0 || s.maxStale >= s.ttl:
	case f.Changed("features-max-stale"):
		return fmt.Errorf("--features-max-stale %s is less than --features-ttl %s", &s.maxStale, &s.ttl)
	default:
		s.maxStale = s.ttl
	}
	s.config = features.Config{Cache: features.CacheConfig{TTL: orNone(s.ttl), MaxStale: orNone(s.maxStale), Now: c.now}}
	switch s.kind {
	case sourceSQL:
		return s.readSQL(c)
	case sourceCallback:
		return s.readCallback(c, key)
	case sourceClaim:
		if f.Lookup("oidc-features-claim").Value.String() == "" {
			return errors.New("--features-source claim needs --oidc-features-claim NAME: the claim of the sign-in token that names the user's features")
		}
	}
	return nil
}

// orNone makes 0s what package features understands as none.
func orNone(d duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

// onlyChosen refuses settings of a source that is not the chosen one: whoever gave them expects them to count.
func (s *sourceSettings) onlyChosen(f *pflag.FlagSet, keyGiven bool) error {
	var kinds, mine []string
	for _, k := range s.kinds() {
		if kinds = append(kinds, k.kind); k.kind == s.kind {
			mine = k.flags
		}
	}
	if !slices.Contains(kinds, s.kind) {
		return errors.New("--features-source must be " + strings.Join(kinds[:len(kinds)-1], ", ") + " or " + kinds[len(kinds)-1])
	}
	for _, k := range s.kinds() {
		for _, name := range k.flags {
			if f.Changed(name) && !slices.Contains(mine, name) {
				return fmt.Errorf("--%s is a setting of --features-source %s, which is not chosen: the source is %s", name, s.owners(name), s.kind)
			}
		}
	}
	if keyGiven && s.kind != sourceCallback {
		return fmt.Errorf("%s is a setting of --features-source %s, which is not chosen: the source is %s", callbackKeyVariable, sourceCallback, s.kind)
	}
	return nil
}

// owners names the sources that a flag is a setting of.
func (s *sourceSettings) owners(flag string) string {
	var names []string
	for _, k := range s.kinds() {
		if slices.Contains(k.flags, flag) {
			names = append(names, k.kind)
		}
	}
	return strings.Join(names, " or ")
}

func (s *sourceSettings) readSQL(c *command) error {
	query := s.query
	switch {
	case s.databaseURL.IsEmpty():
		return errors.New("--features-source sql needs --features-database-url URL: postgres://, mysql:// or sqlite:PATH")
	case c.arguments["features-database-url"] && holdsPassword(s.databaseURL.Reveal()):
		return fmt.Errorf("the password in --features-database-url can be read by everybody on this machine; give the URL by %s or --config, or the password by --features-database-password-file",
			variable("features-database-url"))
	case mangled(s.databaseURL.Reveal()):
		return errors.New("--features-database-url cannot be read; characters such as @ / : # % in a password are written percent-encoded")
	case s.query != "" && s.queryFile != "":
		return errors.New("give the query by --features-query or by --features-query-file, not by both")
	case s.queryFile != "":
		text, err := os.ReadFile(s.queryFile)
		if err != nil {
			return fmt.Errorf("read --features-query-file: %w", err)
		}
		query = string(text)
	}
	if strings.TrimSpace(query) == "" {
		return errors.New("--features-source sql needs --features-query or --features-query-file, such as SELECT feature FROM user_features WHERE user_id = …")
	}
	if s.timeout == 0 {
		return errors.New("--features-timeout must be longer than 0s")
	}
	s.config.Kind = features.KindSQL
	s.config.SQL = features.SQLConfig{
		URL: s.databaseURL.Secret, PasswordFile: s.passwordFile, Query: query, MaxRows: s.maxRows, Timeout: time.Duration(s.timeout),
	}
	return nil
}

// holdsPassword tells whether a database's URL gives a password. Of what is no URL nobody can tell.
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

// mangled tells a URL that was cut in the wrong place by a character of its password, a part of which would then be taken
// for a host or a database, and be told in errors.
func mangled(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Opaque == "" && (u.Fragment != "" || strings.Contains(u.Path, "@") || strings.ContainsAny(strings.SplitN(u.RawQuery, "=", 2)[0], "@/"))
}

func (s *sourceSettings) readCallback(c *command, key string) error {
	switch {
	case s.callbackURL == "":
		return errors.New("--features-source callback needs --features-callback-url URL")
	case key != "" && s.callbackKeyFile != "":
		return errors.New("give the callback's key by --features-callback-key-file or by " + callbackKeyVariable + ", not by both")
	case key == "" && s.callbackKeyFile == "":
		return errors.New("--features-source callback needs the key that questions are signed with: --features-callback-key-file FILE or " + callbackKeyVariable)
	case s.timeout == 0:
		return errors.New("--features-timeout must be longer than 0s")
	}
	s.config.Kind = features.KindCallback
	s.config.Callback = features.CallbackConfig{
		URL: s.callbackURL, HMACKeyFile: s.callbackKeyFile, CACertFile: s.callbackCAFile, AllowPrivate: s.allowPrivate,
		Timeout: time.Duration(s.timeout), MaxFeatures: s.maxRows, Now: c.now,
	}
	if key != "" {
		s.config.Callback.HMACKey = tokens.NewSecret(key)
	}
	return nil
}
