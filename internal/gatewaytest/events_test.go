package gatewaytest

import (
	"bufio"
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// placed copies a certificate to where an account can read it.
func placed(t *testing.T, a account, dir string, c certificate) certificate {
	t.Helper()
	to := certificate{filepath.Join(dir, "patd.crt"), filepath.Join(dir, "patd.key")}
	for from, to := range map[string]string{c.cert: to.cert, c.key: to.key} {
		text, err := os.ReadFile(from)
		must(t, err)
		place(t, a, to, string(text))
	}
	return to
}

// nginxBefore runs nginx in front of patd, and returns its address.
func nginxBefore(t *testing.T, d *daemon, c certificate) string {
	t.Helper()
	path, a, addr := program(t, "nginx"), unprivileged(t), proctest.FreeAddr(t)
	dir := home(t, a)
	c = placed(t, a, dir, c)
	place(t, a, filepath.Join(dir, "patd.conf"), configured(t, "nginx-patd.conf", map[string]string{
		shownListen: addr, shownPatd: d.http, "/etc/nginx/patd.crt": c.cert, "/etc/nginx/patd.key": c.key,
	}))
	var temporary strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary.WriteString(kind + "_temp_path " + filepath.Join(dir, kind) + ";\n")
	}
	place(t, a, filepath.Join(dir, "nginx.conf"), "daemon off;\npid "+dir+"/pid;\nerror_log stderr;\n"+
		"events { worker_connections 64; }\nhttp {\naccess_log off;\n"+temporary.String()+"include "+dir+"/patd.conf;\n}\n")
	run(t, a, exec.Command(path, "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf")), "https://"+addr)
	return addr
}

// caddyBefore runs Caddy in front of patd, and returns its address.
func caddyBefore(t *testing.T, d *daemon, c certificate) string {
	t.Helper()
	path, a, addr := program(t, "caddy"), unprivileged(t), proctest.FreeAddr(t)
	dir := home(t, a)
	c = placed(t, a, dir, c)
	file := filepath.Join(dir, "Caddyfile")
	place(t, a, file, "{\n\tadmin off\n\tauto_https off\n}\n"+configured(t, "patd.caddyfile", map[string]string{
		"https://patd.example.com": "https://" + addr, shownPatd: d.http,
		"/etc/caddy/patd.crt": c.cert, "/etc/caddy/patd.key": c.key,
	}))
	cmd := exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	run(t, a, cmd, "https://"+addr)
	return addr
}

// TestEventsPassProxies watches through nginx and Caddy, over HTTP/1.1 and HTTP/2. An event has to arrive while the
// stream stays open: one that is buffered would not.
func TestEventsPassProxies(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	d, c := serve(t, certificate{}), newCertificate(t)
	for name, start := range map[string]func(*testing.T, *daemon, certificate) string{"nginx": nginxBefore, "Caddy": caddyBefore} {
		addr := start(t, d, c)
		for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
			transport := &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: c.pool(t)},
				ForceAttemptHTTP2: version == "HTTP/2.0",
			}
			t.Cleanup(transport.CloseIdleConnections)
			w := watch(t, transport, addr, d.asker, "")
			if w.resp.Proto != version || w.resp.Header.Get("Content-Type") != "text/event-stream" {
				t.Errorf("%s: %s %v", name, w.resp.Proto, w.resp.Header)
			}
			first := w.until(t, "event: start-over")
			w.until(t, "event: heartbeat")
			w.until(t, "event: heartbeat")
			tok := d.mint(t, "alice", "reports.read")
			d.revoke(t, tok)
			w.until(t, `"`+tok.id+`"`)
			w.end()
			again := watch(t, transport, addr, d.asker, strings.TrimPrefix(first, "id: "))
			again.until(t, `"`+tok.id+`"`) // that it missed
			again.end()
			if refused := watch(
				t,
				transport,
				addr,
				tok.secret,
				"",
			); refused.resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: a revoked token watches: %s", name, refused.resp.Status)
			}
		}
	}
}

// watched is a stream of events.
type watched struct {
	resp *http.Response
	in   *bufio.Scanner
	end  context.CancelFunc
}

func watch(t *testing.T, through http.RoundTripper, addr, token, after string) *watched {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/v1/invalidations", nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	began := time.Now()
	resp, err := through.RoundTrip(r)
	must(t, err)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the first bytes took %s", took)
	}
	t.Cleanup(func() { cancel(); _ = resp.Body.Close() })
	return &watched{resp, bufio.NewScanner(resp.Body), cancel}
}

// until reads until a line contains a text, and returns the line after it.
func (w *watched) until(t *testing.T, text string) string {
	t.Helper()
	for w.in.Scan() {
		if strings.Contains(w.in.Text(), text) {
			w.in.Scan()
			return w.in.Text()
		}
	}
	t.Fatalf("no %s came: %s, %v", text, w.resp.Status, w.in.Err())
	return ""
}
