package main

import (
	"context"
	"errors"
	"flag"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
)

var revocations = flag.Int("revocations", 100, "how many tokens TestRevokedTokenIsForgottenByClients revokes")

// clientBound is when a client has forgotten at the latest what is no longer so, whatever happened to the connection.
// The contract allows replicas 10 seconds; the library means 3, and a busy machine may take its time to wake it.
const clientBound = 10 * time.Second

// staging is a server, the way to it, and a service that verifies tokens over it.
type staging struct {
	data, admin, gateway string
	daemon               *daemon
	api                  api
	proxy                *proxy
	verifier             *client.Verifier
}

func stage(t *testing.T) *staging {
	t.Helper()
	s := &staging{}
	s.data, s.admin = administer(t)
	s.gateway = patd(t, "service", "create", "gateway", "--permission", "introspect", "--data-dir", s.data)
	s.daemon = serve(t, s.data)
	s.api = connect(t, s.daemon, s.admin)
	if _, err := s.api.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "u", Features: []string{"a", "b"}},
	); err != nil {
		t.Fatal(err)
	}
	s.proxy = proxied(t, s.daemon.GRPC)
	conn, err := client.Dial(s.proxy.addr(), client.ServiceToken(client.TokenFile(written(t, "token", s.gateway+"\n"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s.verifier, err = client.New(conn, client.Config{Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.verifier.Close() })
	s.awaitMemory(t)
	return s
}

func (s *staging) awaitMemory(t *testing.T) {
	t.Helper()
	waittest.Until(t, "the watch is heard", func() bool { return s.verifier.Stats().Watching })
}

// minted mints a token and has the verifier know it.
func (s *staging) minted(t *testing.T, name string) (secret, id string) {
	t.Helper()
	m, err := s.api.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "u", Name: name, Scopes: []string{"a"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "the token is remembered", func() bool {
		before := s.verifier.Stats().Hits
		got, err := s.verifier.Verify(t.Context(), m.GetSecret(), client.Call{Scopes: []string{"a"}})
		return err == nil && got.Allowed() && s.verifier.Stats().Hits > before
	})
	return m.GetSecret(), m.GetToken().GetTokenId()
}

func (s *staging) revoke(t *testing.T, id string) {
	t.Helper()
	if _, err := s.api.tokens.RevokeToken(t.Context(), &patdv1.RevokeTokenRequest{User: "u", TokenId: id}); err != nil {
		t.Fatal(err)
	}
}

// refused waits until a token is refused, and returns how long that took. Faults do not count; they let nothing pass.
func (s *staging) refused(t *testing.T, what, secret string, since time.Time) time.Duration {
	t.Helper()
	for {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		got, err := s.verifier.Verify(ctx, secret, client.Call{})
		cancel()
		switch {
		case err == nil && !got.Decision.Active():
			return time.Since(since)
		case err == nil && began.Sub(since) > clientBound:
			t.Fatalf("%s: it passes %s later", what, began.Sub(since))
		case time.Since(since) > patience+clientBound:
			t.Fatalf("%s: it is not refused: %v", what, err)
		}
	}
}

func TestRevokedTokenIsForgottenByClients(t *testing.T) {
	longtest.Only(t)
	s := stage(t)
	busy, _ := s.minted(t, "busy")
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for ctx.Err() == nil {
			if got, err := s.verifier.Verify(ctx, busy, client.Call{}); err == nil && !got.Allowed() {
				t.Errorf("another token: %s", got.Decision)
				return
			}
		}
	})
	defer load.Wait()
	defer cancel()
	var took []time.Duration
	for range *revocations {
		secret, id := s.minted(t, "short-lived")
		s.revoke(t, id)
		took = append(took, s.refused(t, "a revoked token", secret, time.Now()))
	}
	slices.Sort(took)
	t.Logf("%d revocations, from the answer to the first refusal: median %s, p99 %s, longest %s",
		len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}

func TestClientHearsOfUsers(t *testing.T) {
	s := stage(t)
	secret, _ := s.minted(t, "t")
	if _, err := s.api.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "u", Features: []string{"b"}},
	); err != nil {
		t.Fatal(err)
	}
	waittest.Within(t, clientBound, "a feature that was taken away is missing", func() bool {
		got, err := s.verifier.Verify(t.Context(), secret, client.Call{Scopes: []string{"a"}})
		return err == nil && got.Decision == client.InsufficientScope
	})
	if _, err := s.api.users.SuspendUser(t.Context(), &patdv1.SuspendUserRequest{User: "u"}); err != nil {
		t.Fatal(err)
	}
	waittest.Within(t, clientBound, "a token of a suspended user is refused", func() bool {
		got, err := s.verifier.Verify(t.Context(), secret, client.Call{})
		return err == nil && got.Decision == client.UserSuspended
	})
}

