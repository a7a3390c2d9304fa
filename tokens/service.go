package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"patd/tokens/secret"
)

// Config configures a Service. Store, Keys and Now are required; the rest has defaults.
type Config struct {
	Store    Store
	Keys     *Keyring
	Changes  ChangeFeed    // of the Store; nil: no watching and no following
	Features FeatureSource // nil: the features of the User record
	Prefixes Prefixes
	Policy   Policy
	Limits   Limits
	// CacheFor is how long introspection results may be cached; 0: not at all.
	CacheFor time.Duration
	// RenewURL is where users renew their tokens; empty: nowhere.
	RenewURL string
	// ForbidSelfRotate forbids that tokens rotate themselves, and are minted or updated so that they could.
	ForbidSelfRotate bool
	// SigningKeyDelay is how long a new key for JWTs is published before it signs, see Signer; 0: it signs at once.
	SigningKeyDelay time.Duration
	// ReturnOrigins are the origins, such as https://app.example.com, that a hand-off may return to.
	ReturnOrigins []string
	// HandoffTTL is how long the code of a hand-off is good; 0: a minute.
	HandoffTTL time.Duration
	// Notices says what RunNotices writes.
	Notices Notices
	// CheckWebhookURL refuses URLs that webhooks may not have; nil: all but https.
	CheckWebhookURL func(url string) error
	Now             func() time.Time // the clock; required
	Rand            io.Reader        // nil: crypto/rand
}

// Service implements the use cases, and is the only place that decides. Its methods are safe for concurrent use.
//
// Every method returns an *Error for a fault of the caller or an outage. Any other error is internal, or the context's.
type Service struct {
	store          reader
	memory         Memory // the store; nil: it is none
	featuresAtHand bool   // the source of features never waits
	// featuresInRecord says that the source is the built-in one: what a user holds is in its record.
	featuresInRecord bool
	ledger           ledger
	keys             *Keyring
	changes          ChangeFeed
	features         FeatureSource
	prefixes         atomic.Pointer[Prefixes]
	named            named
	record           atomic.Pointer[func(Actor) bool]
	policy           Policy
	limits           Limits
	cacheFor         time.Duration
	renewURL         string
	selfRotate       bool // tokens may rotate themselves
	signingKeyDelay  time.Duration
	returnOrigins    []string
	handoffTTL       time.Duration
	checkWebhookURL  func(url string) error
	signers          signers
	resources        resources
	clock            func() time.Time
	rand             io.Reader

	unfinished chan planned // work on many tokens to carry on here

	decisions      decisionCounts
	firstUses      firstUses
	superseded     supersededUses
	notices        notifier
	refreshes      refreshes
	featureReads   atomic.Int32  // under way
	scans          chan struct{} // has an item for each call under way that reads all tokens
	featureChanges featureChanges
}

// NewService checks the configuration and makes a Service.
func NewService(c Config) (*Service, error) {
	if c.Store == nil || c.Keys == nil || c.Keys.Get() == nil || c.Now == nil {
		return nil, errors.New("make the token service: a store, keys and a clock are needed")
	}
	s := &Service{
		unfinished:      make(chan planned, bulkKnown),
		scans:           make(chan struct{}, impactScans),
		store:           c.Store,
		keys:            c.Keys,
		changes:         c.Changes,
		features:        c.Features,
		policy:          c.Policy.withDefaults(),
		limits:          c.Limits.withDefaults(),
		cacheFor:        c.CacheFor,
		renewURL:        c.RenewURL,
		selfRotate:      !c.ForbidSelfRotate,
		signingKeyDelay: max(c.SigningKeyDelay, 0),
		clock:           c.Now,
		rand:            c.Rand,
		returnOrigins:   c.ReturnOrigins,
		handoffTTL:      c.HandoffTTL,
		checkWebhookURL: c.CheckWebhookURL,
	}
	if s.handoffTTL <= 0 {
		s.handoffTTL = defaultHandoffTTL
	}
	if err := c.Notices.Check(); err != nil {
		return nil, err
	}
	s.notices.begin(c.Notices)
	s.ledger = ledger{c.Store, s.nowOfChange}
	s.memory, _ = c.Store.(Memory)
	s.superseded.queue, s.superseded.next = make(chan supersededUse, supersededQueue), map[secretSerial]time.Time{}
	s.featureChanges = featureChanges{pending: map[string]featureAnswer{}, wake: make(chan struct{}, 1)}
	if source, ok := c.Features.(Announcer); ok {
		source.Announce(s.featureChanges.note)
	}
	s.prefixes.Store(&c.Prefixes)
	if s.features == nil {
		s.features = recordFeatures{}
	}
	_, s.featuresInRecord = s.features.(recordFeatures)
	_, carried := s.features.(CredentialFeatures)
	s.featuresAtHand = s.featuresInRecord || carried
	if s.rand == nil {
		s.rand = rand.Reader
	}
	return s, nil
}

// LearnPrefixes reads the prefixes that the store knows, so that this server accepts secrets minted by another server
// on the same store under a prefix of its own. personal is this server's own prefix; empty: pat.
func (s *Service) LearnPrefixes(ctx context.Context, personal string) error {
	var known []string
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		known, err = tx.Prefixes()
		return err
	})
	if err != nil {
		return err
	}
	p, err := secret.NewPrefixes(personal, known...)
	if err != nil {
		return err
	}
	s.prefixes.Store(&p)
	return nil
}

