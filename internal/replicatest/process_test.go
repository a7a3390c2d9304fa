package replicatest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"patd/internal/proctest"
)

// run runs one command of a patd and returns its standard output, without the line end.
func run(path string, env []string, args ...string) (string, error) {
	cmd := exec.Command(path, args...)
	cmd.Env = append(append(os.Environ(), "PATD_DRAIN_DELAY=0s"), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("patd %s: %w: %s%s", strings.Join(args, " "), err, exit.Stderr, out)
	}
	return strings.TrimSpace(string(out)), err
}

// daemon is a running patd that serves.
type daemon struct{ *proctest.Daemon }

var raceFound = regexp.MustCompile(`WARNING: DATA RACE|^panic: |^fatal error: `)

// start runs `patd serve` with more arguments and waits until it is ready.
func start(path string, env []string, args ...string) (*daemon, error) {
	args = append([]string{"serve", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"}, args...)
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.SysProcAttr = append(os.Environ(), env...), attached()
	d, err := proctest.Launch(cmd)
	if err != nil {
		return nil, err
	}
	return &daemon{d}, nil
}
