package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"patd/internal/pagetest"
)

// desk is a directory with patd in it, as a reader has when pasting a block of a page, and programs that stand in for
// those which a test cannot run.
type desk struct {
	dir string
	env []string
}

// newDesk also skips the test where one of the programs is missing that the blocks run.
func newDesk(t *testing.T, tools ...string) *desk {
	t.Helper()
	for _, tool := range append(tools, "bash") {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, err)
		}
	}
	k := &desk{dir: t.TempDir()}
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Symlink(self, filepath.Join(k.dir, "patd")), os.Mkdir(filepath.Join(k.dir, "bin"), 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	k.env = append(os.Environ(), "PATH="+filepath.Join(k.dir, "bin")+":"+os.Getenv("PATH"),
		"PATD_HTTP_ADDR=127.0.0.1:0", "PATD_GRPC_ADDR=127.0.0.1:0", "PATD_DRAIN_DELAY=0s")
	return k
}

// block is the only block of a kind. Blocks that are alike on several pages count as one.
func block(t *testing.T, kind string) string {
	t.Helper()
	blocks := pagetest.Blocks(t, kind)
	for _, b := range blocks[1:] {
		if b.Text != blocks[0].Text {
			t.Fatalf("%s:%d and %s:%d differ", blocks[0].Page, blocks[0].Line, b.Page, b.Line)
		}
	}
	return blocks[0].Text
}

// program puts a shell script into the path.
func (k *desk) program(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, "bin", name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
}

// bash is the shell that a text is pasted into, with other texts in the place of some, each of which has to be there.
func (k *desk) bash(t *testing.T, text string, places ...string) *exec.Cmd {
	t.Helper()
	for i := 0; i < len(places); i += 2 {
		if !strings.Contains(text, places[i]) {
			t.Fatalf("%q is not in\n%s", places[i], text)
		}
	}
	cmd := exec.Command("bash", "-eu", "-c", strings.NewReplacer(places...).Replace(text))
	cmd.Dir, cmd.Env = k.dir, k.env
	// A group of its own, so that what is left in the background ends too.
	cmd.SysProcAttr, cmd.WaitDelay = &syscall.SysProcAttr{Setpgid: true}, time.Second
	return cmd
}

// paste runs a text that comes to an end, and returns what it prints.
func (k *desk) paste(t *testing.T, text string, places ...string) string {
	t.Helper()
	cmd := k.bash(t, text, places...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\nprinted\n%s", err, text, secrets.ReplaceAll(out, []byte("[secret]")))
	}
	onlyForOwner(t, k.dir)
	return string(out)
}

// serve runs a text that comes to serve, for the duration of the test.
func (k *desk) serve(t *testing.T, text string, places ...string) *daemon {
	t.Helper()
	cmd := k.bash(t, text, places...)
	t.Cleanup(func() {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	})
	d, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		<-d.Exited
		if d.Err != nil {
			t.Error(d.Err)
		}
	})
	return d
}

// becomes is the change to a text that lets the shell become patd, so that it is patd that is told to stop.
var becomes = []string{"./patd serve", "exec ./patd serve"}
