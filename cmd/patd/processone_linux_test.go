package main

import (
	"bufio"
	"fmt"
	"net"
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
	t.Cleanup(d.Kill)
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
	if <-d.Exited; d.Err != nil {
		t.Errorf("process 1 after SIGTERM: %v", d.Err)
	}
	if !strings.Contains(d.Log.String(), "stopped") {
		t.Errorf("it did not stop in order: %s", d.Log)
	}
}

// TestProcessOneEndsOnTheThirdSignal holds that a container can be ended while a call is under way, although the kernel
// spares a process 1 the usual effect of signals.
func TestProcessOneEndsOnTheThirdSignal(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	d, pid := inNamespace(t, "--drain-delay", "10m", "--drain-timeout", "10m")
	addr := strings.TrimPrefix(d.HTTP, "http://")
	call, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	if _, err := call.Write(
		[]byte("POST /v1/introspect HTTP/1.1\r\nHost: patd\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"),
	); err != nil {
		t.Fatal(err)
	}
	// The call is under way once it waits for its body.
	if line, err := bufio.NewReader(call).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("%q, %v", line, err)
	}
	signal := func() {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	if _, err := d.Log.Await(patience, regexp.MustCompile(`"stopping"`)); err != nil {
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
	case <-d.Exited:
	case <-time.After(patience):
		t.Fatal("process 1 does not end")
	}
	if d.Err == nil {
		t.Error("it waited for the call")
	}
}
