package logpipe_test

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/internal/logpipe"
	"patd/internal/waittest"
)

// output is a log's reader that can hang, fail, or read.
type output struct {
	mu     sync.Mutex
	text   bytes.Buffer
	failed error
	gate   chan struct{} // nil: it reads at once
}

func (o *output) Write(p []byte) (int, error) {
	if o.gate != nil {
		<-o.gate
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed != nil {
		return 0, o.failed
	}
	return o.text.Write(p)
}

func (o *output) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func notice(n uint64) []byte { return fmt.Appendf(nil, "dropped %d\n", n) }

func TestLinesOfALogThatIsNotReadAreDroppedCountedAndSaidOnce(t *testing.T) {
	t.Parallel()
	out := &output{gate: make(chan struct{})}
	w := logpipe.New(out, notice)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	const lines = 4000 // 4 MB, which is more than waits
	for range lines {
		if n, err := w.Write(line); n != len(line) || err != nil {
			t.Fatalf("a write answered %d, %v", n, err)
		}
	}
	dropped := w.Dropped()
	if dropped == 0 || dropped >= lines {
		t.Fatalf("%d of %d lines were dropped", dropped, lines)
	}
	close(out.gate)
	waittest.Until(t, "the notice is written", func() bool {
		_, _ = w.Write([]byte("again\n"))
		return strings.Contains(out.String(), "dropped")
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text, told := out.String(), uint64(0)
	for _, n := range regexp.MustCompile(`dropped (\d+)`).FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseUint(n[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		told += v
	}
	if told != w.Dropped() {
		t.Errorf("%d lines are told of as dropped, and %d were", told, w.Dropped())
	}
	if got := strings.Count(text, string(line)); uint64(got)+dropped != lines {
		t.Errorf("%d lines written and %d dropped, of %d", got, dropped, lines)
	}
}

func TestLinesOfALogThatFailsAreCounted(t *testing.T) {
	t.Parallel()
	out := &output{failed: errors.New("broken pipe")}
	w := logpipe.New(out, notice)
	_, _ = w.Write([]byte("lost\n"))
	waittest.Until(t, "a line is dropped", func() bool { return w.Dropped() == 1 })
	out.fail(nil)
	_, _ = w.Write([]byte("kept\n"))
	_ = w.Close()
	if got := out.String(); got != "dropped 1\nkept\n" {
		t.Errorf("the log is %q", got)
	}
}

func TestCloseDoesNotWaitForAHangingOutput(t *testing.T) {
	t.Parallel()
	out := &output{gate: make(chan struct{})}
	defer close(out.gate)
	w := logpipe.New(out, notice)
	_, _ = w.Write([]byte("never\n"))
	closed := make(chan struct{})
	go func() { _ = w.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Fatal("Close hangs")
	}
}
