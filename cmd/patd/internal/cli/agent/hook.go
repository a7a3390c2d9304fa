package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"patd/client/tokensource"
	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/orphans"
)

const (
	// hookTimeout is how long a hook may run.
	hookTimeout = 5 * time.Minute
	// hookOutput is how much of a failing hook's output is logged, in bytes.
	hookOutput = 500
)

// hook runs a command whenever the file holds another secret than before. It has run with success once for each secret
// at least: one that fails, or that the end of this process interrupts, runs again.
type hook struct {
	argv    []string // empty: none
	environ []string // of the hook
	lock    *lock
	log     *slog.Logger
	now     func() time.Time

	retryAt time.Time
	failed  int
}

func newHook(c *cli.Command, command, tokenFile string, l *lock, log *slog.Logger) *hook {
	h := &hook{argv: strings.Fields(command), lock: l, log: log, now: c.Now}
	environ := os.Environ
	if c.Environ != nil {
		environ = c.Environ
	}
	for _, v := range environ() {
		if !strings.HasPrefix(v, "PATD_TOKEN=") { // a service token, which is none of the hook's business
			h.environ = append(h.environ, v)
		}
	}
	h.environ = append(h.environ, "PATD_TOKEN_FILE="+tokenFile)
	return h
}

// begin notes the present secret when there is no note yet: the programs that use the file know it.
func (h *hook) begin(secret string) error {
	if h.lock.note.Hooked != "" {
		return nil
	}
	h.lock.note.Hooked = fingerprint(secret)
	return h.lock.write()
}

// check runs the hook if the secret is another one than it last ran for.
func (h *hook) check(ctx context.Context, secret string, st tokensource.Status) error {
	orphans.Collect() // what an earlier hook left behind, and has ended since
	now := fingerprint(secret)
	if h.lock.note.Hooked == now || h.now().Before(h.retryAt) {
		return nil
	}
	if err := h.run(ctx, st); err != nil {
		h.failed++
		again := min(time.Second<<min(h.failed, 9), 5*time.Minute)
		h.retryAt = h.now().Add(again)
		h.log.LogAttrs(
			ctx,
			slog.LevelError,
			"the hook failed",
			slog.String("error", err.Error()),
			slog.Duration("again_in", again),
		)
		return err
	}
	h.failed, h.retryAt, h.lock.note.Hooked = 0, time.Time{}, now
	return h.lock.write()
}

// wait returns how long to wait before check, if there is anything to check.
func (h *hook) wait(most time.Duration) time.Duration {
	if h.failed == 0 {
		return most
	}
	return max(min(most, h.retryAt.Sub(h.now())), 100*time.Millisecond)
}

// run runs the hook: a program with its arguments, without a shell, and without the secret.
func (h *hook) run(ctx context.Context, st tokensource.Status) error {
	if len(h.argv) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, h.argv[0], h.argv[1:]...) //nolint:gosec // the operator's own command
	cmd.Env = append(h.environ, "PATD_TOKEN_ID="+st.TokenID)
	cmd.Stdout, cmd.Stderr = &limited{&out}, &limited{&out}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second // a program that the hook leaves behind may hold its output open
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%s was ended: %w", h.argv[0], ctx.Err())
	case err != nil:
		return fmt.Errorf("%s: %w: %s", h.argv[0], err, cli.Cell(cli.Redact(out.String())))
	}
	h.log.LogAttrs(
		ctx,
		slog.LevelInfo,
		"the hook has run",
		slog.String("hook", h.argv[0]),
		slog.String("token_id", st.TokenID),
	)
	return nil
}

// limited keeps the beginning of what is written.
type limited struct{ to *bytes.Buffer }

// Write takes all, and keeps some.
func (l *limited) Write(p []byte) (int, error) {
	if room := hookOutput - l.to.Len(); room > 0 {
		l.to.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
