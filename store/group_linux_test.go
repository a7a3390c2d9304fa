package store_test

import (
	"fmt"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"patd/store"
)

// TestACommitThatFindsNoRoomFailsTheWholeGroup lets the log not grow any more: only the commit writes to it. The limit
// is that of the whole process, so no other test may run beside it.
func TestACommitThatFindsNoRoomFailsTheWholeGroup(t *testing.T) { //nolint:paralleltest // see above
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	put(t, st, "before")
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var old syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	release := held(t, st)
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() { errs[i] = tryPut(t.Context(), st, fmt.Sprintf("p%02d", i)) })
	}
	inLine(t, st, len(errs))
	limit := syscall.Rlimit{Cur: 1, Max: old.Max}
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	release()
	wg.Wait()
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))
	for i, err := range errs {
		if reason(err) != "DISK_FULL" {
			t.Errorf("change %d of a group that could not be committed: %v", i, err)
		}
	}
	put(t, st, "room")
	if got := prefixes(t, st); fmt.Sprint(got) != "[before room]" {
		t.Errorf("prefixes %v", got)
	}
	if n := count(t, st, "events"); n != "2" {
		t.Errorf("%s events, want 2", n)
	}
}
