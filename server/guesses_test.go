package server_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/server"
	"patd/store"
	"patd/store/cache"
	"patd/tokens"
	"patd/tokens/secret"
)

// counting counts the lookups that got as far as the store.
type counting struct {
	tokens.Store
	reads atomic.Int64
}

func (c *counting) count(err error) error {
	if status.FromContextError(err).Code() != codes.Canceled {
		c.reads.Add(1)
	}
	return err
}

func (c *counting) Lookup(ctx context.Context, id tokens.ID) (tokens.Credential, error) {
	found, err := c.Store.Lookup(ctx, id)
	return found, c.count(err)
}

func (c *counting) LookupService(ctx context.Context, id tokens.ID) (tokens.ServiceCredential, error) {
	found, err := c.Store.LookupService(ctx, id)
	return found, c.count(err)
}

func (c *counting) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	own := false
	err := c.Store.View(ctx, func(tx tokens.ReadTx) error { return fn(ownReads{tx, &own}) })
	if own {
		return err
	}
	return c.count(err)
}

// ownReads notes the server's own reads, which no caller causes: it looks for what is to be carried on, and for pauses
// that are over.
type ownReads struct {
	tokens.ReadTx
	seen *bool
}

func (o ownReads) AbandonedBulkRevocation(before time.Time) (tokens.BulkRevocation, error) {
	*o.seen = true
	return o.ReadTx.AbandonedBulkRevocation(before)
}

func (o ownReads) AbandonedNarrowing(before time.Time) (tokens.Narrowing, error) {
	*o.seen = true
	return o.ReadTx.AbandonedNarrowing(before)
}

func (o ownReads) EndedPauses(before time.Time, limit int) ([]tokens.ID, error) {
	*o.seen = true
	return o.ReadTx.EndedPauses(before, limit)
}

// guessRig is a server that answers from memory, as the command does, whose limit of bad credentials is one a second
// and three at once, with a count of the lookups that reach the store.
func guessRig(t *testing.T, change ...func(*server.Config)) (*rig, *counting) {
	t.Helper()
	reads := &counting{}
	limited := func(c *server.Config) { c.FailureRate, c.FailureBurst = 1, 3 }
	return newRigOn(t, nil, func(st *store.Store, behind tokens.Store) tokens.Store {
		reads.Store = behind
		return cache.New(st, cache.Options{Behind: reads})
	}, append([]func(*server.Config){limited}, change...)...), reads
}

// guess is a well-formed secret of an id that nothing has.
func guess(t *testing.T, prefix string, n int) string {
	t.Helper()
	s, err := secret.Mint(prefix, tokens.ID(1<<40+n), rand.Reader)
	must(t, err)
	return s.Reveal()
}

// door is a place where a caller shows a credential of its own. Each returns OK, Unauthenticated or ResourceExhausted.
type door struct {
	name string
	show func(r *rig, credential string) codes.Code
}

func overREST(method, path, body string) func(*rig, string) codes.Code {
	return func(r *rig, credential string) codes.Code { return codeOf(r.rest(method, path, credential, body).code) }
}

func codeOf(httpCode int) codes.Code {
	switch httpCode {
	case http.StatusOK:
		return codes.OK
	case http.StatusBadRequest, http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	}
	return codes.Unknown
}

