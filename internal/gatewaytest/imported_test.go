package gatewaytest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/client/routes"
	"patd/internal/longtest"

	"go.yaml.in/yaml/v3"
)

// request is one of those that the libraries of all languages decide in the same way.
type request struct {
	Why, Method, Path, Decoded string
	Scopes                     []string
}

// readRoutes reads the table of sdk/conformance/routes.json, and the requests.
func readRoutes(t *testing.T) (*routes.Table, []request) {
	t.Helper()
	text, err := os.ReadFile("../../sdk/conformance/routes.json")
	must(t, err)
	// Apache cannot have this one in a scope.
	text = bytes.ReplaceAll(text, []byte("odd:!'`$"), []byte("odd:scope"))
	var read struct {
		Table    json.RawMessage
		Requests []request
	}
	must(t, json.Unmarshal(text, &read))
	table, err := routes.Parse(read.Table)
	must(t, err)
	var sent []request
	for _, r := range read.Requests {
		if r.Decoded != "only" && strings.HasPrefix(r.Path, "/") && !strings.Contains(r.Path, "?") {
			sent = append(sent, r)
		}
	}
	if len(sent) < 50 {
		t.Fatalf("there are only %d requests", len(sent))
	}
	return table, sent
}

// imported is the configuration that `patd scopes import` writes from an OpenAPI document with the routes of a table.
func imported(t *testing.T, gateway string, table *routes.Table) string {
	t.Helper()
	paths := map[string]map[string]any{}
	for _, r := range table.Routes() {
		if paths[r.Path] == nil {
			paths[r.Path] = map[string]any{}
		}
		paths[r.Path][strings.ToLower(r.Method)] = map[string]any{"x-patd-scope": r.Scopes}
	}
	text, err := json.Marshal(map[string]any{"openapi": "3.1.0", "paths": paths})
	must(t, err)
	file := filepath.Join(t.TempDir(), "openapi.json")
	must(t, os.WriteFile(file, text, 0o600))
	patd, err := binary()
	must(t, err)
	var stderr bytes.Buffer
	cmd := exec.Command(patd, "scopes", "import", file, "--gateway", gateway)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	return string(out)
}

// importer is a gateway that runs with an imported configuration.
type importer struct {
	name     string
	start    func(t *testing.T, s site) string
	tls      bool
	unlisted int
	// raw: it does not decode paths, and refuses the escapes of characters that a path of the table has.
	raw bool
}

// TestNginxIsConfiguredFromAnOpenAPIDocument runs in all tests, the others in long ones.
func TestNginxIsConfiguredFromAnOpenAPIDocument(t *testing.T) {
	t.Parallel()
	importer{name: "nginx", start: nginx, unlisted: http.StatusNotFound}.guards(t)
}

func TestGatewaysAreConfiguredFromAnOpenAPIDocument(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	for _, g := range []importer{
		{name: "caddy", start: caddy, unlisted: http.StatusNotFound},
		{name: "envoy", start: startEnvoy, unlisted: http.StatusNotFound, raw: true},
		{name: "apache", start: apacheOpenIDC, tls: true, unlisted: http.StatusForbidden},
		{name: "apache-oauth2", start: apacheOAuth2, unlisted: http.StatusForbidden},
	} {
		t.Run(g.name, func(t *testing.T) { t.Parallel(); g.guards(t) })
	}
}

