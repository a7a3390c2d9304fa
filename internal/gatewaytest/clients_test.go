package gatewaytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/store/storetest"
)

const clientsDir = "testdata/clients"

// brief is what a client program is told on its standard input.
type brief struct {
	Issuer  string `json:"issuer"`
	CA      string `json:"ca"`
	Service struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	} `json:"service"`
	User        string `json:"user"`
	PAT         string `json:"pat"`
	Audience    string `json:"audience"`
	JWTAudience string `json:"jwtAudience"`
	JWTResource string `json:"jwtResource"`
	Out         bool   `json:"out"`

	Listen   string `json:"listen"`   // of a gateway
	Upstream string `json:"upstream"` // the same
}

// briefed makes what the programs expect to find: a token with two scopes, and an audience of each kind.
func briefed(t *testing.T, i *issuer, c certificate) brief {
	t.Helper()
	b := brief{
		Issuer:      i.url,
		CA:          c.cert,
		User:        "alice",
		Audience:    "api",
		JWTAudience: "jwt-api",
		JWTResource: "https://jwt.example/",
	}
	b.Service.ID, b.Service.Secret = "gateway", i.asker
	i.call(
		t,
		http.MethodPost,
		"/v1/audiences",
		map[string]any{"id": b.Audience, "allow_offline_access": true, "access_token_ttl": "3600s"},
		nil,
	)
	i.call(
		t,
		http.MethodPost,
		"/v1/audiences",
		map[string]any{"id": b.JWTAudience, "resource": b.JWTResource, "access_token_format": "JWT"},
		nil,
	)
	b.PAT = i.mint(t, b.User, "reports.read", "billing.write").secret
	return b
}

// client is a program that drives patd with a library and ends with 0 when all was as it should be.
type client func(t *testing.T, b brief) *exec.Cmd

func (p client) run(t *testing.T, b brief) {
	t.Helper()
	text, err := json.Marshal(b)
	must(t, err)
	cmd := p(t, b)
	cmd.Dir, cmd.Stdin = clientsDir, bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", cmd.Path, err, out)
	}
}

// works shows that a library gets on with patd, and takes no outage for an answer.
func (p client) works(t *testing.T) {
	t.Helper()
	t.Parallel()
	c := newCertificate(t)
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		d := serve(t, c)
		p.run(t, briefed(t, &d.issuer, c))
	})
	t.Run("store out", func(t *testing.T) {
		t.Parallel()
		i, faulty := serveFaulty(t, c)
		b := briefed(t, i, c)
		b.Out = true
		// What the store says of features is published, and read before anything else; all besides that is out.
		faulty.FailOp(storetest.OpLookup, storetest.Outage())
		faulty.FailOp(storetest.OpUpdate, storetest.Outage())
		p.run(t, b)
		faulty.FailOp(storetest.OpLookupService, storetest.Outage())
		p.run(t, b)
	})
}

// libraries installs once, where they are not there yet, the libraries that package.json pins.
var libraries = sync.OnceValue(func() error {
	if _, err := os.Stat(filepath.Join(clientsDir, "node_modules", "openid-client", "package.json")); err == nil {
		return nil
	}
	install := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = clientsDir
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
})

// node runs a program of testdata/clients.
func node(script string) client {
	return func(t *testing.T, b brief) *exec.Cmd {
		t.Helper()
		path := program(t, "node")
		if err := libraries(); err != nil {
			proctest.Missing(t, "what package.json names: "+err.Error())
		}
		cmd := exec.Command(path, script)
		cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+b.CA)
		return cmd
	}
}

// guarding is the client as a gateway: a program that lets requests through to an upstream after asking patd.
func (p client) guarding(t *testing.T, s site) string {
	t.Helper()
	b := brief{Issuer: s.patd.url, CA: s.certificate.cert, Listen: proctest.FreeAddr(t), Upstream: s.upstream}
	b.Service.ID, b.Service.Secret = "gateway", s.patd.asker
	text, err := json.Marshal(b)
	must(t, err)
	cmd := p(t, b)
	cmd.Dir, cmd.Stdin = clientsDir, bytes.NewReader(text)
	run(t, account{}, cmd, "http://"+b.Listen)
	return b.Listen
}

// guards shows that a gateway which is made with the library keeps what a gateway has to.
func (p client) guards(t *testing.T) {
	t.Helper()
	guards(t, gateway{
		start:     p.guarding,
		tls:       true,
		tells:     []string{"X-Auth-User"},
		addresses: true,
		unlisted:  http.StatusNotFound,
		stopped:   http.StatusServiceUnavailable,
		frozen:    http.StatusServiceUnavailable,
		out:       http.StatusServiceUnavailable,
	})
}

func TestOAuth4WebAPI(t *testing.T) {
	longtest.Only(t)
	node("oauth4webapi.mjs").works(t)
}

func TestOpenIDClient(t *testing.T) { node("openid-client.mjs").works(t) }

func TestOAuth4WebAPIGateway(t *testing.T) {
	longtest.Only(t)
	node("oauth4webapi-gateway.mjs").guards(t)
}

func TestOpenIDClientGateway(t *testing.T) {
	longtest.Only(t)
	node("openid-client-gateway.mjs").guards(t)
}

// authlib runs a program of testdata/clients with Debian's own Python, for which its python3-authlib is.
func authlib(script string) client {
	return func(t *testing.T, _ brief) *exec.Cmd {
		t.Helper()
		const python = "/usr/bin/python3"
		if err := exec.Command(python, "-c", "import authlib, requests").Run(); err != nil {
			proctest.Missing(t, "python3-authlib or python3-requests")
		}
		return exec.Command(python, script)
	}
}

func TestAuthlib(t *testing.T) {
	longtest.Only(t)
	authlib("authlib_client.py").works(t)
}

func TestAuthlibGateway(t *testing.T) {
	longtest.Only(t)
	authlib("authlib_gateway.py").guards(t)
}
