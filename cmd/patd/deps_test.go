package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// listed is what `go list -json` tells of a package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports,Deps"}, args...)...)
	cmd.Dir, cmd.Stderr = "../..", &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// room is what a package of the house may import besides the standard library, as prefixes of import paths, and
// what it may not, even of the standard library.
type room struct {
	allowed, refused []string
}

var grpcStack = []string{
	"google.golang.org/grpc",
	"google.golang.org/protobuf",
	"google.golang.org/genproto/googleapis",
	"github.com/grpc-ecosystem/grpc-gateway/v2",
}

// standardWebhooks signs what is sent to webhooks.
const standardWebhooks = "github.com/standard-webhooks/standard-webhooks/libraries/go"

// otelAPI makes spans. Only internal/telemetry has the SDK, which sends them.
const otelAPI = "go.opentelemetry.io/otel"

// rooms is the rule of the picture in docs/architecture.md. A package that stands in none of them fails the test: give
// it a room. A folder in a room may have stricter rules of its own.
func rooms() map[string]room {
	noSQL := []string{"database/sql"}
	return map[string]room{
		"patd/tokens/secret": {
			allowed: []string{"golang.org/x/crypto"},
			refused: []string{"database/sql", "net/http"},
		},
		"patd/tokens/refusal": {refused: []string{"database/sql", "net/http"}},
		"patd/tokens": {
			allowed: []string{"patd/tokens/secret", "patd/tokens/refusal", "golang.org/x/crypto", "golang.org/x/text"},
			refused: []string{"database/sql", "net/http"},
		},
		"patd/gen": {allowed: grpcStack, refused: noSQL},
		"patd/store": {
			allowed: []string{
				"patd/tokens",
				"patd/store",
				"patd/internal/durable",
				"patd/internal/flight",
				"patd/internal/loopback",
				"patd/internal/tracecontext",
				"modernc.org/sqlite",
				"github.com/jackc/pgx/v5",
				"github.com/pressly/goose/v3",
				"golang.org/x",
			},
		},
		"patd/features": {
			allowed: []string{
				"patd/tokens",
				"patd/features",
				"patd/internal/dialguard",
				"patd/internal/flight",
				"patd/internal/loopback",
				"patd/internal/secretfile",
				"patd/internal/tracecontext",
				"modernc.org/sqlite",
				"github.com/jackc/pgx/v5",
				"github.com/go-sql-driver/mysql",
				"golang.org/x",
			},
		},
		"patd/server": {
			allowed: append(
				[]string{
					"patd/server",
					"patd/internal/bearer",
					"patd/internal/dialguard",
					"patd/internal/flight",
					"patd/internal/loopback",
					"patd/internal/secretfile",
					"patd/internal/tracecontext",
					"patd/tokens",
					"patd/gen",
					otelAPI,
					"github.com/prometheus",
					"github.com/coreos/go-oidc/v3",
					"github.com/go-jose/go-jose/v4",
					"github.com/envoyproxy/go-control-plane/envoy",
					standardWebhooks,
					"golang.org/x",
				},
				grpcStack...),
			refused: noSQL,
		},
		"patd/store/cache": {
			allowed: []string{
				"patd/tokens",
				"patd/internal/flight",
				"patd/store/cache/internal/reclog",
				"patd/store/feed",
				"patd/store/usage",
			},
			refused: noSQL,
		},
		"patd/store/cache/internal/reclog": {},
		"patd/store/feed":                  {allowed: []string{"patd/tokens"}, refused: noSQL},
		"patd/store/internal/reserve":      {allowed: []string{"patd/internal/durable"}, refused: noSQL},
		"patd/store/internal/db": {allowed: []string{
			"patd/tokens", "patd/internal/durable", "patd/internal/loopback", "patd/internal/tracecontext",
			"modernc.org/sqlite", "github.com/jackc/pgx/v5", "golang.org/x",
		}},
		"patd/store/usage":        {allowed: []string{"patd/tokens"}, refused: noSQL},
		"patd/features/signature": {}, // the company's own programs import it
		// Inside the server: the handlers lean on httpx and call, never on each other.
		"patd/server/internal/rest": inServer("httpx", "call", "connection", "fault", "metrics", "wire"),
		"patd/server/internal/rpc":  inServer("httpx", "call", "receipt", "wire"),
		"patd/server/internal/introspect": inServer(
			"httpx",
			"call",
			"connection",
			"fault",
			"metrics",
			"receipt",
			"wire",
		),
		"patd/server/internal/receipt": {allowed: []string{"patd/tokens"}, refused: noSQL},
		"patd/server/internal/oauth":   inServer("httpx", "call", "connection", "fault", "limit", "metrics", "wire"),
		"patd/server/internal/extauth": inServer("httpx", "call", "connection", "fault", "metrics"),
		"patd/server/internal/github":  inServer("httpx", "call", "connection", "fault"),
		"patd/server/internal/httpx":   inServer("call", "connection", "fault", "wire"),
		// The pages for people: both stand on the frame, and the frame on what web holds.
		"patd/server/internal/page":       inServer("frame", "call"),
		"patd/server/internal/frame":      inServer("call", "connection", "fault", "httpx", "../web"),
		"patd/server/web":                 {},
		"patd/server/internal/call":       inServer("connection", "fault", "limit", "metrics", "wire"),
		"patd/server/internal/connection": inServer("fault", "metrics"),
		"patd/server/internal/metrics":    inServer("fault"),
		"patd/server/internal/fault":      inServer(),
		"patd/server/internal/wire":       inServer(),
		"patd/server/internal/limit":      {},
		"patd/server/internal/apidoc":     inServer("call"), // a program of go generate, in no binary
		"patd/server/signin": {
			allowed: []string{
				"patd/internal/flight",
				"patd/internal/loopback",
				"patd/tokens",
				"github.com/go-jose/go-jose/v4",
			},
			refused: noSQL,
		},
		"patd/server/webhook": {
			allowed: []string{
				"patd/internal/dialguard",
				"patd/internal/loopback",
				"patd/internal/tracecontext",
				"patd/tokens",
				"golang.org/x",
				standardWebhooks,
			},
			refused: noSQL,
		},
		"patd/internal/bearer":     {},
		"patd/internal/cputime":    {},
		"patd/internal/dialguard":  {allowed: []string{"patd/internal/loopback"}, refused: noSQL},
		"patd/internal/durable":    {},
		"patd/internal/flight":     {},
		"patd/internal/logpipe":    {},
		"patd/internal/loopback":   {},
		"patd/internal/secretfile": {},
		"patd/internal/telemetry": {
			allowed: []string{
				"patd/internal/tracecontext",
				otelAPI,
				"go.opentelemetry.io/contrib/bridges/prometheus",
				"github.com/prometheus",
			},
			refused: noSQL,
		},
		"patd/internal/tracecontext": {},
		"patd/client/routes":         {refused: []string{"database/sql", "net/http"}},
		"patd/client": {
			allowed: append(
				[]string{
					"patd/client",
					"patd/internal/bearer",
					"patd/internal/durable",
					"patd/internal/flight",
					"patd/internal/loopback",
					"patd/internal/secretfile",
					"patd/tokens/secret",
					"patd/tokens/refusal",
					"patd/gen",
					"golang.org/x",
				},
				grpcStack...),
			refused: noSQL,
		},
		// Programs that test libraries, in no binary: the runner knows patd as a stranger does, by its interfaces.
		"patd/sdk":           {allowed: []string{"patd/tokens/secret"}, refused: noSQL},
		"patd/sdk/go/driver": {allowed: append([]string{"patd/client"}, grpcStack...), refused: noSQL},
		"patd/cmd":           {allowed: []string{""}},
		"patd/cmd/patd/internal/cli": {
			allowed: []string{
				"patd/internal/logpipe",
				"patd/tokens",
				"github.com/spf13",
				"google.golang.org/protobuf",
				"golang.org/x",
			},
			refused: noSQL,
		},
		"patd/cmd/patd/internal/cli/agent": {
			allowed: []string{
				"patd/client",
				"patd/cmd/patd/internal/cli",
				"patd/internal/durable",
				"patd/internal/secretfile",
				"github.com/spf13",
			},
		},
		// They read what strangers write, and ask nobody.
		"patd/cmd/patd/internal/cli/openapi": {
			allowed: []string{
				"patd/client/routes",
				"patd/tokens",
				"go.yaml.in/yaml/v3",
			},
			refused: []string{"database/sql", "net/http", "os"},
		},
		"patd/cmd/patd/internal/cli/gateway": {
			allowed: []string{"patd/client/routes"},
			refused: []string{"database/sql", "net/http", "os"},
		},
		"patd/cmd/patd/internal/cli/remote": {
			allowed: append(
				[]string{
					"patd/cmd/patd/internal/cli",
					"patd/gen",
					"patd/internal/loopback",
					"patd/internal/secretfile",
					"patd/tokens",
					"github.com/spf13",
				},
				grpcStack...),
			refused: noSQL,
		},
	}
}

