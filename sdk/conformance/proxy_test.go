package main

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
)

// TestTheProxyPassesHTTPOn has a patd behind a proxy asked over HTTP/1.1, as libraries do that speak no gRPC.
func TestTheProxyPassesHTTPOn(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	server, err := newPatd(path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer server.end(9)
	p, err := newProxy(server.http, server.grpc)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	send := func(method, path, body string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.http+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+server.admin)
		return http.DefaultClient.Do(r)
	}
	feed, err := send("GET", "/v1/invalidations", "")
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Body.Close()
	lines := bufio.NewScanner(feed.Body)
	expect := func(event string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == "event: "+event {
				return
			}
		}
		t.Fatalf("no %s: %v", event, lines.Err())
	}
	expect("start-over")
	expect("heartbeat")
	ask := func() (int, string) {
		resp, err := send("POST", "/v1/introspect:batch", `{"requests":[{"token":"x"},{"token":"y"}]}`)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if code, text := ask(); code != http.StatusOK || p.asks() != 2 {
		t.Errorf("a batch: %d %s, and %d tokens", code, text, p.asks())
	}
	p.set(map[string]fault{kindAsk: {Do: "cut"}})
	if code, text := ask(); code != 0 {
		t.Errorf("cut: %d %s", code, text)
	}
	p.set(map[string]fault{kindAsk: {Do: "answer", Status: 503, Body: "{}"}})
	if code, text := ask(); code != 503 || text != "{}" {
		t.Errorf("answered: %d %s", code, text)
	}
	p.set(map[string]fault{kindAsk: {Do: "replay"}})
	if code, text := ask(); code != http.StatusOK || !strings.Contains(text, "NOT_FOUND") {
		t.Errorf("replayed: %d %s", code, text)
	}
	p.set(map[string]fault{kindAsk: {}, kindFeed: {Do: "hold"}})
	came := make(chan bool)
	go func() {
		ok := true
		for range 8 { // two events
			ok = ok && lines.Scan()
		}
		came <- ok
	}()
	select {
	case <-came:
		t.Error("held: an event came")
	case <-time.After(1500 * time.Millisecond):
	}
	p.set(map[string]fault{kindFeed: {}})
	if !<-came {
		t.Error("what was held does not come")
	}
	p.set(map[string]fault{kindFeed: {Do: "cut"}})
	for lines.Scan() {
		continue
	}
	if lines.Err() == nil {
		t.Error("a cut looks like an end")
	}
}
