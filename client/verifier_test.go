package client_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/client"
	"patd/client/clienttest"
)

func TestRememberedWhileWatched(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.mint()
		synctest.Wait()
		r.wantAsked("the first check", 1, func() { r.want("a new token", client.Allow, secret, "read") })
		r.wantAsked("a second check", 0, func() { r.want("again", client.Allow, secret, "write") })
		r.wantAsked("another scope", 0, func() { r.want("more", client.InsufficientScope, secret, "admin", "read") })
		r.server.Revoke(id)
		synctest.Wait()
		r.want("once revoked", client.Revoked, secret, "read")
		if s := r.verifier.Stats(); s.Hits != 2 || s.Asked != 2 || !s.Watching {
			r.Errorf("stats: %+v", s)
		}
	})
}

func TestAnswerIsTold(t *testing.T) {
	bubble(t, client.Config{Audience: "reports"}, func(r *rig) {
		secret, id := r.server.Mint(clienttest.Token{
			User:       "u",
			Name:       "n",
			Scopes:     []string{"write", "read"},
			Audiences:  []string{"reports"},
			Labels:     map[string]string{"k": "v"},
			ExpireTime: time.Now().Add(time.Hour),
		})
		r.server.SetFeatures("u", "read")
		synctest.Wait()
		for range 2 { // asked, and remembered
			got, err := r.verifier.Verify(
				r.Context(),
				secret,
				client.Call{Scopes: []string{"write", "read", "audit", "audit"}},
			)
			if err != nil {
				r.Fatal(err)
			}
			want := client.Result{
				Decision: client.InsufficientScope, Missing: []string{"audit", "write"},
				Token: &client.Token{
					ID:        id,
					User:      "u",
					Name:      "n",
					Scopes:    []string{"read"},
					Granted:   []string{"read", "write"},
					Suspended: []string{"write"},
					Audiences: []string{
						"reports",
					},
					Labels:     map[string]string{"k": "v"},
					IssueTime:  time.Now(),
					ExpireTime: time.Now().Add(time.Hour),
				},
			}
			want.Token.IssueTime, want.Token.ExpireTime = want.Token.IssueTime.UTC(), want.Token.ExpireTime.UTC()
			if diff := cmp.Diff(want, got); diff != "" {
				r.Error(diff)
			}
		}
	})
}

func TestEachDecision(t *testing.T) {
	bubble(t, client.Config{Audience: "reports"}, func(r *rig) {
		revoked, id := r.mint()
		r.server.Revoke(id)
		old, _ := r.server.Mint(clienttest.Token{User: "u", Scopes: []string{"read"}, ExpireTime: time.Now()})
		other, _ := r.server.Mint(clienttest.Token{User: "u", Scopes: []string{"read"}, Audiences: []string{"bills"}})
		bound, _ := r.server.Mint(
			clienttest.Token{
				User:     "u",
				Scopes:   []string{"read"},
				Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			},
		)
		suspended, _ := r.server.Mint(clienttest.Token{User: "s", Scopes: []string{"read"}})
		r.server.Suspend("s")
		synctest.Wait()
		for range 2 {
			r.want("revoked", client.Revoked, revoked)
			r.want("expired", client.Expired, old)
			r.want("for another audience", client.AudienceMismatch, other)
			r.want("bound to networks", client.IPNotAllowed, bound)
			r.want("of a suspended user", client.UserSuspended, suspended)
		}
		r.server.Resume("s")
		r.want("of a user who is back, at once", client.Allow, suspended)
	})
}

func TestAddressesAndAudiencesAreToldApart(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.server.Mint(
			clienttest.Token{
				User:      "u",
				Scopes:    []string{"a"},
				Audiences: []string{"x"},
				Networks:  []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			},
		)
		synctest.Wait()
		for range 3 {
			for _, c := range []struct {
				ip, audience string
				want         client.Decision
			}{
				{"192.0.2.1", "x", client.Allow},
				{"192.0.2.1", "", client.Allow},
				{"::ffff:192.0.2.1", "x", client.Allow},
				{"192.0.2.1", "y", client.AudienceMismatch},
				{"198.51.100.1", "x", client.IPNotAllowed},
				{"", "x", client.IPNotAllowed},
			} {
				ip, _ := netip.ParseAddr(c.ip)
				got, err := r.verifier.Verify(r.Context(), secret, client.Call{Audience: c.audience, ClientIP: ip})
				if err != nil || got.Decision != c.want {
					r.Errorf("from %q for %q: %s, %v; want %s", c.ip, c.audience, got.Decision, err, c.want)
				}
			}
		}
	})
}

func TestGarbageIsNotAsked(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.mint()
		service, _ := r.server.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}, Prefix: "pats"})
		refresh, _ := r.server.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}, Prefix: "patr"})
		bad := []string{
			"",
			"_",
			"pat",
			"pat_",
			secret + " ",
			" " + secret,
			secret + "\x00",
			strings.ToUpper(secret),
			secret[:len(secret)-1] + "?",
			service,
			refresh,
			strings.Repeat("a", 300),
			secret + secret,
			"Bearer " + secret,
			"\xff" + secret,
			strings.Replace(secret, "pat_", "pat1_", 1),
		}
		flip := []byte(secret)
		flip[20]++
		r.wantAsked("garbage", 0, func() {
			for _, text := range append(bad, string(flip)) {
				r.want("garbage", client.NotFound, text)
			}
		})
		r.want("the token itself", client.Allow, secret)
	})
}