// guards sends all requests: one that the table opens passes with its scopes alone, and no other reaches the upstream.
func (g importer) guards(t *testing.T) {
	t.Helper()
	table, requests := readRoutes(t)
	var c certificate
	if g.tls {
		c = newCertificate(t)
	}
	d, up := serve(t, c), newUpstream(t)
	s := site{patd: &d.issuer, certificate: c, upstream: up.addr, generated: imported(t, g.name, table)}
	addr := g.start(t, s)
	var everyScope []string
	for _, r := range table.Routes() {
		everyScope = append(everyScope, r.Scopes...)
	}
	slices.Sort(everyScope)
	everyScope = slices.Compact(everyScope)
	minted := map[string]token{}
	with := func(scopes []string) string {
		key := strings.Join(scopes, " ")
		if _, ok := minted[key]; !ok {
			minted[key] = d.mint(t, fmt.Sprint("user", len(minted)), scopes...)
		}
		return minted[key].secret
	}
	without := func(scope string) string {
		return with(slices.DeleteFunc(slices.Clone(everyScope), func(s string) bool { return s == scope }))
	}
	for _, r := range requests {
		scopes, open := table.Find(r.Method, r.Path)
		code, arrived := send(t, addr, up, r, with(everyScope))
		if g.raw && strings.Contains(r.Path, "%40") && code == http.StatusBadRequest {
			continue
		}
		if open && (code != http.StatusOK || len(arrived) != 1) {
			t.Errorf(
				"%s: %s %q: %d, and %d requests at the upstream; want it let through",
				r.Why,
				r.Method,
				r.Path,
				code,
				len(arrived),
			)
		}
		if len(arrived) == 0 {
			if code < 400 {
				t.Errorf("%s: %s %q: %d", r.Why, r.Method, r.Path, code)
			}
			continue
		}
		if !open {
			// A gateway may have written the path anew, or take all escapes of a path for the same: what it asks for must be what
			// the upstream's path needs.
			if scopes, open = table.Find(r.Method, arrived[0].uri); !open {
				scopes, open = decoded(table, r)
			}
			if !open {
				t.Errorf("%s: %s %q reaches the upstream as %s", r.Why, r.Method, r.Path, arrived[0].uri)
				continue
			}
		}
		if code, arrived := send(t, addr, up, r, with(scopes)); code != http.StatusOK || len(arrived) != 1 {
			t.Errorf("%s: %s %q with %q: %d", r.Why, r.Method, r.Path, scopes, code)
		}
		for _, missing := range scopes {
			if code, arrived := send(
				t,
				addr,
				up,
				r,
				without(missing),
			); code != http.StatusForbidden ||
				len(arrived) != 0 {
				t.Errorf(
					"%s: %s %q without %s: %d, and %d requests at the upstream",
					r.Why,
					r.Method,
					r.Path,
					missing,
					code,
					len(arrived),
				)
			}
		}
		if code, arrived := send(t, addr, up, r, ""); code != http.StatusUnauthorized || len(arrived) != 0 {
			t.Errorf(
				"%s: %s %q without a token: %d, and %d requests at the upstream",
				r.Why,
				r.Method,
				r.Path,
				code,
				len(arrived),
			)
		}
	}
	if code, _ := send(
		t,
		addr,
		up,
		request{Method: http.MethodGet, Path: "/not/listed"},
		with(everyScope),
	); code != g.unlisted {
		t.Errorf("what is not listed: %d, want %d", code, g.unlisted)
	}
}

// decoded is what a table says of a request's path where escapes do not matter.
func decoded(table *routes.Table, r request) ([]string, bool) {
	path, err := url.PathUnescape(r.Path)
	if err != nil || strings.Count(path, "/") != strings.Count(r.Path, "/") {
		return nil, false
	}
	return table.Find(r.Method, path)
}

// send sends a request with its path as it is written, and returns the code and what reached the upstream.
func send(t *testing.T, addr string, up *upstream, r request, secret string) (int, []arrival) {
	t.Helper()
	up.take()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	head := r.Method + " " + r.Path + " HTTP/1.1\r\nHost: " + addr + "\r\nContent-Length: 0\r\n"
	if secret != "" {
		head += "Authorization: Bearer " + secret + "\r\n"
	}
	_, err = conn.Write([]byte(head + "\r\n"))
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.Method})
	if err != nil { // it closed the connection
		return http.StatusBadRequest, up.take()
	}
	defer resp.Body.Close()
	return resp.StatusCode, up.take()
}

// TestImportedConfigurationsAreThoseOfThePages: but for the routes, and what belongs to them, each line of a page's
// configuration stands in the imported one.
func TestImportedConfigurationsAreThoseOfThePages(t *testing.T) {
	t.Parallel()
	table, _ := readRoutes(t)
	routed := regexp.MustCompile(
		`reports|billing|\$request_uri|location / |@twofold expression|AuthType|oauth2_claim|^\s*</Location>|^\s*route: |` +
			`typed_per_filter_config|ext_authz:$|ExtAuthzPerRoute|^\s*import|^\s*}|^\s*service: |middlewares: \[|never true here`,
	)
	for name, file := range map[string]string{
		"nginx": "nginx.conf", "caddy": "Caddyfile", "traefik": "traefik.yaml", "envoy": "envoy.yaml",
		"apache": "apache-auth-openidc.conf", "apache-oauth2": "apache-oauth2.conf",
	} {
		generated, same := map[string]bool{}, 0
		for line := range strings.Lines(imported(t, name, table)) {
			generated[strings.TrimSpace(line)] = true
		}
		for line := range strings.Lines(configured(t, file, nil)) {
			line = strings.TrimSpace(line)
			switch {
			case generated[line]:
				same++
			case !routed.MatchString(line):
				t.Errorf("%s: the imported configuration has no line %s", file, line)
			}
		}
		if same < 15 {
			t.Errorf("%s: only %d lines are the same", file, same)
		}
	}
}

