package server_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/server"
)

// strangersHold has strangers hold all of the budget of unknown callers, up to the last bytes: bodies that do not end.
func strangersHold(t *testing.T, r *rig, client *http.Client, all int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	t.Cleanup(func() { cancel(); sending.Wait() })
	var sent atomic.Int64 // bytes of the bodies that are not refused yet
	hold := func(size int) {
		body, more := io.Pipe()
		req, err := http.NewRequestWithContext(ctx, "POST", "https://"+r.srv.HTTPAddr()+"/v1/leaks", body)
		must(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = 65_000
		sent.Add(int64(size))
		sending.Go(func() {
			defer sent.Add(-int64(size))
			if resp, err := client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
			_ = body.Close()
		})
		go func() { _, _ = io.WriteString(more, strings.Repeat("x", size)) }()
	}
	memory := regexp.MustCompile(`(?m)^patd_unknown_caller_memory_bytes (\S+)`)
	held := func() int {
		resp, err := client.Get("https://" + r.srv.HTTPAddr() + "/metrics")
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		found := memory.FindSubmatch(body)
		if found == nil {
			if resp.StatusCode != http.StatusTooManyRequests {
				t.Fatalf("the metrics: %d %s", resp.StatusCode, body)
			}
			return all // this connection is a stranger's too, and nothing is left for it
		}
		n, err := strconv.ParseFloat(string(found[1]), 64)
		must(t, err)
		return int(n)
	}
	held() // so that all have one connection
	for range all / 60_000 {
		hold(60_000)
	}
	// Some of these may be refused while they come together. Halves of what is left come close to all of it in a few
	// steps, each of which begins when the one before is counted or refused: a connection carries only so many requests
	// at once, and the one for the metrics would have to wait. It is held once that is seen again and again: what is
	// refused is counted for a moment, too.
	seen := 0
	waittest.Until(t, "the whole budget is held", func() bool {
		now := held()
		left := all - now
		if left >= 6000 && int64(now) < sent.Load() {
			return false
		}
		if left < 6000 {
			seen++
			return seen == 5
		}
		seen = 0
		hold(max(1000, min(60_000, left/2)))
		return false
	})
}

// TestAGoodCallerPassesWhileStrangersHoldTheWholeBudget has callers with a good credential come on fresh connections,
// with many calls at once, large headers and large messages, while strangers are refused.
func TestAGoodCallerPassesWhileStrangersHoldTheWholeBudget(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	const budget = 4 << 20 // half of it is for connections
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePair(t, certFile, keyFile, 1)
	served, err := server.LoadTLS(certFile, keyFile, nil)
	must(t, err)
	r := newRig(t, func(c *server.Config) {
		c.TLS = served
		c.UnknownCallerMemory = budget
	})
	conf := &tls.Config{InsecureSkipVerify: true}
	web := func(protocol string) *http.Client {
		transport := &http.Transport{TLSClientConfig: conf.Clone(), Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(protocol == "HTTP/1.1")
		transport.Protocols.SetHTTP2(protocol == "HTTP/2.0")
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	strangersHold(t, r, web("HTTP/2.0"), budget/2)

	large, bulky := strings.Repeat("x", 30_000), strings.Repeat("~", 9_000)
	credential := "Bearer " + r.admin
	send := func(c *http.Client, credential, path, kind, body string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(
			t.Context(),
			"POST",
			"https://"+r.srv.HTTPAddr()+path,
			strings.NewReader(body),
		)
		must(t, err)
		req.Header.Set("Content-Type", kind)
		req.Header.Set("X-Bulky", bulky)
		req.Header.Set("Authorization", credential)
		resp, err := c.Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		return resp, err
	}
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		stranger := web(protocol)
		if resp, err := send(
			stranger,
			"Bearer pat_x",
			"/v1/leaks",
			"application/json",
			`{"secrets":["`+large+`"]}`,
		); err != nil ||
			resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("a stranger over %s: %v %v", protocol, resp, err)
		}
		stranger.CloseIdleConnections() // few connections without a credential are kept, and the oldest holds the budget
		for _, way := range []struct{ credential, path, kind, body string }{
			{credential, "/v1/introspect", "application/json", `{"token":"` + large + `"}`},
			{credential, "/v1/introspect", "application/json", `{"token":"` + large + `","audience":null}`},
			{credential, "/v1/introspect:batch", "application/json", `{"requests":[{"token":"` + large + `"}]}`},
			{credential, "/oauth2/introspect", "application/x-www-form-urlencoded", "token=" + large},
			{basic("admin", r.admin)[1], "/oauth2/introspect", "application/x-www-form-urlencoded", "token=" + large},
		} {
			client := web(protocol) // fresh
			var calls sync.WaitGroup
			for range 4 {
				calls.Go(func() {
					resp, err := send(client, way.credential, way.path, way.kind, way.body)
					if err != nil || resp.StatusCode == http.StatusTooManyRequests ||
						resp.StatusCode == http.StatusUnauthorized ||
						resp.Proto != protocol {
						t.Errorf("%s %.40s over %s: %v %v", way.path, way.body, protocol, resp, err)
					}
				})
			}
			calls.Wait()
		}
	}

	for range 4 {
		conn, err := grpc.NewClient(r.srv.GRPCAddr(), grpc.WithTransportCredentials(credentials.NewTLS(conf.Clone())))
		must(t, err)
		defer conn.Close()
		ctx, cancel := context.WithTimeout(
			metadata.AppendToOutgoingContext(t.Context(), "authorization", credential, "x-bulky", bulky),
			time.Minute,
		)
		defer cancel()
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				if _, err := patdv1.NewIntrospectionServiceClient(conn).
					Introspect(ctx, &patdv1.IntrospectRequest{Token: large}); err != nil {
					t.Errorf("over gRPC: %v", err)
				}
			})
			calls.Go(func() {
				s, err := patdv1.NewIntrospectionServiceClient(conn).IntrospectStream(ctx)
				if err == nil {
					err = s.Send(
						&patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{Token: large}},
					)
				}
				if err == nil {
					_, err = s.Recv()
				}
				if err != nil {
					t.Errorf("a stream over gRPC: %v", err)
				}
			})
		}
		calls.Wait()
	}
}
