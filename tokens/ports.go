package tokens

import (
	"context"
	"errors"
	"time"
)

// ErrNotFound is the store's answer for a record that does not exist. It is an answer, not a fault: a store that
// cannot tell returns an *Error of CodeUnavailable instead.
var ErrNotFound = errors.New("not found")

// ErrTaken is the store's answer to an insert whose primary key exists. The transaction goes on.
var ErrTaken = errors.New("already taken")

// Store keeps tokens, users, services and events.
//
// Faults. Absence is ErrNotFound, wrapped or bare; every other failure that is not the caller's context ending is
// an *Error of CodeUnavailable (see StoreUnavailable and DiskFull), never an empty answer. A store retries what it
// can retry safely before it says so.
//
// Freshness. Once Update has returned, every later Lookup and View on the same Store sees its effect.
type Store interface {
	CredentialReader
	// View runs fn on one consistent snapshot.
	View(ctx context.Context, fn func(ReadTx) error) error
	// Update runs fn in one transaction and writes, in the same transaction, the events it returns and their
	// entries in the change feed. When it returns nil, all of that is on disk. When fn or anything else fails,
	// nothing of it happened. With no events nothing may have been changed: writes without an event are
	// an error. fn may be run again after a conflict, so it must not have effects of its own; ctx bounds
	// the wait for the transaction, not a commit under way.
	Update(ctx context.Context, fn func(Tx) ([]Event, error)) error
	// RecordUse records the use of a credential, or a digest of it that moves. It is saved in the background: at most
	// 60 s late, only the latest use of each id, and not lost by a clean stop. It neither blocks nor fails.
	RecordUse(Usage)
}

// CredentialReader reads what a presented secret is held against.
type CredentialReader interface {
	// Lookup reads a token, its user and its secrets at one instant. ErrNotFound for an unknown id; a revoked or
	// expired token is still found. What it answers may be shared with others: the caller keeps it, and changes none of
	// its slices, maps and revocations. It does not tell Token.LastUsed.
	Lookup(ctx context.Context, id ID) (Credential, error)
	// LookupService reads a service by the id of its token. ErrNotFound for an unknown id. What it answers may be
	// shared.
	LookupService(ctx context.Context, id ID) (ServiceCredential, error)
	// LookupAccess reads a short-lived access token by its own id. ErrNotFound for an unknown id; a revoked one is
	// still found, and so is an expired one for a day. What it answers may be shared.
	LookupAccess(ctx context.Context, id ID) (AccessCredential, error)
}

// Prefetcher is a Store that can have at hand what lookups of several tokens are going to need, which costs less at
// once than one by one. It answers nothing: the lookups do.
type Prefetcher interface {
	Prefetch(ids []ID)
}

// Usage is what RecordUse records of a credential.
type Usage struct {
	ID   ID
	Kind Kind // zero: KindPersonal
	// Use is the last use; zero: there is only a Rekey. A store keeps that of personal access tokens, and of nothing else.
	Use Use
	// Rekey, when not nil, replaces the digest Rekey.Old by Rekey.New wherever the credential still carries Old.
	Rekey *Rekey
}

// Rekey moves a stored digest of one secret from a retiring key to the current one.
type Rekey struct{ Old, New Hash }

// ReadTx reads at one instant. All its methods answer records that the caller may keep and change.
type ReadTx interface {
	TokenReader
	UserReader
	ServiceReader
	LogReader
	KeyReader
	FeatureReader
	AudienceReader
	GrantReader
}

// TokenReader reads tokens.
type TokenReader interface {
	// Token reads a token by id, whatever its state. ErrNotFound.
	Token(id ID) (Token, error)
	// Credential reads a token, its user (a deleted one too) and its secrets as Lookup does, without the secrets'
	// digests and without Sequence. ErrNotFound.
	Credential(id ID) (Credential, error)
	// Tokens lists tokens by the query, newest first.
	Tokens(q TokenQuery) ([]Token, error)
	// LiveTokens lists a user's tokens that are neither revoked nor expired at now: id and name key only, in no
	// particular order.
	LiveTokens(userKey int64, now time.Time) ([]LiveToken, error)
	ExceedingReader
	// Request reads what is kept of an idempotent request, unless it has expired at now. ErrNotFound.
	Request(key RequestKey, now time.Time) (Request, error)
}

// ExceedingReader reads the live tokens that exceed a policy.
type ExceedingReader interface {
	// Exceeding lists tokens by the query, oldest first.
	Exceeding(q ExceedQuery) ([]Token, error)
	// CountExceeding counts what the query selects, whatever its After and Limit.
	CountExceeding(q ExceedQuery) (int64, error)
}

