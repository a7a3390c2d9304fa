//go:build !race

package browsertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/pagetest"
	"patd/internal/proctest"
)

// debianPython has Flask by the package python3-flask.
const debianPython = "/usr/bin/python3"

// TestPagesAreEmbeddedWithoutThirdPartyCookies has two applications of another site, with the endpoints in Express and
// in Flask that docs/page.md shows, and a server under TLS at which nobody can sign in by itself. The element of
// embed.js shows the page of whoever is signed in at the application, in a frame as high as the page.
func TestPagesAreEmbeddedWithoutThirdPartyCookies(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	need(t)
	if exec.Command(debianPython, "-c", "import flask").Run() != nil {
		proctest.Missing(t, "Flask (python3-flask)")
	}
	dir, apps := t.TempDir(), appsDir(t)
	cert, key := certificate(t, dir)
	addr := proctest.FreeAddr(t)
	data := []string{"--data-dir", filepath.Join(dir, "data")}
	admin, err := service(nil, data...)
	must(t, err)

	// The applications.
	url := "https://" + addr
	write(t, filepath.Join(apps, "crm.token"), admin)
	write(t, filepath.Join(apps, "handoff.mjs"), pagetest.Blocks(t, "js express")[0].Text)
	write(t, filepath.Join(apps, "handoff.py"), pagetest.Blocks(t, "python flask")[0].Text)
	embed := pagetest.Blocks(t, "html embed")[0].Text
	write(t, filepath.Join(apps, "embed.html"), "<!doctype html><title>Settings</title><h1>Settings</h1>"+
		strings.ReplaceAll(embed, "https://patd.example.com", url))
	env := []string{"PATD_URL=" + url, "NODE_EXTRA_CA_CERTS=" + cert, "SSL_CERT_FILE=" + cert}
	more, origins := map[string]string{}, []string{}
	for name, args := range map[string][]string{"express": {"node", "app.mjs"}, "flask": {debianPython, "app.py"}} {
		var at struct{ Port int }
		stop, err := proctest.Helper(apps, env, &at, args...)
		must(t, err)
		t.Cleanup(stop)
		more[name] = "http://localhost:" + strconv.Itoa(at.Port)
		origins = append(origins, more[name])
	}

	p, err := serve(
		addr,
		nil,
		append(data, "--tls-cert", cert, "--tls-key", key, "--page-origins", strings.Join(origins, ","))...)
	must(t, err)
	t.Cleanup(func() { must(t, p.Stop()) })
	browser, stop, err := start(chromium)
	must(t, err)
	t.Cleanup(stop)
	setup{Browser: browser, Patd: url, Admin: admin, More: more, Authority: cert}.script(t, "embed.mjs")
}

// appsDir makes a folder for the applications below that of the scripts, where Node finds its packages.
func appsDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scripts, "run-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	for _, name := range []string{"app.mjs", "app.py"} {
		text, err := os.ReadFile(filepath.Join("testdata/apps", name))
		must(t, err)
		write(t, filepath.Join(dir, name), string(text))
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// certificate writes a certificate for loopback that is its own authority, and its key.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return cert, key
}