// inServer is the room of a package inside the server: what the server may import of others, and of its own only the
// named ones.
func inServer(rooms ...string) room {
	allowed := append([]string{
		"patd/internal/bearer",
		"patd/internal/dialguard",
		"patd/internal/flight",
		"patd/internal/loopback",
		"patd/internal/secretfile",
		"patd/internal/tracecontext",
		"patd/server/signin",
		"patd/tokens",
		"patd/gen",
		otelAPI,
		"github.com/prometheus",
		"github.com/coreos/go-oidc/v3",
		"github.com/go-jose/go-jose/v4",
		"github.com/envoyproxy/go-control-plane/envoy",
		"golang.org/x",
	}, grpcStack...)
	for _, r := range rooms {
		allowed = append(allowed, path.Join("patd/server/internal", r))
	}
	return room{allowed: allowed, refused: []string{"database/sql"}}
}

func under(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return p == "" || path == p || strings.HasPrefix(path, p+"/")
	})
}

// isTestPackage reports whether a package is for tests only, by its name: storetest, clienttest.
func isTestPackage(path string) bool {
	return strings.HasPrefix(path, "patd/") && strings.HasSuffix(path, "test")
}

func TestAllowedImports(t *testing.T) {
	standard := map[string]bool{"C": true, "unsafe": true}
	for _, p := range goList(t, "-deps", "./...") {
		standard[p.ImportPath] = standard[p.ImportPath] || p.Standard
	}
	all := rooms()
	for _, p := range goList(t, "./...") {
		if isTestPackage(p.ImportPath) {
			continue
		}
		name := strings.Join(strings.SplitN(p.ImportPath, "/", 3)[:2], "/")
		r, ok := all[p.ImportPath]
		if !ok {
			r, ok = all[name]
		}
		if !ok {
			t.Errorf(
				"%s is in no room: add it to the table of this test and to the picture in docs/architecture.md",
				p.ImportPath,
			)
			continue
		}
		for _, i := range p.Imports {
			if under(i, r.refused) || !standard[i] && !under(i, r.allowed) || isTestPackage(i) {
				t.Errorf("%s imports %s, which it may not", p.ImportPath, i)
			}
		}
	}
}

