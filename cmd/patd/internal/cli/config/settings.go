package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/internal/logpipe"
	"patd/tokens"
	"patd/tokens/secret"
)

// Settings configure a store and a server. Each is a flag, and so a variable and a key of the configuration file.
type Settings struct {
	DataDir, HashKeyFile, PersonalPrefix string

	DatabaseURL          cli.Hidden
	DatabasePasswordFile string
	DatabaseConnections  cli.Count
	DatabaseTimeout      cli.Duration

	HTTPAddr, GRPCAddr, MetricsAddr, Issuer, TLSCert, TLSKey string

	Insecure, Reflection         bool
	ForwardAuthorization         bool
	TrustedProxies               cli.Networks
	RequestTimeout, DrainTimeout cli.Duration
	DrainDelay                   cli.Duration

	DefaultTTL, MaxTTL, CacheFor cli.Duration
	SigningKeyDelay              cli.Duration
	AuditRetention               cli.Duration
	DiskReserve                  cli.OptionalSize
	CacheSize                    cli.ByteSize
	UnknownCallerMemory          cli.ByteSize
	allowNever                   bool
	Limits                       tokens.Limits

	Source SourceSettings
	SignIn signInSettings
	Page   PageSettings
	Rates  rateSettings

	Provisioning provisioningSettings

	Connections connectionSettings
	Bearer      bearerSettings
	Leaks       leakSettings
	Webhooks    webhookSettings
	Notices     noticeSettings

	// HandoffTTL is how long the code of a hand-off is good; 0: a minute. It is no flag.
	HandoffTTL time.Duration

	// TraceUserIDs lets spans have the ids of users.
	TraceUserIDs bool

	logLevel, logFormat string
}

// ServeFlags adds all of them. Serve takes its flags from here, and so does the list of keys in a shared configuration
// file, so the two cannot differ.
func (s *Settings) ServeFlags(f *pflag.FlagSet) {
	s.DrainDelay = cli.Duration(5 * time.Second)
	cli.Grouped(f, "Store", s.StoreFlags)
	cli.Grouped(f, "PostgreSQL", s.DatabaseFlags)
	cli.Grouped(f, "Upkeep", s.UpkeepFlags)
	s.servingFlags(f, s.TLSFlags, s.Source.Flags)
	cli.Grouped(f, "Log", func(f *pflag.FlagSet) { s.LogFlags(f, "info", "json") })
}

// DevFlags adds the flags of a throw-away server.
func (s *Settings) DevFlags(f *pflag.FlagSet) {
	none := func(*pflag.FlagSet) {}
	s.servingFlags(f, none, none)
	cli.Grouped(f, "Log", func(f *pflag.FlagSet) { s.LogFlags(f, "warn", "text") })
}

// servingFlags adds the flags of every server, in groups.
func (s *Settings) servingFlags(f *pflag.FlagSet, tls, source func(*pflag.FlagSet)) {
	cli.Grouped(f, "Address and connection", s.ListenFlags)
	cli.Grouped(f, "TLS", tls)
	cli.Grouped(f, "Token and policy", s.PolicyFlags)
	cli.Grouped(f, "Notice", s.Notices.Flags)
	cli.Grouped(f, "Memory", s.CacheFlags)
	cli.Grouped(f, "Feature source", source)
	cli.Grouped(f, "Sign-in", s.SignIn.Flags)
	cli.Grouped(f, "Provisioning", s.Provisioning.Flags)
	cli.Grouped(f, "Page", s.Page.Flags)
	cli.Grouped(f, "Rate limit", s.Rates.Flags)
	cli.Grouped(f, "Leak", s.Leaks.Flags)
	cli.Grouped(f, "Webhook", s.Webhooks.Flags)
	cli.Grouped(f, "Trace", s.TraceFlags)
}

// StoreFlags adds the flags for the place of the store and its key.
func (s *Settings) StoreFlags(f *pflag.FlagSet) {
	f.StringVar(&s.DataDir, "data-dir", "", "`directory` of the store and its key; created if it does not exist")
	f.Var(
		&s.DatabaseURL,
		"database-url",
		"the store, when it is not in the data directory: `URL` postgres://USER@HOST/DATABASE, or sqlite:PATH; with a password in it only by variable or file",
	)
	f.StringVar(
		&s.DatabasePasswordFile,
		"database-password-file",
		"",
		"`file` with the password of --database-url, read at each connection",
	)
	f.StringVar(
		&s.HashKeyFile,
		"hash-key-file",
		"",
		"`file` of the digest keys (default <data-dir>/hash.key); or PATD_HASH_KEY holds the keys themselves",
	)
}

