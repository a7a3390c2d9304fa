package main

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	patdv1 "patd/gen/patd/v1"
)

var (
	shownMetric = regexp.MustCompile(
		"(?m)^\\| `(patd_[a-z_]+)` \\| (counter|gauge|histogram) \\| [^|]+ \\| [^|]+ \\|$",
	)
	servedMetric  = regexp.MustCompile(`(?m)^# TYPE (patd_[a-z_]+) ([a-z]+)$`)
	mentionMetric = regexp.MustCompile(`\bpatd_[a-z]+_[a-z_]+\b`)
)

// TestPageOfMetricsHasEachMetricAndNoOther compares docs/metrics.md with what a server has under /metrics. Other pages
// mention no metric that is not there.
func TestPageOfMetricsHasEachMetricAndNoOther(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, m := range shownMetric.FindAllStringSubmatch(string(page), -1) {
		shown[m[1]] = m[2]
	}
	data, admin := administer(t)
	d := serve(t, data, "--oidc-issuer", "http://127.0.0.1:1/", "--oidc-audience", "patd")
	// A metric with labels that nothing was counted under is not there yet.
	stream, err := connect(t, d, admin).introspect.IntrospectStream(t.Context())
	if err == nil {
		err = stream.Send(&patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{Token: "x"}})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	d.call(t, http.MethodGet, "/v1/users/alice/features", admin, "").want(t, "a call to count", 200)
	text := d.call(t, http.MethodGet, "/metrics", "", "").body
	served := map[string]bool{}
	for _, m := range servedMetric.FindAllStringSubmatch(text, -1) {
		served[m[1]] = true
		if shown[m[1]] != m[2] {
			t.Errorf("%s is a %s, and docs/metrics.md says %q", m[1], m[2], shown[m[1]])
		}
	}
	for name := range shown {
		if !served[name] {
			t.Errorf("docs/metrics.md has %s, and the server does not", name)
		}
	}
	for _, name := range mentionMetric.FindAllString(string(page), -1) {
		if !served[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")] {
			t.Errorf("docs/metrics.md mentions %s, and the server does not have it", name)
		}
	}
	if len(served) < 15 {
		t.Errorf("the server has only %d metrics", len(served))
	}
}
