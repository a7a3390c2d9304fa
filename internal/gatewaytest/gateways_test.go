package gatewaytest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/store/storetest"
)

// configured reads one of the pages' configurations and puts other addresses and names in their place. Each has to be
// there: a configuration that lost one is not what a page shows.
func configured(t *testing.T, file string, replace map[string]string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	must(t, err)
	return readdressed(t, string(text), replace)
}

// configured is the configuration that the site's gateway runs with: that of a page, or the one that was generated.
func (s site) configured(t *testing.T, file string, replace map[string]string) string {
	t.Helper()
	if s.generated != "" {
		return readdressed(t, s.generated, replace)
	}
	return configured(t, file, replace)
}

// readdressed puts other addresses and names in the place of those of a configuration.
func readdressed(t *testing.T, config string, replace map[string]string) string {
	t.Helper()
	for old, with := range replace {
		if !strings.Contains(config, old) {
			t.Fatalf("the configuration has no %s", old)
		}
		config = strings.ReplaceAll(config, old, with)
	}
	return config
}

// The addresses in the configurations of docs/.
const (
	shownPatd     = "127.0.0.1:8080"
	shownPatdTLS  = "patd.example.com:8080"
	shownUpstream = "127.0.0.1:3000"
	shownListen   = "127.0.0.1:8000"
	shownSecret   = "/etc/apache2/patd-secret.conf"
	shownCommon   = "/etc/apache2/patd-upstream.conf"
)

func nginx(t *testing.T, s site) string {
	t.Helper()
	return nginxWith(t, s, func(config string) string { return config })
}

// nginxWith runs nginx with its configuration changed.
func nginxWith(t *testing.T, s site, change func(string) string) string {
	t.Helper()
	path, a, addr := program(t, "nginx"), unprivileged(t), proctest.FreeAddr(t)
	dir := home(t, a)
	place(t, a, filepath.Join(dir, "api.conf"), change(s.configured(t, "nginx.conf", map[string]string{
		shownPatd: s.patd.http, shownUpstream: s.upstream, shownListen: addr,
	})))
	var temporary strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary.WriteString(kind + "_temp_path " + filepath.Join(dir, kind) + ";\n")
	}
	place(
		t,
		a,
		filepath.Join(dir, "nginx.conf"),
		"worker_processes 2;\ndaemon off;\npid "+dir+"/pid;\nerror_log stderr;\n"+
			"events { worker_connections 256; }\nhttp {\naccess_log off;\n"+temporary.String()+"include "+dir+"/api.conf;\n}\n",
	)
	run(t, a, exec.Command(path, "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf")), "http://"+addr)
	return addr
}

func TestNginx(t *testing.T) {
	guards(t, gateway{
		start: nginx, tells: everything, addresses: true,
		// nginx takes every answer of an auth request but 2xx, 401 and 403 for a fault of its own.
		unlisted: http.StatusNotFound, stopped: 500, frozen: 500, out: 500,
	})
}

// TestNginxCanSayThatItIsUnavailable adds what docs/gateways/nginx.md says about 503.
func TestNginxCanSayThatItIsUnavailable(t *testing.T) {
	longtest.Only(t)
	i, faulty := serveFaulty(t, certificate{})
	up := newUpstream(t)
	lines, err := os.ReadFile("testdata/nginx-503.conf")
	must(t, err)
	v := visit(t, nginxWith(t, site{patd: i, upstream: up.addr}, func(config string) string {
		end := strings.LastIndex(config, "}")
		return config[:end] + string(lines) + config[end:]
	}), up)
	tok := i.mint(t, "alice", "reports.read")
	v.passes(t, "/reports/1", tok, nil)
	faulty.Fail(storetest.Outage())
	v.refused(t, "/reports/1", tok.secret, http.StatusServiceUnavailable)
}

// TestNginxRouteWithoutScopeIsClosed forgets what a location needs.
func TestNginxRouteWithoutScopeIsClosed(t *testing.T) {
	longtest.Only(t)
	d, up := serve(t, certificate{}), newUpstream(t)
	v := visit(t, nginxWith(t, site{patd: &d.issuer, upstream: up.addr}, func(config string) string {
		return strings.ReplaceAll(config, "set $patd_scope reports.read;", "")
	}), up)
	v.refused(t, "/reports/1", d.mint(t, "alice", "reports.read").secret, http.StatusInternalServerError)
}

// TestNginxPassesManyScopes asks for so many scopes that their names do not fit into nginx's default buffers.
func TestNginxPassesManyScopes(t *testing.T) {
	longtest.Only(t)
	d, up := serve(t, certificate{}), newUpstream(t)
	var scopes []string
	var set, all string
	for part := range 3 { // one parameter of nginx's is 4 kB at most
		first := len(scopes)
		for n := range 25 {
			scopes = append(scopes, fmt.Sprintf("%s.%d.%d", strings.Repeat("s", 120), part, n))
		}
		set += fmt.Sprintf("set $part%d %s; ", part, strings.Join(scopes[first:], "+"))
		all += fmt.Sprintf("+$part%d", part)
	}
	v := visit(t, nginxWith(t, site{patd: &d.issuer, upstream: up.addr}, func(config string) string {
		return strings.ReplaceAll(config, "set $patd_scope reports.read;", set+"set $patd_scope "+all[1:]+";")
	}), up)
	tok := d.mint(t, "alice", scopes...)
	v.passes(
		t,
		"/reports/1",
		tok,
		map[string]string{"X-Auth-User": "alice", "X-Auth-Scopes": strings.Join(scopes, " ")},
	)
	v.refused(t, "/reports/1", d.mint(t, "bob", scopes[1:]...).secret, http.StatusForbidden)
}

