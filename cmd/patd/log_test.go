package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// piped is a server whose log goes into a pipe that the test reads.
func piped(t *testing.T) (d *daemon, log *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(
		self,
		"serve",
		"--data-dir",
		t.TempDir()+"/data",
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
		"--drain-delay",
		"0s",
		"--drain-timeout",
		"5s",
	)
	cmd.Args[0], cmd.Stderr = "patd", w
	started, err := proctest.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	d = &daemon{started}
	_ = w.Close()
	t.Cleanup(func() { d.End(); _ = r.Close() })
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if found := proctest.Ready().FindStringSubmatch(lines.Text()); found != nil {
			d.HTTP = found[1]
			return d, r
		}
	}
	t.Fatal("it is not ready")
	return nil, nil
}

var droppedLines = regexp.MustCompile(`(?m)^patd_log_lines_dropped_total [1-9]`)

// lose makes requests, each a line of the log, until lines are dropped.
func (d *daemon) lose(t *testing.T) {
	t.Helper()
	get := func(path string) string {
		resp, err := http.Get(d.HTTP + path)
		if err != nil {
			t.Errorf("a request while the log is not read: %v", err)
			return ""
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return string(body)
	}
	for end := time.Now().Add(patience); time.Now().Before(end) && !t.Failed(); {
		var g sync.WaitGroup
		for range 8 {
			g.Go(func() {
				for range 100 {
					get(fmt.Sprintf("/v1/nothing-%s", t.Name()))
				}
			})
		}
		g.Wait()
		if droppedLines.MatchString(get("/metrics")) {
			return
		}
	}
	t.Fatal("no line was dropped")
}

func TestAClosedLogDoesNotEndTheServer(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	d, log := piped(t)
	_ = log.Close()
	d.lose(t)
	if err := d.Stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestALogThatIsNotReadBlocksNeitherCallsNorTheEnd(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	d, _ := piped(t)
	d.lose(t)
	if err := d.Stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
