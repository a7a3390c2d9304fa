package gatewaytest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// process is a running server of one test, with its children.
type process struct {
	cmd   *exec.Cmd
	log   string // file of all that it wrote
	ended chan struct{}
}

// run starts a command, as the account, and waits until it answers at url, in whatever way. It ends with the test.
func run(t *testing.T, a account, cmd *exec.Cmd, url string) *process {
	t.Helper()
	p, err := launch(a, cmd, filepath.Join(t.TempDir(), "log"), url)
	must(t, err)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s wrote\n%s", filepath.Base(cmd.Path), p.written())
		}
	})
	return p
}

func launch(a account, cmd *exec.Cmd, log, url string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := a.give(log); err != nil { // Apache opens its standard error by name
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = file, file
	a.use(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // how it ended is in its log
	}()
	if err := p.answers(url); err != nil {
		p.kill()
		return nil, fmt.Errorf("start %s: %w; it wrote\n%s", cmd.Path, err, p.written())
	}
	return p, nil
}

// answers waits until there are answers at url.
func (p *process) answers(url string) error {
	deadline, poll := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer poll.Stop()
	// Whose certificate it is does not matter here: nothing is told and nothing is believed.
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		Timeout:   5 * time.Second,
	}
	for {
		resp, err := client.Get(url)
		if err == nil {
			return resp.Body.Close()
		}
		select {
		case <-p.ended:
			return errors.New("it ended")
		case <-deadline:
			return err
		case <-poll.C:
		}
	}
}

// signal sends a signal to the process and its children.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// kill ends the process and its children at once.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

func (p *process) written() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-8192):])
}

// home makes a directory that the account owns and can reach: the test's own is closed to everybody else.
func home(t *testing.T, a account) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gatewaytest")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, a.give(dir))
	return dir
}

// place writes a file into a directory of the account's.
func place(t *testing.T, a account, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
	must(t, a.give(path))
}
