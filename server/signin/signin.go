package signin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"patd/internal/loopback"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	defaultLeeway  = 30 * time.Second
	largestLeeway  = 5 * time.Minute
	defaultTimeout = 5 * time.Second
	defaultMaxBody = 1 << 20
	defaultWaiting = 256
)

// Config configures the issuers whose users may sign in.
type Config struct {
	Issuers []Issuer      // at least one
	Leeway  time.Duration // how far the provider's clock may be off; 0: 30 s, at most 5 min
	// Timeout limits one fetch of a provider's discovery document and keys; 0: 5 s. MaxBody limits each of their
	// bodies, decompressed; 0: 1 MiB.
	Timeout time.Duration
	MaxBody int64
	// MaxWaiting limits the calls that wait for one provider's keys while it does not answer; 0: 256. Calls past it are
	// SIGNIN_UNAVAILABLE at once, so that a provider that hangs takes no room from other calls.
	MaxWaiting int
	// Transport sends requests to providers; nil: one with the machine's root certificates and the environment's proxy.
	Transport http.RoundTripper
	Now       func() time.Time
	// Logger receives the outcomes of fetches of keys, when they change; nil: none is logged.
	Logger *slog.Logger
}

// Issuer is one OpenID provider and what its tokens mean here.
type Issuer struct {
	URL           string   // exactly as in `iss`; https, or http to a loopback address
	Audiences     []string // at least one; a token's `aud` holds one of them
	UserClaim     string   // the claim that is the user's id; empty: sub
	UserPrefix    string   // put before the claim to form the id
	FeaturesClaim string   // the claim that names the user's features; empty: none does
	// PermissionsClaim is the claim whose names, such as groups, make the user an operator, by Permissions. Empty:
	// none.
	PermissionsClaim string
	Permissions      map[string]tokens.Permission
	Algorithms       []string // pinned; empty: RS256, PS256, ES256, EdDSA
	// NoBearer accepts no token of the issuer in a call: its users sign in to the page only. Audiences may be empty
	// then.
	NoBearer bool
}

// Identity is the bearer of a token, by its claims.
type Identity struct {
	User string
	// Features are those in the FeaturesClaim, sorted. HasFeatures reports whether the token has the claim, even an
	// empty one.
	Features    []string
	HasFeatures bool
	Permissions tokens.Permission // of an operator; 0: none
	Issuer      string
	Expiry      time.Time // as in the token, without leeway
	End         time.Time // from when on Verify refuses the token; zero: it did not look at it
}

// SignIn verifies the tokens of configured issuers. Its methods are safe for concurrent use.
type SignIn struct {
	now     func() time.Time
	leeway  time.Duration
	issuers map[string]*issuer
	client  *http.Client
	stop    context.CancelFunc
	refused [causes]atomic.Uint64
}

// issuer is a configured issuer with its keys.
type issuer struct {
	Issuer
	keys     *keyring
	foreign  []string // longer prefixes of others that begin with this one's; their ids are rejected
	audience map[string]bool
}

// New checks the configuration. It sends no request to a provider. Call Close to release its resources.
func New(c Config) (*SignIn, error) {
	if len(c.Issuers) == 0 {
		return nil, errors.New("configure sign-in: name at least one issuer")
	}
	if c.Leeway < 0 || c.Leeway > largestLeeway {
		return nil, fmt.Errorf(
			"configure sign-in: the leeway must be between 0 and %s, not %s",
			largestLeeway,
			c.Leeway,
		)
	}
	c = c.withDefaults()
	ctx, stop := context.WithCancel(context.Background())
	s := &SignIn{now: c.Now, leeway: c.Leeway, issuers: map[string]*issuer{}, client: newClient(c), stop: stop}
	for _, i := range c.Issuers {
		i = i.withDefaults()
		err := i.check()
		if err == nil && s.issuers[i.URL] != nil {
			err = errors.New("it is named twice")
		}
		if err != nil {
			stop()
			return nil, fmt.Errorf("configure the issuer %s: %w", shown(i.URL), err)
		}
		at := &issuer{Issuer: i, audience: map[string]bool{}, keys: &keyring{
			issuer:  i.URL,
			client:  s.client,
			timeout: c.Timeout,
			waiting: make(chan struct{}, c.MaxWaiting),
			now:     c.Now,
			logger:  c.Logger,
			ctx:     ctx,
		}}
		for _, a := range i.Audiences {
			at.audience[a] = true
		}
		for _, other := range c.Issuers {
			if len(other.UserPrefix) > len(i.UserPrefix) && strings.HasPrefix(other.UserPrefix, i.UserPrefix) {
				at.foreign = append(at.foreign, other.UserPrefix)
			}
		}
		s.issuers[i.URL] = at
	}
	return s, nil
}