// FeatureReader reads the catalogue's entries of features.
type FeatureReader interface {
	// Feature reads an entry by name. ErrNotFound.
	Feature(name string) (FeatureEntry, error)
	// Features lists entries by the query, by name in byte order.
	Features(q FeatureQuery) ([]FeatureEntry, error)
}

// AudienceReader reads audiences.
type AudienceReader interface {
	// Audience reads an audience by id. ErrNotFound.
	Audience(id string) (AudienceEntry, error)
	// Audiences lists audiences by the query, by id in byte order.
	Audiences(q AudienceQuery) ([]AudienceEntry, error)
	// NamedAudiences lists the ids of the audiences with RequireNamed, in byte order.
	NamedAudiences() ([]string, error)
	// CountUnnamed counts the tokens that name no audience and are neither revoked nor expired at now. It reads every
	// row.
	CountUnnamed(now time.Time) (int64, error)
}

// UserReader reads users. A deleted user is not found.
type UserReader interface {
	// User reads a user by id. ErrNotFound.
	User(id string) (User, error)
	// Users lists users by the query, by id in byte order.
	Users(q UserQuery) ([]User, error)
}

// ServiceReader reads services.
type ServiceReader interface {
	// Service reads the newest service of that name that is not revoked, or else the newest. ErrNotFound. By its id
	// alone a service that was made after the clock was set back would not be the newest, and could not be revoked.
	Service(name string) (ServiceAccount, error)
	// Services lists services, newest first: those with an id below before (0: from the newest), at most limit.
	Services(before ID, limit int) ([]ServiceAccount, error)
}

// LogReader reads the audit log.
type LogReader interface {
	// Events lists events by the query, newest first.
	Events(q EventQuery) ([]Event, error)
	// OldestEvents lists events at positions above after, oldest first, at most limit.
	OldestEvents(after uint64, limit int) ([]Event, error)
	// Released returns up to which position events were released for deletion, and the latest moment before which such
	// events were; zero: none ever was.
	Released() (seq uint64, before time.Time, err error)
}

// LogWriter shortens the audit log.
type LogWriter interface {
	// ReleaseEvents lets a store delete the events at positions above after and up to upTo, all of which were before a
	// moment. They may be found for a while. ErrTaken where what is released does not end at after.
	ReleaseEvents(after, upTo uint64, before time.Time) error
}

// KeyReader reads what the store knows of the digest keys: names and check values, never keys.
type KeyReader interface {
	// Keys lists the keys that the store knows, oldest first, without counts.
	Keys() ([]KeyRecord, error)
	// KeyUse counts the live digests under each key by name: those of tokens and services that are neither revoked nor
	// expired at now, rotated secrets in their grace included, and of what came of tokens: access tokens and the
	// refresh token of each family that is not used yet. It reads every row.
	KeyUse(now time.Time) (map[string]int64, error)
	// Prefixes lists every personal prefix that secrets were minted under.
	Prefixes() ([]string, error)
}

// Tx reads and writes in one transaction, and sees its own writes.
type Tx interface {
	ReadTx
	TokenWriter
	UserWriter
	ServiceWriter
	KeyWriter
	FeatureWriter
	AudienceWriter
	AccessWriter
	FamilyWriter
	LogWriter
}

// TokenWriter writes tokens.
type TokenWriter interface {
	// InsertToken adds a token with its current secret. ErrTaken when the id exists.
	InsertToken(t Token, h Hash) error
	// UpdateToken writes Name, Description, Labels, Scopes, CIDRs, ExpireTime, BlockedBy and Revocation of the token
	// with t.ID; a revocation that stands already is never changed or removed. ErrNotFound.
	UpdateToken(t Token) error
	// ReplaceSecret makes h the current secret of a token. The one that was current is accepted until
	// previousUntil. All older ones end for good: their ExpireTime becomes the Unix epoch, so that they stay ended
	// when the clock is set back. At least the 32 newest are remembered.
	ReplaceSecret(id ID, h Hash, previousUntil time.Time) error
	// RevokeTokens revokes all of a user's tokens that are not revoked, expired ones too. It returns which, oldest
	// first.
	RevokeTokens(userKey int64, r Revocation) ([]ID, error)
	RequestWriter
	// SetBlocked writes BlockedBy alone. ErrNotFound.
	SetBlocked(id ID, by string) error
}

