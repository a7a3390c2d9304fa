package server_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/tokens"
)

// TestSecretIsNeverRepeatedByOAuth puts live secrets of each kind everywhere a caller could put one. A good answer
// holds the secrets that it makes, and never the one that was presented.
func TestSecretIsNeverRepeatedByOAuth(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "off", AllowOffline: true, AccessTTL: time.Hour})
	_, pat := r.pat(tokens.MintRequest{User: "u1", Name: "marked", Audiences: []string{"off"}}, "a")
	got := r.exchange(pat, "scope", "offline_access a")
	access, token := got.text("access_token"), got.text("refresh_token")
	var all []string
	for _, s := range []string{pat, access, token, r.admin} {
		all = append(all, markers(t, s)...)
	}
	for _, s := range []string{pat, access, token} {
		m := marked{t: t, r: r, secret: s, marks: all}
		m.oauthAll()
		r.wait(time.Minute) // makes room for more exchanges
	}
	if got := r.lookAt(pat); got.json["active"] != true {
		t.Fatalf("the marked token has ended meanwhile: %s", got.body)
	}
	m := marked{t: t, r: r, secret: pat, marks: all}
	for range 2 {
		for _, s := range []string{access, token, pat} {
			m.oauth(atRevoke, formOf("token", s, "client_id", "app"))
		}
	}
	m.aftermath()
}

// oauth sends a form and looks for the secret in the answer.
func (m marked) oauth(path, form string, headers ...string) {
	m.t.Helper()
	got := m.r.rest(
		"POST",
		path,
		"",
		form,
		append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
	m.check("POST "+path+" with "+form[:min(len(form), 200)], fmt.Sprint(got))
}

// oauthAll puts the secret into every parameter of the OAuth endpoints, known or not, into names, headers and
// addresses, and into what is no form.
func (m marked) oauthAll() {
	m.t.Helper()
	s := m.secret
	service, client := []string{"client_id", "admin", "client_secret", m.r.admin}, basic("admin", m.r.admin)
	for _, path := range []string{atIntrospect, atToken, atRevoke} {
		good := []string{
			"token",
			"garbage",
			"grant_type",
			grantExchange,
			"subject_token",
			s,
			"subject_token_type",
			typeAccess,
			"refresh_token",
			"x",
		}
		for _, name := range []string{
			"token", "token_type_hint", "client_ip", "client_id", "client_secret", "grant_type", "subject_token", "subject_token_type", "requested_token_type",
			"actor_token", "actor_token_type", "audience", "resource", "scope", "refresh_token", "unknown", s,
		} {
			if path == atRevoke && name == "token" {
				continue // it would end the marked token, which comes last
			}
			for _, rest := range [][]string{nil, service, append([]string{"client_id", "app"}, good...), good, {"grant_type", "refresh_token", "refresh_token", s}} {
				form := formOf(append([]string{name, s}, rest...)...)
				m.oauth(path, form)
				m.oauth(path, form, client...)
			}
			once := formOf(append([]string{name, s}, without(good, name)...)...)
			m.oauth(path, once, client...)
			m.oauth(path, once+"&"+url.QueryEscape(name)+"="+s, client...)
			m.panicking(func() { m.oauth(path, once, client...) })
		}
		for _, headers := range [][]string{
			basic(s, s), basic("admin", s), basic(s, m.r.admin), {"Authorization", s}, {"Authorization", "Bearer " + s}, {"Authorization", "Basic " + s},
			{"Authorization", "Bearer " + s + "x"}, {"Authorization", s + " " + s}, {"X-Request-Id", s}, {"X-Forwarded-For", s}, {"Cookie", s}, {"Content-Encoding", s},
		} {
			m.oauth(path, formOf("token", "garbage", "grant_type", s), headers...)
		}
		for _, body := range []string{s, `{"token":"` + s + `"}`, s + ";" + s, "%zz" + s, s + "=" + s + "&" + s + "=" + s, "token=%" + s} {
			m.oauth(path, body, client...)
			m.check("a type", fmt.Sprint(m.r.rest("POST", path, "", body, append(client, "Content-Type", s)...)))
			m.check("no type", fmt.Sprint(m.r.rest("POST", path, "", body, client...)))
		}
		for _, method := range []string{"GET", "HEAD", "PUT", "BREW"} {
			m.check(method, fmt.Sprint(m.r.rest(method, path+"?token="+s, "", "", client...)))
		}
		m.oauth(path+"?token="+s, formOf("token", "garbage"), client...)
		m.oauth(path+"/"+s, formOf("token", "garbage"), client...)
	}
	for _, path := range []string{"/.well-known/jwks.json", "/.well-known/oauth-authorization-server"} {
		m.check(path, fmt.Sprint(m.r.rest("GET", path+"?"+s+"="+s, s, "")))
		m.check(path, fmt.Sprint(m.r.rest("POST", path, s, s)))
	}
}

// without is the pairs name, value, … but for one name.
func without(pairs []string, name string) []string {
	var left []string
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] != name {
			left = append(left, pairs[i], pairs[i+1])
		}
	}
	return left
}
