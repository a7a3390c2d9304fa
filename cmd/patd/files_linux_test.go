package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"patd/internal/longtest"

	"golang.org/x/sys/unix"
)

// serviceAccount is the user and group that serve in these tests.
const serviceAccount = 65534

// TestFilesThatRootLeavesCanBeReadByTheService runs each command that writes files as root, on a directory of the
// service's account, and starts the server as that account after it.
func TestFilesThatRootLeavesCanBeReadByTheService(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, serviceAccount, serviceAccount); err != nil {
		t.Fatal(err)
	}
	owned := func(after string, modes map[string]os.FileMode) {
		t.Helper()
		files, err := os.ReadDir(data)
		if err != nil || len(files) == 0 {
			t.Fatal(err, "no files")
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != serviceAccount || st.Gid != serviceAccount {
				t.Errorf("after %s, %s belongs to %d:%d", after, f.Name(), st.Uid, st.Gid)
			}
			if want, ok := modes[f.Name()]; ok && info.Mode().Perm() != want {
				t.Errorf("after %s, %s has mode %v, want %v", after, f.Name(), info.Mode().Perm(), want)
			}
		}
	}
	patd(t, "service", "create", "first", "--permission", "admin", "--data-dir", data)
	owned("the first start", map[string]os.FileMode{"hash.key": 0o600, "patd.db": 0o600})
	key := filepath.Join(data, "hash.key")
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	modes := map[string]os.FileMode{"hash.key": 0o640}
	for _, args := range [][]string{{"keys", "prepare"}, {"keys", "rotate"}, {"service", "create", "second", "--permission", "audit"}} {
		patd(t, append(args, "--data-dir", data)...)
		owned(strings.Join(args, " "), modes)
	}
	backup := filepath.Join(t.TempDir(), "backup.db")
	patd(t, "backup", backup, "--data-dir", data)
	owned("backup", modes)
	patd(t, "restore", backup, "--data-dir", data)
	owned("restore over a store", modes)
	for _, name := range []string{"patd.db", "patd.db.lock"} {
		if err := os.Remove(filepath.Join(data, name)); err != nil {
			t.Fatal(err)
		}
	}
	patd(t, "restore", backup, "--data-dir", data)
	owned("restore into an empty place", modes)
}

// TestAKeyFileThatIsAPipeHoldsNobodyUp starts a server on one, and puts one into the place of a running server's key.
func TestAKeyFileThatIsAPipeHoldsNobodyUp(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	patd(t, "service", "create", "admin", "--permission", "admin", "--data-dir", data)
	d := serve(t, data)
	key := filepath.Join(data, "hash.key")
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(put func(path string) error) {
		t.Helper()
		if err := put(key + ".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(key+".new", key); err != nil {
			t.Fatal(err)
		}
	}
	replace(func(path string) error { return syscall.Mkfifo(path, 0o600) })
	if err := d.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Log.Await(
		patience,
		regexp.MustCompile(`cannot read the hash key file; keeping the current keys.*not a regular file`),
	); err != nil {
		t.Error(err)
	}
	d.awaitReady(t, http.StatusServiceUnavailable)
	replace(func(path string) error { return os.WriteFile(path, good, 0o600) })
	d.awaitReady(t, http.StatusOK)
	replace(func(path string) error { return syscall.Mkfifo(path, 0o600) })
	if err := d.Stop(); err != nil {
		t.Errorf("SIGTERM while the key file is a pipe: %v", err)
	}
	query := filepath.Join(t.TempDir(), "query.sql")
	if err := syscall.Mkfifo(query, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(
		"serve",
		"--data-dir",
		data,
		"--features-source",
		"sql",
		"--features-database-url",
		"sqlite:"+query,
		"--features-query-file",
		query,
	)
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a query from a pipe: %v %s", err, out)
	}
	if out, err := run(
		"check",
		"--data-dir",
		data,
	); err == nil ||
		!strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a start on a pipe: %v %s", err, out)
	}
}

// awaitReady waits until /readyz has a status.
func (d *daemon) awaitReady(t *testing.T, want int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		resp, err := http.Get(d.HTTP + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz is %d after %s, want %d", resp.StatusCode, patience, want)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestADirectoryThatOthersCanWriteToIsSaid(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	patd(t, "service", "create", "admin", "--permission", "admin", "--data-dir", data)
	if err := os.Chmod(data, 0o777); err != nil {
		t.Fatal(err)
	}
	d := serve(t, data)
	if _, err := d.Log.Await(
		patience,
		regexp.MustCompile(`others than its owner can write to this directory`),
	); err != nil {
		t.Error(err)
	}
}

// TestAFileSystemWithoutHardLinksHoldsAStore runs what makes files with link and linkat failing, as they do on such a
// file system.
func TestAFileSystemWithoutHardLinksHoldsAStore(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	dir := t.TempDir()
	data, backup := filepath.Join(dir, "data"), filepath.Join(dir, "backup.db")
	for _, args := range [][]string{
		{"service", "create", "admin", "--permission", "admin"}, {"keys", "rotate"}, {"backup", backup}, {"restore", backup}, {"check"},
	} {
		if out, err := withoutLinks(t, append(args, "--data-dir", data)...); err != nil {
			t.Errorf("patd %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(data, "patd.db.before-restore-*")); len(kept) == 0 {
		t.Error("the store from before the restore was not kept")
	}
}

// withoutLinks runs patd under a filter that has link and linkat fail with EOPNOTSUPP.
func withoutLinks(t *testing.T, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "patd"
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine, and the filter with it
		if err := refuseLinks(); err != nil {
			done <- result{err: err}
			return
		}
		out, err := cmd.CombinedOutput()
		done <- result{out, err}
	}()
	r := <-done
	return string(r.out), r.err
}

// refuseLinks filters the system calls of this thread and of what it starts.
func refuseLinks() error {
	refused := []uint32{unix.SYS_LINKAT}
	if runtime.GOARCH == "amd64" {
		refused = append(refused, 86) // link
	}
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number of the call
	for i, n := range refused {
		program = append(
			program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(refused) - i), K: n},
		)
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP)})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
}
