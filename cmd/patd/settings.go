package main

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

	"patd/internal/logpipe"
	"patd/tokens"
)

// settings are what a store and a server are made with. Each is a flag, and so a variable and a key of the
// configuration file.
type settings struct {
	dataDir, hashKeyFile, personalPrefix string

	databaseURL          hidden
	databasePasswordFile string
	databaseConnections  count
	databaseTimeout      duration

	httpAddr, grpcAddr, metricsAddr, issuer, tlsCert, tlsKey string

	insecure, reflection         bool
	forwardAuthorization         bool
	trustedProxies               networks
	requestTimeout, drainTimeout duration
	drainDelay                   duration

	defaultTTL, maxTTL, cacheFor duration
	signingKeyDelay              duration
	auditRetention               duration
	diskReserve                  optionalSize
	cacheSize                    byteSize
	unknownCallerMemory          byteSize
	allowNever                   bool
	limits                       tokens.Limits

	source sourceSettings
	signIn signInSettings
	rates  rateSettings

	connections connectionSettings

	logLevel, logFormat string
}

// serveFlags are all of them. Serve takes its flags from here, and so does what knows the keys of a file that commands
// share: one that is forgotten there is forgotten here as well.
func (s *settings) serveFlags(f *pflag.FlagSet) {
	s.storeFlags(f)
	s.databaseFlags(f)
	s.upkeepFlags(f)
	s.drainDelay = duration(5 * time.Second)
	s.listenFlags(f)
	s.tlsFlags(f)
	s.policyFlags(f)
	s.cacheFlags(f)
	s.source.flags(f)
	s.signIn.flags(f)
	s.rates.flags(f)
	s.logFlags(f, "info", "json")
}

// storeFlags say where the store and its key are.
func (s *settings) storeFlags(f *pflag.FlagSet) {
	f.StringVar(&s.dataDir, "data-dir", "", "`directory` of the store and its key; created if it does not exist")
	f.Var(&s.databaseURL, "database-url", "the store, when it is not in the data directory: `URL` postgres://USER@HOST/DATABASE, or sqlite:PATH; with a password in it only by variable or file")
	f.StringVar(&s.databasePasswordFile, "database-password-file", "", "`file` with the password of --database-url, read at each connection")
	f.StringVar(&s.hashKeyFile, "hash-key-file", "", "`file` of the digest keys (default <data-dir>/hash.key); or PATD_HASH_KEY holds the keys themselves")
}

// patient is how long a command waits for a statement of PostgreSQL's: some read the whole store.
const patient = duration(10 * time.Minute)

// databaseFlags say how a server uses PostgreSQL.
func (s *settings) databaseFlags(f *pflag.FlagSet) {
	s.databaseConnections, s.databaseTimeout = 8, duration(5*time.Second)
	f.Var(&s.databaseConnections, "database-connections", "postgres: use this many connections for lookups, as many for lists, and three more")
	f.Var(&s.databaseTimeout, "database-timeout", "postgres: time limit of a statement")
}

// upkeepFlags say what becomes of old events and of the disk.
func (s *settings) upkeepFlags(f *pflag.FlagSet) {
	s.diskReserve = 32 << 20
	f.Var(&s.diskReserve, "disk-reserve", "sqlite: set this much of the disk aside for revocations, suspensions and deletions when it is full; 0: nothing")
	f.Var(&s.auditRetention, "audit-retention", "delete events of the audit log that are older than this, within a day more; 0s: keep them for ever")
}

// listenFlags say where and how to be reached.
func (s *settings) listenFlags(f *pflag.FlagSet) {
	f.StringVar(&s.httpAddr, "http-addr", "127.0.0.1:8080", "listen for REST on this `address`")
	f.StringVar(&s.grpcAddr, "grpc-addr", "127.0.0.1:9090", "listen for gRPC on this `address`")
	f.StringVar(&s.metricsAddr, "metrics-addr", "", "serve /metrics on this `address` instead of the REST one")
	f.StringVar(&s.issuer, "issuer", "", "base `URL` of every endpoint (default http(s)://<http-addr>)")
	f.BoolVar(&s.insecure, "insecure", false, "allow plain text on an address that is not loopback")
	f.Var(&s.trustedProxies, "trusted-proxies", "believe forwarded-address headers from these `networks`, comma-separated")
	f.BoolVar(&s.forwardAuthorization, "forward-authorization", false, "let Envoy pass the client's Authorization header, and so its token, on to the upstream")
	f.BoolVar(&s.reflection, "reflection", true, "serve gRPC reflection")
	s.requestTimeout, s.drainTimeout = duration(10*time.Second), duration(15*time.Second)
	f.Var(&s.requestTimeout, "request-timeout", "time limit of each request")
	f.Var(&s.drainDelay, "drain-delay", "when stopping, report not ready to probes for this long while still serving")
	s.connections.flags(f)
	f.Var(&s.drainTimeout, "drain-timeout", "when stopping, wait this long for requests in progress")
}

