package tokens

import (
	"context"
	"errors"
	"time"
)

// ErrNotFound is returned for a record that does not exist. It is a result, not a fault: a store that cannot know
// returns an *Error of CodeUnavailable instead.
var ErrNotFound = errors.New("not found")

// ErrTaken is returned for an insert whose primary key exists. The transaction goes on.
var ErrTaken = errors.New("already taken")

// Store keeps tokens, users, services and events.
//
// Faults. Absence is ErrNotFound, wrapped or bare. Every other failure, except the end of the caller's context, is an
// *Error of CodeUnavailable (see StoreUnavailable and DiskFull), never an empty result. A store first retries what is
// safe to retry.
//
// Freshness. Once Update has returned, every later Lookup and View on the same Store sees its effect.
type Store interface {
	CredentialReader
	// View runs fn on one consistent snapshot.
	View(ctx context.Context, fn func(ReadTx) error) error
	// Update runs fn in one transaction and writes, in the same transaction, the events it returns and their entries in
	// the change feed. When Update returns nil, all of that is on disk. When fn or anything else fails, nothing was
	// changed. Writes without an event are an error, but for those of NoticeKeeper. fn may run again after a conflict,
	// so it must have no side effects. ctx bounds the wait for the transaction, not a commit under way.
	Update(ctx context.Context, fn func(Tx) ([]Event, error)) error
	// RecordUse records the use of a credential, or the new digest of one. It is saved in the background: at most 60 s
	// late, only the latest use of each id, and not lost by a clean stop. It neither blocks nor fails. It does not keep
	// Usage.Scopes or its texts: they may be a part of the request.
	RecordUse(Usage)
	// RecordVisit records that a session of the page was used, or keeps what was typed into a form of it. It changes
	// nothing else, and nothing if there is no such session. It writes no event.
	RecordVisit(ctx context.Context, key SessionKey, v Visit) error
}

// CredentialReader reads the records that a presented secret is checked against.
type CredentialReader interface {
	// Lookup reads a token, its user and its secrets at one instant. ErrNotFound for an unknown id; a revoked or
	// expired token is still found. The result may be shared: the caller may keep it, but must not change its slices,
	// maps and revocations. Token.LastUsed is not set.
	Lookup(ctx context.Context, id ID) (Credential, error)
	// LookupService reads a service by the id of its token. ErrNotFound for an unknown id. The result may be shared.
	LookupService(ctx context.Context, id ID) (ServiceCredential, error)
	// LookupAccess reads a short-lived access token by its own id. ErrNotFound for an unknown id; a revoked one is
	// still found, and an expired one for a day. The result may be shared.
	LookupAccess(ctx context.Context, id ID) (AccessCredential, error)
}

// Prefetcher is a Store that can load the records for several lookups at once, which costs less than one by one.
// Prefetch returns nothing: the lookups return the records.
type Prefetcher interface {
	Prefetch(ids []ID)
}

// Memory is a Store that keeps records in memory. Its methods return at once. They read no clock: now is a reading of
// the clock that the store has too, made for the decision that they serve.
type Memory interface {
	// Recall is Lookup from memory; false: it cannot. The result's lists may be in room, unless that is nil.
	Recall(now time.Time, id ID, room *Lists) (Credential, bool)
	// RecallService is LookupService from memory; nil: it cannot. The result must not be changed.
	RecallService(now time.Time, id ID) *ServiceCredential
	// ServiceMark tells that no service has changed: while it returns the same number, which is not 0, LookupService
	// returns what it returned since the number was first returned. 0: it cannot tell.
	ServiceMark(now time.Time) uint64
}

// Lists is room for the lists that nearly every Credential has.
type Lists struct {
	Scopes  [8]string
	Secrets [1]StoredSecret
}

// UseFlusher is a Store that can save what RecordUse was given of tokens before it returns; of nil: of all. To save
// that of all is as much work at once as is spread over minutes otherwise.
type UseFlusher interface {
	FlushUses(ctx context.Context, of []ID) error
}

// Usage is an entry for RecordUse.
type Usage struct {
	ID   ID
	Kind Kind // zero: KindPersonal
	// Use is the last use; zero: there is only a Rekey. A store keeps it for personal access tokens only.
	Use Use
	// Scopes are those that the use needed, all of them in effect; they are counted. A use that a Service asked about
	// without saying which it needed counts as one of any scope.
	Scopes  []string
	Service string // the asking service; empty: none asked
	// Rekey, when not nil, replaces the digest Rekey.Old by Rekey.New if the credential still has Old.
	Rekey *Rekey
}

// Rekey moves a stored digest of one secret from a retiring key to the current one.
type Rekey struct{ Old, New Hash }