// The connection stays up and says nothing more.
func TestClientOfAHungConnectionFailsClosed(t *testing.T) {
	longtest.Only(t)
	s := stage(t)
	secret, id := s.minted(t, "t")
	s.proxy.hang()
	began := time.Now()
	s.revoke(t, id) // over another connection
	var last time.Duration
	for time.Since(began) < clientBound+2*time.Second {
		at := time.Since(began)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		got, err := s.verifier.Verify(ctx, secret, client.Call{})
		cancel()
		switch {
		case err != nil && got.Decision != 0:
			t.Fatalf("a fault comes with %s", got.Decision)
		case err == nil && got.Allowed():
			last = at
		}
	}
	t.Logf("the revoked token passed for the last time %s after the connection began to hang", last)
	if last > clientBound {
		t.Error("that is over the bound")
	}
	s.proxy.release()
	s.refused(t, "once the connection goes on", secret, began)
}

func TestClientOfAKilledServerFailsClosed(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	s := stage(t)
	secret, id := s.minted(t, "t")
	kept, _ := s.minted(t, "kept")
	s.daemon.Kill()
	began := time.Now()
	waittest.Within(t, clientBound, "memory is closed", func() bool {
		_, err := s.verifier.Verify(t.Context(), secret, client.Call{})
		return err != nil
	})
	t.Logf("memory is closed %s after the server was killed", time.Since(began))
	// It comes back, and the token is revoked before the client may hear of that.
	s.proxy.lead("127.0.0.1:1")
	s.daemon = serve(t, s.data)
	s.api = connect(t, s.daemon, s.admin)
	s.revoke(t, id)
	s.proxy.lead(s.daemon.GRPC)
	s.awaitMemory(t)
	if got, err := s.verifier.Verify(t.Context(), secret, client.Call{}); err == nil && got.Allowed() {
		t.Error("a token that was revoked while the client could not hear passes")
	}
	if got, err := s.verifier.Verify(t.Context(), kept, client.Call{}); err != nil || !got.Allowed() {
		t.Errorf("another one: %s, %v", got.Decision, err)
	}
}

// The server is replaced by one whose store was restored from before the token was minted.
func TestClientOfAnotherHistoryStartsOver(t *testing.T) {
	t.Parallel()
	s := stage(t)
	copied := filepath.Join(t.TempDir(), "copy.db")
	patd(t, "backup", copied, "--data-dir", s.data)
	secret, _ := s.minted(t, "t")
	if err := s.daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	patd(t, "restore", copied, "--data-dir", s.data)
	restored := serve(t, s.data)
	since := time.Now()
	s.proxy.lead(restored.GRPC)
	t.Logf(
		"it is refused %s after the server was replaced",
		s.refused(t, "a token of the other history", secret, since),
	)
}

func TestUsesOutOfMemoryAreCounted(t *testing.T) {
	t.Parallel()
	s := stage(t)
	secret, id := s.minted(t, "t")
	asked, used := time.Now(), time.Time{}
	waittest.Until(t, "a while later it passes out of memory", func() bool {
		before := s.verifier.Stats().Hits
		used = time.Now()
		got, err := s.verifier.Verify(t.Context(), secret, client.Call{})
		return err == nil && got.Allowed() && s.verifier.Stats().Hits > before && used.Sub(asked) > time.Second
	})
	if err := s.verifier.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.verifier.Verify(t.Context(), secret, client.Call{}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if err := s.daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	s.api = connect(t, serve(t, s.data), s.admin)
	got, err := s.api.tokens.GetToken(t.Context(), &patdv1.GetTokenRequest{User: "u", TokenId: id})
	if err != nil {
		t.Fatal(err)
	}
	if at := got.GetToken().
		GetLastUsedTime().
		AsTime(); at.Before(
		used.Add(-200 * time.Millisecond),
	) { // told apart by tenths of a second
		t.Errorf("last used at %s, want %s", at, used.UTC())
	}
}
