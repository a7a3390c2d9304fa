package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/github"
	"patd/server/internal/metrics"
	"patd/server/internal/secevent"
	"patd/tokens"
)

// Config configures a Server. Service is required; the zero values of the rest are sensible.
type Config struct {
	// Service is the domain, which makes all decisions.
	Service *tokens.Service
	// Ready returns nil if the server can serve now, e.g. if its store responds. Nil: always.
	Ready func(context.Context) error
	// Details returns the faults of a server that is ready, such as failing sign-in, without secrets and names; /readyz
	// shows them. Nil: none.
	Details func() map[string]string
	// Parts returns every part of the program by name, and what is wrong with it; "": it is well. /readyz?verbose shows
	// them, withheld where they could hold a secret. Nil: none.
	Parts func(context.Context) map[string]string
	// Figures returns additional numbers for /metrics, on each read. Nil: none.
	Figures func() []metrics.Figure
	// Logger gets one line per request. Nil: no log.
	Logger *slog.Logger
	// Tracing makes a span for each call that its sampler chooses. Nil: there are none.
	Tracing *Tracing
	// HTTPAddr and GRPCAddr are the listen addresses; port 0 is any free one.
	HTTPAddr, GRPCAddr string
	// MetricsAddr moves /metrics to its own listener. Empty: it is on the HTTP listener.
	MetricsAddr string
	// Sockets are listening sockets that somebody else opened, such as systemd. Each takes the place of its address.
	Sockets Sockets
	// Issuer is the base of every URL that the server publishes. Empty: http(s)://<HTTP address>.
	Issuer string
	// TLS applies to every listener, see LoadTLS. Nil: plain text, which is rejected on a non-loopback address unless
	// Insecure is set.
	TLS      *tls.Config
	Insecure bool
	// TrustedProxies are the proxies whose X-Forwarded-For counts, over REST and gRPC.
	TrustedProxies []netip.Prefix
	// SignIn verifies the JWTs of signed-in users. Nil: sign-in is off, and a JWT is rejected like any bad token.
	SignIn call.Verifier
	// CLISignIn is published to programs by which people call as themselves. Nil: there is none.
	CLISignIn *CLISignIn
	// SCIMUserID is the attribute of SCIM that is patd's user id: externalId, userName or id. Empty: externalId.
	SCIMUserID string
	// SecurityEvents says whose security events are taken. The zero value takes none.
	SecurityEvents SecurityEvents
	// Servers are the servers of the store; nil: others are not known, and a receipt waits for as long as they might
	// trust what they have in memory.
	Servers tokens.Servers
	// Alone says that no other process serves the store, so that a receipt need not wait for what others may have in
	// memory.
	Alone bool
	// Page configures the pages for people.
	Page PageConfig
	// MintRate is how many tokens one signed-in user may mint or rotate each second, over time, and MintBurst how many
	// at once. 0: 1 and 100. ServiceMintRate and ServiceMintBurst are the same for one service, which mints for many
	// users. 0: 1000 and 20000. Every attempt by a caller with the right to mint counts. Negative: unlimited.
	MintRate, ServiceMintRate   float64
	MintBurst, ServiceMintBurst int
	// ChangeRate is how many changes other than mints one signed-in user may make each second, over time, and
	// ChangeBurst how many at once; revocations, suspensions and deletions have a separate count of the same size. 0: 1
	// and 100. ServiceChangeRate and ServiceChangeBurst are the same for one service, and for revocations without a
	// credential from one address. 0: 2000 and 100000. Negative: unlimited. Each server counts by itself.
	ChangeRate, ServiceChangeRate   float64
	ChangeBurst, ServiceChangeBurst int
	// ExchangeRate is how many exchanges and refreshes one personal access token may make each second, over time, and
	// ExchangeBurst how many at once. 0: 1 and 100. Negative: unlimited.
	ExchangeRate  float64
	ExchangeBurst int
	// RefusalRate is how many refused attempts of one caller the audit log records each second, over time, and
	// RefusalBurst how many at once. 0: 1 and 100. Negative: all.
	RefusalRate  float64
	RefusalBurst int
	// FailureRate is how many bad credentials one address (an IPv6 address with its /64) may present each second, over
	// time, and FailureBurst how many at once. Past that its bad ones get RATE_LIMITED, and good ones still pass. The
	// exception is an address that has made the server read the store for credentials without a record, 200 times a
	// second after the first 10000: its good ones must be in memory. Credentials that have ended, and tokens presented
	// for introspection, do not count. The address of a trusted proxy, which stands for callers that it does not name,
	// is not limited. 0: 10 and 1000. Negative: unlimited.
	FailureRate  float64
	FailureBurst int
	// LeakRate is how many leak reports one address may send each second, over time, and LeakBurst how many at once.
	// Reports need no credential. 0: 1 and 60. Negative: unlimited.
	LeakRate  float64
	LeakBurst int
	// GitHubLeaks says where the keys of GitHub are, which sign its reports of leaked secrets. An empty URL: they are
	// not taken.
	GitHubLeaks GitHubLeaks
	// Shared counts mints and exchanges across all servers on one store. Nil: there is one server. Limits by address
	// are per server.
	Shared call.SharedLimit
	// ForwardAuthorization lets Envoy pass the client's Authorization header, and so the token, on to the upstream.
	// Other gateways follow their own configuration.
	ForwardAuthorization bool
	// AcceptBasic lets clients of gateways present a token as the password of Basic credentials, with any user name.
	// AcceptAPIKey lets them present it in X-API-Key.
	AcceptBasic, AcceptAPIKey bool
	// Now is the clock of the limits. Nil: time.Now.
	Now func() time.Time
	// UnknownCallerMemory bounds what all callers without a good credential hold together, in bytes. 0: 64 MiB. Half of
	// it is for their connections, 64 KiB each: it bounds Connections.MaxAnonymous too.
	UnknownCallerMemory int64
	// Reflection serves gRPC reflection.
	Reflection bool
	// RequestTimeout bounds one call; 0: 10 s. DrainTimeout bounds how long calls under way may take when the server
	// stops; 0: 15 s.
	RequestTimeout, DrainTimeout time.Duration
	// DrainDelay is how long a stopping server still serves everything while /readyz and gRPC health report that it
	// stops, so that balancers send no more. 0: not at all. Closing Hurry ends the delay; nil: nothing does.
	DrainDelay time.Duration
	Hurry      <-chan struct{}
	// Connections bounds the number of connections and their life.
	Connections connection.Limits
	// Version is shown in the metrics, and to operators.
	Version string
	// StoreKind names the kind of the store to operators, such as SQLite. Empty: it is not shown.
	StoreKind string
}