// cacheFlags bound what is kept in memory of the store.
func (s *settings) cacheFlags(f *pflag.FlagSet) {
	s.cacheSize, s.unknownCallerMemory = 256<<20, 64<<20
	f.Var(&s.unknownCallerMemory, "unknown-caller-memory", "refuse callers without a good credential while their messages together hold this much memory")
	f.Var(&s.cacheSize, "cache-size", "cache tokens and users in up to this much memory; 256MiB is enough for a million tokens")
}

// tlsFlags say whose name the server bears.
func (s *settings) tlsFlags(f *pflag.FlagSet) {
	f.StringVar(&s.tlsCert, "tls-cert", "", "PEM `file` of the certificate chain; read again when it changes")
	f.StringVar(&s.tlsKey, "tls-key", "", "PEM `file` of the certificate's key")
}

// policyFlags bound what tokens can be.
func (s *settings) policyFlags(f *pflag.FlagSet) {
	f.StringVar(&s.personalPrefix, "personal-prefix", tokens.PrefixPersonal, "`prefix` of newly minted personal access tokens; earlier ones stay valid")
	s.defaultTTL, s.maxTTL = duration(tokens.DefaultTTL), duration(tokens.MaxTTL)
	f.Var(&s.defaultTTL, "default-ttl", "lifetime of a token whose request names none")
	f.Var(&s.maxTTL, "max-ttl", "longest lifetime of a token")
	f.BoolVar(&s.allowNever, "allow-never", false, "allow tokens that never expire")
	f.Var(&s.cacheFor, "cache-for", "how long introspection responses may be reused")
	s.signingKeyDelay = duration(tokens.DefaultSigningKeyDelay)
	f.Var(&s.signingKeyDelay, "signing-key-delay",
		"publish a new signing key for this long before it signs; verifiers may keep the published keys for half of it")
	for _, l := range []struct {
		v       *int
		d       int
		name, s string
	}{
		{&s.limits.ActiveTokens, 100, "max-tokens-per-user", "active tokens of one user"},
		{&s.limits.Scopes, 256, "max-scopes-per-token", "scopes of one token"},
		{&s.limits.Audiences, 32, "max-audiences-per-token", "audiences of one token"},
		{&s.limits.Labels, 32, "max-labels-per-token", "labels of one token"},
		{&s.limits.CIDRs, 32, "max-cidrs-per-token", "networks of one token"},
		{&s.limits.Features, 4096, "max-features-per-user", "features of one user"},
		{&s.limits.AccessTokens, 1000, "max-access-tokens-per-token", "live access tokens of one token"},
	} {
		*l.v = l.d
		f.Var((*count)(l.v), l.name, "at most this many "+l.s)
	}
}

// logFlags say what to tell on stderr.
func (s *settings) logFlags(f *pflag.FlagSet, level, format string) {
	f.StringVar(&s.logLevel, "log-level", level, "debug, info, warn or error")
	f.StringVar(&s.logFormat, "log-format", format, "json or text")
}

// policy checks the lifetimes against each other.
func (s *settings) policy(defaultGiven bool) (tokens.Policy, error) {
	p := tokens.Policy{DefaultTTL: time.Duration(s.defaultTTL), MaxTTL: time.Duration(s.maxTTL), AllowNever: s.allowNever}
	switch {
	case p.DefaultTTL <= 0 || p.MaxTTL <= 0:
		return p, errors.New("--default-ttl and --max-ttl must be longer than 0s")
	case p.DefaultTTL > p.MaxTTL && defaultGiven:
		return p, fmt.Errorf("--default-ttl %s is over --max-ttl %s", &s.defaultTTL, &s.maxTTL)
	}
	if s.auditRetention != 0 && time.Duration(s.auditRetention) < minRetention {
		return p, errors.New("--audit-retention must be 1d or longer, or 0s: keep events for ever")
	}
	p.DefaultTTL = min(p.DefaultTTL, p.MaxTTL)
	return p, nil
}

// logger makes the log on stderr. From then on all that this command writes there goes through a buffer: a log that is not read,
// or whose reader has gone, neither blocks nor ends the process.
func (c *command) logger(s *settings) (*slog.Logger, error) {
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
	c.log = logpipe.New(c.Stderr, func(dropped uint64) []byte {
		var line bytes.Buffer
		slog.New(handler(&line, slog.LevelWarn)).Warn("log lines were dropped", "dropped", dropped)
		return line.Bytes()
	})
	c.Stderr = c.log
	c.announce, c.structured = slog.New(handler(c.log, slog.LevelInfo)), s.logFormat == "json"
	log := slog.New(handler(c.log, level))
	if c.Libraries != nil {
		c.Libraries(log)
	}
	return log, nil
}