// LimitRefusals sets the function that decides whether a refused attempt is recorded, so that no caller can flood the
// audit log. It must be called before the Service is used.
func (s *Service) LimitRefusals(allow func(Actor) bool) { s.record.Store(&allow) }

// Now returns the time that decisions use: UTC, to the microsecond. It is read once a request.
func (s *Service) Now() time.Time { return ofDecisions(s.clock()) }

func ofDecisions(clock time.Time) time.Time { return clock.UTC().Truncate(time.Microsecond) }

// moment is a reading of the clock. What is decided from memory at once needs no other: to read the clock again for
// each step costs more than most steps.
type moment struct {
	clock, now time.Time // as it was read, and as decisions use it
	past       bool      // something may have taken long since
}

func (s *Service) moment() moment {
	clock := s.clock()
	return moment{clock: clock, now: ofDecisions(clock)}
}

// nowOfChange is Now for a change, and notes if the clock was set back.
func (s *Service) nowOfChange() time.Time {
	now := s.Now()
	s.notices.noteChange(now)
	return now
}

// recordFeatures is the built-in source: the features in the user's record.
type recordFeatures struct{}

var _ FeatureSource = recordFeatures{}

func (recordFeatures) Features(_ context.Context, u User, _ bool) (Held, error) {
	return Held{Features: u.Features}, nil
}

func (recordFeatures) Local() bool { return true }

// CredentialFeatures is the source for a company that has no other one, and whose identity provider names a user's
// features in a claim of its tokens. Features are read when a token is minted, from the minting user's credential.
// Nothing narrows them afterwards, since there is no source to ask.
type CredentialFeatures struct{}

var _ FeatureSource = CredentialFeatures{}

// Features returns AsGranted.
func (CredentialFeatures) Features(context.Context, User, bool) (Held, error) {
	return Held{AsGranted: true}, nil
}

// Local returns false: features are not written through patd.
func (CredentialFeatures) Local() bool { return false }

// MintRequest asks for a new token.
type MintRequest struct {
	User        string
	Name        string
	Description string
	Labels      map[string]string
	Scopes      []string
	Audiences   []string
	CIDRs       []string
	Lifetime    Lifetime
	// IdempotencyKey, 16 to 255 characters, makes the request safe to repeat; empty: it is not.
	IdempotencyKey string
	// SelfRotate lets the bearer rotate the token, see RotateSelf, and renew it until RenewableUntil; zero: not at all.
	SelfRotate     bool
	RenewableUntil time.Time
}

// Minted is a new token, with its secret.
type Minted struct {
	Token Token
	// Secret is empty only in a replay whose token has been revoked or rotated since.
	Secret   Secret
	Replayed bool
}

// TokenChange is a set of changes: nil fields stay as they are.
type TokenChange struct {
	Name        *string
	Description *string
	Labels      *map[string]string
	CIDRs       *[]string
	Scopes      *[]string
	ExpireTime  *time.Time // pointing to the zero time: never
	SelfRotate  *bool
	// RenewableUntil may point to the zero time: the token does not renew itself. An earlier expiry makes it earlier
	// too, unless it is given.
	RenewableUntil *time.Time
}

// Page selects one page of a list.
type Page struct {
	Size  int    // 0: 50; over 200 is served as 200
	Token string // empty: the first page
}

// TokenFilter selects some of a user's tokens.
type TokenFilter struct {
	User     string
	State    State
	NameHas  string
	Audience string
}

// IntrospectRequest presents a secret.
type IntrospectRequest struct {
	Secret   Secret
	Audience string
	Required []string
	// ClientIP is the address that the secret was presented from; invalid: not known.
	ClientIP netip.Addr
}

// Self describes a token to its bearer.
type Self struct {
	Token Token // InEffect is set
	// ExpireTime is when the presented secret stops working; zero: never.
	ExpireTime time.Time
}

// ServiceRequest asks for a service.
type ServiceRequest struct {
	Name        string
	Permissions []string
	Audience    string
	TTL         *time.Duration
	// IdempotencyKey, 16 to 255 characters, makes the request safe to repeat; empty: it is not.
	IdempotencyKey string
}

// MintedService is a new service, with its secret.
type MintedService struct {
	Service ServiceAccount
	// Secret is empty only in a replay whose service has been revoked or rotated since.
	Secret   Secret
	Replayed bool
}

// RotateServiceRequest asks for a new secret of a service.
type RotateServiceRequest struct {
	Name  string
	Grace *time.Duration // how long the current secret is accepted; nil: 7 days
	TTL   *time.Duration // how long the new secret lives; nil: as long as the current one did
	Force bool           // ends a secret that is still in the grace of an earlier rotation
	// IdempotencyKey, 16 to 255 characters, makes the request safe to repeat; empty: it is not.
	IdempotencyKey string
}

// RotatedService is a service with its new secret.
type RotatedService struct {
	Service ServiceAccount
	// Secret is empty only in a replay whose service has been revoked or rotated since.
	Secret        Secret
	PreviousUntil time.Time // until when the previous secret is accepted; zero where Secret is empty
	Replayed      bool
}

// EventFilter selects some of the events; empty fields match all.
type EventFilter struct {
	User    string
	TokenID string
	Actor   string
	Action  string
}

// Refusal is an attempt that was refused before it reached a use case.
type Refusal struct {
	Action  Action
	User    string
	TokenID string
	Service string
	Reason  string
}