// Patient is how long a command waits for a statement in PostgreSQL: some read the whole store.
const Patient = cli.Duration(10 * time.Minute)

// DatabaseFlags adds the flags for a server's use of PostgreSQL.
func (s *Settings) DatabaseFlags(f *pflag.FlagSet) {
	s.DatabaseConnections, s.DatabaseTimeout = 8, cli.Duration(5*time.Second)
	f.Var(
		&s.DatabaseConnections,
		"database-connections",
		"postgres: use this many connections for lookups, as many for lists, and three more",
	)
	f.Var(&s.DatabaseTimeout, "database-timeout", "postgres: time limit of a statement")
}

// UpkeepFlags adds the flags for old events and the disk.
func (s *Settings) UpkeepFlags(f *pflag.FlagSet) {
	s.DiskReserve = 32 << 20
	f.Var(
		&s.DiskReserve,
		"disk-reserve",
		"sqlite: set this much of the disk aside for revocations, suspensions and deletions when it is full; 0: nothing",
	)
	f.Var(
		&s.AuditRetention,
		"audit-retention",
		"delete events of the audit log that are older than this, within a day more; 0s: keep them for ever",
	)
}

// ListenFlags adds the flags for addresses and reachability.
func (s *Settings) ListenFlags(f *pflag.FlagSet) {
	f.StringVar(&s.HTTPAddr, "http-addr", "127.0.0.1:8080", "listen for REST on this `address`")
	f.StringVar(&s.GRPCAddr, "grpc-addr", "127.0.0.1:9090", "listen for gRPC on this `address`")
	f.StringVar(&s.MetricsAddr, "metrics-addr", "", "serve /metrics on this `address` instead of the REST one")
	f.StringVar(&s.Issuer, "issuer", "", "base `URL` of every endpoint (default http(s)://<http-addr>)")
	f.BoolVar(&s.Insecure, "insecure", false, "allow plain text on an address that is not loopback")
	f.Var(
		&s.TrustedProxies,
		"trusted-proxies",
		"believe forwarded-address headers from these `networks`, comma-separated",
	)
	f.BoolVar(
		&s.ForwardAuthorization,
		"forward-authorization",
		false,
		"let Envoy pass the client's Authorization header, and so its token, on to the upstream",
	)
	s.Bearer.flags(f)
	f.BoolVar(&s.Reflection, "reflection", true, "serve gRPC reflection")
	s.RequestTimeout, s.DrainTimeout = cli.Duration(10*time.Second), cli.Duration(15*time.Second)
	f.Var(&s.RequestTimeout, "request-timeout", "time limit of each request")
	f.Var(&s.DrainDelay, "drain-delay", "when stopping, report not ready to probes for this long while still serving")
	s.Connections.flags(f)
	f.Var(&s.DrainTimeout, "drain-timeout", "when stopping, wait this long for requests in progress")
}

// CacheFlags adds the bounds of the cache.
func (s *Settings) CacheFlags(f *pflag.FlagSet) {
	s.CacheSize, s.UnknownCallerMemory = 256<<20, 64<<20
	f.Var(
		&s.UnknownCallerMemory,
		"unknown-caller-memory",
		"callers without a good credential together hold at most this much memory, half of it for their connections; past it they are refused",
	)
	f.Var(
		&s.CacheSize,
		"cache-size",
		"cache tokens and users in up to this much memory; 256MiB is enough for a million tokens",
	)
}

// TLSFlags adds the flags for the server's certificate.
func (s *Settings) TLSFlags(f *pflag.FlagSet) {
	f.StringVar(&s.TLSCert, "tls-cert", "", "PEM `file` of the certificate chain; read again when it changes")
	f.StringVar(&s.TLSKey, "tls-key", "", "PEM `file` of the certificate's key")
}

