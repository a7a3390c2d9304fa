package replicatest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
)

// acknowledged is less than it takes until a watch is safe that does not acknowledge, or a server that does not answer.
const acknowledged = 3 * time.Second

// site is some servers of one store, and a client library that watches each.
type site struct {
	t         *testing.T
	apis      []*api
	verifiers []*client.Verifier
	minted    int
}

func newSite(t *testing.T, apis ...*api) *site {
	t.Helper()
	s := &site{t: t, apis: apis}
	must(t, s.apis[0].hold(t.Context(), "waits", "a"))
	for _, a := range apis {
		v, err := client.New(a.conn, client.Config{})
		must(t, err)
		t.Cleanup(func() { _ = v.Close() }) // its server may have been killed, and takes no report of uses
		s.verifiers = append(s.verifiers, v)
	}
	return s
}

// mint makes a token that every server and every client library has in memory.
func (s *site) mint() token {
	s.t.Helper()
	s.minted++
	tok, _, err := s.apis[0].mint(s.t.Context(), "waits", fmt.Sprint("receipt", s.minted), "")
	must(s.t, err)
	for range 3 { // the first use is never kept
		for n, a := range s.apis {
			if got, err := a.decide(s.t.Context(), tok.secret); err != nil || got != allow {
				s.t.Fatalf("a new token is %s at server %d, %v", got, n, err)
			}
			must(s.t, untilInMemory(s.t.Context(), s.verifiers[n], tok.secret, true))
		}
	}
	return tok
}

// revoke revokes a token and waits for the receipt.
func (s *site) revoke(tok token, wait time.Duration) (*patdv1.Receipt, time.Duration) {
	s.t.Helper()
	began := time.Now()
	got, err := s.apis[0].tokens.RevokeToken(s.t.Context(), &patdv1.RevokeTokenRequest{
		User: tok.user, TokenId: tok.id, Wait: durationpb.New(wait),
	})
	must(s.t, err)
	return got.GetReceipt(), time.Since(began)
}

// refused fails the test if a server or a client library lets a token pass. Those that do not answer refuse too.
func (s *site) refused(tok token, when string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
	defer cancel()
	for n, a := range s.apis {
		if got, err := a.introspect.Introspect(ctx, &patdv1.IntrospectRequest{Token: tok.secret}); err == nil &&
			got.GetDecision() != revoked {
			s.t.Errorf("%s: server %d says %s", when, n, got.GetDecision())
		}
		if got, err := s.verifiers[n].Verify(ctx, tok.secret, client.Call{}); err == nil && got.Allowed() {
			s.t.Errorf("%s: the client library of server %d lets it pass", when, n)
		}
	}
}

// quick revokes tokens until a receipt has come as quickly as all acknowledge: at first it waits for what was before.
func (s *site) quick(when string) {
	s.t.Helper()
	waittest.Within(s.t, patience, when, func() bool {
		tok := s.mint()
		got, took := s.revoke(tok, 9*time.Second)
		if got.GetRefusedEverywhere() {
			s.refused(tok, when)
		}
		return got.GetRefusedEverywhere() && took < acknowledged
	})
}

func (d *daemon) silentName() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("server:%s/%d", host, d.Cmd.Process.Pid)
}

// TestReceiptsOfThreeServers has three servers on PostgreSQL, each with a client library that acknowledges. One stands
// still and one is killed: the receipt names them, and says that all refuse once they do, though one of them wakes.
func TestReceiptsOfThreeServers(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	c := newCluster(t, dbtest.Postgres(t), "patd", 3)
	s := newSite(t, c.replicas[0].now(), c.replicas[1].now(), c.replicas[2].now())
	s.quick("all are there")
	s.revokeByCommand(c)
	if !longtest.Enabled() {
		return
	}
	tok := s.mint()
	still, killed := c.replicas[1].daemon(), c.replicas[2].daemon()
	still.freeze(t)
	killed.Kill()
	want := []string{still.silentName(), killed.silentName()}
	slices.Sort(want)
	if got, _ := s.revoke(tok, time.Second); got.GetRefusedEverywhere() || !slices.Equal(got.GetSilent(), want) {
		t.Errorf("while one stands still and one was killed: %v, want %q", got, want)
	}
	got, took := s.revoke(tok, 9500*time.Millisecond)
	if !got.GetRefusedEverywhere() || took < acknowledged {
		t.Errorf("after the bound: %v in %v", got, took)
	}
	still.thaw(t)
	for range 20 {
		s.refused(tok, "after the receipt")
	}
	s.apis, s.verifiers = s.apis[:2], s.verifiers[:2]
	s.quick("one was killed, and one has joined again")
}

