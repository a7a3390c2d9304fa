package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"patd/internal/waittest"
)

func TestReadyzVerboseNamesThePartThatIsNotWell(t *testing.T) {
	t.Parallel()
	data, admin := administer(t)
	source := httptest.NewServer(
		http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		),
	)
	defer source.Close()
	d := serve(t, data, "--oidc-issuer", "http://127.0.0.1:1/", "--oidc-audience", "patd",
		"--features-source", "callback", "--features-callback-url", source.URL,
		"--features-callback-key-file", written(t, "key", strings.Repeat("k", 32)))
	d.call(t, http.MethodGet, "/readyz", "", "").want(t, "ready", 200, `"status":"ready"`)
	d.call(t, http.MethodGet, "/readyz?verbose", "", "").
		want(t, "verbose", 200, `"store":{"well":true}`, `"hash_keys":{"well":true}`, `"features":{"well":true}`)
	d.call(t, http.MethodGet, "/v1/users/alice/features", admin, "").want(t, "an outage of the source", 503)
	waittest.Until(t, "sign-in is not well, because its issuer is away", func() bool {
		return strings.Contains(
			d.call(t, http.MethodGet, "/readyz?verbose", "", "").body,
			`"signin":{"well":false,"cause":"unavailable"}`,
		)
	})
	d.call(t, http.MethodGet, "/readyz?verbose", "", "").
		want(t, "verbose", 200, `"features":{"well":false,"cause":"the source of features did not answer`)
	d.call(t, http.MethodGet, "/metrics", "", "").
		want(t, "the metrics of the source", 200, "patd_features_request_failures_total 1",
			"patd_features_request_duration_seconds_count 1", "patd_features_since_success_seconds +Inf", `patd_signin_refusals_total{cause="signature"} 0`)
}
