package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/remote"
	"patd/internal/longtest"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestStartsAtOnceAgreeOnOneKey starts several processes on an empty folder at the same moment.
func TestStartsAtOnceAgreeOnOneKey(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		data := filepath.Join(t.TempDir(), "data")
		var starts sync.WaitGroup
		secrets := make([]string, 6)
		for i := range secrets {
			starts.Go(func() {
				var err error
				if secrets[i], err = run(
					"service",
					"create",
					fmt.Sprint("s", i),
					"--permission",
					"admin",
					"--data-dir",
					data,
				); err != nil {
					t.Error(err)
				}
			})
		}
		starts.Wait()
		d := serve(t, data)
		for _, secret := range secrets {
			a := connect(t, d, secret)
			if _, err := a.users.ListUsers(t.Context(), nil); err != nil {
				t.Errorf("a service made by one of several starts: %v", err)
			}
		}
		keys, err := os.ReadFile(filepath.Join(data, "hash.key"))
		if err != nil || strings.Count(string(keys), ":") != 1 || strings.Count(string(keys), "\n") != 2 {
			t.Errorf("the key file has %d keys in %d lines, %v; want one, and that the rows are sealed",
				strings.Count(string(keys), ":"), strings.Count(string(keys), "\n"), err)
		}
		if left, _ := filepath.Glob(filepath.Join(data, ".hash.key-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestRotationsAtOnceLoseNoKey rotates from several processes at the same moment.
func TestRotationsAtOnceLoseNoKey(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	patd(t, "service", "list", "--data-dir", data)
	var rotations sync.WaitGroup
	for range 4 {
		rotations.Go(func() {
			if _, err := run("keys", "rotate", "--data-dir", data); err != nil {
				t.Error(err)
			}
		})
	}
	rotations.Wait()
	keys, err := config.KeyFile(filepath.Join(data, "hash.key")).Read()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(keys.Names(), " "); got != "k5 k4 k3 k2 k1" {
		t.Errorf("the key file has %s", got)
	}
	if got := patd(
		t,
		"check",
		"--data-dir",
		data,
	); got != "ok: "+filepath.Join(
		data,
		"patd.db",
	)+", 0 tokens, 0 services, keys k1 k2 k3 k4 k5" {
		t.Errorf("check: %s", got)
	}
}

// TestRetiredKeyLeavesTheFile lets the clock of the command run ahead, since a key can be retired only a minute after
// the next one came into force.
func TestRetiredKeyLeavesTheFile(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	at := time.Now()
	later := func(args ...string) (string, string, int) {
		return runAt(t, at, append(args, "--data-dir", data)...)
	}
	for _, args := range [][]string{{"service", "list"}, {"keys", "rotate"}} {
		if _, errs, code := later(args...); code != 0 {
			t.Fatalf("%v: %s", args, errs)
		}
	}
	if _, errs, code := later(
		"keys",
		"retire",
		"k1",
	); code != cli.ExitFault ||
		!strings.Contains(errs, "KEY_TOO_RECENT") {
		t.Errorf("retiring at once: exit %d, %s; want KEY_TOO_RECENT", code, errs)
	}
	at = at.Add(2 * time.Minute)
	if out, errs, code := later(
		"keys",
		"retire",
		"k1",
	); code != 0 || out != "k1\n" ||
		!strings.Contains(errs, "backups made before now still need it") {
		t.Fatalf("retiring: exit %d, %s", code, errs)
	}
	keys, err := config.KeyFile(filepath.Join(data, "hash.key")).Read()
	if err != nil || strings.Join(keys.Names(), " ") != "k2" {
		t.Errorf("the key file has %v, %v; want k2 alone", keys.Names(), err)
	}
	out, _, _ := later("keys", "status")
	if !strings.Contains(out, "k1   retired") {
		t.Errorf("keys status says\n%s", out)
	}
	if out, errs, _ := later("keys", "rotate"); out != "k3\n" {
		t.Errorf("rotating again makes %q, want k3, a name that was never used: %s", out, errs)
	}
}

// TestTLS serves with a certificate of a private authority, which curl and the command's client must be told of.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	data, cert, key, tokenFile := filepath.Join(
		dir,
		"data",
	), filepath.Join(
		dir,
		"cert.pem",
	), filepath.Join(
		dir,
		"key.pem",
	), filepath.Join(
		dir,
		"token",
	)
	selfSigned(t, cert, key)
	admin := patd(t, "service", "create", "tls", "--permission", "admin", "--data-dir", data)
	if err := os.WriteFile(tokenFile, []byte(admin), 0o600); err != nil {
		t.Fatal(err)
	}
	d := serve(t, data, "--tls-cert", cert, "--tls-key", key)
	if !strings.HasPrefix(d.HTTP, "https://") {
		t.Errorf("the issuer is %s, want https", d.HTTP)
	}
	patd(t, "user", "features", "u", "--set", "a", "--addr", d.GRPC, "--ca-file", cert, "--token-file", tokenFile)
	for _, plain := range []string{"http://" + strings.TrimPrefix(d.HTTP, "https://") + "/healthz", d.HTTP + "/healthz"} {
		if r, err := http.Get(plain); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				t.Errorf("%s answers a client that trusts nothing", plain)
			}
		}
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// selfSigned writes a certificate for loopback that is its own authority.
func selfSigned(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPlainTextStaysOnLoopback checks to which addresses a token may go without TLS.
func TestPlainTextStaysOnLoopback(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:9090": "insecure", "127.9.9.9:1": "insecure", "[::1]:9090": "insecure", "localhost:9090": "insecure",
		"192.0.2.1:9090": "tls", "patd.example:443": "tls", "[2001:db8::1]:9090": "tls", "localhost.example:9090": "tls", "0.0.0.0:9090": "tls",
	} {
		r := remote.Connection{Addr: addr}
		transport, err := r.Transport()
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if got := transport.Info().SecurityProtocol; got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
		r.Insecure = true
		if transport, err := r.Transport(); err != nil || transport.Info().SecurityProtocol != "insecure" {
			t.Errorf("%s with --insecure: %v, %v", addr, transport, err)
		}
	}
}

// TestErrorsHoldNoSecret checks the last door.
func TestErrorsHoldNoSecret(t *testing.T) {
	text, err := secret.Mint("acme", 1<<40, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	line, err := secret.NewKeyLine("k1", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []tokens.Secret{text, line} {
		got := cli.Redact("unknown command \"" + s.Reveal() + "\" for patd")
		if strings.Contains(got, s.Reveal()[4:20]) || !strings.Contains(got, "[secret]") {
			t.Error("a secret gets through")
		}
	}
}
