package gatewaytest

import (
	"io"
	"net"
	"net/http"
	"net/url"
	pathpkg "path"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/store/storetest"
)

// gateway is a program that lets requests through to an upstream, or does not.
type gateway struct {
	// start runs it and answers where it listens.
	start func(t *testing.T, s site) string
	// tls: it asks patd by https alone.
	tls bool
	// tells is what it tells the upstream of a request by the header names: all of patd's four, or the user alone.
	tells []string
	// addresses: it tells patd where a client is, so that tokens bound to networks can be used.
	addresses bool
	// strict: it refuses headers with underscores in their names.
	strict bool
	// unlisted, stopped, frozen, out are the codes with which it refuses a path that it was not told of, and a good
	// token while patd is stopped, does not answer, or has no store.
	unlisted, stopped, frozen, out int
}

// site is where a gateway stands.
type site struct {
	patd        *issuer
	certificate certificate
	upstream    string // address
	generated   string // the configuration, in place of a page's
}

// everything is what gateways that ask by /v1/forward-auth tell the upstream.
var everything = []string{"X-Auth-User", "X-Auth-Scopes", "X-Auth-Token-Id", "X-Token-Expires-At"}

// answer is what came back through a gateway.
type answer struct {
	code      int
	challenge string
	arrived   []arrival // what reached the upstream by this request
}

// visitor is a client of a gateway, which keeps its connection.
type visitor struct {
	url    string
	up     *upstream
	client *http.Client
}

func visit(t *testing.T, addr string, up *upstream) *visitor {
	t.Helper()
	return visitFrom(t, "127.0.0.1", addr, up)
}

// visitFrom is visit from another address of loopback.
func visitFrom(t *testing.T, from, addr string, up *upstream) *visitor {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	v := &visitor{url: "http://" + addr, up: up, client: &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext}, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	t.Cleanup(v.client.CloseIdleConnections)
	return v
}

// get asks for a path. Headers go in pairs of name and value, and are sent as they are spelled.
func (v *visitor) get(t *testing.T, path, secret string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, v.url+path, nil)
	must(t, err)
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	v.up.take()
	resp, err := v.client.Do(r)
	must(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	must(t, err)
	resp.Body.Close()
	return answer{resp.StatusCode, strings.Join(resp.Header.Values("WWW-Authenticate"), ", "), v.up.take()}
}

// passes wants a request let through, with the upstream told who calls and nothing else.
func (v *visitor) passes(t *testing.T, path string, tok token, want map[string]string, headers ...string) {
	t.Helper()
	a := v.get(t, path, tok.secret, headers...)
	if a.code != http.StatusOK || len(a.arrived) != 1 {
		t.Fatalf(
			"a good token at %s: %d %s, and %d requests at the upstream; want it let through",
			path,
			a.code,
			a.challenge,
			len(a.arrived),
		)
	}
	for _, name := range everything {
		got := told(a.arrived[0].Header, name)
		if name == "X-Auth-User" && len(got) == 1 { // what is not plain in it may be percent-encoded
			if id, err := url.PathUnescape(got[0]); err == nil {
				got = []string{id}
			}
		}
		if value, ok := want[name]; ok && !slices.Equal(got, []string{value}) {
			t.Errorf("the upstream is told %s: %q, want %q alone", name, got, value)
		}
		if _, ok := want[name]; !ok && len(got) > 1 {
			t.Errorf("the upstream is told %s: %q, want at most one", name, got)
		}
		if slices.Contains(got, spoof) {
			t.Errorf("the upstream is told %s by the client: %q", name, got)
		}
	}
	if got := told(a.arrived[0].Header, "Authorization"); len(got) != 0 {
		t.Error("the upstream was given the token")
	}
}

// refused wants a request kept from the upstream.
func (v *visitor) refused(t *testing.T, path, secret string, code int, headers ...string) answer {
	t.Helper()
	a := v.get(t, path, secret, headers...)
	if a.code != code || len(a.arrived) != 0 {
		t.Errorf(
			"at %s: %d %q, and %d requests at the upstream; want %d and none",
			path,
			a.code,
			a.challenge,
			len(a.arrived),
			code,
		)
	}
	return a
}

// spoof is what a client writes where only the gateway may.
const spoof = "somebody-else"

