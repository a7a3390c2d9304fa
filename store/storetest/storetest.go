package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"patd/tokens"
	"patd/tokens/secret"
)

// Flusher is a store that can write recorded uses at once. A store that cannot skips the tests of that.
type Flusher interface {
	Flush(ctx context.Context) error
}

// Run is the suite that every store passes. open returns an empty store and arranges for its closing.
func Run(t *testing.T, open func(t *testing.T) tokens.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *fixture)
	}{
		{"AbsenceIsErrNotFound", testAbsence},
		{"LookupReadsWhatWasInserted", testLookup},
		{"ATakenIDLeavesTheTransactionGoingOn", testTaken},
		{"LookupSeesEveryUpdateThatReturned", testFreshness},
		{"ViewIsOneSnapshot", testSnapshot},
		{"AFailedClosureChangesNothing", testRollback},
		{"WritesWithoutAnEventAreRefused", testNoEvents},
		{"ATransactionEndsWithItsClosure", testOver},
		{"ACancelledContextStartsNothing", testCancelled},
		{"EventsAreWrittenWithTheirEffect", testEvents},
		{"EventsAreFilteredAndPaged", testEventQueries},
		{"TheSequenceMovesWithEverySuccess", testSequence},
		{"TokensAreListedNewestFirstInPages", testPaging},
		{"TokensAreFiltered", testFilters},
		{"TokensOfAUserAreListedByState", testUserPages},
		{"TheInventoryAgreesWithTheFilter", testInventory},
		{"PositionsOfEarlierVersionsLeaveNoneOut", testPositions},
		{"TokensThatWereGrantedAScopeAreFound", testGranted},
		{"LiveTokensAreNeitherRevokedNorExpired", testLive},
		{"UpdateWritesItsFieldsOnly", testUpdate},
		{"ARevocationIsNeverUndone", testRevocation},
		{"RevokeTokensSparesTheRevokedAndOtherUsers", testRevokeAll},
		{"RotationKeepsOldSecretsInOrder", testRotation},
		{"RotationIsReadBack", testRotationRecord},
		{"SecretIsRestored", testRestoredSecret}, {"SupersededUses", testSupersededUses},
		{"IdempotentRequestsExpire", testRequests},
		{"SealedSecretsAreForgottenWhenToldTo", testSealed},
		{"ADeletedUserIsNotFoundAndComesBackAnew", testUserDelete},
		{"UsersAreListedInByteOrder", testUsers},
		{"ServicesAreFoundByNameAndID", testServices},
		{"KeysAreKnownByNameAndCheck", testKeys},
		{"ARetiredKeyTakesNoDigest", testRetiredKey},
		{"KeyUseCountsLiveDigests", testKeyUse},
		{"AUseMovesLastUsedForward", testUse},
		{"DetailsOfUsesAddUp", testUseDetails},
		{"ARekeyMovesOnlyTheDigestItNames", testRekey},
		{"LargeIDsAreKept", testLargeIDs},
		{"BlocksAreSetAndLifted", testBlocks},
		{"ExceedingTokensAreFound", testExceeding},
		{"ExceedingTokensArePagedOldestFirst", testExceedingPages},
		{"AnAudienceIsMatchedWhole", testExactAudience},
		{"FeaturesAreKept", testFeatures},
		{"FeaturesAreFilteredAndPaged", testFeatureQueries},
		{"AudiencesAreKept", testAudiences},
		{"AudiencesAreSearchedAndPaged", testAudienceQueries},
		{"AudiencesAreFoundByResource", testAudienceResources},
		{"AccessTokensAreKept", testAccess},
		{"AnAccessTokensRevocationIsNeverUndone", testAccessRevocation},
		{"AFamilyEndsWithItsAccessTokens", testFamilies},
		{"LiveGrantsAreCountedBySerial", testCountGrants},
		{"KeyUseCountsGrants", testGrantKeyUse},
		{"KeyUseOfGrantsFollowsTheSecret", testKeyUseFollowsTheSecret},
		{"SessionsOfThePageEndOnce", testPageSessions},
		{"AHandOffIsUsedOnce", testHandoffs},
		{"WebhooksAreKept", testWebhooks},
		{"OneHolderHasTheLeaseOfAWebhook", testWebhookLeases},
		{"DeliveriesOfOneSubjectGoInOrder", testDeliveries},
		{"DeliveriesAreMadeOnceAsTheCursorMoves", testDeliveriesMoveWithTheCursor},
		{"ProvisionedUsersAreKept", testProvisioned},
		{"ProvisionedUsersArePaged", testProvisionedPages},
		{"ASecurityEventIsTakenOnce", testSecurityEvents},
		{"ConcurrentUpdatesAreSerial", testConcurrent},
		{"ALookupReadsTheSameEachTime", testRepeatedLookup},
		{"NoLookupIsFromBeforeAChangeThatReturned", testEveryChangeIsSeen},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newFixture(t, open(t))) })
	}
}