func caddy(t *testing.T, s site) string {
	t.Helper()
	return caddyWith(t, s, func(config string) string { return config })
}

// caddyWith runs Caddy with its configuration changed.
func caddyWith(t *testing.T, s site, change func(string) string) string {
	t.Helper()
	path, a, addr := program(t, "caddy"), unprivileged(t), proctest.FreeAddr(t)
	dir := home(t, a)
	file := filepath.Join(dir, "Caddyfile")
	place(t, a, file, "{\n\tadmin off\n\tauto_https off\n}\n"+change(s.configured(t, "Caddyfile", map[string]string{
		shownPatd: s.patd.http, shownUpstream: s.upstream, shownListen: addr,
	})))
	cmd := exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	run(t, a, cmd, "http://"+addr)
	return addr
}

func TestCaddy(t *testing.T) {
	longtest.Only(t)
	guards(t, gateway{
		start:     caddy,
		tells:     everything,
		addresses: true,
		unlisted:  http.StatusNotFound,
		stopped:   http.StatusBadGateway,
		frozen:    http.StatusGatewayTimeout,
		out:       http.StatusServiceUnavailable,
	})
}

// apache runs Apache with one of its modules for OAuth.
func apache(t *testing.T, s site, module, config string, replace map[string]string) string {
	t.Helper()
	const modules = "/usr/lib/apache2/modules/"
	path, a, addr := program(t, "apache2"), unprivileged(t), proctest.FreeAddr(t)
	if _, err := os.Stat(modules + "mod_" + module + ".so"); err != nil {
		proctest.Missing(t, "Apache's mod_"+module)
	}
	dir := home(t, a)
	secret, common, file := filepath.Join(
		dir,
		"patd-secret.conf",
	), filepath.Join(
		dir,
		"patd-upstream.conf",
	), filepath.Join(
		dir,
		"apache2.conf",
	)
	place(t, a, secret, "Define PATD_SECRET "+s.patd.asker+"\n")
	place(t, a, common, configured(t, "apache-upstream.conf", nil))
	var load strings.Builder
	for _, m := range []string{"mpm_event", "authn_core", "authz_core", "headers", "proxy", "proxy_http", module} {
		load.WriteString("LoadModule " + m + "_module " + modules + "mod_" + m + ".so\n")
	}
	replace[shownListen], replace[shownUpstream], replace[shownSecret], replace[shownCommon] = addr, s.upstream, secret, common
	place(
		t,
		a,
		file,
		load.String()+"ServerName localhost\nServerRoot "+dir+"\nDefaultRuntimeDir "+dir+"\nPidFile "+dir+"/pid\nMutex file:"+dir+" default\n"+
			"ErrorLog /dev/stderr\nLogLevel info\n"+s.configured(
			t,
			config,
			replace,
		),
	)
	cmd := exec.Command(path, "-f", file, "-DFOREGROUND")
	run(t, a, cmd, "http://"+addr)
	return addr
}

func apacheOpenIDC(t *testing.T, s site) string {
	t.Helper()
	a := unprivileged(t)
	trust := filepath.Join(home(t, a), "ca.pem")
	authority, err := os.ReadFile(s.certificate.cert)
	must(t, err)
	place(t, a, trust, string(authority))
	return apache(t, s, "auth_openidc", "apache-auth-openidc.conf", map[string]string{
		shownPatdTLS: s.patd.http, "OIDCHTTPTimeoutLong ": "OIDCCABundlePath " + trust + "\n    OIDCHTTPTimeoutLong ",
	})
}

func TestApacheAuthOpenIDC(t *testing.T) {
	longtest.Only(t)
	guards(t, gateway{
		start: apacheOpenIDC,
		tls:   true,
		tells: []string{"X-Auth-User"},
		// The module takes no answer for a bad token.
		unlisted: http.StatusForbidden,
		stopped:  http.StatusUnauthorized,
		frozen:   http.StatusUnauthorized,
		out:      http.StatusUnauthorized,
	})
}

func apacheOAuth2(t *testing.T, s site) string {
	t.Helper()
	return apache(t, s, "oauth2", "apache-oauth2.conf", map[string]string{shownPatd: s.patd.http})
}

func TestApacheOAuth2(t *testing.T) {
	longtest.Only(t)
	guards(t, gateway{
		start:    apacheOAuth2,
		tells:    []string{"X-Auth-User"},
		unlisted: http.StatusForbidden,
		stopped:  http.StatusUnauthorized,
		frozen:   http.StatusUnauthorized,
		out:      http.StatusUnauthorized,
	})
}
