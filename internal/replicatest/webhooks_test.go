package replicatest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/tokens"
)

// endpoint receives messages, and behaves as it is told.
type endpoint struct {
	name   string
	server *httptest.Server
	verify *standardwebhooks.Webhook
	upset  atomic.Bool // it fails, hangs and answers late

	mu       sync.Mutex
	accepted []notice
	ids      map[string]string // the body by webhook-id
	faults   []string
	attempts int
}

// notice is what names an event, in a message and in the audit log.
type notice struct{ kind, about, time string }

func newEndpoint(t *testing.T, name string) *endpoint {
	t.Helper()
	e := &endpoint{name: name, ids: map[string]string{}}
	e.server = httptest.NewServer(e)
	t.Cleanup(func() {
		e.server.CloseClientConnections() // of handlers that hang
		e.server.Close()
	})
	return e
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server was killed in the middle of it
	}
	e.check(text, r.Header)
	if e.upset.Load() {
		switch n := rand.IntN(100); {
		case n < 25:
			w.WriteHeader(http.StatusInternalServerError)
			return
		case n < 28:
			<-r.Context().Done()
			return
		case n < 40:
			panic(http.ErrAbortHandler)
		case n < 60:
			select {
			case <-r.Context().Done():
				return
			case <-time.After(rand.N(time.Second)):
			}
		}
	}
	var m struct {
		Type      string
		Timestamp string
		Data      struct {
			TokenID string `json:"token_id"`
			User    string
			Service string
		}
	}
	if err := json.Unmarshal(text, &m); err != nil {
		e.fault("a body that is no message: %v", err)
	}
	about := m.Data.TokenID
	if about == "" {
		about = m.Data.User
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.accepted = append(e.accepted, notice{m.Type, about, m.Timestamp})
	w.WriteHeader(http.StatusNoContent)
}

// check verifies a message's signature, and that a message that comes again is the same.
func (e *endpoint) check(text []byte, h http.Header) {
	if err := e.verify.Verify(text, h); err != nil {
		e.fault("a signature: %v", err)
	}
	id := h.Get("Webhook-Id")
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attempts++
	if before, again := e.ids[id]; again && before != string(text) {
		e.faults = append(e.faults, fmt.Sprintf("the message %s was %s before, and is %s", id, before, text))
	}
	e.ids[id] = string(text)
}

func (e *endpoint) fault(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = append(e.faults, fmt.Sprintf(format, args...))
}

// register makes a webhook for the endpoint.
func (e *endpoint) register(t *testing.T, a *api, secret string) {
	t.Helper()
	text, err := newWebhook(t.Context(), a, secret, e.server.URL)
	must(t, err)
	e.verify, err = standardwebhooks.NewWebhook(text)
	must(t, err)
}

// newWebhook makes a webhook of all events, and returns its secret.
func newWebhook(ctx context.Context, a *api, admin, url string) (string, error) {
	body, err := json.Marshal(map[string]any{"url": url})
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/v1/webhooks", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+admin)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var answer struct{ Secret string }
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil || answer.Secret == "" {
		return "", fmt.Errorf("make a webhook: %s: %w: %s", resp.Status, err, text)
	}
	return answer.Secret, nil
}

// eventsAfter returns what is sent of the audit log after a position, with where each stands.
func eventsAfter(t *testing.T, c *cluster, after uint64) map[notice]uint64 {
	t.Helper()
	found, page := map[notice]uint64{}, ""
	for {
		list, err := c.replicas[0].now().audit.ListEvents(
			t.Context(),
			&patdv1.ListEventsRequest{PageSize: 200, PageToken: page},
		)
		must(t, err)
		for _, e := range list.GetEvents() {
			if e.GetEventId() <= after {
				return found
			}
			if e.GetOutcome() != patdv1.Event_SUCCESS {
				continue
			}
			kind, sent := tokens.WebhookType(
				tokens.Event{Action: tokens.Action(e.GetAction()), Outcome: tokens.OutcomeSuccess},
			)
			if !sent {
				continue
			}
			about := e.GetTokenId()
			if about == "" {
				about = e.GetUser()
			}
			found[notice{kind, about, e.GetTime().AsTime().Format(time.RFC3339Nano)}] = e.GetEventId()
		}
		if page = list.GetNextPageToken(); page == "" {
			return found
		}
	}
}

func newestEvent(t *testing.T, c *cluster) uint64 {
	t.Helper()
	list, err := c.replicas[0].now().audit.ListEvents(t.Context(), &patdv1.ListEventsRequest{PageSize: 1})
	must(t, err)
	return list.GetEvents()[0].GetEventId()
}

// arrived reports whether the endpoint has accepted as many different messages.
func (e *endpoint) arrived(n int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	different := map[notice]bool{}
	for _, m := range e.accepted {
		different[m] = true
	}
	return len(different) >= n
}