// What a package may not import it may not reach through another package of the house either.
func TestNoStoreBehindServerAndClient(t *testing.T) {
	for _, p := range goList(t, "./...") {
		switch {
		case under(p.ImportPath, []string{"patd/server", "patd/internal/bearer", "patd/internal/flight", "patd/internal/loopback", "patd/internal/secretfile", "patd/tokens", "patd/gen"}) && !isTestPackage(p.ImportPath):
			for _, d := range p.Deps {
				if under(
					d,
					[]string{
						"patd/store",
						"patd/features",
						"modernc.org/sqlite",
						"github.com/jackc/pgx/v5",
						"github.com/go-sql-driver/mysql",
						"github.com/pressly/goose/v3",
					},
				) {
					t.Errorf("%s depends on %s", p.ImportPath, d)
				}
			}
		case under(p.ImportPath, []string{"patd/client"}):
			for _, d := range p.Deps {
				if under(
					d,
					[]string{
						"patd/store",
						"patd/features",
						"patd/server",
						"database/sql",
						"modernc.org/sqlite",
						"github.com/jackc/pgx/v5",
						"github.com/go-sql-driver/mysql",
					},
				) {
					t.Errorf("%s depends on %s", p.ImportPath, d)
				}
			}
		}
	}
}

func TestTestingIsInNoBinary(t *testing.T) {
	for _, p := range goList(t, "-deps", "./cmd/...") {
		if p.ImportPath == "testing" || strings.HasPrefix(p.ImportPath, "testing/") || isTestPackage(p.ImportPath) {
			t.Errorf("%s is in the binary", p.ImportPath)
		}
	}
}