// shown returns an issuer's URL for use in errors: only scheme, host and path, since the rest may be a secret.
func shown(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return "(not a URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func (c Config) withDefaults() Config {
	if c.Leeway == 0 {
		c.Leeway = defaultLeeway
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxBody <= 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.MaxWaiting <= 0 {
		c.MaxWaiting = defaultWaiting
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (i Issuer) withDefaults() Issuer {
	if i.UserClaim == "" {
		i.UserClaim = "sub"
	}
	if len(i.Algorithms) == 0 {
		i.Algorithms = []string{string(jose.RS256), string(jose.PS256), string(jose.ES256), string(jose.EdDSA)}
	}
	return i
}

func (i Issuer) check() error {
	u, err := url.Parse(i.URL)
	if err != nil {
		return errors.New("it is no URL")
	}
	if err := reachable(u); err != nil {
		return err
	}
	switch {
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(i.URL, "#"):
		return errors.New("an issuer has no query and no fragment (OpenID Connect Discovery 1.0 section 2)")
	case i.NoBearer && len(i.Audiences) > 0:
		return errors.New("name audiences, or accept no tokens")
	case !i.NoBearer && len(i.Audiences) == 0 || slices.Contains(i.Audiences, ""):
		return errors.New(
			"name the audience that its tokens are for; without one, every token that it issues to anybody would do",
		)
	case i.UserPrefix != "" && !validUser(i.UserPrefix):
		return errors.New("the prefix of user ids is not the beginning of a user id")
	}
	for _, a := range i.Algorithms {
		if !slices.Contains(signing(), jose.SignatureAlgorithm(a)) {
			return fmt.Errorf(
				"%q is none of the algorithms that a public key can check: RS, PS or ES with 256, 384 or 512, EdDSA",
				a,
			)
		}
	}
	return nil
}

// reachable rejects URLs over which keys must not be fetched: plain http is only for this machine.
func reachable(u *url.URL) error {
	switch {
	case u.Host == "" || u.Hostname() == "" || u.Opaque != "" || u.User != nil:
		return errors.New("the URL must be https, a host and a path")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback.Host(u.Hostname()):
		return nil
	default:
		return errors.New("the URL must be https; http is for loopback addresses only")
	}
}

// newClient makes the one client for requests to providers.
func newClient(c Config) *http.Client {
	carrier := c.Transport
	if carrier == nil {
		carrier = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: c.Timeout, ControlContext: control}).DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    c.Timeout,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	return &http.Client{Transport: bounded{carrier, c.MaxBody}, CheckRedirect: sameHost, Timeout: c.Timeout}
}

// Status is how an issuer's newest fetch of keys ended.
type Status int

// The states of an issuer.
const (
	StatusUnknown       Status = iota // nothing was fetched yet
	StatusGood                        // its keys are at hand
	StatusOutage                      // it does not answer, or not correctly
	StatusMisconfigured               // its data and the local configuration do not match
)

// Start starts to fetch the keys of every issuer and does not wait. A wrong setting then shows in the log when patd
// starts, and not when the first user signs in.
func (s *SignIn) Start() {
	for _, i := range s.issuers {
		i.keys.look()
	}
}

// Statuses returns the state of each issuer, by its URL.
func (s *SignIn) Statuses() map[string]Status {
	found := make(map[string]Status, len(s.issuers))
	for url, i := range s.issuers {
		found[url] = i.keys.status()
	}
	return found
}

// Close cancels the work under way and waits for it. A token presented later is rejected with SIGNIN_UNAVAILABLE as
// soon as it needs the provider.
func (s *SignIn) Close() {
	s.stop()
	for _, i := range s.issuers {
		i.keys.close()
	}
	s.client.CloseIdleConnections()
}

// Verify returns the identity of a token's bearer. Every fault of the token is CodeUnauthenticated, CREDENTIAL_INVALID.
// A provider whose keys cannot be fetched is CodeUnavailable, SIGNIN_UNAVAILABLE, and says nothing about the token. The
// end of ctx is its own error, wrapped.
func (s *SignIn) Verify(ctx context.Context, jwt tokens.Secret) (Identity, error) {
	who, cause, err := s.verify(ctx, jwt)
	if err != nil && ctx.Err() == nil {
		s.refused[cause].Add(1)
	}
	return who, err
}

// verify is Verify, with the cause of an error.
func (s *SignIn) verify(ctx context.Context, jwt tokens.Secret) (Identity, Cause, error) {
	t, err := parse(jwt)
	if err != nil {
		return Identity{}, CauseMalformed, invalid(err)
	}
	name, _ := t.claims.text("iss")
	from, ok := s.issuers[name]
	if !ok {
		return Identity{}, CauseIssuer, invalid(errors.New("its issuer is not configured here"))
	}
	// Checks of the claims that can reject a token need no key. No claim is trusted before the signature is verified.
	if err := from.acceptable(t, s.now(), s.leeway); err != nil {
		cause := CauseClaims
		if errors.Is(err, errExpired) {
			cause = CauseExpired
		}
		return Identity{}, cause, invalid(from.ended(t, err))
	}
	who, err := from.identify(t)
	if err != nil {
		return Identity{}, CauseClaims, invalid(err)
	}
	if err := from.signed(ctx, t); err != nil {
		cause := CauseSignature
		var e *tokens.Error
		if errors.As(err, &e) && e.Code == tokens.CodeUnavailable {
			cause = CauseUnavailable
		}
		return Identity{}, cause, err
	}
	who.End = who.Expiry.Add(s.leeway)
	return who, 0, nil
}

// Identify reads who the bearer of verified claims of an issuer is, by the same rules as Verify. claims is a JSON
// object, whose signature and audience the caller has checked.
func (s *SignIn) Identify(name string, claims []byte) (Identity, error) {
	from, c, err := s.claimsOf(name, claims)
	if err != nil {
		return Identity{}, err
	}
	return from.identify(&token{claims: c})
}

// VerifySignature returns the payload of a JWT that an issuer signed, by the same rules and keys as Verify. The claims
// are not checked.
func (s *SignIn) VerifySignature(ctx context.Context, name, text string) ([]byte, error) {
	t, err := parse(secret.NewSecret(text))
	if err != nil {
		return nil, invalid(err)
	}
	from, ok := s.issuers[name]
	if !ok || !slices.Contains(from.Algorithms, t.alg) {
		return nil, invalid(errors.New("its issuer is not configured here, or not its algorithm"))
	}
	if err := from.signed(ctx, t); err != nil {
		return nil, err
	}
	return base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1]) // which parse has done without a fault
}