// revokeByCommand has the command line wait.
func (s *site) revokeByCommand(c *cluster) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "admin.token")
	must(s.t, os.WriteFile(file, []byte(c.admin), 0o600))
	tok := s.mint()
	said, err := run(c.path, []string{"PATD_ADDR=" + c.replicas[0].daemon().GRPC, "PATD_TOKEN_FILE=" + file},
		"token", "revoke", "--user", tok.user, tok.id, "--wait", "9s")
	must(s.t, err)
	if !strings.Contains(said, "since ") || strings.Contains(said, "silent") {
		s.t.Errorf("the command says\n%s", said)
	}
	s.refused(tok, "after the command")
}

// onAFile starts servers on one file.
func onAFile(t *testing.T, n int) (apis []*api, servers []*daemon) {
	t.Helper()
	path, err := program()
	must(t, err)
	env := []string{"PATD_DATA_DIR=" + t.TempDir(), "PATD_DRAIN_DELAY=0s"}
	admin, err := run(path, env, "service", "create", "test", "--permission", "admin")
	must(t, err)
	for range n {
		d, err := start(path, env, "--log-level", "warn")
		must(t, err)
		t.Cleanup(d.Kill)
		a, err := connect(d, admin)
		must(t, err)
		t.Cleanup(func() { _ = a.conn.Close() })
		servers, apis = append(servers, d), append(apis, a)
	}
	return apis, servers
}

// TestReceiptsOfTwoServersOnAFile has two servers on one file, of which one is stopped in order.
func TestReceiptsOfTwoServersOnAFile(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	apis, servers := onAFile(t, 2)
	s := newSite(t, apis...)
	s.quick("both are there")
	must(t, servers[1].Stop())
	s.apis, s.verifiers = s.apis[:1], s.verifiers[:1]
	s.quick("one has left")
}

// TestHowLongAReceiptTakes measures it, and holds that nobody is waited for who is there.
func TestHowLongAReceiptTakes(t *testing.T) {
	longtest.Alone(t)
	const revocations = 200
	measure := func(what string, apis []*api) {
		for _, watchers := range []int{0, 3} {
			s := &site{t: t, apis: apis}
			must(t, apis[0].hold(t.Context(), "waits", "a"))
			for n := range watchers {
				v, err := client.New(apis[n%len(apis)].conn, client.Config{})
				must(t, err)
				defer func() { must(t, v.Close()) }()
				tok, _, err := apis[0].mint(t.Context(), "waits", fmt.Sprint(what, watchers, n), "")
				must(t, err)
				must(t, untilInMemory(t.Context(), v, tok.secret, true))
			}
			var all []time.Duration
			for n := -20; n < revocations; n++ {
				tok, _, err := apis[0].mint(t.Context(), "waits", fmt.Sprint(what, watchers, "revoked", n), "")
				must(t, err)
				got, took := s.revoke(tok, 9*time.Second)
				if n >= 0 {
					all = append(all, took)
				}
				if n >= 0 && !got.GetRefusedEverywhere() {
					t.Errorf("%s, %d watchers: %v after %v", what, watchers, got, took)
				}
			}
			slices.Sort(all)
			t.Logf("%s, %d watchers that acknowledge: median %v, 99th of 100 %v, longest %v",
				what, watchers, all[len(all)/2], all[len(all)*99/100], all[len(all)-1])
		}
	}
	for _, n := range []int{1, 2} {
		apis, servers := onAFile(t, n)
		measure(fmt.Sprintf("%d on SQLite", n), apis)
		for _, d := range servers {
			must(t, d.Stop())
		}
	}
	for _, n := range []int{1, 3} {
		c := newCluster(t, dbtest.Postgres(t), fmt.Sprint("patd", n), n)
		var apis []*api
		for _, r := range c.replicas {
			apis = append(apis, r.now())
		}
		measure(fmt.Sprintf("%d on PostgreSQL", n), apis)
		for _, r := range c.replicas {
			r.stop()
		}
	}
}
