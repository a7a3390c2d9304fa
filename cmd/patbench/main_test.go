package main

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// TestMain makes a run of the test binary the echo server, where it is asked to be one.
func TestMain(m *testing.M) {
	if os.Getenv(echoEnv) == "" {
		os.Exit(proctest.Main(m))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := serveEcho(ctx, os.Stdout); err != nil {
		panic(err)
	}
}

// program builds patd once and returns its path.
var program = proctest.Once()

// TestTableIsMeasured holds that every row works against the real binary, and that the figures are there. It says
// nothing of what they are.
func TestTableIsMeasured(t *testing.T) {
	longtest.Slow(t)
	var out bytes.Buffer
	patd, err := program()
	if err != nil {
		t.Fatal(err)
	}
	err = run(
		t.Context(),
		[]string{
			"-patd",
			patd,
			"-before",
			patd,
			"-tokens",
			"200",
			"-working",
			"100",
			"-rounds",
			"1",
			"-period",
			"200ms",
			"-inflight",
			"4",
			"-revocations",
			"10",
			"-flood",
			"2000",
			"-rival-tokens",
			"100",
			"-dir",
			t.TempDir(),
		},
		&out,
	)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		"| Introspect, unary gRPC", "| IntrospectStream", "| BatchIntrospect of 100", "| POST /v1/introspect", "| POST /oauth2/introspect",
		"10 revocations, 0 stale answers", "through the client library, under full load: 10 revocations", " of 200 tokens warm", "of the CPU that the flood takes",
		"time to ready", "| IntrospectStream, against the binary before", "OpenBao is absent: -openbao names no binary",
		"Ory Hydra is absent: -hydra names no binary",
		"Unkey is absent: -unkey names no binary",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	checkRivals(t, out.String())
}

func TestRowsAreChosenByName(t *testing.T) {
	rows, err := chooseRows("batch, unary")
	if err != nil || len(rows) != 2 || rows[0].name != "batch" || rows[1].name != "unary" {
		t.Errorf("chosen %v, %v", rows, err)
	}
	if _, err := chooseRows("speed"); err == nil {
		t.Error("a row that is not there was chosen")
	}
}
