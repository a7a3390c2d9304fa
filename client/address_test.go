package client_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"patd/client"
	"patd/client/clienttest"
)

// from is Verify, of a token presented from an address; empty: it is not known.
func (r *rig) from(ip, token string) client.Decision {
	r.Helper()
	a, _ := netip.ParseAddr(ip)
	got, err := r.verifier.Verify(r.Context(), token, client.Call{ClientIP: a})
	if err != nil {
		r.Fatalf("verify: %v", err)
	}
	return got.Decision
}

// A token that no network binds is one entry and one request, whatever addresses it is presented from; its use is
// reported with the latest of them.
func TestOneAnswerServesEveryAddressOfAnUnboundToken(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.mint()
		synctest.Wait()
		last := ""
		r.wantAsked("a token from 5000 addresses", 1, func() {
			for i := range 5000 {
				pass(time.Millisecond)
				last = fmt.Sprintf("10.0.%d.%d", i/250, i%250)
				if got := r.from(last, secret); got != client.Allow {
					r.Fatalf("%s from %s", got, last)
				}
			}
			if got := r.from("", secret); got != client.Allow {
				r.Fatalf("%s from nowhere", got)
			}
		})
		pass(time.Second)
		r.from("10.1.0.1", secret)
		if s := r.verifier.Stats(); s.Entries != 1 {
			r.Errorf("stats: %+v, want one entry", s)
		}
		if err := r.verifier.Close(); err != nil {
			r.Fatal(err)
		}
		if use := r.server.Uses()[id]; use.GetClientIp() != "10.1.0.1" {
			r.Errorf("reported as last used: %v, want from 10.1.0.1", use)
		}
	})
}

// A final refusal is the same from everywhere.
func TestOneRefusalServesEveryAddress(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.mint()
		r.want("before", client.Allow, secret)
		r.server.Revoke(id)
		synctest.Wait()
		r.wantAsked("a revoked token from 100 addresses", 1, func() {
			for i := range 100 {
				if got := r.from(fmt.Sprintf("10.0.0.%d", i), secret); got != client.Revoked {
					r.Fatalf("%s, want REVOKED", got)
				}
			}
		})
	})
}

func TestAnAnswerOfOneAddressServesNoOther(t *testing.T) {
	for name, options := range map[string][]clienttest.Option{"of today": nil, "that does not know the field": {clienttest.WithoutAnyClientIP()}} {
		t.Run("a server "+name, func(t *testing.T) {
			bubble(t, client.Config{}, func(r *rig) {
				secret, _ := r.server.Mint(
					clienttest.Token{
						User:     "u",
						Scopes:   []string{"read"},
						Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
					},
				)
				synctest.Wait()
				for range 2 {
					for ip, want := range map[string]client.Decision{
						"192.0.2.1": client.Allow, "192.0.2.2": client.Allow, "::ffff:192.0.2.1": client.Allow,
						"198.51.100.1": client.IPNotAllowed, "": client.IPNotAllowed,
					} {
						if got := r.from(ip, secret); got != want {
							r.Errorf("from %q: %s, want %s", ip, got, want)
						}
					}
				}
				if s := r.verifier.Stats(); s.Entries != 2 || s.Hits != 4 {
					r.Errorf("stats: %+v, want 2 entries, each used", s)
				}
			}, options...)
		})
	}
}

// Requests about one token from several addresses that are under way together each get their own answer.
func TestRequestsUnderWayShareNoAnswerOfAnotherAddress(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.server.Mint(
			clienttest.Token{
				User:     "u",
				Scopes:   []string{"read"},
				Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25")},
			},
		)
		synctest.Wait()
		r.server.Hold()
		go func() {
			for r.server.Holding() < 200 {
				pass(time.Millisecond)
			}
			r.server.Unhold()
		}()
		all(400, func(i int) { // each address twice
			i /= 2
			want := client.Allow
			if i >= 128 {
				want = client.IPNotAllowed
			}
			if got := r.from(fmt.Sprintf("192.0.2.%d", i), secret); got != want {
				r.Errorf("from 192.0.2.%d: %s, want %s", i, got, want)
			}
		})
	})
}

// Networks come and go, in answers of servers of today and of before: what a check decides is always so for its
// address.
func TestMemoryFollowsTheNetworksOfAToken(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		chance := rand.New(rand.NewPCG(1, 2))
		nets := map[string]netip.Prefix{
			"10.0.0.1": netip.MustParsePrefix("10.0.0.0/24"),
			"10.0.1.1": netip.MustParsePrefix("10.0.1.0/24"),
		}
		secret, id := r.mint()
		bound := map[string]bool{}
		for range 5000 {
			switch chance.IntN(8) {
			case 0:
				clear(bound)
				var to []netip.Prefix
				for ip, n := range nets {
					if chance.IntN(2) == 0 {
						bound[ip], to = true, append(to, n)
					}
				}
				r.server.Bind(id, to...)
				synctest.Wait()
			case 1:
				r.server.SayAnyClientIP(chance.IntN(2) == 0)
			case 2:
				pass(time.Duration(chance.IntN(int(30 * time.Second))))
				synctest.Wait()
			default:
				ip := []string{"10.0.0.1", "10.0.1.1", "10.0.2.1", ""}[chance.IntN(4)]
				want := client.Allow
				if len(bound) > 0 && !bound[ip] {
					want = client.IPNotAllowed
				}
				if got := r.from(ip, secret); got != want {
					r.Fatalf("from %q: %s, want %s; bound to %v", ip, got, want, bound)
				}
			}
		}
		if s := r.verifier.Stats(); s.Hits < 500 {
			r.Errorf("stats: %+v: memory was hardly used", s)
		}
	})
}
