package clienttest_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"patd/client"
	"patd/client/clienttest"
)

// bubbled runs a test of a Server and a Verifier of it on the clock of a bubble.
func bubbled(t *testing.T, test func(*testing.T, *clienttest.Server, *client.Verifier), options ...clienttest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := clienttest.NewServer(t, options...)
		v, err := client.New(s.Conn(t), client.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		synctest.Wait()
		test(t, s, v)
	})
}

func want(t *testing.T, v *client.Verifier, what string, want client.Decision, secret string, call client.Call) {
	t.Helper()
	synctest.Wait() // what changed is told
	got, err := v.Verify(t.Context(), secret, call)
	if err != nil || got.Decision != want {
		t.Errorf("%s: %s, %v, want %s", what, got.Decision, err, want)
	}
}

// Each decision of patd can be brought about, in the order in which patd decides: each cause that is added is told
// before those that were there.
func TestTheServerTellsEachDecisionOfPatdInItsOrder(t *testing.T) {
	bubbled(t, func(t *testing.T, s *clienttest.Server, v *client.Verifier) {
		secret, id := s.Mint(clienttest.Token{
			User: "u", Scopes: []string{"b", "a"}, Audiences: []string{"api"}, ExpireTime: time.Now().Add(time.Hour),
			Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		})
		good := client.Call{Audience: "api", Scopes: []string{"a"}, ClientIP: netip.MustParseAddr("192.0.2.1")}
		want(t, v, "what is in order", client.Allow, secret, good)
		bad := good
		bad.Scopes = []string{"a", "c"}
		want(t, v, "a scope too many", client.InsufficientScope, secret, bad)
		bad.ClientIP = netip.MustParseAddr("198.51.100.1")
		want(t, v, "another network", client.IPNotAllowed, secret, bad)
		bad.ClientIP = netip.Addr{}
		want(t, v, "no address", client.IPNotAllowed, secret, bad)
		bad.Audience = "other"
		want(t, v, "another audience", client.AudienceMismatch, secret, bad)
		s.Pause(id)
		want(t, v, "paused", client.TokenIdle, secret, bad)
		s.Block(id, "api")
		want(t, v, "blocked", client.PolicyBlocked, secret, bad)
		s.Suspend("u")
		want(t, v, "a suspended user", client.UserSuspended, secret, bad)
		next := s.Rotate(id, time.Minute)
		want(t, v, "a secret in its grace", client.UserSuspended, secret, bad)
		s.Unblock(id)
		s.Resume("u")
		want(t, v, "a secret in its grace, and all is well", client.Allow, secret, good)
		want(t, v, "the next secret", client.Allow, next, good)
		<-time.After(time.Minute)
		want(t, v, "a secret whose grace is over", client.Superseded, secret, good)
		want(t, v, "the next secret, later", client.Allow, next, good)
		<-time.After(time.Hour)
		want(t, v, "an expired token", client.Expired, secret, bad)
		want(t, v, "the next secret of it", client.Expired, next, good)
		s.Revoke(id)
		<-time.After(3 * time.Second) // final refusals are remembered as long as that
		want(t, v, "a revoked one", client.Revoked, secret, bad)
		want(t, v, "nobody's", client.NotFound, "pat_x", bad)
	})
}

func TestTheServerKnowsAudiencesThatMustBeNamed(t *testing.T) {
	for _, c := range []struct {
		name, audience string
		options        []clienttest.Option
	}{{"asking", "api", nil}, {"bound", "", []clienttest.Option{clienttest.BoundTo("api")}}} {
		t.Run(c.name, func(t *testing.T) {
			bubbled(t, func(t *testing.T, s *clienttest.Server, v *client.Verifier) {
				free, _ := s.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}})
				named, id := s.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}, Audiences: []string{"api"}})
				other, _ := s.Mint(clienttest.Token{User: "v", Scopes: []string{"a"}, Audiences: []string{"other"}})
				call := client.Call{Audience: c.audience}
				for _, must := range []bool{false, true, false} {
					s.RequireNamed("api", must)
					unnamed := client.Allow
					if must {
						unnamed = client.AudienceMismatch
					}
					for range 2 {
						want(t, v, "a token that names none", unnamed, free, call)
						want(t, v, "one that names it", client.Allow, named, call)
						want(t, v, "one that names another", client.AudienceMismatch, other, call)
					}
				}
				s.Revoke(id)
				want(t, v, "a revoked one", client.Revoked, named, call)
				s.Suspend("u")
				want(t, v, "a suspended user's", client.UserSuspended, free, call)
			}, c.options...)
		})
	}
}
