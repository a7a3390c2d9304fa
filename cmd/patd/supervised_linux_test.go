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
	"patd/internal/proctest"
	"patd/internal/waittest"
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
			t.Cleanup(d.kill)
			if m := s.await(t, "READY=1", "WATCHDOG=1"); !strings.Contains(m, d.http) {
				t.Errorf("the status says nothing of the address: %s", m)
			}
			for range 3 {
				s.await(t, "WATCHDOG=1")
			}
			if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			m := s.await(t, "RELOADING=1", "READY=1")
			if !regexp.MustCompile(`(?m)^MONOTONIC_USEC=[1-9]\d*$`).MatchString(m) {
				t.Errorf("a reload without its time: %s", m)
			}
			s.await(t, "READY=1")
			if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			s.await(t, "STOPPING=1", "READY=1")
			if <-d.exited; d.err != nil {
				t.Error(d.err)
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
	t.Cleanup(d.kill)
	s.await(t, "READY=1", "WATCHDOG=1")
	if got := patd(t, "health", "--addr", d.grpc); got != "serving" {
		t.Errorf("health says %q", got)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.await(t, "STOPPING=1", "WATCHDOG=1")
	<-d.exited
	if out, err := run("health", "--addr", d.grpc); err == nil {
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
		t.Cleanup(d.kill)
		if d.http != "http://"+rest.Addr().String() || d.grpc != grpc.Addr().String() {
			t.Errorf("it serves at %s and %s", d.http, d.grpc)
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
	if err := d.stop(); err != nil {
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
				d.kill()
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
	t.Cleanup(d.kill)
	s.await(t, "READY=1")
	reload := func() {
		t.Helper()
		if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
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
	if !strings.Contains(d.log.String(), "hash keys read again") {
		t.Errorf("the keys were not read: %s", d.log)
	}
	if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	reload()
	if !presented(t, d).Equal(second) || !strings.Contains(d.log.String(), "could not be read anew") {
		t.Errorf("a bad file: the certificate before it does not stay, or the log does not say so: %s", d.log)
	}
}

// presented is the certificate that REST presents.
func presented(t *testing.T, d *daemon) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(d.http, "https://"), &tls.Config{InsecureSkipVerify: true})
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

// inNamespace starts patd as process 1 of a namespace of its own, and returns its id outside of it.
func inNamespace(t *testing.T, args ...string) (d *daemon, pid int) {
	t.Helper()
	for _, tool := range []string{"unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			proctest.Missing(t, tool)
		}
	}
	if out, err := exec.Command("unshare", "--pid", "--fork", "true").CombinedOutput(); err != nil {
		proctest.Missing(t, "the permission to make namespaces: "+string(out))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	patd := filepath.Join(t.TempDir(), "patd")
	if err := os.Symlink(self, patd); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(
		"unshare",
		append(
			[]string{"--pid", "--fork", "--kill-child", patd, "serve", "--data-dir", filepath.Join(t.TempDir(), "data"),
				"--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"},
			args...)...)
	cmd.Dir = t.TempDir()
	d, err = launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	inside := children(t, cmd.Process.Pid)
	if len(inside) != 1 {
		t.Fatalf("unshare has the children %v", inside)
	}
	return d, inside[0]
}

// children are the processes whose parent a process is, zombies too.
func children(t *testing.T, pid int) (out []int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, child)
		}
	}
	return out
}

// TestProcessOneLeavesNoZombies gives a server that is process 1 an orphan, as `docker exec` does.
func TestProcessOneLeavesNoZombies(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	d, pid := inNamespace(t)
	// The inner shell is an orphan as soon as the outer one ends; the pipe holds it until then.
	enter := exec.Command(
		"nsenter",
		"--target",
		strconv.Itoa(pid),
		"--pid",
		"sh",
		"-c",
		"sh -c 'read line' <&3 >/dev/null 2>&1 & exit 0",
	)
	hold, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	enter.ExtraFiles = []*os.File{hold}
	if out, err := enter.CombinedOutput(); err != nil {
		t.Fatalf("enter the namespace: %v %s", err, out)
	}
	hold.Close()
	if got := children(t, pid); len(got) != 1 {
		t.Fatalf("process 1 has the children %v; want one orphan", got)
	}
	release.Close()
	waittest.Until(t, "process 1 has no zombies", func() bool { return len(children(t, pid)) == 0 })
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if <-d.exited; d.err != nil {
		t.Errorf("process 1 after SIGTERM: %v", d.err)
	}
	if !strings.Contains(d.log.String(), "stopped") {
		t.Errorf("it did not stop in order: %s", d.log)
	}
}

// TestProcessOneEndsOnTheThirdSignal holds that a container can be ended while a call is under way, although the kernel
// spares a process 1 the usual effect of signals.
func TestProcessOneEndsOnTheThirdSignal(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	d, pid := inNamespace(t, "--drain-delay", "10m", "--drain-timeout", "10m")
	addr := strings.TrimPrefix(d.http, "http://")
	call, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	if _, err := call.Write(
		[]byte("POST /v1/introspect HTTP/1.1\r\nHost: patd\r\nContent-Length: 9\r\n\r\n{"),
	); err != nil {
		t.Fatal(err)
	}
	signal := func() {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	if _, err := d.log.Await(patience, regexp.MustCompile(`"stopping"`)); err != nil {
		t.Fatal(err)
	}
	signal()
	waittest.Until(t, "the second signal ends the delay", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	signal()
	select {
	case <-d.exited:
	case <-time.After(patience):
		t.Fatal("process 1 does not end")
	}
	if d.err == nil {
		t.Error("it waited for the call")
	}
}