// GitHubLeaks configures the reports of GitHub's secret scanning partner program.
type GitHubLeaks struct {
	// KeysURL is https, or http on this machine; DefaultGitHubKeysURL is GitHub's.
	KeysURL string
	// CAFile holds, in PEM, the only authorities that KeysURL is trusted with; empty: those of the system.
	CAFile string
}

// DefaultGitHubKeysURL is where GitHub publishes the keys that it signs its messages with.
const DefaultGitHubKeysURL = github.DefaultKeysURL

// Sockets are listening sockets for REST, gRPC and /metrics; nil: the server listens itself. What holds for an address
// holds for them too: plain text only on loopback, unless Insecure is set. The server closes them.
type Sockets struct{ HTTP, GRPC, Metrics net.Listener }

// githubKeys returns the keys of GitHub; nil: its reports are not taken.
func (c Config) githubKeys() (*github.Keys, error) {
	if c.GitHubLeaks.KeysURL == "" {
		return nil, nil
	}
	now := c.Now
	if now == nil {
		now = time.Now
	}
	return github.NewKeys(
		github.KeysConfig{URL: c.GitHubLeaks.KeysURL, CAFile: c.GitHubLeaks.CAFile, Logger: c.Logger, Now: now},
	)
}

// SecurityEvents says whose security events are taken, and what they do.
type SecurityEvents = secevent.Config

// limitsOf returns the limits of a configuration.
func limitsOf(c Config) call.LimitsConfig {
	return call.LimitsConfig{
		MintRate:           c.MintRate,
		MintBurst:          c.MintBurst,
		ServiceMintRate:    c.ServiceMintRate,
		ServiceMintBurst:   c.ServiceMintBurst,
		ChangeRate:         c.ChangeRate,
		ChangeBurst:        c.ChangeBurst,
		ServiceChangeRate:  c.ServiceChangeRate,
		ServiceChangeBurst: c.ServiceChangeBurst,
		ExchangeRate:       c.ExchangeRate,
		ExchangeBurst:      c.ExchangeBurst,
		RefusalRate:        c.RefusalRate,
		RefusalBurst:       c.RefusalBurst,
		FailureRate:        c.FailureRate,
		FailureBurst:       c.FailureBurst,
		LeakRate:           c.LeakRate,
		LeakBurst:          c.LeakBurst,
		Shared:             c.Shared,
		Now:                c.Now,
	}
}
