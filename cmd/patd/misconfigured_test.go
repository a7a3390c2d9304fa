package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/oidctest"
	"patd/internal/waittest"
)

// TestMisspeltIssuerShowsAtStart holds that an issuer whose discovery document spells it otherwise shows in the log, in
// /readyz and in a metric before anybody signs in, and leaves the server ready.
func TestMisspeltIssuerShowsAtStart(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	provider := oidctest.New(t, time.Now)
	provider.Describe(oidctest.Discovery, provider.URL+"/")
	data, admin := administer(t)
	d := serve(t, data, "--oidc-issuer", provider.URL, "--oidc-audience", "https://patd.example.com/")
	waittest.Until(t, "/readyz says that sign-in is misconfigured", func() bool {
		return strings.Contains(d.call(t, http.MethodGet, "/readyz", admin, "").body, `"misconfigured"`)
	})
	d.call(t, http.MethodGet, "/readyz", admin, "").
		want(t, "ready", 200, `"status":"ready"`, `"signin":"misconfigured"`)
	d.call(t, http.MethodGet, "/metrics", admin, "").
		want(t, "metrics", 200, "patd_signin_misconfigured 1", "patd_signin_unavailable 0")
	waittest.Until(t, "the log names both spellings", func() bool {
		text := d.Log.String()
		return strings.Contains(text, "misconfigured") && strings.Contains(text, provider.URL+`/`) &&
			strings.Contains(text, "ERROR")
	})
}