// TestTraefikRoutersNeedTheScopesOfTheirRoutes reads the rules as Traefik does, which does not run here: the router with
// the highest priority whose rule fits takes the request.
func TestTraefikRoutersNeedTheScopesOfTheirRoutes(t *testing.T) {
	t.Parallel()
	table, requests := readRoutes(t)
	var config struct {
		HTTP struct {
			Middlewares map[string]struct {
				ForwardAuth struct{ Address string } `yaml:"forwardAuth"`
				IPAllowList struct {
					SourceRange []string `yaml:"sourceRange"`
				} `yaml:"ipAllowList"`
			}
			Routers map[string]struct {
				Rule        string
				Priority    int
				Middlewares []string
			}
		}
	}
	must(t, yaml.Unmarshal([]byte(imported(t, "traefik", table)), &config))
	rule := regexp.MustCompile("^(?:Method\\(`([A-Z]+)`\\) && )?PathRegexp\\(`([^`]+)`\\)$")
	priorities := map[int]bool{}
	for _, r := range config.HTTP.Routers {
		if priorities[r.Priority] || r.Priority < 1 {
			t.Fatalf("the priority %d is no order", r.Priority)
		}
		priorities[r.Priority] = true
	}
	passed := 0
	for _, r := range requests {
		whole, err := url.PathUnescape(r.Path)
		if err != nil || strings.Count(whole, "/") != strings.Count(r.Path, "/") || strings.ContainsAny(whole, `\#`) {
			continue // Traefik refuses it, or hands it on with an escape
		}
		// Older versions look at the decoded path, newer ones keep the escapes of reserved characters.
		for _, path := range []string{whole, unreserved(r.Path)} {
			path = cleaned(path) // sanitizePath
			var chosen []string
			best := 0
			for _, router := range config.HTTP.Routers {
				parts := rule.FindStringSubmatch(router.Rule)
				if parts == nil {
					t.Fatalf("the rule %s is not understood", router.Rule)
				}
				if router.Priority > best && (parts[1] == "" || parts[1] == r.Method) &&
					regexp.MustCompile(parts[2]).MatchString(path) {
					chosen, best = router.Middlewares, router.Priority
				}
			}
			scopes, open := table.Find(r.Method, r.Path)
			if !open {
				scopes, open = table.Find(r.Method, cleaned(whole))
			}
			slices.Sort(scopes)
			switch {
			case len(chosen) == 0 || config.HTTP.Middlewares[chosen[0]].IPAllowList.SourceRange != nil:
				if open && path == cleaned(whole) {
					t.Errorf("%s: %s %q is closed", r.Why, r.Method, r.Path)
				}
			case !open:
				t.Errorf("%s: %s %q passes with %q", r.Why, r.Method, r.Path, chosen)
			default:
				passed++
				address, err := url.Parse(config.HTTP.Middlewares[chosen[0]].ForwardAuth.Address)
				must(t, err)
				if got := address.Query().
					Get("scope"); got != strings.Join(scopes, " ") ||
					!slices.Contains(chosen, "without-token") {
					t.Errorf("%s: %s %q needs %q by %q, want %q", r.Why, r.Method, r.Path, got, chosen, scopes)
				}
			}
		}
	}
	if passed < 30 {
		t.Errorf("only %d requests pass", passed)
	}
}

// unreserved decodes the escapes of all characters but those that have a meaning in URLs.
func unreserved(path string) string {
	return regexp.MustCompile("%[0-9a-fA-F]{2}").ReplaceAllStringFunc(path, func(escape string) string {
		if text, err := url.PathUnescape(escape); err == nil && !strings.ContainsAny(text, ":/?#[]@!$&'()*+,;=%") {
			return text
		}
		return escape
	})
}
