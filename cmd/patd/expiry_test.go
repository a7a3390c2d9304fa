package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"math"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"patd/cmd/patd/internal/cli/storeadmin"
	"patd/server"
	"patd/tokens"
)

// TestTheEndOfAServiceTokenIsAnnounced: the log, the metrics and patd check speak of a service token's end before it
// comes.
func TestTheEndOfAServiceTokenIsAnnounced(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	start := clock.now().Truncate(time.Second)
	clock.set(start)
	c, o := opens(t, clock)
	service, err := storeadmin.Accounts(c, o)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	create := func(name string, days int) {
		t.Helper()
		ttl := time.Duration(days) * 24 * time.Hour
		m, err := service.CreateService(
			t.Context(),
			tokens.Operator(),
			tokens.ServiceRequest{Name: name, Permissions: []string{"introspect"}, TTL: &ttl},
		)
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = m.Service.ID.String()
	}
	create("gateway", 30)
	create("reports", 20)
	create("revoked", 20)
	create("distant", 300)
	if _, err := service.RevokeService(t.Context(), tokens.Operator(), "revoked", ""); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	x := &expiries{store: o.Store, now: c.Now, log: slog.New(slog.NewTextHandler(&log, nil))}
	look := func(day float64) string {
		t.Helper()
		log.Reset()
		clock.set(start.Add(time.Duration(day * 24 * float64(time.Hour))))
		x.look(t.Context())
		return log.String()
	}
	figures := func(day float64, wantDays float64, wantSoon int) {
		t.Helper()
		until, cert, soon := x.figures()
		if got := until / 86400; math.Abs(got-wantDays) > 0.01 || soon != wantSoon || !math.IsInf(cert, 1) {
			t.Errorf(
				"on day %v: %v days, %d soon, certificate %v; want %v, %d, none",
				day,
				got,
				soon,
				cert,
				wantDays,
				wantSoon,
			)
		}
	}
	for _, at := range []struct {
		day      float64
		lines    int
		has      string
		untilEnd float64
		soon     int
	}{
		{0, 0, "", 20, 0},
		{7, 1, "a service token expires soon", 13, 1},
		{7.5, 0, "", 12.5, 1}, // once a day
		{8.1, 1, "service=reports", 11.9, 1},
		{19.9, 2, "service=gateway", 0.1, 2},
		{20.1, 1, "a service token has expired", 9.9, 1}, // at once
		{35, 1, "service=gateway", 265, 0},               // reports has ended 15 days ago
	} {
		text := look(at.day)
		if strings.Count(text, "\n") != at.lines || !strings.Contains(text, at.has) {
			t.Errorf("on day %v: want %d lines with %q, have\n%s", at.day, at.lines, at.has, text)
		}
		if at.lines == 1 && !strings.Contains(text, ids["reports"]) && !strings.Contains(text, ids["gateway"]) {
			t.Errorf("on day %v the token id is missing: %s", at.day, text)
		}
		figures(at.day, at.untilEnd, at.soon)
	}
	// Somebody replaced one that had ended.
	create("gateway", 300)
	found, err := storeadmin.ReadEndings(t.Context(), o.Store, clock.now())
	if got := found.Warnings(clock.now()); err != nil || len(got) != 0 {
		t.Errorf("patd check warns of %v, %v", got, err)
	}
	clock.set(start.Add(295 * 24 * time.Hour))
	found, err = storeadmin.ReadEndings(t.Context(), o.Store, clock.now())
	if got := strings.Join(
		found.Warnings(clock.now()),
		"\n",
	); err != nil ||
		!strings.HasPrefix(got, "the token "+ids["distant"]+" of service distant expires at ") {
		t.Errorf("patd check warns of %q, %v", got, err)
	}
}

// TestTheEndOfTheCertificateIsAnnounced: in the log and the metrics. A file that was replaced is noticed without a
// connection.
func TestTheEndOfTheCertificateIsAnnounced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	selfSigned(t, cert, key) // for an hour
	d := serve(t, filepath.Join(dir, "data"), "--tls-cert", cert, "--tls-key", key)
	if _, err := d.Log.Await(patience, regexp.MustCompile("the TLS certificate expires soon")); err != nil {
		t.Fatal(err)
	}
	config, err := server.LoadTLS(cert, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &expiries{now: time.Now, cert: certificateEnd(config)}
	if _, until, _ := x.figures(); until < 3000 || until > 3600 {
		t.Errorf("the certificate ends in %v s, want an hour", until)
	}
	roots := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer roots.CloseIdleConnections()
	resp, err := (&http.Client{Transport: roots}).Get(d.HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^patd_tls_certificate_expiry_seconds 3[0-9]{3}`).Match(text) {
		t.Errorf("the metrics do not have the end of the certificate:\n%s", text)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}