// RequestWriter keeps idempotent requests.
type RequestWriter interface {
	// PutRequest keeps a request until its ExpireTime, replacing an expired one of the same key, and may drop
	// others that have expired at now.
	PutRequest(r Request, now time.Time) error
	// ForgetSealed drops the sealed secret from the requests that made or rotated a token, or made a service; the
	// requests stay. No other method drops one.
	ForgetSealed(id ID) error
	// ForgetSealedOf is ForgetSealed for all tokens of a user.
	ForgetSealedOf(userKey int64) error
}

// UserWriter writes users.
type UserWriter interface {
	// InsertUser adds a user and returns its key. ErrTaken when a user of that id exists and is not deleted.
	InsertUser(u User) (int64, error)
	// UpdateUser writes State, Features and DeleteTime of the user with u.Key. ErrNotFound.
	UpdateUser(u User) error
}

// ServiceWriter writes services.
type ServiceWriter interface {
	// InsertService adds a service. ErrTaken when the id exists.
	InsertService(s ServiceAccount, h Hash) error
	// RevokeService writes the revocation of a service; one that stands already is never changed. ErrNotFound.
	RevokeService(id ID, r Revocation) error
}

// FeatureWriter writes the catalogue's entries of features.
type FeatureWriter interface {
	// InsertFeature adds an entry. ErrTaken when the name has one.
	InsertFeature(e FeatureEntry) error
	// UpdateFeature writes an entry anew. ErrNotFound.
	UpdateFeature(e FeatureEntry) error
	// DeleteFeature removes an entry. ErrNotFound.
	DeleteFeature(name string) error
}

// AudienceWriter writes audiences.
type AudienceWriter interface {
	// InsertAudience adds an audience. ErrTaken when the id exists.
	InsertAudience(e AudienceEntry) error
	// UpdateAudience writes an audience anew. ErrNotFound.
	UpdateAudience(e AudienceEntry) error
	// DeleteAudience removes an audience. ErrNotFound.
	DeleteAudience(id string) error
}

// GrantReader reads what came of personal access tokens.
type GrantReader interface {
	// AccessToken reads an access token by id, whatever its state. ErrNotFound.
	AccessToken(id ID) (AccessToken, error)
	// RefreshToken reads a refresh token by id with its family, whatever their state. ErrNotFound. Every one of a
	// family is remembered until a day after the family's end.
	RefreshToken(id ID) (RefreshToken, error)
	// CountGrants counts the access tokens and families of a personal access token that are neither revoked nor expired
	// at now and came of its secrets from a serial on.
	CountGrants(token ID, serial int64, now time.Time) (GrantCount, error)
}

// AccessWriter writes access tokens. Expired ones are dropped in the background, after a day.
type AccessWriter interface {
	// InsertAccess adds an access token. ErrTaken when the id exists.
	InsertAccess(a AccessToken, h Hash) error
	// RevokeAccess revokes an access token. False: there is none of that id that is not revoked yet.
	RevokeAccess(id ID, r Revocation) (bool, error)
}

// FamilyWriter writes families of refresh tokens.
type FamilyWriter interface {
	// InsertFamily adds a family. ErrTaken when the id exists.
	InsertFamily(f Family) error
	// InsertRefresh adds a refresh token to the family with r.Family.ID. ErrTaken when the id exists.
	InsertRefresh(r RefreshToken, h Hash) error
	// UseRefresh notes that a refresh token is used. ErrNotFound when there is none of that id that is not used yet.
	UseRefresh(id ID, at time.Time) error
	// RevokeFamily revokes a family, and all its access tokens that are not revoked yet, expired ones too. False: there
	// is no family of that id that is not revoked yet, and nothing was changed.
	RevokeFamily(id ID, r Revocation) (bool, error)
}

// KeyWriter writes what the store knows of the digest keys.
type KeyWriter interface {
	// PutKey adds a key by name with its check value, or sets RetireTime of the one that is there. No digest under a
	// retired key is written from then on.
	PutKey(k KeyRecord) error
	// PutPrefix remembers a personal prefix. Idempotent.
	PutPrefix(prefix string) error
}

// TokenQuery selects tokens of one user.
type TokenQuery struct {
	UserKey  int64
	State    State
	NameHas  string // contained in the name, both folded by NameKey; empty: any
	Audience string // empty: any
	Now      time.Time
	Before   ID // only ids below; 0: from the newest
	Limit    int
}

// LiveToken is what limits and unique names look at.
type LiveToken struct {
	ID      ID
	NameKey string // by NameKey, or by FormerNameKey where an earlier program wrote it
}

