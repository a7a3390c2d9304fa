package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// TestMain makes a run of the test binary another program: the echo server, where it is asked to be one, or what its
// name says.
func TestMain(m *testing.M) {
	name, fault, _ := strings.Cut(filepath.Base(os.Args[0]), ".")
	switch {
	case os.Getenv(echoEnv) != "":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := serveEcho(ctx, os.Stdout); err != nil {
			panic(err)
		}
	case name == "patbench" && fault == "":
		main()
	case name == "patd" || name == "bao":
		standIn(fault)
	default:
		os.Exit(proctest.Main(m))
	}
}

// named is a path at which the test binary is another program.
func named(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// standIn is a program with a fault.
func standIn(fault string) {
	switch {
	case fault == "refuses":
		fmt.Fprintln(os.Stderr, "the store is locked")
		os.Exit(3)
	case os.Args[1] == "service":
		fmt.Fprintln(os.Stdout, "svc_secret")
	case fault == "ends":
		fmt.Fprintln(os.Stdout, "panic: out of memory") // and it ends
	case fault == "dies": // with its first connection
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(os.Stdout, "{\"msg\":\"ready\",\"grpc\":%q}\n", lis.Addr())
		_, _ = lis.Accept()
		panic("out of memory")
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