// Lacks reports whether claims of an issuer lack the user's id or, if there is a FeaturesClaim, that.
func (s *SignIn) Lacks(name string, claims []byte) bool {
	from, c, err := s.claimsOf(name, claims)
	if err != nil {
		return false
	}
	for _, claim := range []string{from.UserClaim, from.FeaturesClaim, from.PermissionsClaim} {
		if _, given := c[claim]; claim != "" && (!given || c.elsewhere(claim)) {
			return true
		}
	}
	return false
}

func (s *SignIn) claimsOf(name string, claims []byte) (*issuer, object, error) {
	from, ok := s.issuers[name]
	if !ok {
		return nil, nil, errors.New("its issuer is not configured here")
	}
	var c object
	if err := json.Unmarshal(claims, &c); err != nil {
		return nil, nil, errors.New("its claims are no JSON object")
	}
	return from, c, nil
}

// Client returns the client for requests to providers, with its limits.
func (s *SignIn) Client() *http.Client { return s.client }

// ClientOf is Client for the endpoints that an issuer's discovery document names, which may be where its keys may be.
// It must fetch that document first.
func (s *SignIn) ClientOf(name string) (*http.Client, error) {
	u, err := url.Parse(name)
	if err != nil {
		return nil, errors.New("the issuer is no URL")
	}
	own := *s.client
	own.Transport = &fencing{RoundTripper: s.client.Transport, issuer: u}
	return &own, nil
}

// ended returns why a token is rejected, with a tokens.EndedError if its only fault is that it has expired. It uses the
// cached keys: none are fetched for a token that is rejected anyway.
func (i *issuer) ended(t *token, why error) error {
	if !errors.Is(why, errExpired) {
		return why
	}
	who, err := i.identify(t)
	if keys := i.keys.atHand(); err == nil && keys != nil && keys.signed(t) {
		return errors.Join(why, &tokens.EndedError{Holder: tokens.Actor{Kind: tokens.UserActor, User: who.User}})
	}
	return why
}

// signed returns nil if the issuer signed a token, by the cached keys or else by new ones.
func (i *issuer) signed(ctx context.Context, t *token) error {
	keys, err := i.keys.current(ctx)
	if err != nil {
		return err
	}
	if keys.signed(t) {
		return nil
	}
	newer, err := i.keys.renewed(ctx, keys)
	switch {
	case err != nil && !keys.knows(t.kid):
		return err // the token may be signed with a key that is newer than the outage
	case err == nil && newer != keys && newer.signed(t):
		return nil
	default:
		return invalid(errors.New("no key of its issuer made its signature"))
	}
}

// invalid returns the one error for a bad token. why is for the log, and repeats nothing of the token.
func invalid(why error) error {
	return &tokens.Error{
		Code: tokens.CodeUnauthenticated, Reason: "CREDENTIAL_INVALID", Message: "the token is not valid",
		Cause: fmt.Errorf("verify a JWT: %w", why),
	}
}

func unavailable(issuer string, cause error) error {
	message := "the identity provider does not answer; try again"
	if isMisconfigured(cause) {
		message = "sign-in is misconfigured; its operator finds the reason in the log"
	}
	return &tokens.Error{
		Code: tokens.CodeUnavailable, Reason: "SIGNIN_UNAVAILABLE", Message: message,
		Cause: fmt.Errorf("fetch the keys of %s: %w", issuer, cause),
	}
}