// BlockedState selects tokens by their block.
type BlockedState int

// The selections.
const (
	BlockedAny        BlockedState = iota
	BlockedNot                     // not blocked by the query's audience
	BlockedByAudience              // blocked by the query's audience
)

// ExceedQuery selects the live tokens, neither revoked nor expired at Now, that name an audience and end after Limited,
// or never where Never says so. With BlockedByAudience the tokens need not name it, and Limited and Never do not count.
type ExceedQuery struct {
	Audience string
	Now      time.Time
	Limited  time.Time
	Never    bool // tokens that never expire are selected too
	Blocked  BlockedState
	After    ID // only ids above
	Limit    int
}

// FeatureQuery selects entries of the catalogue; zero fields match all.
type FeatureQuery struct {
	Has                                  string // contained in name, display name or description, folded by NameKey
	Name                                 string
	Consent                              Consent
	Default, Optional, Published, System *bool
	After                                string // only names above, in byte order
	Limit                                int
}

// AudienceQuery selects audiences.
type AudienceQuery struct {
	Has      string // contained in id or display name, folded by NameKey
	Resource string // empty: any; RFC 8707, compared as NormalResource has it. Has does not count then.
	After    string // only ids above, in byte order
	Limit    int
}

// UserQuery selects users.
type UserQuery struct {
	State UserState
	After string // only ids above, in byte order
	Limit int
}

// Change is an entry of the change feed: what it names is no longer as it was. One that names nothing stands for a
// change that is about none of them.
type Change struct {
	Seq     uint64
	TokenID ID     // 0: not about one token
	User    string // of a change to a user, not to one of its tokens
	Service string
}

// EventQuery selects events; empty fields match all.
type EventQuery struct {
	User    string
	TokenID ID
	Actor   string
	Action  Action
	Before  uint64 // only positions below; 0: from the newest
	Limit   int
}

// RequestKey names an idempotent request: a keyed digest of the caller and its idempotency key.
type RequestKey [32]byte

// Request is what is kept of an idempotent request.
type Request struct {
	Key         RequestKey
	Fingerprint [32]byte // of the request's body
	TokenID     ID       // the token it made
	Sealed      []byte   // the secret, sealed under the caller's idempotency key; nil: forgotten
	ExpireTime  time.Time
}

// FeatureSource tells which features a user holds now.
//
// An unknown user holds none, which is an answer. A source that does not answer, and has none that is fresh enough,
// returns an *Error of CodeUnavailable (see FeaturesUnavailable), never an empty answer.
type FeatureSource interface {
	// Features returns what the user holds: sorted, without duplicates, the caller's to keep but not to change.
	// With fresh, a cached answer does not do. The user may be one that the store has not met (Key 0).
	Features(ctx context.Context, u User, fresh bool) (Held, error)
	// Local tells that Features is a pure function of the User record: the service then asks inside the
	// transaction, and features are written through patd.
	Local() bool
}

// Held is what a feature source answers.
type Held struct {
	Features []string
	// Stale says that this is the last known answer, served during an outage of the source.
	Stale bool
	// AsGranted says that the source knows nothing of users by itself: whatever a token was granted is held. What
	// can be granted is what the signed-in user's credential says.
	AsGranted bool
}

// Forgetter is a FeatureSource with a cache.
type Forgetter interface {
	// Forget drops what is known of a user: once it has returned, no answer is from before it.
	Forget(user string)
	// ForgetAll does that of every user.
	ForgetAll()
}

// ChangeFeed is the store's change feed as this process hears of it, whoever on the same store made the changes. Its
// methods answer from memory, at once and to any number of callers.
//
// The error of each is an *Error of CodeUnavailable: the store has not been heard of for so long that what is known of
// it is not to be trusted.
type ChangeFeed interface {
	// Newest returns the position of the newest entry.
	Newest() (WatchPosition, error)
	// After returns the entries after a position, oldest first, at most limit.
	After(at WatchPosition, limit int) (ChangePage, error)
	// News returns a channel that is closed when there are entries that were not there when News was called.
	News() <-chan struct{}
	// Live reports whether what is known of the store counts: the other methods return no error.
	Live() bool
}

// ChangePage is a part of the change feed.
type ChangePage struct {
	Changes []Change
	// At is the position of the last of them; where there is none, the one that was asked for.
	At WatchPosition
	// Lost says that the entries after the position cannot be told: they are too many or too old, or the position is of
	// another history. At is then the newest position, and Changes is empty.
	Lost bool
}