// compare compares what the endpoint has accepted with the audit log.
func (e *endpoint) compare(t *testing.T, want map[notice]uint64) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	last, seen := map[string]uint64{}, map[notice]bool{}
	for _, m := range e.accepted {
		at, happened := want[m]
		if !happened {
			t.Errorf("%s received %v, which is not in the audit log", e.name, m)
		}
		if seen[m] {
			continue // at least once
		}
		seen[m] = true
		if at < last[m.about] {
			t.Errorf("%s received %v after what came after it", e.name, m)
		}
		last[m.about] = at
	}
	for m := range want {
		if !seen[m] {
			t.Errorf("%s did not receive %v", e.name, m)
		}
	}
	for _, f := range e.faults {
		t.Errorf("%s: %s", e.name, f)
	}
	t.Logf("%s: %d events, %d attempts, %d accepted", e.name, len(want), e.attempts, len(e.accepted))
}

// deadURL is the URL of an endpoint that nothing listens on.
func deadURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return "http://" + l.Addr().String()
}

// TestWebhooksReceiveEachCommittedEventInOrder kills the servers at random, while clients make changes, and one
// endpoint fails, hangs, answers late and breaks off, and another is dead. Each event of the audit log arrives at the
// good and the upset one, in the order of its token, and nothing else does. Only LONG_TESTS runs it.
func TestWebhooksReceiveEachCommittedEventInOrder(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	const replicas, clients, lasts, harm = 3, 6, 45 * time.Second, 4 * time.Second
	c := newCluster(t, dbtest.SharedPostgres(t), "webhooks", replicas)
	good, upset := newEndpoint(t, "the good endpoint"), newEndpoint(t, "the upset endpoint")
	upset.upset.Store(true)
	for _, e := range []*endpoint{good, upset} {
		e.register(t, c.replicas[0].now(), c.admin)
	}
	_, err := newWebhook(t.Context(), c.replicas[0].now(), c.admin, deadURL(t))
	must(t, err)
	after := newestEvent(t, c)

	var n counts
	ctx, stop := context.WithTimeout(t.Context(), lasts)
	defer stop()
	var working sync.WaitGroup
	for i := range clients {
		l := &ledger{client: i, features: map[string]string{}, counts: &n}
		working.Go(func() {
			if err := l.work(ctx, c); err != nil && ctx.Err() == nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	kills := 0
	for await(ctx, harm/2, harm) {
		r := c.replicas[kills%len(c.replicas)]
		r.kill()
		kills++
		must(t, r.startSoon())
	}
	working.Wait()
	upset.upset.Store(false)
	want := eventsAfter(t, c, after)
	deadline := time.Now().Add(5 * time.Minute) // retries are up to minutes apart by now
	for _, e := range []*endpoint{good, upset} {
		poll := time.NewTicker(100 * time.Millisecond)
		for !e.arrived(len(want)) && time.Now().Before(deadline) {
			<-poll.C
		}
		poll.Stop()
		e.compare(t, want)
	}
	t.Logf("%d kills; %s", kills, &n)
	if kills < 1 || len(want) < 20 {
		t.Error("too little happened: the test proves nothing")
	}
}

// TestTenThousandEventsAMinuteWithOneEndpointDead makes 10 000 events within a minute, or as fast as the machine can,
// and looks whether a good endpoint gets them meanwhile although another is dead.
func TestTenThousandEventsAMinuteWithOneEndpointDead(t *testing.T) {
	longtest.Alone(t)
	const events = 10_000
	c := newCluster(t, dbtest.SharedPostgres(t), "webhookrate", 3)
	good := newEndpoint(t, "the good endpoint")
	good.register(t, c.replicas[0].now(), c.admin)
	_, err := newWebhook(t.Context(), c.replicas[0].now(), c.admin, deadURL(t))
	must(t, err)
	after := newestEvent(t, c)
	began := time.Now()
	var users sync.WaitGroup
	var next atomic.Int64
	for i := range 24 {
		users.Go(func() {
			a := c.replicas[i%len(c.replicas)].now()
			for {
				n := next.Add(1)
				if n > events/4 {
					return
				}
				user := fmt.Sprintf("user-%d", n)
				// One event of features, one of the token, one of its rotation, one of its end.
				err := a.hold(t.Context(), user, "a")
				tok, _, merr := a.mint(t.Context(), user, "t", fmt.Sprintf("token of the user number %d", n))
				_, rerr := a.rotate(t.Context(), tok)
				for _, err := range []error{err, merr, rerr, a.revoke(t.Context(), tok)} {
					if err != nil {
						t.Errorf("make an event: %v", err)
						return
					}
				}
			}
		})
	}
	users.Wait()
	made := time.Since(began)
	waittest.Within(t, patience, "all events have arrived", func() bool { return good.arrived(events) })
	all := time.Since(began)
	good.compare(t, eventsAfter(t, c, after))
	t.Logf("%d events in %v, %.0f a minute; all had arrived after %v", events, made, events/made.Minutes(), all)
	for _, r := range c.replicas {
		if s := r.now().figure(t, "patd_webhooks_down"); !strings.Contains("01", s) {
			t.Errorf("%s says that %s endpoints are down", r.name, s)
		}
	}
}
