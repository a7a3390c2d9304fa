package gatewaytest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"patd/internal/patdtest"
	"patd/internal/proctest"
	"patd/internal/servicetest"
	"patd/server"
	"patd/store"
	"patd/store/storetest"
	"patd/tokens"
)

// issuer is a patd that serves, and what a test needs to use it.
type issuer struct {
	http, grpc string // addresses
	url        string
	admin      string // secret of a service that may do everything
	asker      string // secret of the service "gateway", which may introspect
	client     *http.Client
}

// certificate is a pair of files for a server on loopback, which is its own authority.
type certificate struct{ cert, key string }

func newCertificate(t *testing.T) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "patd test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	c := certificate{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	must(t, os.WriteFile(c.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(c.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	return c
}

// pool holds the certificate's authority.
func (c certificate) pool(t *testing.T) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(c.cert)
	must(t, err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatal("the certificate cannot be read")
	}
	return pool
}

// scheme is https where there is a certificate.
func (c certificate) scheme() string {
	if c.cert == "" {
		return "http://"
	}
	return "https://"
}

// reach makes a client that trusts the certificate, if there is one.
func (i *issuer) reach(t *testing.T, c certificate) {
	t.Helper()
	transport := &http.Transport{}
	if c.cert != "" {
		transport.TLSClientConfig = &tls.Config{RootCAs: c.pool(t)}
	}
	i.client = &http.Client{Transport: transport, Timeout: patience}
	t.Cleanup(i.client.CloseIdleConnections)
}

// daemon is the real patd, run as a process, which a test can stop, freeze and start again on the same address and
// store.
type daemon struct {
	issuer
	*process
	args  []string // of its command line, which the next start has
	start func() *process
}

// serve runs the real patd, by TLS if there is a certificate. It believes forwarded addresses from loopback, where the
// gateways are.
func serve(t *testing.T, c certificate) *daemon {
	t.Helper()
	return serveWith(t, c)
}

// serveWith is serve with more flags.
func serveWith(t *testing.T, c certificate, flags ...string) *daemon {
	t.Helper()
	patd, err := binary()
	must(t, err)
	data := filepath.Join(t.TempDir(), "data")
	create := func(name, permission string) string {
		out, err := exec.Command(patd, "service", "create", name, "--permission", permission, "--data-dir", data).
			Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("create a service: %v: %s", err, exit.Stderr)
		}
		must(t, err)
		return strings.TrimSpace(string(out))
	}
	d := &daemon{
		issuer: issuer{
			http:  proctest.FreeAddr(t),
			grpc:  proctest.FreeAddr(t),
			admin: create("admin", "admin"),
			asker: create("gateway", "introspect"),
		},
	}
	d.url = c.scheme() + d.http
	d.reach(t, c)
	d.args = []string{
		"serve",
		"--data-dir",
		data,
		"--http-addr",
		d.http,
		"--grpc-addr",
		d.grpc,
		"--trusted-proxies",
		"127.0.0.1/32",
		"--drain-delay",
		"0s",
	}
	d.args = append(d.args, flags...)
	if c.cert != "" {
		d.args = append(d.args, "--tls-cert", c.cert, "--tls-key", c.key)
	}
	d.start = func() *process { return run(t, account{}, exec.Command(patd, d.args...), d.url+"/healthz") }
	d.process = d.start()
	return d
}

// stop asks patd to end, and waits for that.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	d.signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(patience):
		t.Fatal("patd does not end")
	}
}

// serveFaulty runs patd inside the test, on a real store that fails when it is told to.
func serveFaulty(t *testing.T, c certificate) (*issuer, *storetest.Faulty) {
	t.Helper()
	var faulty *storetest.Faulty
	p := patdtest.Start(t, servicetest.Options{Between: func(st *store.Store) tokens.Store {
		faulty = storetest.NewFaulty(st)
		return faulty
	}}, func(_ *servicetest.Made, config *server.Config) {
		config.Ready = faulty.Ready
		if c.cert != "" {
			var err error
			config.TLS, err = server.LoadTLS(c.cert, c.key, config.Logger)
			must(t, err)
		}
	})
	i := &issuer{http: p.Server.HTTPAddr(), grpc: p.Server.GRPCAddr(), url: c.scheme() + p.Server.HTTPAddr()}
	i.admin, i.asker = p.ServiceAccount(t, "admin", "admin"), p.ServiceAccount(t, "gateway", "introspect")
	i.reach(t, c)
	return i, faulty
}

// call asks the REST API as the operator.
func (i *issuer) call(t *testing.T, method, path string, in, out any) {
	t.Helper()
	text, err := json.Marshal(in)
	must(t, err)
	r, err := http.NewRequest(method, i.url+path, bytes.NewReader(text))
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+i.admin)
	resp, err := i.client.Do(r)
	must(t, err)
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode >= http.StatusBadRequest {
		t.Fatalf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	if out != nil {
		must(t, json.Unmarshal(text, out))
	}
}

// hold says what a user holds.
func (i *issuer) hold(t *testing.T, user string, features ...string) {
	t.Helper()
	i.call(t, http.MethodPut, "/v1/users/"+url.PathEscape(user)+"/features", map[string]any{"features": features}, nil)
}

// token is a personal access token.
type token struct{ user, id, secret string }

// mint makes a token of a user, who then holds its scopes at least.
func (i *issuer) mint(t *testing.T, user string, scopes ...string) token {
	t.Helper()
	return i.mintBound(t, user, nil, scopes...)
}

// mintBound makes a token that works from some networks only.
func (i *issuer) mintBound(t *testing.T, user string, networks []string, scopes ...string) token {
	t.Helper()
	return i.mintWith(t, user, map[string]any{"allowed_cidrs": networks}, scopes...)
}

// mintWith makes a token with more fields of the request.
func (i *issuer) mintWith(t *testing.T, user string, fields map[string]any, scopes ...string) token {
	t.Helper()
	i.call(t, http.MethodPatch, "/v1/users/"+url.PathEscape(user)+"/features", map[string]any{"add": scopes}, nil)
	var minted struct {
		Token struct {
			TokenID string `json:"token_id"`
		}
		Secret string
	}
	request := map[string]any{"name": fmt.Sprint("for a test ", time.Now().UnixNano()), "scopes": scopes}
	maps.Copy(request, fields)
	i.call(t, http.MethodPost, "/v1/users/"+url.PathEscape(user)+"/tokens", request, &minted)
	return token{user, minted.Token.TokenID, minted.Secret}
}

// revoke ends a token.
func (i *issuer) revoke(t *testing.T, tok token) {
	t.Helper()
	i.call(t, http.MethodPost, "/v1/users/"+url.PathEscape(tok.user)+"/tokens/"+tok.id+":revoke", map[string]any{}, nil)
}

// exchange gets an access token for a personal one (RFC 8693).
func (i *issuer) exchange(t *testing.T, tok token) string {
	t.Helper()
	resp, err := i.client.PostForm(i.url+"/oauth2/token", url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {tok.secret},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
	})
	must(t, err)
	defer resp.Body.Close()
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	must(t, json.NewDecoder(resp.Body).Decode(&granted))
	if resp.StatusCode != http.StatusOK || granted.AccessToken == "" {
		t.Fatalf("exchange: %s", resp.Status)
	}
	return granted.AccessToken
}