// ReadTx reads at one instant. The caller may keep and change all records that its methods return.
type ReadTx interface {
	TokenReader
	UserReader
	ServiceReader
	LogReader
	KeyReader
	FeatureReader
	AudienceReader
	BulkReader
	NarrowingReader
	GrantReader
	PageSessionReader
	WebhookReader
	ProvisionedReader
	NoticeReader
}

// TokenReader reads tokens.
type TokenReader interface {
	// Token reads a token by id, whatever its state. ErrNotFound. With RecordInvalid it returns the token too, which
	// may then be revoked and nothing else.
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
	InventoryReader
	// ScopeUses reads what is stored of the uses of tokens by scope, without Since. Tokens without any are left out.
	ScopeUses(ids []ID) (map[ID]ScopeUses, error)
	// UsesSince returns since when uses are recorded by scope; zero: since there have been tokens.
	UsesSince() (time.Time, error)
	// EndedPauses lists tokens that are not revoked and have a paused scope whose pause is over at a time, at most
	// limit.
	EndedPauses(now time.Time, limit int) ([]ID, error)
	// Request reads the record of an idempotent request, unless it has expired at now. ErrNotFound.
	Request(key RequestKey, now time.Time) (Request, error)
}

// ExceedingReader reads the live tokens that exceed a policy.
type ExceedingReader interface {
	// Exceeding lists tokens by the query, oldest first.
	Exceeding(q ExceedQuery) ([]Token, error)
	// CountExceeding counts the tokens that the query selects; After and Limit do not count.
	CountExceeding(q ExceedQuery) (int64, error)
}

// InventoryReader reads tokens of all users.
type InventoryReader interface {
	// Inventory lists tokens by the query, in its order.
	Inventory(q InventoryQuery) (InventoryPage, error)
	// Granted lists the tokens of a GrantedQuery. There may be others among them that are live.
	Granted(q GrantedQuery) ([]Token, error)
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
	// User reads a user by id. ErrNotFound. With RecordInvalid it returns the user too, who may then be suspended or
	// deleted and nothing else.
	User(id string) (User, error)
	// Users lists users by the query, by id in byte order.
	Users(q UserQuery) ([]User, error)
	// SuspendedScopes reads what PutSuspendedScopes wrote of a user; zero: nothing.
	SuspendedScopes(userKey int64) (SuspendedScopes, error)
}

// ProvisionedReader reads users as their identity provider knows them. A deleted user is not found.
type ProvisionedReader interface {
	// Provisioned reads a user by the id of its record. ErrNotFound; ErrRecordInvalid, with the record, if it is not as
	// patd wrote it.
	Provisioned(id string) (Provisioned, error)
	// ProvisionedUsers lists users by the query, in the order of their keys.
	ProvisionedUsers(q ProvisionedQuery) ([]Provisioned, error)
	// CountProvisioned counts the users that the query selects; Offset and Limit do not count.
	CountProvisioned(q ProvisionedQuery) (int64, error)
}

// ProvisionedWriter writes users as their identity provider knows them, and which of its security events were taken.
type ProvisionedWriter interface {
	// InsertProvisioned adds a record. ErrTaken when there is one of this id, user, or folded name.
	InsertProvisioned(p Provisioned) error
	// UpdateProvisioned writes UserName, ExternalID, DisplayName, Inactive and UpdateTime of the record of p.UserKey.
	// ErrNotFound; ErrTaken when another one has the folded name.
	UpdateProvisioned(p Provisioned) error
	// DeleteProvisioned removes the record of a user, if there is one.
	DeleteProvisioned(userKey int64) error
	// RememberSecurityEvent keeps the digest of an event until a time at least. ErrTaken when it is known.
	RememberSecurityEvent(digest [32]byte, until time.Time) error
}

// ServiceReader reads services.
type ServiceReader interface {
	// Service reads the newest service of that name that is not revoked, or else the newest. ErrNotFound. Ids alone do
	// not decide: a service made after the clock was set back would not be the newest, and could not be revoked.
	// With RecordInvalid it returns the service too, which may then be revoked and nothing else.
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
	// Released returns the position up to which events were released for deletion, and the latest time before which
	// such events happened; zero: none was released yet.
	Released() (seq uint64, before time.Time, err error)
}

// LogWriter shortens the audit log.
type LogWriter interface {
	// ReleaseEvents lets a store delete the events at positions above after and up to upTo, all of them from before a
	// time. They may still be found for a while. ErrTaken if the released range does not end at after.
	ReleaseEvents(after, upTo uint64, before time.Time) error
}

