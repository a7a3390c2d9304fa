package clienttest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"patd/client"
	"patd/client/clienttest"
	"patd/internal/longtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ExampleFake() {
	fake := clienttest.NewFake()
	fake.Allow("token of ada", client.Token{User: "ada", Scopes: []string{"reports.read"}})
	fake.Refuse("token of eve", client.UserSuspended)
	for _, token := range []string{"token of ada", "token of eve", "token of nobody"} {
		got, _ := fake.Verify(context.Background(), token, client.Call{Scopes: []string{"reports.read"}})
		fmt.Println(token, got.Decision)
	}
	fake.Fail(errors.New("patd is out"))
	_, err := fake.Verify(context.Background(), "token of ada", client.Call{})
	fmt.Println(err)
	// Output:
	// token of ada ALLOW
	// token of eve USER_SUSPENDED
	// token of nobody NOT_FOUND
	// patd is out
}

// A revoked token is refused within moments, though it was remembered.
func ExampleServer() {
	server := clienttest.Start()
	defer server.Close()
	conn := server.Dial()
	defer conn.Close()
	verifier, _ := client.New(conn, client.Config{})
	defer verifier.Close()

	secret, id := server.Mint(clienttest.Token{User: "ada", Scopes: []string{"reports.read"}})
	got, _ := verifier.Verify(context.Background(), secret, client.Call{})
	fmt.Println(got.Decision)
	server.Revoke(id)
	for got.Allowed() {
		got, _ = verifier.Verify(context.Background(), secret, client.Call{})
	}
	fmt.Println(got.Decision)
	// Output:
	// ALLOW
	// REVOKED
}

func TestFakeDecidesAboutScopes(t *testing.T) {
	fake := clienttest.NewFake()
	fake.Allow("t", client.Token{User: "u", Scopes: []string{"b", "a"}})
	for want, scopes := range map[client.Decision][]string{client.Allow: {"a", "b"}, client.InsufficientScope: {"a", "c"}} {
		if got, err := fake.Verify(t.Context(), "t", client.Call{Scopes: scopes}); err != nil || got.Decision != want {
			t.Errorf("%v: %s, %v", scopes, got.Decision, err)
		}
	}
	if got := len(fake.Calls()); got != 2 {
		t.Errorf("%d calls", got)
	}
}

// Over connections of its own a server stops with its test, whatever hangs.
func TestServerStopsWhileItHangs(t *testing.T) {
	longtest.Slow(t)
	s := clienttest.NewServer(t)
	v, err := client.New(s.Conn(t), client.Config{})
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := s.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}})
	s.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := v.Verify(ctx, secret, client.Call{}); err == nil {
		t.Error("an answer that is kept back arrives")
	}
	s.Hang()
	t.Cleanup(func() { v.Close() })
}
