package signin_test

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"patd/internal/oidctest"
	"patd/internal/proctest"
	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

// rotated is a token under another key of the provider's.
func (p *provider) rotated(t *testing.T, kid string, c claims) string {
	t.Helper()
	return oidctest.Sign(t, jose.RS256, rsaKey(t, 1), claims{"kid": kid}, c)
}

func TestProviderDownAtStart(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	good := p.Sign(t, p.good())
	discovery := p.DiscoveryResponse()
	p.Set(oidctest.Fault(http.StatusBadGateway), nil)
	s := signIn(t, p.config())
	wantUnavailable(t, s, good)
	wantInvalid(t, s, p.Sign(t, p.with(claims{"exp": 1}))) // no key is needed to tell that
	p.Set(discovery, nil)
	wantUnavailable(t, s, good) // it is not asked again so soon
	p.clock.wait(3*time.Second - 1)
	wantUnavailable(t, s, good)
	p.clock.wait(1)
	wantUser(t, s, good, "alice")
}

func TestProviderThatIsNotThere(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	c := p.config()
	c.Issuers[0].URL = gone.URL
	wantUnavailable(t, signIn(t, c), p.Sign(t, p.with(claims{"iss": gone.URL})))
}

func TestKnownKeysOutliveAnOutageByADay(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	log := proctest.NewOutput()
	c := p.config()
	c.Logger = slog.New(slog.NewTextHandler(log, nil))
	s, err := signin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	forever := claims{"exp": p.clock.now().AddDate(1, 0, 0).Unix()}
	good := p.Sign(t, p.with(forever))
	wantUser(t, s, good, "alice")

	working := p.DiscoveryResponse()
	p.Set(oidctest.Fault(http.StatusInternalServerError), nil)
	for range 23 {
		p.clock.wait(time.Hour)
		wantUser(t, s, good, "alice")
	}
	wantUnavailable(
		t,
		s,
		p.rotated(t, "new", p.with(forever)),
	) // it may be good: who knows
	wantInvalid(t, s, oidctest.Sign(t, jose.RS256, rsaKey(t, 2), claims{"kid": "k0"}, p.with(forever))) // that cannot
	p.clock.wait(time.Hour + 1)
	wantUnavailable(t, s, good)
	p.Set(working, nil)
	p.clock.wait(3 * time.Second)
	wantUser(t, s, good, "alice")
	s.Close()
	if n := strings.Count(log.String(), "cannot be renewed"); n != 1 {
		t.Errorf("the outage was logged %d times:\n%s", n, log.String())
	}
}

// A key that the provider took back is refused once the keys were renewed, without a token that asks for it.
func TestWithdrawnKeyIsRefused(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	s := signIn(t, p.config())
	old := p.Sign(t, p.good())
	wantUser(t, s, old, "alice")
	p.Publish(t, oidctest.PublicKey("k1", rsaKey(t, 1).Public(), "RS256"))
	p.clock.wait(10*time.Minute + 1)
	wantUser(t, s, old, "alice") // the one that finds the keys old does not wait
	next := p.rotated(t, "k1", p.good())
	wantUser(t, s, next, "alice") // and this one waits for them
	wantInvalid(t, s, old)
	wantUser(t, s, next, "alice")
}

func TestRotation(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	s := signIn(t, p.config())
	wantUser(t, s, p.Sign(t, p.good()), "alice")
	next := p.rotated(t, "k1", p.good())
	wantInvalid(t, s, next)
	p.Publish(
		t,
		oidctest.PublicKey("k0", rsaKey(t, 0).Public(), "RS256"),
		oidctest.PublicKey("k1", rsaKey(t, 1).Public(), "RS256"),
	)
	wantUser(t, s, next, "alice")
	wantUser(t, s, p.Sign(t, p.good()), "alice")
	// Another key under the same kid, as providers have it that make their keys at each start.
	p.Publish(t, oidctest.PublicKey("k0", rsaKey(t, 2).Public(), "RS256"))
	wantUser(t, s, oidctest.Sign(t, jose.RS256, rsaKey(t, 2), claims{"kid": "k0"}, p.good()), "alice")
	wantInvalid(t, s, p.Sign(t, p.good()))
	wantInvalid(t, s, next)
}

