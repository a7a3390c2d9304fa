package oidctest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
)

// Web is the part of a provider at which users sign in with a browser. It keeps to the RFCs where a client might cheat:
// a code is good once, with the client's secret, the address and the verifier that belong to it.
type Web struct {
	*Provider
	id, password string

	mu     sync.Mutex
	codes  map[string]url.Values // what was asked for, by code
	claims Claims
	info   Claims
	last   string // who has signed in
	broken bool
}

// Web lets users sign in with a browser, for a client with this id and this secret.
func (p *Provider) Web(id, secret string) *Web {
	w := &Web{Provider: p, id: id, password: secret, codes: map[string]url.Values{}}
	metadata, _ := json.Marshal(map[string]any{ // of strings
		"issuer":                 p.URL,
		"jwks_uri":               p.URL + "/jwks",
		"authorization_endpoint": p.URL + "/authorize",
		"token_endpoint":         p.URL + "/token",
		"userinfo_endpoint":      p.URL + "/userinfo",
		"end_session_endpoint":   p.URL + "/out",
		"authorization_response_iss_parameter_supported": true,
		"id_token_signing_alg_values_supported":          []string{string(p.Key().Algorithm)},
	})
	p.Set(JSON(string(metadata)), nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.web = w
	return w
}

// SetClaims changes claims of the ID tokens that follow; nil: none.
func (w *Web) SetClaims(changed Claims) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claims = changed
}

// SetUserInfo replaces what the userinfo endpoint returns, which is the last user's name by itself.
func (w *Web) SetUserInfo(info Claims) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.info = info
}

// Break has the token endpoint fail.
func (w *Web) Break() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = true
}

// Allow signs a user in, as was asked for at the authorization endpoint, and returns the parameters with which the
// browser is sent back.
func (w *Web) Allow(asked url.Values, user string) url.Values {
	w.mu.Lock()
	defer w.mu.Unlock()
	code := fmt.Sprintf("code %d", len(w.codes)+1) + user
	asked.Set("user", user)
	w.codes[code] = asked
	return url.Values{"code": {code}, "state": {asked.Get("state")}, "iss": {w.URL}}
}

func (w *Web) serve(to http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/token":
		w.token(to, r)
	case "/userinfo":
		w.userInfo(to, r)
	default:
		return false
	}
	return true
}

func (w *Web) userInfo(to http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer access" {
		to.WriteHeader(http.StatusUnauthorized)
		return
	}
	info := w.info
	if info == nil {
		info = Claims{"sub": w.last}
	}
	respond(to, http.StatusOK, info)
}

func (w *Web) token(to http.ResponseWriter, r *http.Request) {
	id, password, _ := r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	password, _ = url.QueryUnescape(password)
	code := r.PostFormValue("code")
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	w.mu.Lock()
	defer w.mu.Unlock()
	asked, known := w.codes[code]
	delete(w.codes, code)
	switch {
	case w.broken:
		to.WriteHeader(http.StatusBadGateway)
		return
	case id != w.id || password != w.password, !known, r.PostFormValue("grant_type") != "authorization_code",
		r.PostFormValue("redirect_uri") != asked.Get("redirect_uri"),
		base64.RawURLEncoding.EncodeToString(sum[:]) != asked.Get("code_challenge"):
		respond(to, http.StatusBadRequest, Claims{"error": "invalid_grant"})
		return
	}
	w.last = asked.Get("user")
	key := w.Key()
	jwt, err := signed(key.Algorithm, key.Private, Claims{"kid": key.ID, "typ": "JWT"},
		w.Claims(w.last, w.id).With(Claims{"nonce": asked.Get("nonce")}).With(w.claims))
	if err != nil {
		respond(to, http.StatusInternalServerError, Claims{"error": err.Error()})
		return
	}
	respond(
		to,
		http.StatusOK,
		Claims{"access_token": "access", "token_type": "Bearer", "expires_in": 60, "id_token": jwt},
	)
}

func respond(to http.ResponseWriter, code int, body Claims) {
	to.Header().Set("Content-Type", "application/json")
	to.WriteHeader(code)
	_ = json.NewEncoder(to).Encode(body)
}
