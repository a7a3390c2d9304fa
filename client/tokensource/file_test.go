package tokensource_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"patd/client/tokensource"
	"patd/tokens/secret"
)

const (
	crashAt     = "TOKENSOURCE_TEST_CRASH_AT"
	crashServer = "TOKENSOURCE_TEST_SERVER"
	crashFile   = "TOKENSOURCE_TEST_FILE"
)

// TestMain is also a program that rotates a token and is killed at a step of storing the new secret.
func TestMain(m *testing.M) {
	at := os.Getenv(crashAt)
	if at == "" {
		os.Exit(m.Run())
	}
	file := tokensource.NewFile(os.Getenv(crashFile))
	rotating := false
	file.SetStep(func(name string) {
		rotating = rotating || name == "start"
		if rotating && name == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	api, err := tokensource.REST(os.Getenv(crashServer), nil)
	if err != nil {
		os.Exit(4)
	}
	s, err := tokensource.New(tokensource.Config{API: api, Store: file})
	if err != nil {
		os.Exit(5)
	}
	if err := s.RotateNow(context.Background()); err != nil {
		os.Exit(6)
	}
	os.Exit(0)
}

// TestAProgramKilledAtAnyStepLeavesAWorkingSecret kills one between the steps of storing a secret, and starts the next,
// which completes the rotation and makes no other.
func TestAProgramKilledAtAnyStepLeavesAWorkingSecret(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"start", "created", "written", "renamed", "synced"} {
		p := newPatd(30 * day)
		p.renewableUntil = p.at.Add(40 * day)
		srv := httptest.NewServer(p)
		t.Cleanup(srv.Close)
		path := tokenFile(t, p)
		run := func(at string) error {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), crashAt+"="+at, crashServer+"="+srv.URL, crashFile+"="+path)
			return cmd.Run()
		}
		err := run(at)
		var ended *exec.ExitError
		if !errors.As(err, &ended) ||
			ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { //nolint:forcetypeassert // it is one
			t.Fatalf("at %s: it was to be killed: %v", at, err)
		}
		before := get(t, path)
		if p.made != 1 || !p.works(before) {
			t.Errorf("killed at %s: %d rotations, and the file's secret works: %v", at, p.made, p.works(before))
		}
		s, _ := source(t, p, tokensource.Config{Store: tokensource.NewFile(path)})
		if err := s.Step(t.Context()); err != nil {
			t.Errorf("started again after %s: %v", at, err)
		}
		if get(t, path) != p.current || p.made != 1 {
			t.Errorf(
				"started again after %s: %d rotations, and the file has the newest secret: %v",
				at,
				p.made,
				get(t, path) == p.current,
			)
		}
	}
}

func TestAFileIsReplacedWholeWithItsModeAndLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, link := filepath.Join(dir, "real"), filepath.Join(dir, "token")
	for _, end := range []string{"", "\n", "\r\n"} {
		if err := os.WriteFile(target, []byte("pat_old"+end), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(target, 0o640); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(link)
		if err := os.Symlink("real", link); err != nil {
			t.Fatal(err)
		}
		f := tokensource.NewFile(link)
		if err := f.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		reader, err := os.Open(link)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Save(t.Context(), secret.NewSecret("pat_old"), secret.NewSecret("pat_new")); err != nil {
			t.Fatal(err)
		}
		old := make([]byte, 7)
		if n, err := reader.Read(old); n != 7 || err != nil || string(old) != "pat_old" {
			t.Errorf("who has the file open does not read the earlier secret: %v", err)
		}
		_ = reader.Close()
		text, err := os.ReadFile(target)
		if err != nil || string(text) != "pat_new"+end {
			t.Errorf("the file holds %q, %v", text, err)
		}
		info, err := os.Stat(target)
		if err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("its mode is %v, %v", info.Mode(), err)
		}
		if to, err := os.Readlink(link); to != "real" || err != nil {
			t.Errorf("the link leads to %q, %v", to, err)
		}
		if err := f.Save(
			t.Context(),
			secret.NewSecret("pat_old"),
			secret.NewSecret("pat_other"),
		); !errors.Is(
			err,
			tokensource.ErrReplaced,
		) {
			t.Errorf("another secret was replaced: %v", err)
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 2 {
		t.Errorf("the directory holds %v, %v", names, err)
	}
}

func TestWhatAKilledProgramLeftIsRemoved(t *testing.T) {
	t.Parallel()
	p := newPatd(day)
	path := tokenFile(t, p)
	old, young := filepath.Join(filepath.Dir(path), ".token.new-1"), filepath.Join(filepath.Dir(path), ".token.new-2")
	put(t, old, "pat_x")
	put(t, young, "pat_x")
	hourAgo := time.Now().Add(-time.Hour)
	if err := os.Chtimes(old, hourAgo, hourAgo); err != nil {
		t.Fatal(err)
	}
	if err := tokensource.NewFile(path).Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("that of a program that may run is gone: %v", err)
	}
}

func TestADirectoryThatCannotBeWrittenIsFoundBeforeTheRotation(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	p := newPatd(30 * day)
	path := tokenFile(t, p)
	if err := os.Chmod(filepath.Dir(path), 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(path), 0o700) })
	s, _ := source(t, p, tokensource.Config{Store: tokensource.NewFile(path)})
	if err := s.RotateNow(t.Context()); !errors.Is(err, os.ErrPermission) || p.rotateCalls != 0 {
		t.Errorf("%d calls, %v", p.rotateCalls, err)
	}
}