func TestFloodOfUnknownKeysDoesNotReachTheProvider(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	s := signIn(t, p.config())
	wantUser(t, s, p.Sign(t, p.good()), "alice")
	for i := range 200 {
		wantInvalid(t, s, p.rotated(t, fmt.Sprint("made up ", i), p.good()))
	}
	if n := p.KeyRequests(); n != 1+5 {
		t.Errorf("the keys were fetched %d times", n)
	}
	p.Publish(t, oidctest.PublicKey("k1", rsaKey(t, 1).Public(), "RS256"))
	p.clock.wait(5 * time.Second)
	wantUser(t, s, p.rotated(t, "k1", p.good()), "alice")
	if n := p.KeyRequests(); n != 1+5+1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	p.clock.wait(time.Minute)
	for range 200 {
		wantInvalid(t, s, oidctest.Sign(t, jose.RS256, rsaKey(t, 2), claims{}, p.good())) // without a kid
	}
	if n := p.KeyRequests(); n != 1+5+1+5 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestOutageDuringAFloodIsAskedOnceInThreeSeconds(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	s := signIn(t, p.config())
	wantUser(t, s, p.Sign(t, p.good()), "alice")
	p.Set(nil, oidctest.Fault(http.StatusInternalServerError))
	for range 10 {
		for range 50 {
			wantUnavailable(t, s, p.rotated(t, "unknown", p.good()))
		}
		wantUser(t, s, p.Sign(t, p.good()), "alice")
		p.clock.wait(3 * time.Second)
	}
	if n := p.KeyRequests(); n != 1+10 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestManyWaitForOneFetch(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	arrived, release := make(chan struct{}), make(chan struct{})
	working := p.KeysResponse()
	p.Set(nil, func(w http.ResponseWriter, r *http.Request) {
		close(arrived) // a second request panics, and fails the test
		<-release
		working(w, r)
	})
	s := signIn(t, p.config())
	good := p.Sign(t, p.good())
	impatient, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := s.Verify(impatient, secret.NewSecret(good))
		left <- err
	}()
	<-arrived
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := s.Verify(t.Context(), secret.NewSecret(good)); err != nil {
				t.Errorf("a caller that waited: %v", err)
			}
		})
	}
	cancel() // the one that began it goes away; the others do not suffer
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller that went away: %v", err)
	}
	close(release)
	all.Wait()
}

func TestCloseEndsWhatHangs(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	arrived := make(chan struct{})
	p.Set(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}, nil)
	c := p.config()
	c.Timeout = time.Hour
	s, err := signin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := s.Verify(t.Context(), secret.NewSecret(p.Sign(t, p.good())))
		done <- err
	}()
	<-arrived
	s.Close()
	var e *tokens.Error
	if err := <-done; !errors.As(err, &e) || e.Reason != "SIGNIN_UNAVAILABLE" {
		t.Errorf("what hung: %v", err)
	}
	p.clock.wait(time.Minute)
	wantUnavailable(t, s, p.Sign(t, p.good()))
	s.Close()
}

