package main

import (
	"net/http"
	"syscall"
	"testing"
	"time"
)

func TestTheFirstSignalFailsReadinessAndTheSecondEndsTheDelay(t *testing.T) {
	t.Parallel()
	d := serve(t, t.TempDir()+"/data", "--drain-delay", "1h")
	if err := d.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	code := 0
	for end := time.Now().Add(patience); code != http.StatusServiceUnavailable && time.Now().Before(end); <-time.After(time.Millisecond) {
		resp, err := http.Get(d.HTTP + "/readyz")
		if err != nil {
			t.Fatalf("nothing is served after the first signal: %v", err)
		}
		_ = resp.Body.Close()
		code = resp.StatusCode
	}
	if code != http.StatusServiceUnavailable {
		t.Fatalf("/readyz after the first signal: %d", code)
	}
	if err := d.Stop(); err != nil {
		t.Errorf("after the second signal: %v", err)
	}
}