// KeyReader reads the store's records of the digest keys: names and check values, never keys.
type KeyReader interface {
	// Keys lists the keys that the store knows, oldest first, without counts.
	Keys() ([]KeyRecord, error)
	// KeyUse counts the live digests under each key by name. Live are those of tokens and services that are neither
	// revoked nor expired at now, of rotated secrets in their grace, of access tokens, and of the unused refresh token
	// of each family. It reads every row.
	KeyUse(now time.Time) (map[string]int64, error)
	// Prefixes lists every personal prefix under which secrets were minted.
	Prefixes() ([]string, error)
	// RowsUnder counts the checksums of rows under a key, by its name. It reads every row.
	RowsUnder(key string) (int64, error)
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
	BulkWriter
	NarrowingWriter
	LogWriter
	PageSessionWriter
	WebhookWriter
	ProvisionedWriter
	NoticeWriter
}

// TokenWriter writes tokens.
type TokenWriter interface {
	// InsertToken adds a token with its current secret. ErrTaken when the id exists.
	InsertToken(t Token, h Hash) error
	// UpdateToken writes Name, Description, Labels, Scopes, CIDRs, ExpireTime, RenewTime, SelfRotate, RenewableUntil,
	// Paused, BlockedBy and Revocation of the token with t.ID. An existing revocation is never changed or removed.
	// ErrNotFound.
	UpdateToken(t Token) error
	RotationWriter
	// RevokeTokens revokes all of a user's tokens that are not revoked, expired ones too. It returns their ids, oldest
	// first.
	RevokeTokens(userKey int64, r Revocation) ([]ID, error)
	RequestWriter
	// SetBlocked writes only BlockedBy. ErrNotFound.
	SetBlocked(id ID, by string) error
}

// RotationWriter writes the secrets of a token. A secret that ends before its ExpireTime ends for good: its ExpireTime
// becomes the Unix epoch, so that it stays ended when the clock is set back, and EndTime says when it stopped.
type RotationWriter interface {
	// ReplaceSecret makes h the current secret of a token, by the rotation r, which Token.Rotation then is. The
	// previous secret is accepted until r.PreviousUntil; not after r.Time: it ends. All older ones end. At least the 32
	// newest are kept. ErrNotFound.
	ReplaceSecret(id ID, h Hash, r Rotation) error
	// RestoreSecret ends the current secret of a token, and makes the one before current again, with a serial of its
	// own. What came of it follows it: access tokens and families that are not revoked. Token.Rotation has the Change
	// ExpiryRestored then. ErrNotFound if there is no secret before.
	RestoreSecret(id ID, at time.Time) error
	// UseSecret records the first use of a token's current secret, if that has this serial, the one before is accepted
	// and there was no use before. It ends the one before if the rotation says so. It returns false if it recorded
	// nothing.
	UseSecret(id ID, serial int64, at time.Time) (bool, error)
	// PresentSuperseded records that the secret with this serial, which was rotated away, was presented. It returns
	// false, and records nothing, if one was recorded less than every before, or the secret is not kept any more.
	PresentSuperseded(id ID, serial int64, at time.Time, every time.Duration) (bool, error)
}

// RequestWriter keeps idempotent requests.
type RequestWriter interface {
	// PutRequest stores a request until its ExpireTime. It replaces an expired one of the same key, and may drop others
	// that have expired at now.
	PutRequest(r Request, now time.Time) error
	// ForgetSealed drops the sealed secret from the requests that made or rotated a token or a service; the
	// requests stay. No other method drops a sealed secret.
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
	// PutSuspendedScopes replaces what is recorded of a user's suspended scopes.
	PutSuspendedScopes(userKey int64, s SuspendedScopes) error
}

// ServiceWriter writes services.
type ServiceWriter interface {
	// InsertService adds a service. ErrTaken when the id exists.
	InsertService(s ServiceAccount, h Hash) error
	// ReplaceServiceSecret makes h the current secret of the service with s.ID, and writes RotateTime, ExpireTime and
	// PreviousUntil, until when the secret that was current is accepted. The one before that ends for good.
	// ErrNotFound.
	ReplaceServiceSecret(s ServiceAccount, h Hash) error
	// RevokeService writes the revocation of a service; an existing one is never changed. ErrNotFound.
	RevokeService(id ID, r Revocation) error
}

// FeatureWriter writes the catalogue's entries of features.
type FeatureWriter interface {
	// InsertFeature adds an entry. ErrTaken when the name has one.
	InsertFeature(e FeatureEntry) error
	// UpdateFeature replaces an entry. ErrNotFound.
	UpdateFeature(e FeatureEntry) error
	// DeleteFeature removes an entry. ErrNotFound.
	DeleteFeature(name string) error
}

// AudienceWriter writes audiences.
type AudienceWriter interface {
	// InsertAudience adds an audience. ErrTaken when the id exists.
	InsertAudience(e AudienceEntry) error
	// UpdateAudience replaces an audience. ErrNotFound.
	UpdateAudience(e AudienceEntry) error
	// DeleteAudience removes an audience. ErrNotFound.
	DeleteAudience(id string) error
}

