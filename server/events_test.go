package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/server"
	"patd/tokens"
)

// event is one server-sent event.
type event struct {
	name, id, data string
	news           struct {
		Sequence  string
		History   string
		StartOver bool     `json:"start_over"`
		TokenIDs  []string `json:"token_ids"`
		Users     []string
	}
}

// eventStream is a watch over HTTP, read as a standard client reads it.
type eventStream struct {
	t    testing.TB
	resp *http.Response
	in   *bufio.Scanner
}

// sentEvents opens a watch. Headers come as name, value, ….
func (r *rig) sentEvents(secret string, headers ...string) *eventStream {
	r.t.Helper()
	return r.sentEventsBy(r.client, "http://", secret, headers...)
}

func (r *rig) sentEventsBy(client *http.Client, scheme, secret string, headers ...string) *eventStream {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+r.srv.HTTPAddr()+"/v1/invalidations", nil)
	must(r.t, err)
	req.Header.Set("Authorization", "Bearer "+secret)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	must(r.t, err)
	r.t.Cleanup(func() {
		cancel()
		_ = resp.Body.Close()
	})
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		r.t.Fatalf("the watch: %d %s", resp.StatusCode, text)
	}
	return &eventStream{t: r.t, resp: resp, in: bufio.NewScanner(resp.Body)}
}

// next returns the next event; false: the stream has ended.
func (s *eventStream) next() (e event, ok bool) {
	s.t.Helper()
	for s.in.Scan() {
		name, value, _ := strings.Cut(s.in.Text(), ": ")
		switch name {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data = value
		case "":
			must(s.t, json.Unmarshal([]byte(e.data), &e.news))
			return e, true
		}
	}
	return e, false
}

// until returns the first event for which a condition holds.
func (s *eventStream) until(met func(event) bool) event {
	s.t.Helper()
	for {
		e, ok := s.next()
		if !ok {
			s.t.Fatalf("the stream ended: %v", s.in.Err())
		}
		if met(e) {
			return e
		}
	}
}

// end returns the reason for the end of a stream, and every token and user that was told before.
func (s *eventStream) end() (reason string, told []string) {
	s.t.Helper()
	last := s.until(func(e event) bool {
		told = append(told, append(e.news.TokenIDs, e.news.Users...)...)
		return e.name == "end"
	})
	if e, ok := s.next(); ok {
		s.t.Errorf("after the end: %+v", e)
	}
	reason, _ = answerOf{body: last.data}.reason()
	return reason, told
}

func named(name string) func(event) bool { return func(e event) bool { return e.name == name } }

func tells(id string) func(event) bool {
	return func(e event) bool { return slices.Contains(append(e.news.TokenIDs, e.news.Users...), id) }
}

// TestServerSentEventsTellWhatAWatchTells goes through the life of a watch over HTTP/1.1 and HTTP/2.
func TestServerSentEventsTellWhatAWatchTells(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	certFile, keyFile := filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key")
	roots := x509.NewCertPool()
	roots.AddCert(writePair(t, certFile, keyFile, 1))
	served, err := server.LoadTLS(certFile, keyFile, nil)
	must(t, err)
	r := newRig(t, func(c *server.Config) { c.TLS = served })
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			ForceAttemptHTTP2: version == "HTTP/2.0",
		}
		client := &http.Client{Transport: transport}
		t.Cleanup(transport.CloseIdleConnections)
		user := "user of " + version
		id, _ := r.mint(user, "a")
		s := r.sentEventsBy(client, "https://", r.admin)
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", "Cache-Control": "no-store", "Content-Encoding": "",
		} {
			if got := s.resp.Header.Get(name); got != want || s.resp.Proto != version {
				t.Errorf("%s: %s: %q", s.resp.Proto, name, got)
			}
		}
		first, _ := s.next()
		if first.name != "start-over" || !first.news.StartOver ||
			first.id != first.news.Sequence+"-"+first.news.History ||
			first.news.History == "" {
			t.Errorf("the first event: %+v", first)
		}
		for range 2 {
			if beat := s.until(
				named("heartbeat"),
			); beat.id == "" || beat.news.StartOver ||
				len(beat.news.TokenIDs)+len(beat.news.Users) > 0 {
				t.Errorf("a heartbeat: %+v", beat)
			}
		}
		must(t, r.revoke(user, id))
		if e := s.until(tells(id)); e.name != "invalidations" {
			t.Errorf("news: %+v", e)
		}
		_, err := r.svc.SuspendUser(context.Background(), tokens.Operator(), user, "")
		must(t, err)
		last := s.until(tells(user))

		for how, at := range map[string][]string{
			"by the id of an event":         {"Last-Event-ID", first.id},
			"by the id, and a query before": {"Last-Event-ID", first.id, "query", "after=1&history=x"},
			"by a query":                    {"query", "after=" + first.news.Sequence + "&history=" + first.news.History},
			"by a number and a history":     {"Last-Event-ID", first.news.Sequence, "query", "history=" + first.news.History},
		} {
			resumed, _ := r.resumed(client, at).next()
			if resumed.name != "invalidations" || !tells(id)(resumed) || resumed.news.Sequence < last.news.Sequence {
				t.Errorf("%s, resumed %s: %+v", version, how, resumed)
			}
		}
		for how, at := range map[string][]string{
			"of another history": {"Last-Event-ID", first.news.Sequence + "-x"},
			"of no history":      {"Last-Event-ID", first.news.Sequence},
			"of the future":      {"Last-Event-ID", "9223372036854775807-" + first.news.History},
		} {
			if e, _ := r.resumed(client, at).next(); e.name != "start-over" {
				t.Errorf("%s, %s: %+v", version, how, e)
			}
		}
	}
}

