package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// cookie ties the provider's response to the browser that the request began in.
const cookie = "patd-login"

// visit is one sign-in with a browser. The browser begins at a local address that is good once: that address, and not
// the request with its state and nonce, stands in the arguments of the program that opens it, where others can read it.
type visit struct {
	host, begin          string // of the local address
	request              string // the address of the request to the provider
	issuer, state, bound string // bound is the cookie's value
	mustName             bool   // the provider names itself in each response (RFC 9207)
	begun                atomic.Bool
	done                 chan outcome // of one outcome
}

// outcome is the provider's response: a code, or an error.
type outcome struct {
	code string
	err  error
}

// Browser signs a person in with a browser on this machine: authorization code with PKCE, and the provider sends the
// browser back to a loopback address (RFC 8252 section 7.3). show gets the address to open.
func (p *Provider) Browser(ctx context.Context, show func(address string)) (g Grant, err error) {
	listener, err := (&net.ListenConfig{}).Listen(
		ctx,
		"tcp",
		net.JoinHostPort("127.0.0.1", strconv.Itoa(p.server.Port)),
	)
	if err != nil {
		return Grant{}, fmt.Errorf("listen for the browser to come back: %w", err)
	}
	host := listener.Addr().String()
	config := p.config
	config.RedirectURL = "http://" + host + "/callback"
	verifier, nonce := oauth2.GenerateVerifier(), rand.Text()
	v := &visit{
		host:     host,
		begin:    "/" + rand.Text(),
		issuer:   p.server.Issuer,
		state:    rand.Text(),
		bound:    rand.Text(),
		mustName: p.more.Iss,
		done:     make(chan outcome, 1),
	}
	v.request = config.AuthCodeURL(
		v.state,
		append(p.parameters(false), oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce))...)
	server := &http.Server{
		Handler:        v,
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   10 * time.Second,
		MaxHeaderBytes: 64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		over, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(over) != nil {
			_ = server.Close() // a browser that holds its connection open
		}
		<-served //nolint:errcheck // it ends as it was told to
	}()
	show("http://" + host + v.begin)
	select {
	case <-ctx.Done():
		return Grant{}, fmt.Errorf("wait for the browser to come back: %w", ctx.Err())
	case err := <-served:
		served <- err
		return Grant{}, fmt.Errorf("wait for the browser to come back: %w", err)
	case got := <-v.done:
		if got.err != nil {
			return Grant{}, got.err
		}
		t, err := config.Exchange(p.with(ctx), got.code, append(p.parameters(true), oauth2.VerifierOption(verifier))...)
		if err != nil {
			return Grant{}, refused("exchange the code", err)
		}
		return p.grant(ctx, t, nonce, "")
	}
}

// ServeHTTP sends the browser to the provider, and takes the response. Requests that do not belong to the sign-in
// change nothing: any program on this machine can send them.
func (v *visit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case r.Host != v.host || r.Method != http.MethodGet: // another name leads here: DNS rebinding
		http.Error(w, "not found", http.StatusNotFound)
	case same(r.URL.Path, v.begin):
		if v.begun.Swap(true) {
			http.Error(
				w,
				"This address was opened before. If that was not you, stop `patd login` and start it again.",
				http.StatusGone,
			)
			return
		}
		http.SetCookie(
			w,
			//nolint:gosec // G124: plain http on loopback
			&http.Cookie{
				Name:     cookie,
				Value:    v.bound,
				Path:     "/callback",
				HttpOnly: true,
				SameSite: http.SameSiteLaxMode,
			},
		)
		http.Redirect(w, r, v.request, http.StatusSeeOther)
	case r.URL.Path == "/callback":
		v.callback(w, r)
	default:
		http.Error(w, "not found", http.StatusNotFound)
	}
}

func (v *visit) callback(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c, err := r.Cookie(cookie)
	if err != nil || !same(c.Value, v.bound) || !same(q.Get("state"), v.state) {
		http.Error(
			w,
			"This is no response to `patd login`, or not in the browser that began it. Nothing was changed.",
			http.StatusBadRequest,
		)
		return
	}
	got := v.read(q)
	select {
	case v.done <- got:
	default: // it has come already
	}
	if got.err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "Signing in did not work. The terminal says why.\n")
		return
	}
	_, _ = io.WriteString(w, "Go back to the terminal; you can close this window.\n")
}

// read checks the parameters of the provider's response (RFC 6749 section 4.1.2, RFC 9207 section 2.4).
func (v *visit) read(q url.Values) outcome {
	named, is := q["iss"]
	switch {
	case is && (len(named) != 1 || named[0] != v.issuer), !is && v.mustName:
		return outcome{err: errors.New("the response is of another provider")}
	case q.Get("error") == "access_denied":
		return outcome{err: errors.New("signing in was denied at the provider")}
	case q.Get("error") != "":
		return outcome{
			err: clip(fmt.Errorf("sign in: the provider says %q %q", q.Get("error"), q.Get("error_description"))),
		}
	case len(q["code"]) != 1 || q.Get("code") == "":
		return outcome{err: errors.New("the provider's response has no code")}
	}
	return outcome{code: q.Get("code")}
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
