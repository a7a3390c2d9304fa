package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"patd/internal/longtest"
)

// supervisorSocket is the other end of sd_notify(3): what systemd reads.
type supervisorSocket struct {
	name string
	conn *net.UnixConn
}

// newSupervisorSocket listens in a directory with a short path, or for an abstract name.
func newSupervisorSocket(t *testing.T, abstract bool) *supervisorSocket {
	t.Helper()
	name := fmt.Sprintf("@patd-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	if !abstract {
		dir, err := os.MkdirTemp("", "n")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		name = filepath.Join(dir, "notify")
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &supervisorSocket{name: name, conn: conn}
}

// await returns the next message that has a line, and fails if one of the others comes first.
func (s *supervisorSocket) await(t *testing.T, line string, never ...string) string {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, err := s.conn.Read(buf)
		if err != nil {
			t.Fatalf("wait for %s: %v", line, err)
		}
		message := string(buf[:n])
		for _, l := range strings.Split(message, "\n") {
			if l == line {
				return message
			}
			for _, bad := range never {
				if l == bad {
					t.Fatalf("%s came before %s", bad, line)
				}
			}
		}
	}
}

// TestSupervisorIsToldOfEveryStage drives a server as systemd does, by a socket in a directory and by one without a
// file.
func TestSupervisorIsToldOfEveryStage(t *testing.T) {
	t.Parallel()
	for name, abstract := range map[string]bool{"file": false, "abstract": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSupervisorSocket(t, abstract)
			d, err := start(
				t.TempDir(),
				append(os.Environ(), "NOTIFY_SOCKET="+s.name, "WATCHDOG_USEC=200000"),
				"serve",
				"--data-dir",
				filepath.Join(t.TempDir(), "data"),
				"--http-addr",
				"127.0.0.1:0",
				"--grpc-addr",
				"127.0.0.1:0",
			)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.End)
			if m := s.await(t, "READY=1", "WATCHDOG=1"); !strings.Contains(m, d.HTTP) {
				t.Errorf("the status says nothing of the address: %s", m)
			}
			for range 3 {
				s.await(t, "WATCHDOG=1")
			}
			if err := d.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			m := s.await(t, "RELOADING=1", "READY=1")
			if !regexp.MustCompile(`(?m)^MONOTONIC_USEC=[1-9]\d*$`).MatchString(m) {
				t.Errorf("a reload without its time: %s", m)
			}
			s.await(t, "READY=1")
			if err := d.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			s.await(t, "STOPPING=1", "READY=1")
			if <-d.Exited; d.Err != nil {
				t.Error(d.Err)
			}
		})
	}
}

// TestWatchdogOfAnotherProcessIsNotFed leaves the environment of a parent in place.
func TestWatchdogOfAnotherProcessIsNotFed(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	s := newSupervisorSocket(t, false)
	d, err := start(
		t.TempDir(),
		append(os.Environ(), "NOTIFY_SOCKET="+s.name, "WATCHDOG_USEC=1000", "WATCHDOG_PID=1"),
		"serve",
		"--data-dir",
		filepath.Join(t.TempDir(), "data"),
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.End)
	s.await(t, "READY=1", "WATCHDOG=1")
	if got := patd(t, "health", "--addr", d.GRPC); got != "serving" {
		t.Errorf("health says %q", got)
	}
	if err := d.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.await(t, "STOPPING=1", "WATCHDOG=1")
	<-d.Exited
	if out, err := run("health", "--addr", d.GRPC); err == nil {
		t.Errorf("a server that has ended is healthy: %s", out)
	}
}