// PolicyFlags adds the bounds of tokens.
func (s *Settings) PolicyFlags(f *pflag.FlagSet) {
	f.StringVar(
		&s.PersonalPrefix,
		"personal-prefix",
		secret.PrefixPersonal,
		"`prefix` of newly minted personal access tokens; earlier ones stay valid",
	)
	s.DefaultTTL, s.MaxTTL = cli.Duration(tokens.DefaultTTL), cli.Duration(tokens.MaxTTL)
	f.Var(&s.DefaultTTL, "default-ttl", "lifetime of a token whose request names none")
	f.Var(&s.MaxTTL, "max-ttl", "longest lifetime of a token")
	f.BoolVar(&s.allowNever, "allow-never", false, "allow tokens that never expire")
	f.Var(&s.CacheFor, "cache-for", "how long introspection responses may be reused")
	s.SigningKeyDelay = cli.Duration(tokens.DefaultSigningKeyDelay)
	f.Var(&s.SigningKeyDelay, "signing-key-delay",
		"publish a new signing key for this long before it signs; verifiers may keep the published keys for half of it")
	for _, l := range []struct {
		v       *int
		d       int
		name, s string
	}{
		{&s.Limits.ActiveTokens, 100, "max-tokens-per-user", "active tokens of one user"},
		{&s.Limits.Scopes, 256, "max-scopes-per-token", "scopes of one token"},
		{&s.Limits.Audiences, 32, "max-audiences-per-token", "audiences of one token"},
		{&s.Limits.Labels, 32, "max-labels-per-token", "labels of one token"},
		{&s.Limits.CIDRs, 32, "max-cidrs-per-token", "networks of one token"},
		{&s.Limits.Features, 4096, "max-features-per-user", "features of one user"},
		{&s.Limits.AccessTokens, 1000, "max-access-tokens-per-token", "live access tokens of one token"},
	} {
		*l.v = l.d
		f.Var((*cli.Count)(l.v), l.name, "at most this many "+l.s)
	}
}

// LogFlags adds the flags of the log on stderr.
func (s *Settings) LogFlags(f *pflag.FlagSet, level, format string) {
	f.StringVar(&s.logLevel, "log-level", level, "debug, info, warn or error")
	f.StringVar(&s.logFormat, "log-format", format, "json or text")
}

// TraceFlags adds the flag that the OTEL_… variables of the OpenTelemetry SDK have no name for.
func (s *Settings) TraceFlags(f *pflag.FlagSet) {
	f.BoolVar(
		&s.TraceUserIDs,
		"trace-user-ids",
		false,
		"name users by their id in traces, which the OTEL_… variables turn on",
	)
}

// Policy checks the lifetimes against each other.
func (s *Settings) Policy(defaultGiven bool) (tokens.Policy, error) {
	p := tokens.Policy{
		DefaultTTL: time.Duration(s.DefaultTTL),
		MaxTTL:     time.Duration(s.MaxTTL),
		AllowNever: s.allowNever,
	}
	switch {
	case p.DefaultTTL <= 0 || p.MaxTTL <= 0:
		return p, errors.New("--default-ttl and --max-ttl must be longer than 0s")
	case p.DefaultTTL > p.MaxTTL && defaultGiven:
		return p, fmt.Errorf("--default-ttl %s is over --max-ttl %s", &s.DefaultTTL, &s.MaxTTL)
	}
	if err := s.Notices.Notices().Check(); err != nil {
		return p, err
	}
	if s.AuditRetention != 0 && time.Duration(s.AuditRetention) < minRetention {
		return p, errors.New("--audit-retention must be 1d or longer, or 0s: keep events for ever")
	}
	p.DefaultTTL = min(p.DefaultTTL, p.MaxTTL)
	return p, nil
}

// NewLogger makes the log on stderr. From then on all output of the command there is buffered: a log without a reader
// neither blocks nor ends the process.
func NewLogger(c *cli.Command, s *Settings) (*slog.Logger, error) {
	var level slog.Level
	switch s.logLevel {
	case "debug", "info", "warn", "error":
		if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
			return nil, fmt.Errorf("read --log-level: %w", err)
		}
	default:
		return nil, errors.New("--log-level must be debug, info, warn or error")
	}
	handler := func(w io.Writer, level slog.Level) slog.Handler {
		o := &slog.HandlerOptions{Level: level}
		if s.logFormat == "json" {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}
	if s.logFormat != "json" && s.logFormat != "text" {
		return nil, errors.New("--log-format must be json or text")
	}
	signal.Ignore(syscall.SIGPIPE) // a write to a closed pipe is an error, not the end of the process
	c.Log = logpipe.New(c.Stderr, func(dropped uint64) []byte {
		var line bytes.Buffer
		slog.New(handler(&line, slog.LevelWarn)).Warn("log lines were dropped", "dropped", dropped)
		return line.Bytes()
	})
	c.Stderr = c.Log
	c.Announce, c.Structured = slog.New(handler(c.Log, slog.LevelInfo)), s.logFormat == "json"
	log := slog.New(handler(c.Log, level))
	if c.Libraries != nil {
		c.Libraries(log)
	}
	return log, nil
}
