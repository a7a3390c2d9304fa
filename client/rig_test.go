package client_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"patd/client"
	"patd/client/clienttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a Verifier over a server, on the clock of a synctest bubble.
type rig struct {
	*testing.T
	server   *clienttest.Server
	verifier *client.Verifier
	began    time.Time
}

// bubble runs a test in a bubble, with a Verifier whose watch is heard.
func bubble(t *testing.T, config client.Config, test func(*rig), options ...clienttest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := clienttest.Start(options...)
		conn := s.Dial()
		v, err := client.New(conn, config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			v.Close()
			conn.Close()
			s.Close()
		}()
		synctest.Wait()
		test(&rig{T: t, server: s, verifier: v, began: time.Now()})
	})
}

// decide is Verify that must not fail.
func (r *rig) decide(token string, scopes ...string) client.Decision {
	r.Helper()
	got, err := r.verifier.Verify(r.Context(), token, client.Call{Scopes: scopes})
	if err != nil {
		r.Fatalf("verify: %v", err)
	}
	if got.Decision.Active() != (got.Token != nil) {
		r.Fatalf("%s comes with token %v", got.Decision, got.Token)
	}
	return got.Decision
}

// want checks a decision.
func (r *rig) want(what string, want client.Decision, token string, scopes ...string) {
	r.Helper()
	if got := r.decide(token, scopes...); got != want {
		r.Fatalf("%s: %s, want %s", what, got, want)
	}
}

// wantAsked checks how many questions something asks the server.
func (r *rig) wantAsked(what string, want int, do func()) {
	r.Helper()
	before := r.asked()
	do()
	if got := r.asked() - before; got != want {
		r.Errorf("%s asks the server %d times, want %d", what, got, want)
	}
}

func (r *rig) asked() int {
	c := r.server.Calls()
	return c.Unary + c.Streamed
}

// mint mints a token that may read, for user u.
func (r *rig) mint() (secret, id string) {
	return r.server.Mint(clienttest.Token{User: "u", Name: "n", Scopes: []string{"read", "write"}})
}

// all runs something n times at once and waits.
func all(n int, do func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

// pass lets the clock of the bubble run for a while.
func pass(d time.Duration) { <-time.After(d) }