// resumed opens a watch over TLS with headers and, under the name query, a query.
func (r *rig) resumed(client *http.Client, at []string) *eventStream {
	r.t.Helper()
	where := *client
	if i := slices.Index(at, "query"); i >= 0 {
		query := at[i+1]
		where.Transport = withQuery(func(req *http.Request) (*http.Response, error) {
			req = req.Clone(req.Context())
			req.URL.RawQuery = query
			return client.Transport.RoundTrip(req)
		})
		at = slices.Delete(slices.Clone(at), i, i+2)
	}
	return r.sentEventsBy(&where, "https://", r.admin, at...)
}

type withQuery func(*http.Request) (*http.Response, error)

func (f withQuery) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestServerSentEventsAreForServicesThatIntrospect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, bearer := r.mint("u1", "a")
	gw := r.service("gw", "introspect")
	const path = "/v1/invalidations"
	for _, c := range []struct {
		method, path, secret string
		headers              []string
		code                 int
		reason               string
	}{
		{"GET", path, "", nil, 401, "CREDENTIAL_REQUIRED"},
		{"GET", path + "?what=x", "", nil, 401, "CREDENTIAL_REQUIRED"},
		{"GET", path, "pats_none", nil, 401, "CREDENTIAL_INVALID"},
		{"GET", path, bearer, nil, 403, "PERMISSION_DENIED"},
		{"GET", path, r.service("other", "tokens"), nil, 403, "PERMISSION_DENIED"},
		{"GET", path, gw, []string{"Last-Event-ID", "x"}, 400, "LAST_EVENT_ID_INVALID"},
		{"GET", path, gw, []string{"Last-Event-ID", "-1-x"}, 400, "LAST_EVENT_ID_INVALID"},
		{"GET", path, gw, []string{"Last-Event-ID", "1-" + strings.Repeat("x", 65)}, 400, "LAST_EVENT_ID_INVALID"},
		{"GET", path + "?after=x", gw, nil, 400, "QUERY_INVALID"},
		{"GET", path + "?after=1&after=2", gw, nil, 400, "QUERY_INVALID"},
		{"GET", path + "?what=x", gw, nil, 400, "QUERY_UNKNOWN"},
		{"GET", path, gw, []string{"If-None-Match", "*"}, 400, "PRECONDITION_UNSUPPORTED"},
		{"POST", path, gw, nil, 405, "METHOD_NOT_ALLOWED"},
		{"HEAD", path, gw, nil, 200, ""},
		{"HEAD", path, "", nil, 401, ""},
	} {
		got := r.rest(c.method, c.path, c.secret, "", c.headers...)
		if reason, _ := got.reason(); got.code != c.code || reason != c.reason {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, got.code, reason, c.code, c.reason)
		}
		if c.method == "HEAD" && c.code == 200 && got.header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("HEAD: %v", got.header)
		}
	}
	if n := len(r.logs.find(map[string]any{"http_route": path, "http_method": "GET", "http_status": 403.0})); n != 2 {
		t.Errorf("%d lines of the log about what is not allowed", n)
	}
}

func TestServerSentEventsTellNothingAfterTheirServiceIsRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, _ := r.mint("u1", "a")
	gw := r.service("gw", "introspect")
	s := r.sentEvents(gw)
	s.until(named("start-over"))
	r.endService("gw")
	must(t, r.revoke("u1", id))
	if reason, told := s.end(); reason != "CREDENTIAL_REVOKED" && reason != "CREDENTIAL_INVALID" ||
		slices.Contains(told, id) {
		t.Errorf("it ended with %s, and told %q", reason, told)
	}
	if got := r.rest("GET", "/v1/invalidations", gw, ""); got.code != http.StatusUnauthorized {
		t.Errorf("afterwards: %d", got.code)
	}
}

func TestServerSentEventsForAnAudienceTellOfNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	var ids []string
	for _, audience := range []string{"theirs", "mine"} {
		token, _ := r.pat(tokens.MintRequest{User: "u1", Name: audience, Audiences: []string{audience}}, "a")
		ids = append(ids, token.ID.String())
	}
	m, err := r.svc.CreateService(
		context.Background(),
		tokens.Operator(),
		tokens.ServiceRequest{Name: "gate", Permissions: []string{"introspect"}, Audience: "mine"},
	)
	must(t, err)
	s := r.sentEvents(m.Secret.Reveal())
	s.until(named("start-over"))
	for _, id := range ids {
		must(t, r.revoke("u1", id))
	}
	s.until(func(e event) bool {
		if tells(ids[0])(e) {
			t.Errorf("it is told of a token for another audience: %+v", e)
		}
		return tells(ids[1])(e)
	})
}

func TestServerSentEventsEndWithTheServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.sentEvents(r.admin)
	s.until(named("start-over"))
	silent, err := net.Dial("tcp", r.srv.HTTPAddr()) // it reads nothing
	must(t, err)
	defer silent.Close()
	_, err = fmt.Fprintf(
		silent,
		"GET /v1/invalidations HTTP/1.1\r\nHost: patd\r\nAuthorization: Bearer %s\r\n\r\n",
		r.admin,
	)
	must(t, err)
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	if reason, _ := s.end(); reason != "SERVER_STOPPING" {
		t.Errorf("it ended with %s", reason)
	}
	must(t, <-stopped)
	if len(r.logs.find(map[string]any{"msg": "not everything that was under way finished in time"})) > 0 {
		t.Error("a watch held the server up")
	}
}

func TestUsesAreReportedOverREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, _ := r.mint("u1", "a")
	gw := r.service("gw", "introspect")
	r.wait(10 * time.Minute)
	at := r.now().Add(-time.Minute).UTC().Truncate(time.Microsecond)
	report := func(secret, uses string, headers ...string) answerOf {
		return r.rest("POST", "/v1/uses:report", secret, `{"uses":[`+uses+`]}`, headers...)
	}
	use := fmt.Sprintf(
		`{"token_id":%q,"time":%q,"client_ip":"192.0.2.7","scopes":["reports.read"]}`,
		id,
		at.Format(time.RFC3339Nano),
	)
	if got := report(gw, use); got.code != http.StatusOK || strings.TrimSpace(got.body) != "{}" {
		t.Errorf("a report: %d %s", got.code, got.body)
	}
	if got := r.store.noted(id); !got.Time.Equal(at) || got.IP.String() != "192.0.2.7" {
		t.Errorf("last used %+v", got)
	}
	for reason, got := range map[string]answerOf{
		"CREDENTIAL_REQUIRED":         report("", use),
		"PERMISSION_DENIED":           report(r.service("other", "tokens"), use),
		"TOKEN_ID_INVALID":            report(gw, `{"token_id":"x","time":"2027-01-01T00:00:00Z"}`),
		"BATCH_TOO_LARGE":             report(gw, strings.Repeat(use+",", 1000)+use),
		"IDEMPOTENCY_KEY_UNSUPPORTED": report(gw, use, "Idempotency-Key", "k"),
	} {
		if is, _ := got.reason(); is != reason {
			t.Errorf("%d %s, want %s", got.code, got.body, reason)
		}
	}
}

// TestServerSentEventsOutliveTheLimitsOfOrdinaryRequests waits for longer than a request may take to arrive and to be
// answered, while another watcher does not read.
func TestServerSentEventsOutliveTheLimitsOfOrdinaryRequests(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	r := newRig(t)
	s := r.sentEvents(r.admin)
	began := time.Now()
	s.until(func(event) bool { return time.Since(began) > 45*time.Second })
}

// TestAReaderOfEventsThatDoesNotReadIsCutOff has a watcher read nothing while more is told than the connection holds.
func TestAReaderOfEventsThatDoesNotReadIsCutOff(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	r := newRig(t)
	silent, err := net.Dial("tcp", r.srv.HTTPAddr())
	must(t, err)
	defer silent.Close()
	must(t, silent.(*net.TCPConn).SetReadBuffer(4<<10))
	_, err = fmt.Fprintf(
		silent,
		"GET /v1/invalidations HTTP/1.1\r\nHost: patd\r\nAuthorization: Bearer %s\r\n\r\n",
		r.admin,
	)
	must(t, err)
	long := strings.Repeat("x", 240)
	deadline := time.Now().Add(3 * time.Minute)
	for n := 0; len(r.logs.find(map[string]any{"http_route": "/v1/invalidations", "reason": "WATCHER_TOO_SLOW"})) == 0; n++ {
		if time.Now().After(deadline) {
			t.Fatal("it was not cut off")
		}
		for i := range 64 {
			r.features(fmt.Sprint(long, n%20*64+i), fmt.Sprint("f", n))
		}
	}
}