func TestUnknownPrefixIsAsked(t *testing.T) {
	mint := func(r *rig) string {
		secret, _ := r.server.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}, Prefix: "acme"})
		return secret
	}
	bubble(t, client.Config{}, func(r *rig) { r.want("a prefix nobody told of", client.Allow, mint(r)) })
	bubble(t, client.Config{Prefixes: []string{"pat"}}, func(r *rig) {
		r.wantAsked("a prefix that is not among those told", 0, func() { r.want("it", client.NotFound, mint(r)) })
	})
}

// An access token hangs on the personal access token that it came from.
func TestAccessTokenEndsWithItsOrigin(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.server.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}, Prefix: "pata"})
		synctest.Wait()
		r.want("an access token", client.Allow, secret)
		r.wantAsked("a second check", 0, func() { r.want("it", client.Allow, secret) })
		r.server.Revoke(id)
		synctest.Wait()
		r.want("its origin revoked", client.Revoked, secret)
	})
}

func TestChangesOfTheUserCount(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		first, _ := r.mint()
		second, _ := r.mint()
		synctest.Wait()
		for _, secret := range []string{first, second} {
			r.want("before", client.Allow, secret, "read", "write")
		}
		r.server.SetFeatures("u", "read")
		synctest.Wait()
		for _, secret := range []string{first, second} {
			r.want("less features", client.InsufficientScope, secret, "read", "write")
		}
		r.server.Suspend("u")
		synctest.Wait()
		for _, secret := range []string{first, second} {
			r.want("suspended", client.UserSuspended, secret)
		}
		r.server.Resume("u")
		r.server.SetFeatures("u", "read", "write")
		synctest.Wait()
		r.want("all back", client.Allow, first, "read", "write")
	})
}

func TestExpiryNeedsNoNews(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.server.Mint(
			clienttest.Token{User: "u", Scopes: []string{"a"}, ExpireTime: time.Now().Add(10 * time.Second)},
		)
		synctest.Wait()
		r.want("before", client.Allow, secret)
		pass(10*time.Second - time.Nanosecond)
		r.want("the moment before", client.Allow, secret)
		pass(time.Nanosecond)
		r.want("the moment itself", client.Expired, secret)
	})
}

// A clock that is behind that of the server must not make tokens live longer.
func TestWrongClockLetsNothingPass(t *testing.T) {
	for name, wrong := range map[string]time.Duration{"behind": -time.Hour, "ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, client.Config{Now: func() time.Time { return time.Now().Add(wrong) }}, func(r *rig) {
				secret, _ := r.server.Mint(
					clienttest.Token{User: "u", Scopes: []string{"a"}, ExpireTime: time.Now().Add(10 * time.Second)},
				)
				synctest.Wait()
				r.want("before", client.Allow, secret)
				pass(9 * time.Second)
				r.want("just before", client.Allow, secret)
				pass(time.Second)
				r.want("the moment itself", client.Expired, secret)
			})
		})
	}
}

func TestNothingIsRememberedForLongerThanMaxAge(t *testing.T) {
	bubble(t, client.Config{MaxAge: 20 * time.Second}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		r.want("before", client.Allow, secret)
		pass(17 * time.Second)
		r.wantAsked("a young answer", 0, func() { r.want("it", client.Allow, secret) })
		pass(3 * time.Second)
		r.wantAsked("an old answer", 1, func() { r.want("it", client.Allow, secret) })
	})
}

func TestFinalRefusalsAreRememberedShortly(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.mint()
		r.server.Revoke(id)
		synctest.Wait()
		r.wantAsked("ten checks of a revoked token", 1, func() {
			for range 10 {
				r.want("it", client.Revoked, secret)
			}
		})
		pass(2 * time.Second)
		r.wantAsked("one later", 1, func() { r.want("it", client.Revoked, secret) })
	})
}

// An outage is never an answer about a token.
func TestOutageIsAnError(t *testing.T) {
	for name, options := range map[string][]clienttest.Option{"stream": nil, "unary": {clienttest.WithoutStream()}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, client.Config{}, func(r *rig) {
				secret, _ := r.mint()
				r.server.Fail(status.Error(codes.Unavailable, "the store is out"))
				got, err := r.verifier.Verify(r.Context(), secret, client.Call{})
				if status.Code(err) != codes.Unavailable || got.Decision != 0 || got.Allowed() {
					r.Errorf("in an outage: %+v, %v", got, err)
				}
				if err != nil && strings.Contains(err.Error(), secret) {
					r.Error("the error holds the token")
				}
				r.server.Fail(nil)
				r.want("after it", client.Allow, secret)
			}, options...)
		})
	}
}

func TestClosedVerifierRefusesToAnswer(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		r.want("before", client.Allow, secret)
		r.server.Hold()
		waiting := make(chan error)
		other, _ := r.mint()
		go func() {
			_, err := r.verifier.Verify(r.Context(), other, client.Call{})
			waiting <- err
		}()
		synctest.Wait()
		if err := r.verifier.Close(); err != nil {
			r.Fatal(err)
		}
		if err := <-waiting; !errors.Is(err, client.ErrClosed) {
			r.Errorf("a check that waits for an answer: %v", err)
		}
		if _, err := r.verifier.Verify(r.Context(), secret, client.Call{}); !errors.Is(err, client.ErrClosed) {
			r.Errorf("a check after close: %v", err)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	s := clienttest.NewServer(t)
	for name, c := range map[string]client.Config{
		"a service's prefix": {Prefixes: []string{"pats"}},
		"no prefix":          {Prefixes: []string{""}},
		"no text":            {Audience: "\xff"},
	} {
		if v, err := client.New(s.Conn(t), c); err == nil {
			v.Close()
			t.Errorf("%s is taken", name)
		}
	}
}