// activated starts a server with sockets of the supervisor, under names.
func activated(t *testing.T, names string, sockets []*net.TCPListener, args ...string) (*daemon, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	patd := filepath.Join(t.TempDir(), "patd")
	if err := os.Symlink(self, patd); err != nil {
		t.Fatal(err)
	}
	// The process id of the server must be in its environment.
	cmd := exec.Command(
		"sh",
		append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh", patd, "serve"}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(sockets)), "LISTEN_FDNAMES="+names)
	for _, s := range sockets {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return launch(cmd)
}

func listenOn(t *testing.T, addr string) *net.TCPListener {
	t.Helper()
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	return lis.(*net.TCPListener)
}

// TestSocketsOfTheSupervisorOutliveTheServer holds that a request that arrives between two servers is answered by the
// second one.
func TestSocketsOfTheSupervisorOutliveTheServer(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	rest, grpc, metrics := listenOn(t, "127.0.0.1:0"), listenOn(t, "127.0.0.1:0"), listenOn(t, "127.0.0.1:0")
	sockets := []*net.TCPListener{grpc, rest, metrics}
	serves := func() *daemon {
		t.Helper()
		// The address of REST is taken: only the socket can be used.
		d, err := activated(t, "grpc:http:metrics", sockets, "--data-dir", data, "--http-addr", rest.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.End)
		if d.HTTP != "http://"+rest.Addr().String() || d.GRPC != grpc.Addr().String() {
			t.Errorf("it serves at %s and %s", d.HTTP, d.GRPC)
		}
		return d
	}
	d := serves()
	d.call(t, http.MethodGet, "/readyz", "", "").want(t, "readiness", 200)
	if r, err := http.Get("http://" + metrics.Addr().String() + "/metrics"); err != nil {
		t.Error(err)
	} else if r.Body.Close(); r.StatusCode != http.StatusOK {
		t.Errorf("metrics: %s", r.Status)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		r, err := http.Get("http://" + rest.Addr().String() + "/healthz")
		if err == nil {
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				err = errors.New(r.Status)
			}
		}
		answered <- err
	}()
	serves()
	if err := <-answered; err != nil {
		t.Errorf("a request between two servers: %v", err)
	}
}

// TestSocketsOfTheSupervisorMustBeNamedAndSafe holds what is refused at start.
func TestSocketsOfTheSupervisorMustBeNamedAndSafe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		names, addr, want string
		sockets           int
	}{
		"an unknown name": {names: "patd.socket", addr: "127.0.0.1:0", sockets: 1, want: "FileDescriptorName="},
		"a name twice":    {names: "http:http", addr: "127.0.0.1:0", sockets: 2, want: "FileDescriptorName="},
		"plain text":      {names: "http", addr: "0.0.0.0:0", sockets: 1, want: "plain text"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sockets []*net.TCPListener
			for range c.sockets {
				sockets = append(sockets, listenOn(t, c.addr))
			}
			d, err := activated(
				t,
				c.names,
				sockets,
				"--data-dir",
				filepath.Join(t.TempDir(), "data"),
				"--http-addr",
				"127.0.0.1:0",
				"--grpc-addr",
				"127.0.0.1:0",
			)
			if err == nil {
				d.Kill()
				t.Fatal("it serves")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// TestHangupReadsKeysAndCertificateAgain replaces the certificate by one of the same time: only SIGHUP can tell.
func TestHangupReadsKeysAndCertificateAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	selfSigned(t, cert, key)
	old := time.Now().Add(-time.Hour)
	age := func() {
		t.Helper()
		for _, file := range []string{cert, key} {
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	age()
	s := newSupervisorSocket(t, false)
	d, err := start(
		t.TempDir(),
		append(os.Environ(), "NOTIFY_SOCKET="+s.name),
		"serve",
		"--data-dir",
		filepath.Join(dir, "data"),
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
		"--tls-cert",
		cert,
		"--tls-key",
		key,
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.End)
	s.await(t, "READY=1")
	reload := func() {
		t.Helper()
		if err := d.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.await(t, "READY=1")
	}
	first := presented(t, d)
	selfSigned(t, cert, key)
	age()
	reload()
	second := presented(t, d)
	if second.Equal(first) {
		t.Error("the certificate of before is presented")
	}
	if want := readCertificate(t, cert); !second.Equal(want) {
		t.Error("another certificate than that of the file is presented")
	}
	if !strings.Contains(d.Log.String(), "hash keys read again") {
		t.Errorf("the keys were not read: %s", d.Log)
	}
	if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	reload()
	if !presented(t, d).Equal(second) || !strings.Contains(d.Log.String(), "could not be read anew") {
		t.Errorf("a bad file: the certificate before it does not stay, or the log does not say so: %s", d.Log)
	}
}

// presented is the certificate that REST presents.
func presented(t *testing.T, d *daemon) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(d.HTTP, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func readCertificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s holds no PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