func TestFaultyProviders(t *testing.T) {
	t.Parallel()
	const elsewhere = "http://127.0.0.1:1/"
	weak := `{"kty":"RSA","use":"sig","kid":"k0","e":"AQAB","n":"` + strings.Repeat("z", 171) + `"}`
	page := "<html>" + strings.Repeat("please sign in\n", 1000)
	for name, set := range map[string]func(p *provider){
		"discovery hangs":     func(p *provider) { p.Set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil) },
		"keys hang":           func(p *provider) { p.Set(nil, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) },
		"keys trickle":        func(p *provider) { p.Set(nil, trickle) },
		"discovery redirects": func(p *provider) { p.Set(http.RedirectHandler(elsewhere, http.StatusFound).ServeHTTP, nil) },
		"keys redirect": func(p *provider) {
			p.Set(nil, http.RedirectHandler(elsewhere, http.StatusTemporaryRedirect).ServeHTTP)
		},
		"keys redirect in a circle": func(p *provider) { p.Set(nil, http.RedirectHandler("/jwks", http.StatusFound).ServeHTTP) },
		"discovery is a page":       func(p *provider) { p.Set(oidctest.JSON(page), nil) },
		"discovery fails with a page": func(p *provider) {
			p.Set(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, page, http.StatusForbidden) }, nil)
		},
		"discovery is empty": func(p *provider) { p.Set(oidctest.JSON("{}"), nil) },
		"another issuer": func(p *provider) {
			p.Describe(oidctest.Discovery, p.URL+"/")
		},
		"keys by plain http": func(p *provider) {
			p.Set(oidctest.JSON(fmt.Sprintf(`{"issuer": %q, "jwks_uri": "http://10.0.0.1/jwks"}`, p.URL)), nil)
		},
		"keys in a file": func(p *provider) {
			p.Set(oidctest.JSON(fmt.Sprintf(`{"issuer": %q, "jwks_uri": "file:///etc/passwd"}`, p.URL)), nil)
		},
		"keys at no URL": func(p *provider) {
			p.Set(oidctest.JSON(fmt.Sprintf(`{"issuer": %q, "jwks_uri": "https://%%zz"}`, p.URL)), nil)
		},
		"another issuer with a long name": func(p *provider) {
			p.Describe(oidctest.Discovery, p.URL+"/"+strings.Repeat("a", 10<<10))
		},
		"keys are garbage": func(p *provider) { p.Set(nil, oidctest.JSON("\x00\xffgarbage")) },
		"keys are a list":  func(p *provider) { p.Set(nil, oidctest.JSON(`[]`)) },
		"a key with a long id": func(p *provider) {
			p.Set(nil, oidctest.JSON(`{"keys": [{"kty":"RSA","kid":"`+strings.Repeat("a", 10<<10)+`","n":5}]}`))
		},
		"no keys": func(p *provider) { p.Set(nil, oidctest.JSON(`{"keys": []}`)) },
		"keys of nonsense": func(p *provider) {
			p.Set(nil, oidctest.JSON(`{"keys": [1, null, {}, {"kty":"RSA"}, {"kty":"oct","k":"AAAA","kid":"k0"}]}`))
		},
		"a weak key": func(p *provider) { p.Set(nil, oidctest.JSON(`{"keys": [`+weak+`]}`)) },
		"too many keys": func(p *provider) {
			p.Publish(t, slices.Repeat([]jose.JSONWebKey{oidctest.PublicKey("k0", rsaKey(t, 0).Public(), "")}, 101)...)
		},
		"keys not found":             func(p *provider) { p.Set(nil, oidctest.Fault(http.StatusNotFound)) },
		"10 MiB of keys":             func(p *provider) { p.Set(nil, padded(p.KeysResponse())) },
		"10 MiB of discovery":        func(p *provider) { p.Set(padded(p.DiscoveryResponse()), nil) },
		"10 MiB of keys, compressed": func(p *provider) { p.Set(nil, compressed(padded(p.KeysResponse()))) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t, newClock())
			working, keys := p.DiscoveryResponse(), p.KeysResponse()
			set(p)
			c := p.config()
			c.Transport = fenced{&http.Transport{}, t, p.URL}
			if strings.Contains(name, "hang") || strings.Contains(name, "trickle") {
				c.Timeout = 200 * time.Millisecond
			}
			s := signIn(t, c)
			jwt := p.Sign(t, p.good())
			_, err := verify(t, s, jwt)
			if err == nil {
				t.Fatal("signed in")
			}
			if n := p.KeyRequests(); n > 4 {
				t.Errorf("the keys were asked for %d times", n)
			}
			if len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("the error repeats what the provider sent: %d bytes", len(err.Error()))
			}
			wantUnavailable(t, s, jwt)
			p.Set(working, keys)
			p.clock.wait(3 * time.Second)
			wantUser(t, s, jwt, "alice")
		})
	}
}