// RunFaults checks that a fault at each operation is an answer of its own: never an empty one, and no half change.
func RunFaults(t *testing.T, open func(t *testing.T) tokens.Store) {
	f := newFixture(t, open(t))
	u := f.user("u")
	tok := f.token(u, "one")
	service := f.service("gateway")
	faulty := NewFaulty(f.st)
	outage := Outage()
	ops := map[Op]func() error{
		OpLookup:        func() error { _, err := faulty.Lookup(f.ctx, tok.ID); return err },
		OpLookupService: func() error { _, err := faulty.LookupService(f.ctx, service.ID); return err },
		OpLookupAccess:  func() error { _, err := faulty.LookupAccess(f.ctx, tok.ID); return err },
		OpView:          func() error { return faulty.View(f.ctx, func(tokens.ReadTx) error { return nil }) },
		OpUpdate:        func() error { return f.rename(faulty, tok, "changed") },
		OpCommit:        func() error { return f.rename(faulty, tok, "changed") },
	}
	for op, read := range methods[tokens.ReadTx](f.ctx) {
		ops[op] = func() error {
			return faulty.View(f.ctx, func(tx tokens.ReadTx) error { _ = read(tx); return nil }) // swallowed
		}
	}
	for op, call := range methods[tokens.Tx](f.ctx) {
		if ops[op] != nil {
			continue // it reads
		}
		ops[op] = func() error {
			return faulty.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
				if err := tx.PutPrefix("other"); err != nil {
					return nil, err
				}
				_ = call(tx) // swallowed
				return f.events(tokens.Event{TokenID: tok.ID}), nil
			})
		}
	}
	if _, ok := f.st.(tokens.WebhookQueue); ok {
		for op, call := range methods[tokens.WebhookQueue](f.ctx) {
			ops[op] = func() error { return call(faulty) }
		}
	}
	for op, call := range ops {
		t.Run(string(op), func(t *testing.T) {
			faulty.FailOp(op, outage)
			if err := call(); !errors.Is(err, outage) {
				t.Errorf("with a fault at %s: got %v, want the outage", op, err)
			}
			faulty.FailOp(op, nil)
			f.equal("the token after a fault", f.read(tok.ID), tok)
			f.equal("the prefixes after a fault", f.prefixes(), []string{})
		})
	}
	faulty.Fail(outage)
	if _, err := faulty.Lookup(f.ctx, tok.ID); !errors.Is(err, outage) {
		t.Errorf("with every operation failing: got %v", err)
	}
	faulty.Fail(nil)
	faulty.Hang(OpLookup)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	if _, err := faulty.Lookup(ctx, tok.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("a lookup that hangs: got %v, want the context's end", err)
	}
	faulty.Fail(nil)
	if _, err := faulty.Lookup(f.ctx, tok.ID); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// methods are calls of each method of an interface, with arguments that are zero: what fails before it is done needs no
// others. Each returns the method's last result.
func methods[I any](ctx context.Context) map[Op]func(I) error {
	of, calls := reflect.TypeFor[I](), map[Op]func(I) error{}
	for m := range of.NumMethod() {
		method := of.Method(m)
		calls[Op(method.Name)] = func(on I) error {
			var args []reflect.Value
			for i := range method.Type.NumIn() {
				arg := reflect.Zero(method.Type.In(i))
				if arg.Type() == reflect.TypeFor[context.Context]() {
					arg = reflect.ValueOf(ctx)
				}
				args = append(args, arg)
			}
			out := reflect.ValueOf(on).MethodByName(method.Name).Call(args)
			err, _ := out[len(out)-1].Interface().(error)
			return err
		}
	}
	return calls
}

// fixture is an empty store with one key, and what tests do to it.
type fixture struct {
	t   *testing.T
	st  tokens.Store
	ctx context.Context
	now time.Time
	n   uint64
}

func newFixture(t *testing.T, st tokens.Store) *fixture {
	f := &fixture{t: t, st: st, ctx: t.Context(), now: time.Now().UTC().Truncate(time.Microsecond)}
	f.update(func(tx tokens.Tx) error {
		return tx.PutKey(tokens.KeyRecord{Name: "k1", Check: [32]byte{1}, CreateTime: f.now})
	})
	return f
}

func (f *fixture) nextID() tokens.ID { return f.idAt(f.now) }

// idAt makes an id of a token that is issued at an instant.
func (f *fixture) idAt(issue time.Time) tokens.ID {
	f.n++
	return secret.FirstID(issue) + tokens.ID(f.n)
}

// hash makes a digest unlike all others.
func hash(key string, n uint64) tokens.Hash {
	h := tokens.Hash{Key: key}
	binary.BigEndian.PutUint64(h.Sum[:], n)
	h.Sum[31] = 1
	return h
}

// events completes events so that they can be written.
func (f *fixture) events(es ...tokens.Event) []tokens.Event {
	for i := range es {
		es[i].Time = f.now
		if es[i].Actor == "" {
			es[i].Actor = "operator"
		}
		if es[i].Action == "" {
			es[i].Action = tokens.ActionTokenCreate
		}
		if es[i].Outcome == 0 {
			es[i].Outcome = tokens.OutcomeSuccess
		}
	}
	return es
}