// GrantReader reads access and refresh tokens that were derived from personal access tokens.
type GrantReader interface {
	// AccessToken reads an access token by id, whatever its state. ErrNotFound.
	AccessToken(id ID) (AccessToken, error)
	// RefreshToken reads a refresh token by id with its family, whatever their state. ErrNotFound. All tokens of a
	// family are kept until a day after the family's end.
	RefreshToken(id ID) (RefreshToken, error)
	// CountGrants counts the access tokens and families of a personal access token that are neither revoked nor expired
	// at now and were derived from its secrets with this serial or a later one.
	CountGrants(token ID, serial int64, now time.Time) (GrantCount, error)
}

// AccessWriter writes access tokens. Expired ones are dropped in the background, after a day.
type AccessWriter interface {
	// InsertAccess adds an access token. ErrTaken when the id exists.
	InsertAccess(a AccessToken, h Hash) error
	// RevokeAccess revokes an access token. It returns false if no unrevoked one has that id.
	RevokeAccess(id ID, r Revocation) (bool, error)
}

// FamilyWriter writes families of refresh tokens.
type FamilyWriter interface {
	// InsertFamily adds a family. ErrTaken when the id exists.
	InsertFamily(f Family) error
	// InsertRefresh adds a refresh token to the family with r.Family.ID. ErrTaken when the id exists.
	InsertRefresh(r RefreshToken, h Hash) error
	// UseRefresh marks a refresh token as used. ErrNotFound if no unused one has that id.
	UseRefresh(id ID, at time.Time) error
	// RevokeFamily revokes a family and all its unrevoked access tokens, expired ones too. It returns false, and
	// changes nothing, if no unrevoked family has that id.
	RevokeFamily(id ID, r Revocation) (bool, error)
}

// KeyWriter writes the store's records of the digest keys.
type KeyWriter interface {
	// PutKey adds a key by name with its check value, or sets RetireTime of an existing one. From then on no digest is
	// written under a retired key.
	PutKey(k KeyRecord) error
	// PutPrefix stores a personal prefix. Idempotent.
	PutPrefix(prefix string) error
	// SealRows records that every row has a checksum, so that programs which make none are kept out. Idempotent.
	SealRows(now time.Time) error
}

// RowKeeper is a Store that makes a keyed checksum of every record that it writes, and compares it when it reads one
// for a decision. A record that is not as it was written is not used: the error is RecordInvalid's.
type RowKeeper interface {
	// UseRowKeys gives the store the keys of its checksums, and replaces those that it had.
	UseRowKeys(ctx context.Context, ks *Keys) error
	// MoveChecksums makes every checksum under a key anew under the current one, and returns how many it wrote. A
	// record that is not as it was written stays so.
	MoveChecksums(ctx context.Context, key string) (int64, error)
}

// Change is an entry of the change feed: the records it names have changed. An entry that names none stands for any
// other change.
type Change struct {
	Seq     uint64
	TokenID ID     // 0: not about one token
	User    string // the user itself changed, not one of its tokens
	Service string
}

// RequestKey names an idempotent request: a keyed digest of the caller and its idempotency key.
type RequestKey [32]byte

// Request is the stored record of an idempotent request.
type Request struct {
	Key         RequestKey
	Fingerprint [32]byte // of the request's body
	TokenID     ID       // the token it made
	Sealed      []byte   // the secret, sealed under the caller's idempotency key; nil: forgotten
	ExpireTime  time.Time
}

// ChangeFeed is the store's change feed as this process has received it, including changes by other servers on the same
// store. Its methods read memory, return at once and may be called concurrently.
//
// Each error is an *Error of CodeUnavailable: nothing was received from the store for so long that the feed can no
// longer be trusted.
type ChangeFeed interface {
	// Newest returns the position of the newest entry.
	Newest() (WatchPosition, error)
	// After returns the entries after a position, oldest first, at most limit.
	After(at WatchPosition, limit int) (ChangePage, error)
	// News returns a channel that is closed when entries have arrived since the call.
	News() <-chan struct{}
	// Live reports whether the feed is current, so that the other methods return no error.
	Live() bool
	// Reached reads the feed to its end and returns the position of the newest entry, once caches have dropped what it
	// names. Changes that were committed before the call have no later one.
	Reached(ctx context.Context) (uint64, error)
}

// ChangePage is a part of the change feed.
type ChangePage struct {
	Changes []Change
	// At is the position of the last change; if there is none, the requested position.
	At WatchPosition
	// Lost reports that the entries after the position are not available: they are too many or too old, or the position
	// is of another history. At is then the newest position, and Changes is empty.
	Lost bool
}