// trickle sends a byte now and then, so that no single read takes long.
func trickle(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// What a provider publishes besides does not matter: a key that is for encryption, private, shared or not understood is
// none, and the rest are good.
func TestUnusableKeysAreLeftOut(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	encryption := oidctest.PublicKey("enc", rsaKey(t, 1).Public(), "")
	encryption.Use = "enc"
	p.Publish(
		t,
		encryption,
		oidctest.PublicKey("private", rsaKey(t, 2), ""),
		oidctest.PublicKey("oct", []byte("0123456789abcdef0123456789abcdef"), ""),
		oidctest.PublicKey("k0", rsaKey(t, 0).Public(), "RS256"),
	)
	s := signIn(t, p.config())
	wantUser(t, s, p.Sign(t, p.good()), "alice")
	wantUser(t, s, oidctest.Sign(t, jose.RS256, rsaKey(t, 0), claims{}, p.good()), "alice") // without a kid
	wantInvalid(t, s, oidctest.Sign(t, jose.RS256, rsaKey(t, 1), claims{"kid": "enc"}, p.good()))
	wantInvalid(t, s, oidctest.Sign(t, jose.RS256, rsaKey(t, 2), claims{"kid": "private"}, p.good()))
	wantInvalid(t, s, oidctest.Sign(t, jose.PS256, rsaKey(t, 0), claims{"kid": "k0"}, p.good())) // the key says RS256
}

// TestSizesOfRSAKeys has a provider that publishes one key, which is as long as may be, or a bit longer or shorter.
func TestSizesOfRSAKeys(t *testing.T) {
	t.Parallel()
	for bits, want := range map[int]signin.Status{
		2047: signin.StatusOutage, 2048: signin.StatusGood, 4096: signin.StatusGood, 4097: signin.StatusOutage,
	} {
		p := newProvider(t, newClock())
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		key := rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
		p.Publish(t, oidctest.PublicKey("k0", &key, "RS256"))
		s := signIn(t, p.config())
		s.Start()
		await(t, s, p.URL, want)
	}
}

func TestRedirectOnTheSameHostIsFollowed(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	keys := p.KeysResponse()
	first := true
	p.Set(nil, func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			http.Redirect(w, r, "/jwks?again", http.StatusFound)
			return
		}
		keys(w, r)
	})
	wantUser(t, signIn(t, p.config()), p.Sign(t, p.good()), "alice")
}

func TestOneIssuersOutageIsNotTheOthers(t *testing.T) {
	t.Parallel()
	p, down := newProvider(t, newClock()), newProvider(t, newClock())
	down.Set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil)
	c := p.config()
	c.Timeout = 200 * time.Millisecond
	c.Issuers = append(c.Issuers, signin.Issuer{URL: down.URL, Audiences: []string{audience}})
	s := signIn(t, c)
	wantUnavailable(t, s, down.Sign(t, down.good()))
	wantUser(t, s, p.Sign(t, p.good()), "alice")
}

func TestVerifyManyAtOnceWhileKeysChange(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	s := signIn(t, p.config())
	k0, k1 := oidctest.PublicKey(
		"k0",
		rsaKey(t, 0).Public(),
		"RS256",
	), oidctest.PublicKey(
		"k1",
		rsaKey(t, 1).Public(),
		"RS256",
	)
	p.Publish(t, k0, k1)
	old, next, made := p.Sign(t, p.good()), p.rotated(t, "k1", p.good()), p.rotated(t, "made up", p.good())
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 50 {
				switch (i + w) % 4 {
				case 0:
					wantUserOf(t, s, old)
				case 1:
					wantUserOf(t, s, next)
				case 2:
					if _, err := s.Verify(t.Context(), secret.NewSecret(made)); err == nil {
						t.Error("a made-up key signs in")
					}
				case 3:
					p.clock.wait(time.Minute / 10)
				}
			}
		})
	}
	all.Wait()
}

func wantUserOf(t *testing.T, s *signin.SignIn, jwt string) {
	t.Helper()
	if who, err := s.Verify(t.Context(), secret.NewSecret(jwt)); err != nil || who.User != "alice" {
		t.Errorf("%v, %v", who, err)
	}
}
