package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// TestTopShowsWhatServersDo gives the command metrics of two servers, one in trouble, and of one that does not answer.
func TestTopShowsWhatServersDo(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	const metrics = `patd_calls_total{method="Introspect",code="OK"} %[1]d
patd_calls_total{method="Introspect",code="UNAVAILABLE"} %[2]d
patd_rate_limited_total{limit="mint"} %[2]d
patd_decisions_total{decision="ALLOW"} %[1]d
patd_decisions_total{decision="REVOKED"} %[2]d
patd_cache_hits_total %[1]d
patd_cache_misses_total %[1]d
patd_feed_following %[3]d
patd_changes_failing %[4]d
patd_disk_full %[4]d
patd_webhook_oldest_seconds 7
patd_build_info{version="v1.2.3"} 1
# TYPE patd_call_duration_seconds histogram
patd_call_duration_seconds_bucket{le="0.001"} %[1]d
patd_call_duration_seconds_bucket{le="0.002"} %[5]d
patd_call_duration_seconds_bucket{le="+Inf"} %[5]d
patd_call_duration_seconds_sum 1
patd_call_duration_seconds_count %[5]d
`
	server := func(following, failing int) string {
		var looks atomic.Int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n := looks.Add(1)
			fmt.Fprintf(w, metrics, 1000*n, 100*n, following, failing, 2000*n)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	well, ill := server(1, 0), server(0, 1)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const gone = "http://127.0.0.1:1"
	cmd := exec.CommandContext(t.Context(), self, "top", "--once", "--every", "100ms", well, ill, gone)
	cmd.Args[0] = "patd"
	out, err := cmd.Output()
	if err == nil {
		t.Error("a server that does not answer is no failure")
	}
	text := string(out)
	const figure = `[1-9][0-9]*\.[0-9] +` // not zero
	for what, want := range map[string]string{
		"a server that is well": regexp.QuoteMeta(well) + ` +` + figure + `≤ 2 ms +` + figure + figure + figure + `50 % +7 s +ok\n`,
		"one in trouble": regexp.QuoteMeta(ill) + ` +` + figure + `≤ 2 ms +` + figure + figure + figure +
			`50 % +7 s +DISK FULL, NO CHANGES, NOT FOLLOWING\n`,
		"one that is not there": regexp.QuoteMeta(gone) + ` +does not answer: `,
		"decisions":             `(?s)DECISION +a second *\nALLOW +[1-9].*\nREVOKED +[1-9]`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%s is not shown by\n%s", what, strings.TrimSpace(text))
		}
	}
}

// TestTopGoesOnUntilItIsStopped has it look at a server that serves something else, and at one that ends: each look is a
// line, and says why there are no figures.
func TestTopGoesOnUntilItIsStopped(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	leaves := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "patd_feed_following 1\n")
	}))
	t.Cleanup(leaves.Close)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	looks := func(args ...string) *daemon {
		cmd := exec.Command(self, append([]string{"top", "--every", "100ms", other.URL, leaves.URL}, args...)...)
		cmd.Args[0] = "patd"
		d, err := proctest.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.End)
		return &daemon{d}
	}
	lines, screen := looks("--json"), looks()
	await := func(d *daemon, want string) {
		t.Helper()
		if _, err := d.Stdout.Await(patience, regexp.MustCompile(want)); err != nil {
			t.Error(err)
		}
	}
	await(lines, `"error":"the answer is 404 Not Found".*"feed_following":true`)
	await(screen, `patd top, .*\n\n.*\n`+regexp.QuoteMeta(other.URL)+` +does not answer: the answer is 404 Not Found`)
	leaves.Close()
	await(lines, `"error":".*refused"`)
	await(screen, regexp.QuoteMeta(leaves.URL)+` +does not answer: .*refused`)
	for _, d := range []*daemon{lines, screen} {
		if err := d.Stop(); err != nil {
			t.Errorf("stopped: %v, %s", err, d.Log)
		}
	}
}