// serviceDoors take a service's token.
var serviceDoors = []door{
	{"gRPC", func(r *rig, c string) codes.Code {
		_, err := patdv1.NewUserServiceClient(r.conn).ListUsers(as(c), &patdv1.ListUsersRequest{})
		return status.Code(err)
	}},
	{"Introspect", func(r *rig, c string) codes.Code {
		_, err := patdv1.NewIntrospectionServiceClient(r.conn).Introspect(as(c), &patdv1.IntrospectRequest{})
		return status.Code(err)
	}},
	{"BatchIntrospect", func(r *rig, c string) codes.Code {
		_, err := patdv1.NewIntrospectionServiceClient(r.conn).BatchIntrospect(as(c), &patdv1.BatchIntrospectRequest{})
		return status.Code(err)
	}},
	{"IntrospectStream", func(r *rig, c string) codes.Code {
		s := r.open(c)
		_ = s.Send(&patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{}})
		_, err := s.Recv()
		return status.Code(err)
	}},
	{"REST", overREST("GET", "/v1/users", "")},
	{"REST, introspect", overREST("POST", "/v1/introspect", `{"token":"x"}`)},
	{"REST, introspect by the gateway", overREST("POST", "/v1/introspect", "{\"token\":\"\\u0078\"}")},
	{"REST, a large body", overREST("POST", "/v1/introspect", `{"token":"x"`+strings.Repeat(" ", 70_000)+`}`)},
	{"Envoy", func(r *rig, c string) codes.Code {
		resp, err := authv3.NewAuthorizationClient(r.conn).Check(as(c), &authv3.CheckRequest{})
		if err != nil {
			return status.Code(err)
		}
		switch resp.GetDeniedResponse().GetStatus().GetCode() {
		case 401: // the client of the gateway shows no token: the gateway itself was let in
			return codes.OK
		case 500:
			return codes.Unauthenticated
		default:
			return codes.ResourceExhausted
		}
	}},
	{"RFC 7662 by Basic", func(r *rig, c string) codes.Code {
		return codeOf(r.oauth("/oauth2/introspect", formOf("token", "x"), basic("admin", c)...).code)
	}},
	{"RFC 7662 by Bearer", func(r *rig, c string) codes.Code {
		return codeOf(r.oauth("/oauth2/introspect", formOf("token", "x"), "Authorization", "Bearer "+c).code)
	}},
	{"RFC 7662 by the form", func(r *rig, c string) codes.Code {
		return codeOf(
			r.oauth("/oauth2/introspect", formOf("token", "x", "client_id", "admin", "client_secret", c)).code,
		)
	}},
	{"RFC 7009 by Basic", func(r *rig, c string) codes.Code {
		return codeOf(r.oauth("/oauth2/revoke", formOf("token", "x"), basic("admin", c)...).code)
	}},
}

// tokenDoors take a personal access token.
var tokenDoors = []door{
	{"GetSelf", func(r *rig, c string) codes.Code {
		_, err := patdv1.NewSelfServiceClient(r.conn).GetSelf(as(c), &patdv1.GetSelfRequest{})
		return status.Code(err)
	}},
	{"REST, self", overREST("GET", "/v1/self", "")},
	{"RFC 8693", func(r *rig, c string) codes.Code { return codeOf(r.exchange(c).code) }},
}

// userDoors take a JWT of sign-in.
var userDoors = []door{
	{"ListTokens", func(r *rig, c string) codes.Code {
		_, err := patdv1.NewTokenServiceClient(r.conn).ListTokens(as(c), &patdv1.ListTokensRequest{User: "me"})
		return status.Code(err)
	}},
	{"REST, tokens", overREST("GET", "/v1/users/me/tokens", "")},
}

// everyDoor has good credentials at every door, and a bad one beside each, at an address past its limit.
func everyDoor(t *testing.T, r *rig, when string, token, user string) {
	t.Helper()
	for _, e := range []struct {
		doors []door
		good  string
	}{{serviceDoors, r.admin}, {tokenDoors, token}, {userDoors, user}} {
		for _, d := range e.doors {
			if got := d.show(r, e.good); got != codes.OK {
				t.Errorf("%s, a good credential at %s: %v", when, d.name, got)
			}
			if got := d.show(r, "garbage"); got != codes.ResourceExhausted {
				t.Errorf("%s, a bad credential at %s: %v", when, d.name, got)
			}
		}
	}
	if got := r.ask("", token); got.code != http.StatusOK {
		t.Errorf("%s, forward-auth: %d %s", when, got.code, got.body)
	}
}

