package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
)

// TestDoctorSeesTheServersOnPostgres runs the command beside a server on a PostgreSQL that does not put changes on
// disk, as those of tests do not.
func TestDoctorSeesTheServersOnPostgres(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.Postgres(t) // its own: what is connected to it is looked at
	url := server.PostgresURL(server.Password)
	keys := filepath.Join(t.TempDir(), "hash.key")
	env := "PATD_DATABASE_URL=" + url
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) (string, error) {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self, append(args, "--hash-key-file", keys)...)
		cmd.Args[0], cmd.Env = "patd", append(cmd.Environ(), env)
		out, err := cmd.Output()
		return string(out), err
	}
	if out, err := call("migrate"); err != nil {
		t.Fatalf("migrate: %s, %v", out, err)
	}
	d, err := start(
		t.TempDir(),
		append(os.Environ(), env),
		"serve",
		"--hash-key-file",
		keys,
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.End)
	out, err := call("doctor", "--json")
	if err == nil {
		t.Error("a database that does not put changes on disk is well")
	}
	var said struct{ Findings []finding }
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []finding{
		{Check: "database", Level: levelOK, Found: "PostgreSQL 1"}, {Check: "database", Level: levelProblem, Found: "fsync is off"},
		{Check: "replication", Level: levelWarning, Found: "there is no standby"},
		{Check: "versions", Level: levelOK, Found: "patd " + version() + " at "},
		{
			Check: "versions", Level: levelOK,
			Found: fmt.Sprintf("server %s/%d, patd %s, since 2", host, d.Cmd.Process.Pid, version()),
		},
		{Check: "clock", Level: levelOK, Found: "the database's clock is less than a second"},
	} {
		met := false
		for _, f := range said.Findings {
			met = met || f.Check == want.Check && f.Level == want.Level && strings.HasPrefix(f.Found, want.Found)
		}
		if !met {
			t.Errorf("there is no finding %+v in %s", want, out)
		}
	}
	if server.Password != "" && strings.Contains(out, server.Password) {
		t.Error("the password is in it")
	}
}