// update runs fn in a transaction with one event, and the test fails when that fails.
func (f *fixture) update(fn func(tokens.Tx) error, es ...tokens.Event) {
	f.t.Helper()
	if len(es) == 0 {
		es = []tokens.Event{{}}
	}
	err := f.st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) { return f.events(es...), fn(tx) })
	if err != nil {
		f.t.Fatalf("update: %v", err)
	}
}

func (f *fixture) view(fn func(tokens.ReadTx) error) {
	f.t.Helper()
	if err := f.st.View(f.ctx, fn); err != nil {
		f.t.Fatalf("view: %v", err)
	}
}

func (f *fixture) user(id string) tokens.User {
	f.t.Helper()
	u := tokens.User{ID: id, State: tokens.UserActive, Features: []string{"a.read", "b.write"}, CreateTime: f.now}
	f.update(func(tx tokens.Tx) (err error) {
		u.Key, err = tx.InsertUser(u)
		return err
	}, tokens.Event{User: id, Action: tokens.ActionUserFeatures})
	return u
}

// token inserts a token of a user; with may change it before.
func (f *fixture) token(u tokens.User, name string, with ...func(*tokens.Token)) tokens.Token {
	f.t.Helper()
	t := tokens.Token{
		ID: f.nextID(), UserKey: u.Key, User: u.ID, Name: name, Scopes: []string{"a.read"},
		IssueTime: f.now, ExpireTime: f.now.Add(time.Hour),
	}
	for _, w := range with {
		w(&t)
	}
	n := f.n
	f.update(func(tx tokens.Tx) error { return tx.InsertToken(t, hash("k1", n)) }, tokens.Event{User: u.ID,
		TokenID: t.ID})
	return t
}

func (f *fixture) service(name string) tokens.ServiceAccount {
	f.t.Helper()
	s := tokens.ServiceAccount{
		ID: f.nextID(), Name: name, Permissions: tokens.PermIntrospect | tokens.PermAudit,
		IssueTime: f.now, ExpireTime: f.now.Add(time.Hour),
	}
	n := f.n
	f.update(func(tx tokens.Tx) error { return tx.InsertService(s, hash("k1", n)) },
		tokens.Event{Service: name, Action: tokens.ActionServiceCreate})
	return s
}

func (f *fixture) rename(st tokens.Store, t tokens.Token, name string) error {
	return st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		t.Name = name
		return f.events(tokens.Event{TokenID: t.ID, Action: tokens.ActionTokenUpdate}), tx.UpdateToken(t)
	})
}

func (f *fixture) lookup(id tokens.ID) tokens.Credential {
	f.t.Helper()
	c, err := f.st.Lookup(f.ctx, id)
	if err != nil {
		f.t.Fatalf("look up token %s: %v", id, err)
	}
	return c
}

func (f *fixture) read(id tokens.ID) (t tokens.Token) {
	f.t.Helper()
	f.view(func(tx tokens.ReadTx) (err error) {
		t, err = tx.Token(id)
		return err
	})
	return t
}

func (f *fixture) prefixes() (list []string) {
	f.t.Helper()
	f.view(func(tx tokens.ReadTx) (err error) {
		list, err = tx.Prefixes()
		return err
	})
	return list
}

func (f *fixture) tokens(q tokens.TokenQuery) (names []string) {
	f.t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	q.Now = f.now
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.Tokens(q)
		for _, t := range list {
			names = append(names, t.Name)
		}
		return err
	})
	return names
}

func (f *fixture) eventsOf(q tokens.EventQuery) (list []tokens.Event) {
	f.t.Helper()
	if q.Limit == 0 {
		q.Limit = 1000
	}
	f.view(func(tx tokens.ReadTx) (err error) {
		list, err = tx.Events(q)
		return err
	})
	return list
}

// flush writes recorded uses.
func (f *fixture) flush() {
	f.t.Helper()
	s, ok := f.st.(Flusher)
	if !ok {
		f.t.Skip("this store cannot write recorded uses at once")
	}
	if err := s.Flush(f.ctx); err != nil {
		f.t.Fatalf("flush: %v", err)
	}
}

// equal compares; an empty list is the same as none.
func (f *fixture) equal(what string, got, want any) {
	f.t.Helper()
	if reflect.DeepEqual(want, got) { // which is many times as fast
		return
	}
	ips := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	nets := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if d := cmp.Diff(want, got, ips, nets, cmpopts.EquateEmpty()); d != "" {
		f.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func (f *fixture) isNotFound(what string, err error) {
	f.t.Helper()
	if !errors.Is(err, tokens.ErrNotFound) {
		f.t.Errorf("%s: got %v, want ErrNotFound", what, err)
	}
}

func (f *fixture) isTaken(what string, err error) {
	f.t.Helper()
	if !errors.Is(err, tokens.ErrTaken) {
		f.t.Errorf("%s: got %v, want ErrTaken", what, err)
	}
}

func name(i int) string { return fmt.Sprintf("token %02d", i) }