// spoofs are headers by which a client would pass for another user, or confuse who reads them.
func (g gateway) spoofs() []string {
	var headers []string
	for _, name := range everything {
		headers = append(headers, name, spoof, strings.ToLower(name), spoof)
		if !g.strict {
			for _, alike := range alikes(name) {
				headers = append(headers, alike, spoof)
			}
		}
	}
	return append(headers, "X-Forwarded-For", "203.0.113.9", "X-Forwarded-User", spoof)
}

// alikes are the spellings of a header that many programs take for the same: with one hyphen or more as an underscore.
func alikes(name string) []string {
	all := []string{""}
	for _, c := range name {
		var longer []string
		for _, s := range all {
			longer = append(longer, s+string(c))
			if c == '-' {
				longer = append(longer, s+"_")
			}
		}
		all = longer
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == name })
}

// guards shows that a gateway keeps all that it is there for.
func guards(t *testing.T, g gateway) {
	t.Helper()
	t.Parallel()
	var c certificate
	if g.tls {
		c = newCertificate(t)
	}
	t.Run("real", func(t *testing.T) { t.Parallel(); g.guardsReal(t, c) })
	t.Run("store out", func(t *testing.T) { t.Parallel(); g.guardsWithoutStore(t, c) })
}

func (g gateway) guardsReal(t *testing.T, c certificate) {
	d, up := serve(t, c), newUpstream(t)
	addr := g.start(t, site{patd: &d.issuer, certificate: c, upstream: up.addr})
	v := visit(t, addr, up)
	tok := d.mint(t, "alice", "reports.read")
	said := func(user, scope string, tok token) map[string]string {
		all := map[string]string{"X-Auth-User": user, "X-Auth-Scopes": scope, "X-Auth-Token-Id": tok.id}
		want := map[string]string{}
		for _, name := range g.tells {
			if value, ok := all[name]; ok {
				want[name] = value
			}
		}
		return want
	}

	t.Run("a good token passes", func(t *testing.T) {
		v.passes(t, "/reports/1", tok, said("alice", "reports.read", tok))
		both := d.mint(t, "bob", "reports.read", "billing.write")
		v.passes(t, "/reports/1", both, said("bob", "reports.read", both))
		v.passes(t, "/billing/1", both, said("bob", "billing.write", both))
	})
	t.Run("no token and a bad one are refused", func(t *testing.T) {
		for _, secret := range []string{"", "x", tok.secret[:len(tok.secret)-1], tok.secret + "x", d.asker} {
			a := v.refused(t, "/reports/1", secret, http.StatusUnauthorized)
			if !strings.HasPrefix(strings.ToLower(a.challenge), "bearer") {
				t.Errorf("the answer has the challenge %q, want one of Bearer", a.challenge)
			}
		}
		v.refused(t, "/reports/1", "", http.StatusUnauthorized, "Authorization", "Basic "+tok.secret)
		v.refused(t, "/reports/1", "", http.StatusUnauthorized, "Cookie", "access_token="+tok.secret)
		v.refused(t, "/reports/1?access_token="+tok.secret, "", http.StatusUnauthorized)
	})
	t.Run("another scope is refused", func(t *testing.T) {
		if a := v.refused(
			t,
			"/billing/1",
			tok.secret,
			http.StatusForbidden,
		); !strings.Contains(
			a.challenge,
			`error="insufficient_scope"`,
		) {
			t.Errorf("the answer has the challenge %q, want one of insufficient_scope", a.challenge)
		}
		for _, near := range []string{"reports.read.all", "my.reports.read", "reports-read", "REPORTS.READ", "reports.read,billing.write"} {
			v.refused(t, "/reports/1", d.mint(t, "mallory", near).secret, http.StatusForbidden)
		}
	})
	t.Run("what is not listed is closed", func(t *testing.T) {
		for _, path := range []string{"/", "/other", "/reports", "/_patd", "/%72eports", "/reports/../other", "/reports%2f..%2fother"} {
			if a := v.get(t, path, tok.secret); a.code < 300 || len(a.arrived) != 0 {
				t.Errorf("%s: %d, and %d requests at the upstream", path, a.code, len(a.arrived))
			}
		}
		v.refused(t, "/other", tok.secret, g.unlisted)
	})
	t.Run("the upstream sees the path that was checked", func(t *testing.T) {
		biller := d.mint(t, "peggy", "billing.write")
		v.passes(t, "/billing/1?at=/reports/../%2e", biller, said("peggy", "billing.write", biller))
		for _, path := range []string{
			"/reports/all/../../billing/1", "/reports/all/%2e%2e/%2E%2e/billing/1", "/reports/all/..%2f..%2fbilling/1", "/reports/all/..%2F../billing/1",
			"//reports/billing/1", "//reports/../billing/1", "/./reports/../billing/1", "/reports/..//billing/1", "/reports%2f..%2fbilling/1",
			"/billing/../reports/1", "/billing/..%2freports/1", "/billing/%2e%2e/reports/1", "/billing/..%5creports/1", "/billing//../reports/1",
			"/billing/1/..", "/billing/.", "/billing//1", "/billing/..;/reports/1", "/reports/all/..;/..;x=y/billing/1", "/billing/.;/1",
		} {
			for _, a := range v.get(t, path, biller.secret).arrived {
				seen, _, _ := strings.Cut(strings.ToLower(a.uri), "?")
				if clean := pathpkg.Clean(
					seen,
				); !strings.HasPrefix(seen, "/billing/") || strings.TrimSuffix(seen, "/") != clean ||
					strings.ContainsAny(seen, "%;") {
					t.Errorf("%s reaches the upstream as %s, which another program may read otherwise", path, a.uri)
				}
			}
		}
	})
	t.Run("a client cannot say who it is", func(t *testing.T) {
		v.passes(t, "/reports/1", tok, said("alice", "reports.read", tok), g.spoofs()...)
		v.refused(t, "/reports/1", "", http.StatusUnauthorized, g.spoofs()...)
		v.refused(t, "/billing/1", tok.secret, http.StatusForbidden, g.spoofs()...)
		if g.strict {
			for _, alike := range alikes("X-Auth-User") {
				v.refused(t, "/reports/1", tok.secret, http.StatusBadRequest, alike, spoof)
			}
		}
	})
	t.Run("a client cannot have the headers taken off", func(t *testing.T) {
		// RFC 9110 section 7.6.1 has a proxy drop what Connection names: the gateway's own headers must be safe from
		// that.
		v.passes(
			t,
			"/reports/1",
			tok,
			said("alice", "reports.read", tok),
			"Connection",
			"close, "+strings.Join(everything, ", "),
		)
		if a := v.get(
			t,
			"/reports/1",
			"",
			"Connection",
			"close, Authorization",
		); a.code != http.StatusUnauthorized ||
			len(a.arrived) != 0 {
			t.Errorf("%d, and %d requests at the upstream", a.code, len(a.arrived))
		}
	})
	t.Run("two credentials are never mixed", func(t *testing.T) {
		other := d.mint(t, "trent", "reports.read")
		for _, secrets := range [][]string{{tok.secret, other.secret}, {other.secret, tok.secret}, {"x", tok.secret}, {tok.secret, "x"}} {
			a := v.get(
				t,
				"/reports/1",
				"",
				"Authorization",
				"Bearer "+secrets[0],
				"Authorization",
				"Bearer "+secrets[1],
			)
			switch {
			case len(a.arrived) == 0 && (a.code == http.StatusUnauthorized || a.code == http.StatusBadRequest):
			case len(a.arrived) == 1 && secrets[0] == tok.secret && slices.Equal(told(a.arrived[0].Header, "X-Auth-User"), []string{"alice"}):
			case len(a.arrived) == 1 && secrets[0] == other.secret && slices.Equal(told(a.arrived[0].Header, "X-Auth-User"), []string{"trent"}):
			default:
				t.Errorf(
					"%d, and %d requests at the upstream; want it refused, or the first believed",
					a.code,
					len(a.arrived),
				)
			}
		}
	})
	t.Run("a token bound to networks works from there alone", func(t *testing.T) {
		bound := d.mintBound(t, "victor", []string{"127.0.0.2/32"}, "reports.read")
		inside, outside := visitFrom(t, "127.0.0.2", addr, up), visitFrom(t, "127.0.0.3", addr, up)
		if g.addresses {
			inside.passes(t, "/reports/1", bound, said("victor", "reports.read", bound))
		} else {
			inside.refused(t, "/reports/1", bound.secret, http.StatusUnauthorized)
		}
		outside.refused(t, "/reports/1", bound.secret, http.StatusUnauthorized)
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Client-Ip", "True-Client-Ip"} {
			value := map[bool]string{true: "for=127.0.0.2", false: "127.0.0.2"}[name == "Forwarded"]
			outside.refused(t, "/reports/1", bound.secret, http.StatusUnauthorized, name, value)
		}
	})
	t.Run("conditions and ranges change nothing", func(t *testing.T) {
		v.passes(
			t,
			"/reports/1",
			tok,
			said("alice", "reports.read", tok),
			"If-None-Match",
			"*",
			"If-Modified-Since",
			"Mon, 02 Jan 2040 15:04:05 GMT",
			"Range",
			"bytes=0-0",
		)
	})
	t.Run("an access token passes, as long as its PAT", func(t *testing.T) {
		pat := d.mint(t, "carol", "reports.read")
		access := token{pat.user, pat.id, d.exchange(t, pat)}
		v.passes(t, "/reports/1", access, said("carol", "reports.read", pat))
		d.revoke(t, pat)
		v.refused(t, "/reports/1", access.secret, http.StatusUnauthorized)
	})
	t.Run("a revoked token is refused on the next request", func(t *testing.T) {
		for range 3 {
			gone := d.mint(t, "dave", "reports.read")
			v.passes(t, "/reports/1", gone, said("dave", "reports.read", gone))
			v.passes(t, "/reports/1", gone, said("dave", "reports.read", gone))
			d.revoke(t, gone)
			v.refused(t, "/reports/1", gone.secret, http.StatusUnauthorized)
		}
	})
	t.Run("a lost feature closes the next request", func(t *testing.T) {
		poorer := d.mint(t, "erin", "reports.read", "billing.write")
		v.passes(t, "/reports/1", poorer, said("erin", "reports.read", poorer))
		d.hold(t, "erin", "billing.write")
		v.refused(t, "/reports/1", poorer.secret, http.StatusForbidden)
		v.passes(t, "/billing/1", poorer, said("erin", "billing.write", poorer))
		d.hold(t, "erin")
		v.refused(t, "/billing/1", poorer.secret, http.StatusForbidden)
		d.hold(t, "erin", "reports.read")
		v.passes(t, "/reports/1", poorer, said("erin", "reports.read", poorer))
	})
	t.Run("user ids of all sorts pass", func(t *testing.T) {
		for _, user := range []string{strings.Repeat("u", 255), "auth0|5f7c8ec7c33c6c004bbafe82", "zoë@example.com", "a b,c;d=\"e\"", "100%25", " alice ", "https://idp.example/a:b?c#d", "ユーザー"} {
			odd := d.mint(t, user, "reports.read")
			v.passes(t, "/reports/1", odd, said(user, "reports.read", odd))
		}
	})

	// From here on patd is not well, one thing after the other.
	t.Run("nobody gets in while patd is frozen", func(t *testing.T) {
		d.freeze(t)
		defer d.thaw()
		v.refused(t, "/reports/1", tok.secret, g.frozen)
	})
	t.Run("nobody gets in while patd is stopped", func(t *testing.T) {
		d.stop(t)
		for range 3 {
			v.refused(t, "/reports/1", tok.secret, g.stopped)
		}
		d.process = d.start()
		// A gateway may wait a moment before it tries again.
		for deadline := time.Now().Add(patience); v.get(t, "/reports/1", tok.secret).code == g.stopped; {
			if time.Now().After(deadline) {
				t.Fatal("the gateway does not come back after patd did")
			}
		}
		v.passes(t, "/reports/1", tok, said("alice", "reports.read", tok))
	})
}

// guardsWithoutStore shows that nobody gets in while patd answers but its store does not.
func (g gateway) guardsWithoutStore(t *testing.T, c certificate) {
	i, faulty := serveFaulty(t, c)
	up := newUpstream(t)
	v := visit(t, g.start(t, site{patd: i, certificate: c, upstream: up.addr}), up)
	tok := i.mint(t, "alice", "reports.read")
	v.passes(t, "/reports/1", tok, nil)
	faulty.Fail(storetest.Outage())
	for range 3 {
		v.refused(t, "/reports/1", tok.secret, g.out)
	}
	faulty.Fail(nil)
	v.passes(t, "/reports/1", tok, nil)
	faulty.FailOp(storetest.OpLookup, storetest.Outage())
	v.refused(t, "/reports/1", tok.secret, g.out)
	v.refused(t, "/billing/1", tok.secret, g.out)
}
