//go:build !race

package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/proctest"
)

// TestABrowserBehindABalancerAndDuringOutages has two servers on PostgreSQL behind a balancer that sends each request
// to the other one, and then lets fail, one after the other, the OpenID provider, the source of features and the store:
// each is a page that says so, and no input is lost.
func TestABrowserBehindABalancerAndDuringOutages(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	need(t)
	db := dbtest.SharedPostgres(t)
	dir := t.TempDir()

	// Whether each of them works.
	var store, features atomic.Bool
	store.Store(true)
	features.Store(true)

	link := newLink(t, db.Addr(), &store)
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct{ User string }
		if !features.Load() || json.NewDecoder(r.Body).Decode(&asked) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).
			Encode(map[string]any{"user": asked.User, "features": []string{"reports.read", "reports.write", "deploy"}})
	}))
	t.Cleanup(source.Close)

	var (
		servers []*url.URL
		next    atomic.Uint64
	)
	balancer := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(servers[next.Add(1)%uint64(len(servers))])
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(balancer.Close)

	at := func(addr string) []string {
		u := url.URL{
			Scheme: "postgres",
			User:   url.UserPassword(db.User, db.Password),
			Host:   addr,
			Path:   "/" + db.Database,
		}
		u.RawQuery = "sslmode=disable&search_path=browsertest"
		return []string{"PATD_DATABASE_URL=" + u.String()}
	}
	key := filepath.Join(dir, "callback.key")
	must(t, os.WriteFile(key, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600))
	keyed := []string{"--hash-key-file", filepath.Join(dir, "hash.key")}
	program, err := binary()
	must(t, err)
	must(t, run(program, at(db.Addr()), append([]string{"migrate"}, keyed...)...))
	admin, err := service(at(db.Addr()), keyed...)
	must(t, err)
	issuer := proctest.FreeAddr(t)
	args, err := signsIn(dir, issuer)
	must(t, err)
	args = append(
		args,
		"--issuer",
		balancer.URL,
		"--features-source",
		"callback",
		"--features-callback-url",
		source.URL,
		"--features-callback-key-file",
		key,
		"--features-ttl",
		"0s",
		"--features-max-stale",
		"0s",
		"--database-connections",
		"4",
	)
	for range 2 {
		p, err := serve(proctest.FreeAddr(t), at(link), append(args, keyed...)...)
		must(t, err)
		t.Cleanup(func() {
			must(t, p.Stop())
			if t.Failed() {
				t.Log(p.Log)
			}
		})
		server, err := url.Parse(p.url)
		must(t, err)
		servers = append(servers, server)
	}

	// The scripts decide when something fails.
	var once sync.Once
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		works := r.URL.Query().Get("works") == "true"
		switch r.URL.Path {
		case "/store":
			store.Store(works)
		case "/features":
			features.Store(works)
		case "/provider":
			once.Do(func() {
				stop, err := startProvider(issuer, balancer.URL)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(stop)
			})
		}
	}))
	t.Cleanup(control.Close)
	s := setup{
		Patd:   balancer.URL,
		Admin:  admin,
		Issuer: "http://" + issuer,
		More:   map[string]string{"control": control.URL},
	}
	s.script(t, "outages.mjs") // in which the provider is started
	s.script(t, "replicas.mjs")
}

// run runs a command that must succeed.
func run(program string, env []string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// newLink is a way to an address that can be cut: then its connections end, and no others are made. It returns its
// own address.
func newLink(t *testing.T, to string, works *atomic.Bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var g sync.WaitGroup
	g.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			g.Go(func() {
				defer conn.Close()
				there, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer there.Close()
				stop := context.AfterFunc(ctx, func() { conn.Close(); there.Close() })
				defer stop()
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = io.Copy(conn, there)
					conn.Close()
				}()
				_, _ = io.Copy(gate{there, works}, conn)
				conn.Close()
				there.Close()
				<-done
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		g.Wait()
	})
	return l.Addr().String()
}

// gate is a writer that fails while the link is cut.
type gate struct {
	io.Writer
	works *atomic.Bool
}

func (g gate) Write(b []byte) (int, error) {
	if !g.works.Load() {
		return 0, io.ErrClosedPipe
	}
	return g.Writer.Write(b)
}
