package features_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patd/features"
	"patd/features/featurestest"
	"patd/features/signature"
	"patd/tokens"
	"patd/tokens/secret"
)

const hmacKey = "marker-key-0123456789abcdef0123456789"

// endpoint is a company's endpoint.
type endpoint struct {
	mu       sync.Mutex
	answers  map[string]string // bodies by user; absent: 404
	stalled  chan struct{}     // not nil: nobody is answered until it is closed
	peers    map[string]bool
	requests atomic.Int64
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.requests.Add(1)
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err == nil {
		err = signature.Verify([]byte(hmacKey), r.Header.Get(signature.Header), body, time.Now(), time.Minute)
	}
	var question struct{ User string }
	if err == nil {
		err = json.Unmarshal(body, &question)
	}
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" ||
		r.Header.Get(
			"Authorization",
		) != "" || r.Header.Get("Accept-Encoding") != "" || r.Header["Idempotency-Key"] != nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	e.mu.Lock()
	answer, ok := e.answers[question.User]
	stalled := e.stalled
	if e.peers == nil {
		e.peers = map[string]bool{}
	}
	e.peers[r.RemoteAddr] = true
	e.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-r.Context().Done():
			return
		}
	}
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"user": "unknown"}`)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = io.WriteString(w, answer)
}

func (e *endpoint) hold(t *testing.T, user string, features ...string) {
	t.Helper()
	if features == nil {
		features = []string{}
	}
	answer, err := json.Marshal(map[string]any{"features": features})
	if err != nil {
		t.Fatal(err)
	}
	e.say(user, string(answer))
}

func (e *endpoint) say(user, answer string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers[user] = answer
}

func (e *endpoint) stall(*testing.T) (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	stalled := make(chan struct{})
	e.stalled = stalled
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.stalled = nil
		close(stalled)
	})
}

// serve serves over TLS at an address; it answers the server and the file of its authority.
func serve(t *testing.T, at string, h http.Handler) (*httptest.Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Config.ErrorLog = nil
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, ca
}

func newCallback(t *testing.T, c features.CallbackConfig) *features.Callback {
	t.Helper()
	c.HMACKey, c.Now = secret.NewSecret(hmacKey), time.Now
	if c.Timeout == 0 {
		c.Timeout = limit
	}
	s, err := features.NewCallback(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestCallback(t *testing.T) {
	t.Parallel()
	e := &endpoint{answers: map[string]string{}}
	server, ca := serve(t, "127.0.0.1:0", e)
	at := server.Listener.Addr().String()
	s := newCallback(t, features.CallbackConfig{URL: server.URL + "/features", CACertFile: ca, MaxFeatures: rows})
	bareAndCached(t, featurestest.Rig{
		Source: s, Hold: e.hold,
		Spoil: func(_ *testing.T, user string, f featurestest.Fault) {
			bad, _ := json.Marshal(f.Name())
			if f == featurestest.NotText {
				bad = []byte("5")
			}
			e.say(user, `{"features": ["good", `+string(bad)+`]}`)
		},
		Stall: e.stall,
		Down:  func(*testing.T) { server.CloseClientConnections(); server.Close() },
		Up:    func(*testing.T) { server, _ = serve(t, at, e) }, // for the tests that follow, too
		Max:   rows, Within: within,
	})
}

func TestCallbackReusesConnections(t *testing.T) {
	t.Parallel()
	e := &endpoint{answers: map[string]string{}}
	server, ca := serve(t, "127.0.0.1:0", e)
	s := newCallback(t, features.CallbackConfig{URL: server.URL, CACertFile: ca})
	e.hold(t, "alice", "a")
	for range 20 {
		asked(t, s, "alice", "a")
		asked(t, s, "nobody")
	}
	if n := len(e.peers); n > 1 {
		t.Errorf("40 questions one after another opened %d connections", n)
	}
}

// TestCallbackOddAnswersAreOutages holds that whatever was not agreed upon is an outage within the bound, quotes
// nothing and leads nowhere else.
func TestCallbackOddAnswersAreOutages(t *testing.T) {
	elsewhere := &endpoint{answers: map[string]string{"alice": `{"features":["stolen"]}`}}
	other := httptest.NewServer(elsewhere)
	defer other.Close()
	say := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if kind != "" {
				w.Header().Set("Content-Type", kind)
			} else {
				w.Header()["Content-Type"] = nil
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const good, kind = `{"features":["marker"]}`, "application/json"
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	}
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
			<-tick.C
		}
	}
	cases := map[string]http.HandlerFunc{
		"hangs":            func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"drips":            drip,
		"10 MiB":           say(200, kind, `{"features":["`+strings.Repeat("marker ", 10<<20/7)+`"]}`),
		"10 MiB of space":  say(200, kind, strings.Repeat(" ", 10<<20)+good),
		"garbage":          say(200, kind, "marker\x00\xff"),
		"garbage for HTTP": raw("marker marker\r\n\r\n"),
		"closes":           raw(""),
		"cut body": raw(
			"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + good,
		),
		"long header":          raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("marker", 20000) + "\r\n\r\n"),
		"HTML":                 say(200, "text/html", good),
		"no content type":      say(200, "", good),
		"problem JSON":         say(200, "application/problem+json", good),
		"empty":                say(200, kind, ""),
		"null":                 say(200, kind, "null"),
		"null features":        say(200, kind, `{"features":null}`),
		"no features":          say(200, kind, `{}`),
		"other spelling":       say(200, kind, `{"Features":["marker"]}`),
		"unknown member":       say(200, kind, `{"features":["marker"],"more":1}`),
		"unknown member first": say(200, kind, `{"more":1,"features":["marker"]}`),
		"repeated member":      say(200, kind, `{"features":["marker"],"features":[]}`),
		"something after":      say(200, kind, good+good),
		"a list":               say(200, kind, `["marker"]`),
		"a text":               say(200, kind, `{"features":"marker"}`),
		"nested":               say(200, kind, `{"features":[["marker"]]}`),
		"too many":             say(200, kind, `{"features":[`+strings.Repeat(`"marker",`, rows)+`"marker"]}`),
		"another user":         say(200, kind, `{"user":"marker","features":["marker"]}`),
		"another user last":    say(200, kind, `{"features":["marker"],"user":"marker"}`),
		"another case of user": say(200, kind, `{"user":"Alice","features":["marker"]}`),
		"null user":            say(200, kind, `{"user":null,"features":["marker"]}`),
		"two users":            say(200, kind, `{"user":"alice","user":"alice","features":["marker"]}`),
		"unknown with 200":     say(200, kind, `{"user":"unknown"}`),
		"404 of a proxy":       say(404, "text/html", "<h1>404 Not Found</h1> marker"),
		"404 empty":            say(404, "", ""),
		"404 of JSON":          say(404, kind, `{"error":"marker"}`),
		"404 and features":     say(404, kind, good),
		"404 of text":          say(404, "text/plain", `{"user":"unknown"}`),
		"404 and more":         say(404, kind, `{"user":"unknown","code":"marker"}`),
		"404 cut": raw(
			"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + `{"user":"unknown"}`,
		),
		"encoded": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			say(200, kind, good)(w, nil)
		},
	}
	for _, status := range []int{201, 202, 203, 206, 300, 304, 400, 401, 403, 405, 410, 429, 500, 502, 503} {
		cases[fmt.Sprint("status ", status)] = say(status, kind, good)
	}
	for _, status := range []int{301, 302, 303, 307, 308} {
		cases[fmt.Sprint("redirect ", status)] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", other.URL)
			say(status, kind, good)(w, nil)
		}
	}
	for name, h := range cases {
		t.Run(name, func(t *testing.T) {
			// Only when the question was read does a server notice that its client has gone.
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				h(w, r)
			}))
			defer server.Close()
			defer server.CloseClientConnections()
			s := newCallback(
				t,
				features.CallbackConfig{
					URL:         server.URL + "/?marker=1",
					MaxFeatures: rows,
					Timeout:     300 * time.Millisecond,
				},
			)
			start := time.Now()
			held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, true)
			isOutage(t, held, err)
			if strings.Contains(err.Error(), "marker") {
				t.Errorf("the error quotes the answer, the URL or the key: %v", err)
			}
			if d := time.Since(start); d > within {
				t.Errorf("it was told after %v", d)
			}
		})
	}
	if n := elsewhere.requests.Load(); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// TestCallbackReadsNoMoreThanItsBound holds that an answer without end is told by its size, not by the time it takes.
func TestCallbackReadsNoMoreThanItsBound(t *testing.T) {
	t.Parallel()
	var written atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		space := []byte(strings.Repeat(" ", 1<<16))
		for r.Context().Err() == nil {
			if _, err := w.Write(space); err != nil {
				return
			}
			written.Add(1 << 16)
		}
	}))
	defer server.Close()
	s := newCallback(t, features.CallbackConfig{URL: server.URL, Timeout: 10 * time.Second})
	held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, true)
	isOutage(t, held, err)
	if !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("another reason: %v", err)
	}
	if n := written.Load(); n > 64<<20 { // what the sockets buffer is on top
		t.Errorf("%d bytes were taken", n)
	}
}

// TestCallbackAsksAgainOnANewConnection holds that an endpoint that closes a connection just as it is used again is no
// outage: it happens whenever one is restarted.
func TestCallbackAsksAgainOnANewConnection(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer l.Close()
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			// Each connection answers once, and ends at the second question.
			serving.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for asked := 0; ; asked++ {
					r, err := http.ReadRequest(in)
					if err != nil || asked == 1 {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(
						conn,
						"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\r\n"+`{"user":"alice","features":["a"]}`,
					)
				}
			})
		}
	})
	s := newCallback(t, features.CallbackConfig{URL: "http://" + l.Addr().String()})
	for range 5 {
		asked(t, s, "alice", "a")
	}
	s.Close()
}

func TestCallbackConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := features.CallbackConfig{URL: "https://features.example/", HMACKey: secret.NewSecret(hmacKey), Now: time.Now}
	for name, c := range map[string]struct {
		change func(*features.CallbackConfig)
		want   string // empty: accepted
	}{
		"good":                     {func(*features.CallbackConfig) {}, ""},
		"http on this machine":     {func(c *features.CallbackConfig) { c.URL = "http://localhost:1/x" }, ""},
		"http elsewhere":           {func(c *features.CallbackConfig) { c.URL = "http://features.example/" }, "https"},
		"http to an allowed range": {func(c *features.CallbackConfig) { c.URL = "http://10.0.0.1/"; c.AllowPrivate = prefixes("10.0.0.0/8") }, "https"},
		"localhost with a dot":     {func(c *features.CallbackConfig) { c.URL = "http://localhost.example/" }, "https"},
		"another scheme":           {func(c *features.CallbackConfig) { c.URL = "ftp://features.example/" }, "https://host"},
		"no host":                  {func(c *features.CallbackConfig) { c.URL = "https:///x" }, "https://host"},
		"a credential":             {func(c *features.CallbackConfig) { c.URL = "https://u:marker@features.example/" }, "credential"},
		"a fragment":               {func(c *features.CallbackConfig) { c.URL = "https://features.example/#marker" }, "fragment"},
		"not a URL":                {func(c *features.CallbackConfig) { c.URL = "https://marker%zz" }, "https://host"},
		"a private address":        {func(c *features.CallbackConfig) { c.URL = "https://192.168.1.1/" }, "not a public address"},
		"an allowed address": {func(c *features.CallbackConfig) {
			c.URL = "https://192.168.1.1/"
			c.AllowPrivate = prefixes("192.168.0.0/16")
		}, ""},
		"metadata":                 {func(c *features.CallbackConfig) { c.URL = "https://169.254.169.254/" }, "not a public address"},
		"a mapped private address": {func(c *features.CallbackConfig) { c.URL = "https://[::ffff:10.0.0.1]/" }, "not a public address"},
		"a short key":              {func(c *features.CallbackConfig) { c.HMACKey = secret.NewSecret("marker") }, "at least 32 bytes"},
		"two keys":                 {func(c *features.CallbackConfig) { c.HMACKeyFile = "x" }, "give one"},
		"a missing key file":       {func(c *features.CallbackConfig) { c.HMACKey = tokens.Secret{}; c.HMACKeyFile = "/nonexistent" }, "read secret file"},
		"no clock":                 {func(c *features.CallbackConfig) { c.Now = nil }, "clock"},
		"a missing authority":      {func(c *features.CallbackConfig) { c.CACertFile = "/nonexistent" }, "certificates"},
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			c.change(&config)
			_, err := features.NewCallback(config)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && err == nil:
				t.Error("accepted")
			case c.want != "" && !strings.Contains(err.Error(), c.want):
				t.Errorf("the error does not say %q: %v", c.want, err)
			case err != nil && strings.Contains(err.Error(), "marker"):
				t.Errorf("the error quotes what may be secret: %v", err)
			}
		})
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func FuzzParseFeatures(f *testing.F) {
	for _, s := range []string{
		`{"features":[]}`, `{"features":["a","b"]}`, ` { "features" : [ "\u0061" ] } `, `{"features":["a"],"features":[]}`,
		`{"features":[null]}`, `[]`, `{}`, ``, `{"features":["a"]}x`, `{"features":["\ud800"]}`, `{"a":{"features":[]}}`,
		`{"user":"alice","features":["a"]}`, `{"features":["a"],"user":"alice"}`, `{"user":"bob","features":["a"]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		const most = 8
		names, err := features.ParseFeatures(body, most)
		if err != nil {
			if names != nil {
				t.Errorf("an error came with %q", names)
			}
			return
		}
		if len(names) > most {
			t.Errorf("%d names", len(names))
		}
		// What is accepted says the same to any other reader of JSON, and nothing besides.
		var members map[string]json.RawMessage
		var same []string
		if err := json.Unmarshal(body, &members); err != nil || len(members) > 2 {
			t.Fatalf("accepted %q: %v", body, err)
		}
		if user, ok := members["user"]; ok && !bytes.Equal(user, []byte(`"alice"`)) &&
			!strings.Contains(string(user), `\`) {
			t.Errorf("%q was taken for alice's", body)
		}
		if err := json.Unmarshal(members["features"], &same); err != nil || fmt.Sprint(same) != fmt.Sprint(names) {
			t.Errorf("%q was read as %q", body, names)
		}
	})
}
