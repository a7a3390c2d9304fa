package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli/remote"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/tokens"
	"patd/tokens/secret"
)

// api is a connection to a daemon as an admin.
type api struct {
	conn       *grpc.ClientConn
	tokens     patdv1.TokenServiceClient
	users      patdv1.UserServiceClient
	introspect patdv1.IntrospectionServiceClient
}

func connect(t *testing.T, d *daemon, s string) api {
	t.Helper()
	conn, err := grpc.NewClient(
		"passthrough:///"+d.GRPC,
		grpc.WithTransportCredentials(
			insecure.NewCredentials(),
		),
		grpc.WithPerRPCCredentials(remote.Bearer{Secret: secret.NewSecret(s)}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return api{
		conn,
		patdv1.NewTokenServiceClient(conn),
		patdv1.NewUserServiceClient(conn),
		patdv1.NewIntrospectionServiceClient(conn),
	}
}

// entry is what is known of one token: what was answered, and at most one change that was asked for and not answered.
type entry struct {
	user, name, id string
	current        string   // newest answered secret, if it is not known to be rotated away
	old            []string // rotated away, answered
	revoked        bool     // answered
	pending        string   // "", mint, rotate or revoke
	checked        bool     // what was pending is known by now
}

// ledger is what a crash must not change.
type ledger struct {
	mu      sync.Mutex
	entries []*entry
	changes int // answered
}

func (l *ledger) add(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
}

func (l *ledger) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes++
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changes
}

// work mints, rotates and revokes until a call goes unanswered. Only the end of the server may end it.
func (l *ledger) work(ctx context.Context, a api, user string) error {
	for n := 0; ; n++ {
		e := &entry{user: user, name: fmt.Sprintf("%d", n), pending: "mint"}
		l.add(e)
		m, err := a.tokens.CreateToken(ctx, &patdv1.CreateTokenRequest{User: user, Name: e.name, Scopes: []string{"a"}})
		if err != nil {
			return lost(err)
		}
		e.id, e.current, e.pending = m.GetToken().GetTokenId(), m.GetSecret(), ""
		l.answered()
		for range rand.IntN(3) {
			e.pending = "rotate"
			r, err := a.tokens.RotateToken(
				ctx,
				&patdv1.RotateTokenRequest{User: user, TokenId: e.id, Grace: durationpb.New(0)},
			)
			if err != nil {
				return lost(err)
			}
			e.old, e.current, e.pending = append(e.old, e.current), r.GetSecret(), ""
			l.answered()
		}
		if n%3 != 0 { // a third stays, far under the limit of tokens
			e.pending = "revoke"
			if _, err := a.tokens.RevokeToken(ctx, &patdv1.RevokeTokenRequest{User: user, TokenId: e.id}); err != nil {
				return lost(err)
			}
			e.revoked, e.pending = true, ""
			l.answered()
		}
	}
}

// lost reports whether a call failed because the server was killed; any other failure is one.
func lost(err error) error {
	if c := status.Code(err); c == codes.Unavailable || c == codes.Canceled {
		for _, d := range status.Convert(err).Details() {
			return fmt.Errorf("the server answered with a failure: %w, %v", err, d)
		}
		return nil
	}
	return err
}

// verify compares what the server says now with the ledger.
func (l *ledger) verify(ctx context.Context, t *testing.T, a api, entries []*entry) {
	t.Helper()
	type question struct {
		e      *entry
		secret string
	}
	var asked []question
	for _, e := range entries {
		if e.id == "" {
			l.verifyMint(ctx, t, a, e)
			continue
		}
		if e.current != "" {
			asked = append(asked, question{e, e.current})
		}
		for _, s := range e.old {
			asked = append(asked, question{e, s})
		}
	}
	for len(asked) > 0 {
		part := asked[:min(len(asked), 1000)]
		asked = asked[len(part):]
		r := &patdv1.BatchIntrospectRequest{}
		for _, q := range part {
			r.Requests = append(r.Requests, &patdv1.IntrospectRequest{Token: q.secret})
		}
		answer, err := a.introspect.BatchIntrospect(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		for i, q := range part {
			q.e.verify(t, q.secret, answer.GetResponses()[i].GetDecision())
		}
	}
	verifyHistories(ctx, t, a, entries)
}

// verify compares one decision with what was answered before.
func (e *entry) verify(t *testing.T, secret string, got patdv1.IntrospectResponse_Decision) {
	t.Helper()
	want := patdv1.IntrospectResponse_ALLOW
	switch {
	case e.revoked:
		want = patdv1.IntrospectResponse_REVOKED
	case secret != e.current:
		want = patdv1.IntrospectResponse_SUPERSEDED
	}
	if got == want {
		return
	}
	// A change that was not answered may have happened, but then wholly; and what has once been seen stays.
	switch {
	case e.pending == "revoke" && got == patdv1.IntrospectResponse_REVOKED:
		e.revoked = true
	case e.pending == "rotate" && secret == e.current && got == patdv1.IntrospectResponse_SUPERSEDED:
		e.old, e.current = append(e.old, e.current), ""
	default:
		t.Errorf("token %s of %s, secret %d of %d, revoked %t, pending %q: %s, want %s",
			e.id, e.user, 1+len(e.old), 1+len(e.old), e.revoked, e.pending, got, want)
	}
}

// verifyHistories checks that the audit log tells of exactly those changes that stand: what happened wholly happened
// with its event.
func verifyHistories(ctx context.Context, t *testing.T, a api, entries []*entry) {
	t.Helper()
	log := patdv1.NewAuditServiceClient(a.conn)
	told := map[string]map[string]int{} // by user; then by token and action
	for _, e := range entries {
		if e.id == "" {
			continue
		}
		if told[e.user] == nil {
			told[e.user] = map[string]int{}
			r := &patdv1.ListEventsRequest{User: e.user, PageSize: 200}
			for {
				page, err := log.ListEvents(ctx, r)
				if err != nil {
					t.Fatal(err)
				}
				for _, event := range page.GetEvents() {
					told[e.user][event.GetTokenId()+" "+event.GetAction()]++
				}
				if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
					break
				}
			}
		}
		want := map[tokens.Action]int{tokens.ActionTokenCreate: 1, tokens.ActionTokenRotate: len(e.old)}
		if e.revoked {
			want[tokens.ActionTokenRevoke] = 1
		}
		for _, action := range []tokens.Action{tokens.ActionTokenCreate, tokens.ActionTokenRotate, tokens.ActionTokenRevoke} {
			if got := told[e.user][e.id+" "+string(action)]; got != want[action] {
				t.Errorf(
					"token %s of %s, pending %q: %d events of %s, want %d",
					e.id,
					e.user,
					e.pending,
					got,
					action,
					want[action],
				)
			}
		}
		e.pending = "" // is known by now
	}
}

// verifyMint checks a token whose mint, or rotation, was not answered: it is there in full, or not at all.
func (l *ledger) verifyMint(ctx context.Context, t *testing.T, a api, e *entry) {
	t.Helper()
	if e.pending != "mint" || e.checked {
		return
	}
	found, err := a.tokens.ListTokens(ctx, &patdv1.ListTokensRequest{User: e.user, PageSize: 200, Q: e.name})
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, token := range found.GetTokens() {
		if token.GetName() != e.name {
			continue
		}
		count++
		events, err := patdv1.NewAuditServiceClient(a.conn).
			ListEvents(ctx, &patdv1.ListEventsRequest{TokenId: token.GetTokenId()})
		if err != nil {
			t.Fatal(err)
		}
		if len(token.GetScopes()) != 1 || len(events.GetEvents()) != 1 {
			t.Errorf("half a token: %v with the events %v", token, events)
		}
	}
	if count > 1 {
		t.Errorf("user %s has %d tokens called %q", e.user, count, e.name)
	}
	e.checked = true
}

// TestCrashLosesNothing kills the server with SIGKILL, at random moments while several clients change things, and looks
// after each restart whether every answered change stands and every other happened wholly or not at all.
func TestCrashLosesNothing(t *testing.T) {
	t.Parallel()
	kills := 8
	switch {
	case longtest.Enabled():
		kills = 100
	case testing.Short():
		kills = 2
	}
	crash(t, kills, 4, 0)
}

// TestCrashLosesNoneOfManyThatShareATransaction does so while a thousand clients wait for the same few transactions.
func TestCrashLosesNoneOfManyThatShareATransaction(t *testing.T) {
	t.Parallel()
	longtest.Only(t)
	crash(t, 3, 1000, 1000)
}

// crash kills a server again and again, each time at a random moment after at least so many changes were answered.
func crash(t *testing.T, kills, clients, atLeast int) {
	data := filepath.Join(t.TempDir(), "data")
	admin := patd(t, "service", "create", "crash", "--permission", "admin", "--data-dir", data)
	var all ledger
	d := serve(t, data)
	for kill := range kills {
		a := connect(t, d, admin)
		users := a.withFeatures(t, fmt.Sprintf("user-%d", kill), clients)
		first, before := len(all.entries), all.changes
		var ends sync.WaitGroup
		for _, user := range users {
			ends.Go(func() {
				if err := all.work(t.Context(), a, user); err != nil {
					t.Errorf("kill %d: %v", kill, err)
				}
			})
		}
		waittest.Until(t, "changes are answered", func() bool { return all.count()-before >= atLeast })
		//nolint:forbidigo // a random moment is what is asked for
		time.Sleep(
			time.Duration(rand.IntN(int(150 * time.Millisecond))),
		)
		d.Kill()
		ends.Wait()
		a.conn.Close()

		d = serve(t, data)
		a = connect(t, d, admin)
		all.verify(t.Context(), t, a, all.entries[first:])
		a.conn.Close()
		if t.Failed() {
			t.FailNow()
		}
	}
	a := connect(t, d, admin)
	all.verify(t.Context(), t, a, all.entries)
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if got := patd(t, "check", "--data-dir", data); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check: %s", got)
	}
	t.Logf("%d kills, %d tokens, %d answered changes", kills, len(all.entries), all.changes)
	if all.changes < kills*max(atLeast, 1) {
		t.Errorf("only %d changes were answered: the test proves nothing", all.changes)
	}
}

// withFeatures makes n users who may have tokens.
func (a api) withFeatures(t *testing.T, prefix string, n int) []string {
	t.Helper()
	users := make([]string, n)
	var set sync.WaitGroup
	for i := range users {
		users[i] = fmt.Sprintf("%s-%d", prefix, i)
		set.Go(func() {
			if _, err := a.users.SetUserFeatures(
				t.Context(),
				&patdv1.SetUserFeaturesRequest{User: users[i], Features: []string{"a"}},
			); err != nil {
				t.Error(err)
			}
		})
	}
	set.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return users
}
