package features_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patd/features"
	"patd/tokens"
)

// bareEndpoint serves HTTP/1.1 by hand: reply writes to each question what it likes.
func bareEndpoint(t *testing.T, reply func(w io.Writer, user string, nth int)) (url string, connections *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = &atomic.Int64{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			serving.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for nth := 0; ; nth++ {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					var question struct{ User string }
					if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
						return
					}
					reply(conn, question.User, nth)
					if r.Close {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return "http://" + l.Addr().String(), connections
}

func response(status, body string) string {
	return fmt.Sprintf(
		"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		status,
		len(body),
		body,
	)
}

// TestLeftoverAnswerIsNobodyElses holds that an answer which is left on a connection from another question is never
// taken for an answer to this one, whatever form it has.
func TestLeftoverAnswerIsNobodyElses(t *testing.T) {
	t.Parallel()
	named := func(user string) string { return response("200 OK", `{"user":"`+user+`","features":["of.`+user+`"]}`) }
	for name, leftover := range map[string]string{
		"named":    named("alice"),
		"nameless": response("200 OK", `{"features":["of.alice"]}`),
		"unknown":  response("404 Not Found", `{"user":"unknown"}`),
		"an error": response("500 Oops", `{}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := bareEndpoint(t, func(w io.Writer, user string, nth int) {
				if nth == 0 {
					_, _ = io.WriteString(w, named(user))
					return
				}
				// What was left over comes before the answer, at the moment when the connection is used again.
				_, _ = io.WriteString(w, leftover+named(user))
			})
			s := newCallback(t, features.CallbackConfig{URL: url})
			defer s.Close()
			asked(t, s, "alice", "of.alice")
			held, err := s.Features(t.Context(), tokens.User{ID: "bob"}, true)
			if err == nil && strings.Join(held.Features, " ") != "of.bob" {
				t.Errorf("bob holds %v", held.Features)
			}
		})
	}
}

// TestNamelessAnswersReuseNoConnection holds that each question has a connection of its own while the answers do not
// name their user, and that connections are reused while they do.
func TestNamelessAnswersReuseNoConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body string
		most int64
		min  int64
	}{
		"nameless": {`{"features":["a"]}`, 10, 10},
		"named":    {`{"user":"alice","features":["a"]}`, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, connections := bareEndpoint(t, func(w io.Writer, _ string, _ int) {
				_, _ = io.WriteString(w, response("200 OK", c.body))
			})
			s := newCallback(t, features.CallbackConfig{URL: url})
			defer s.Close()
			for range 10 {
				asked(t, s, "alice", "a")
			}
			if n := connections.Load(); n < c.min || n > c.most {
				t.Errorf("10 questions opened %d connections, want %d to %d", n, c.min, c.most)
			}
		})
	}
}

// TestNotFoundOfAProxyKeepsTheLastAnswer holds that a 404 which does not say that the user is unknown is an outage: the
// last answer is served as stale, and a fresh one is refused.
func TestNotFoundOfAProxyKeepsTheLastAnswer(t *testing.T) {
	t.Parallel()
	var deployed atomic.Bool
	e := &endpoint{answers: map[string]string{"alice": `{"user":"alice","features":["a"]}`}}
	deployed.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !deployed.Load() {
			http.Error(w, "404 page not found", http.StatusNotFound)
			return
		}
		e.ServeHTTP(w, r)
	}))
	defer server.Close()
	c, err := features.NewCached(
		newCallback(t, features.CallbackConfig{URL: server.URL}),
		features.CacheConfig{Now: time.Now, TTL: time.Nanosecond},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asked(t, c, "alice", "a")
	deployed.Store(false)
	held, err := c.Features(t.Context(), tokens.User{ID: "alice"}, false)
	if err != nil || !held.Stale || strings.Join(held.Features, " ") != "a" {
		t.Errorf("during the deployment alice holds %+v, %v", held, err)
	}
	held, err = c.Features(t.Context(), tokens.User{ID: "alice"}, true)
	isOutage(t, held, err)
	deployed.Store(true)
	asked(t, c, "nobody")
}

// TestHangingUsersDoNotHoldUpAnother holds that users about whom the endpoint hangs do not keep another user waiting
// for longer than a question may stay among the quick ones.
func TestHangingUsersDoNotHoldUpAnother(t *testing.T) {
	t.Parallel()
	var hanging atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var question struct{ User string }
		if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
			return
		}
		if strings.HasPrefix(question.User, "hangs") {
			hanging.Add(1)
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"user":"`+question.User+`","features":["a"]}`)
	}))
	defer server.Close()
	const users, timeout = 100, 20 * time.Second
	c, err := features.NewCached(newCallback(t, features.CallbackConfig{URL: server.URL, Timeout: timeout}),
		features.CacheConfig{Now: time.Now, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() // ends those that hang
	var asking sync.WaitGroup
	defer asking.Wait()
	defer c.Close()
	for i := range users {
		for range 2 { // one user has one place
			asking.Go(func() { _, _ = c.Features(t.Context(), tokens.User{ID: fmt.Sprint("hangs ", i)}, true) })
		}
	}
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(start) < timeout/2 && hanging.Load() < 32 {
		<-tick.C
	}
	start = time.Now()
	asked(t, c, "alice", "a")
	if d := time.Since(start); d > timeout/4 {
		t.Errorf("another user waited %v", d)
	}
}

// TestCrowdIsRefusedAtOnce holds that no more than a bound of calls wait for a source that hangs: the others are
// refused at once, and calls about another user get the room of those that wait for what hangs.
func TestCrowdIsRefusedAtOnce(t *testing.T) {
	bubble(t, features.CacheConfig{MaxWaiting: 8, Timeout: 5 * time.Second}, func(r rig) {
		r.slow(time.Hour)
		start := time.Now()
		var asking sync.WaitGroup
		var atOnce, displaced atomic.Int64
		for i := range 100 {
			asking.Go(func() {
				held, err := r.c.Features(r.t.Context(), tokens.User{ID: fmt.Sprint(i)}, i%2 == 0)
				isOutage(r.t, held, err)
				switch took := time.Since(start); {
				case took == 0:
					atOnce.Add(1)
				case took < 4*time.Second:
					displaced.Add(1)
				}
			})
		}
		pass(time.Second)
		if n := atOnce.Load(); n != 100-8-4 {
			r.t.Errorf("%d of 100 calls were refused at once, want all but 8 and 4 for fresh answers", n)
		}
		r.slow(0)
		r.say("a")
		r.want(true, false, "a")
		r.want(false, false, "a")
		asking.Wait()
		if n := displaced.Load(); n != 1 {
			r.t.Errorf("%d calls gave way to one fresh one about another user and one from memory", n)
		}
	})
}