// TestAGoodCredentialPassesWhateverOthersAtItsAddressDo has a client at the address of all callers use up the limit of
// bad credentials, and guess. Good ones pass all doors, though they are not in memory yet.
func TestAGoodCredentialPassesWhateverOthersAtItsAddressDo(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, _ := guessRig(t)
	_, token := r.pat(tokens.MintRequest{User: "u1", Name: "a"}, "x")
	user := r.idp.jwt(t, "u1")
	for range 4 {
		r.rest("GET", "/v1/users", "garbage", "")
	}
	everyDoor(t, r, "after garbage", token, user)
	for i := range 10 {
		r.rest("GET", "/v1/users", guess(t, "pats", i), "")
	}
	if cold := r.service("cold", "users"); r.rest("GET", "/v1/users", cold, "").code != http.StatusOK {
		t.Error("after a few guesses, a good credential that is not in memory is refused")
	}
}

// guessReads are the reads of the store that one address has for ids of no record, at once and each second.
const guessReads, guessReadsEachSecond = 10_000, 200

// guessAll uses them up.
func guessAll(t *testing.T, r *rig) {
	t.Helper()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range guessReads / 8 {
				_, err := patdv1.NewIntrospectionServiceClient(r.conn).
					Introspect(as(guess(t, "pats", 1<<20+worker*guessReads+i)), &patdv1.IntrospectRequest{})
				if status.Code(err) != codes.Unauthenticated && status.Code(err) != codes.ResourceExhausted {
					t.Errorf("a guess: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// TestGuessedIdsDoNotReadTheStoreWithoutEnd shows ids of no record at every door, once an address has used up its
// reads. What reaches the store is what has come back since. Good credentials that are in memory pass all doors.
func TestGuessedIdsDoNotReadTheStoreWithoutEnd(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, store := guessRig(t)
	n := 0
	shower := func(doors []door, prefix string) {
		for _, d := range doors {
			for range 10 {
				n++
				if got := d.show(
					r,
					guess(t, prefix, n),
				); got != codes.Unauthenticated &&
					got != codes.ResourceExhausted {
					t.Errorf("a guess at %s: %v", d.name, got)
				}
			}
		}
	}
	all := func() {
		shower(serviceDoors, "pats")
		shower(tokenDoors, "pat")
		for range 10 {
			n++
			r.refresh(guess(t, "patr", n))
			n++
			r.oauth("/oauth2/revoke", formOf("token", guess(t, []string{"pat", "pata", "patr"}[n%3], n)))
		}
	}
	_, token := r.pat(tokens.MintRequest{User: "u1", Name: "a"}, "x")
	user := r.idp.jwt(t, "u1")
	for _, good := range []string{r.admin, token, user} {
		r.rest("GET", "/v1/self", good, "") // they are in memory
	}
	store.reads.Store(0)
	guessAll(t, r)
	if got := store.reads.Load(); got != guessReads {
		t.Errorf("%d guesses read the store %d times", guessReads, got)
	}
	store.reads.Store(0)
	all()
	if got := store.reads.Load(); got != 0 {
		t.Errorf("%d more guesses read it %d times", n, got)
	}
	r.wait(50 * time.Millisecond)
	all()
	if got, want := store.reads.Load(), int64(guessReadsEachSecond/20); got != want {
		t.Errorf("50 ms later they read it %d times, want %d", got, want)
	}
	everyDoor(t, r, "after guesses", token, user)
	if got := r.oauth("/oauth2/revoke", formOf("token", token)); got.code != http.StatusOK {
		t.Errorf("revoking a token in memory: %d %s", got.code, got.body)
	}
	wantLimited(
		t,
		"a good credential that is not in memory",
		r.rest("GET", "/v1/users", r.service("late", "users"), ""),
		"1",
	)
}

// TestAnEndedCredentialIsNoGuess shows, past any limit, a credential whose secret is right and that is not good any
// more.
func TestAnEndedCredentialIsNoGuess(t *testing.T) {
	t.Parallel()
	r, store := guessRig(t)
	ctx := context.Background()
	revoked := r.service("revoked", "admin")
	_, err := r.svc.RevokeService(ctx, tokens.Operator(), "revoked", "")
	must(t, err)
	ttl := time.Second
	expired, err := r.svc.CreateService(
		ctx,
		tokens.Operator(),
		tokens.ServiceRequest{Name: "expired", Permissions: []string{"admin"}, TTL: &ttl},
	)
	must(t, err)
	id, gone := r.mint("u1", "gone")
	must(t, r.revoke("u1", id))
	id, rotated := r.mint("u1", "rotated")
	none := time.Duration(0)
	_, err = r.svc.Rotate(ctx, tokens.Operator(), tokens.RotateRequest{User: "u1", TokenID: id, Grace: &none})
	must(t, err)
	_, suspended := r.mint("u2", "suspended")
	_, err = r.svc.SuspendUser(ctx, tokens.Operator(), "u2", "")
	must(t, err)
	if got := r.rest(
		"GET",
		"/v1/users/me/tokens",
		r.idp.jwt(t, "u1"),
		"",
	); got.code != http.StatusOK { // the keys are known
		t.Fatalf("%d %s", got.code, got.body)
	}
	old := r.idp.jwt(t, "u1", claim{"exp", r.now().Add(-time.Hour).Unix()})
	r.wait(2 * time.Second)
	show := func() {
		for _, e := range []struct {
			doors []door
			ended []string
		}{{serviceDoors, []string{revoked, expired.Secret.Reveal()}}, {tokenDoors, []string{gone, rotated, suspended}}, {userDoors, []string{old}}} {
			for _, d := range e.doors {
				for _, c := range e.ended {
					if got := d.show(r, c); got != codes.Unauthenticated {
						t.Errorf("%s: %v, want Unauthenticated", d.name, got)
					}
				}
			}
		}
	}
	show()
	store.reads.Store(0)
	show()
	if got := store.reads.Load(); got != 0 {
		t.Errorf("what has ended reads the store each time: %d", got)
	}
	wantMetric(t, r, `patd_rate_limited_total{limit="authentication"} 0`)
	for range 3 {
		if got := r.rest("GET", "/v1/users", "garbage", ""); got.code != http.StatusUnauthorized {
			t.Errorf("a bad one: %d; what has ended was counted", got.code)
		}
	}
	forged := old[:len(old)-8] + "AAAAAAAA"
	if got := r.rest("GET", "/v1/users/me/tokens", forged, ""); got.code != http.StatusTooManyRequests {
		t.Errorf("an expired JWT that nobody signed: %d, want 429", got.code)
	}
	if logs := r.logs.String(); !strings.Contains(logs, "the secret is right") || !strings.Contains(logs, "genuine") {
		t.Error("the log does not tell what has ended from what is wrong")
	}
}

// TestAnEndedRefreshTokenDoesNotReadTheStoreWithoutEnd presents one that is not in memory, as none is.
func TestAnEndedRefreshTokenDoesNotReadTheStoreWithoutEnd(t *testing.T) {
	t.Parallel()
	r, store := guessRig(t)
	r.audience(tokens.AudienceEntry{ID: "api", AllowOffline: true})
	_, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a", Audiences: []string{"api"}}, "x")
	first := r.exchange(secret, "scope", "x offline_access")
	used := first.text("refresh_token")
	if got := r.refresh(used); got.code != http.StatusOK {
		t.Fatalf("%d %s", got.code, got.body)
	}
	limited := 0
	store.reads.Store(0)
	for range 300 {
		if got := r.refresh(used); got.code == http.StatusTooManyRequests {
			limited++
		} else {
			got.want(t, "a used one", 400, "invalid_grant")
		}
	}
	if got := store.reads.Load(); limited < 190 || got > 120 {
		t.Errorf("of 300 presentations %d were limited, and %d read the store", limited, got)
	}
	if got := r.exchange(secret); got.code != http.StatusOK {
		t.Errorf("another token is limited with it: %d %s", got.code, got.body)
	}
}
