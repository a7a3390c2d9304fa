package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/proctest"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets this test binary stand in for the real one: started under the name patd it is patd, so that what the
// tests start, signal and kill is a process like any other.
func TestMain(m *testing.M) {
	longtest.Beside(6)
	testscript.Main(m, map[string]func(){"patd": func() { os.Exit(process()) }})
}

// run runs one command as a process of its own and returns its standard output, without the line end.
func run(args ...string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "patd"
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("patd %s: %w: %s%s", strings.Join(args, " "), err, exit.Stderr, out)
	}
	return strings.TrimSpace(string(out)), err
}

// slow skips, with -short, the tests that run processes, but for one of each kind: a command, a server and its signals,
// TLS, a start that fails, pruning.
func slow(t *testing.T) {
	t.Helper()
	longtest.Slow(
		t,
		"TestRotationsAtOnceLoseNoKey",
		"TestHangupReadsKeysAndCertificateAgain",
		"TestTLS",
		"TestTheFirstSignalFailsReadinessAndTheSecondEndsTheDelay",
		"TestFailedStartLeavesNothing",
		"TestTheAuditLogIsPrunedByAgeAndArchived",
	)
}

// patd is run that must succeed.
func patd(t *testing.T, args ...string) string {
	t.Helper()
	slow(t)
	out, err := run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// daemon is a running patd that serves.
type daemon struct{ *proctest.Daemon }

// patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const patience = 60 * time.Second

// start runs `patd args…` and waits until it is ready.
func start(dir string, env []string, args ...string) (*daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startAs(self, dir, env, args...)
}

// startAs starts patd by a program that becomes it.
func startAs(program, dir string, env []string, args ...string) (*daemon, error) {
	cmd := exec.Command(program, args...)
	cmd.Args[0] = "patd"
	cmd.Dir, cmd.Env = dir, env
	return launch(cmd)
}

// launch runs a command that comes to serve, and waits until it does.
func launch(cmd *exec.Cmd) (*daemon, error) {
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append([]string{"PATD_DRAIN_DELAY=0s"}, cmd.Env...) // no balancer is to be told
	d, err := proctest.Launch(cmd)
	if err != nil {
		return nil, err
	}
	return &daemon{d}, nil
}

// serve runs `patd serve` on a data directory for the duration of a test.
func serve(t *testing.T, data string, args ...string) *daemon {
	t.Helper()
	slow(t)
	return serveWith(t, data, nil, args...)
}

// serveWith is serve with more variables, for tests that say by themselves that they are slow.
func serveWith(t *testing.T, data string, env []string, args ...string) *daemon {
	t.Helper()
	d, err := start(
		t.TempDir(),
		append(os.Environ(), env...),
		append(
			[]string{"serve", "--data-dir", data, "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"},
			args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.End)
	return d
}

// TestScripts runs the specification of the command line, testdata/*.txtar. To the commands of testscript it adds
//
//	start NAME ARGS…     runs patd in the background until it is ready, on free ports; sets HTTP and PATD_ADDR. What dev
//	                     prints is then in NAME.out
//	end NAME             asks it to end by SIGTERM; it must exit with 0. Its standard error is then in NAME.log
//	signal NAME SIGNAL   sends it a signal: HUP or KILL (and then waits for its end)
//	await NAME REGEXP    waits until its standard error matches
//	setenv VAR FILE      sets a variable to the content of a file, white space around it cut off
//	secretless FILE…     fails when a file holds a token, or a key
//	fails COMMAND…       runs it until it fails, ten seconds at most
func TestScripts(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	wholeScripts(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":      scriptStart,
			"end":        scriptEnd,
			"signal":     scriptSignal,
			"await":      scriptAwait,
			"setenv":     scriptSetenv,
			"secretless": scriptSecretless,
			"fails":      scriptFails,
		},
		Setup: func(env *testscript.Env) error {
			env.Values[daemonsKey{}] = map[string]*daemon{}
			env.Setenv("TMPDIR", env.WorkDir)
			// Another patd may have the usual ports.
			env.Setenv("PATD_HTTP_ADDR", "127.0.0.1:0")
			env.Setenv("PATD_GRPC_ADDR", "127.0.0.1:0")
			return nil
		},
	})
}

// wholeScripts refuses testscript's own command stop, after which nothing of a script is run, and which looks like one
// that stops a server.
func wholeScripts(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("the scripts are %v, %v", files, err)
	}
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(script)) {
			if words := strings.Fields(line); len(words) > 0 && words[0] == "stop" {
				t.Errorf("%s: %q ends the script as passed; `end NAME` stops a server", file, strings.TrimSpace(line))
			}
		}
	}
}

type daemonsKey struct{}

func running(ts *testscript.TestScript, name string) *daemon {
	d, ok := ts.Value(daemonsKey{}).(map[string]*daemon)[name]
	if !ok {
		ts.Fatalf("nothing called %s was started", name)
	}
	return d
}

func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME ARGS…")
	}
	name, args := args[0], append(args[1:], "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0")
	env := []string{}
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "PATD_HASH_KEY", "PATD_CONFIG", "PATD_LOG_LEVEL", "PATD_MAX_TTL",
		"PATD_FEATURES_DATABASE_URL", "PATD_FEATURES_CALLBACK_KEY"} {
		if value := ts.Getenv(v); value != "" {
			env = append(env, v+"="+value)
		}
	}
	d, err := start(ts.MkAbs("."), proctest.Bare(env...), args...)
	ts.Check(err)
	ts.Defer(d.End)
	ts.Value(daemonsKey{}).(map[string]*daemon)[name] = d
	ts.Setenv("HTTP", d.HTTP)
	ts.Setenv("PATD_ADDR", d.GRPC)
	if args[0] == "dev" {
		said, err := d.Stdout.Await(patience, regexp.MustCompile(`(?s)^.*\nexport .*\n\n$`))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(name+".out"), []byte(said[0]), 0o600))
	}
}

func scriptEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: end NAME")
	}
	d := running(ts, args[0])
	err := d.Stop()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".log"), []byte(d.Log.String()), 0o600))
	if err != nil {
		ts.Fatalf("%s: %v; it said\n%s", args[0], err, d.Log)
	}
}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal NAME HUP|KILL")
	}
	d := running(ts, args[0])
	switch args[1] {
	case "HUP":
		ts.Check(d.Cmd.Process.Signal(syscall.SIGHUP))
	case "KILL":
		d.Kill()
	default:
		ts.Fatalf("usage: signal NAME HUP|KILL")
	}
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await NAME REGEXP")
	}
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	_, err = running(ts, args[0]).Log.Await(patience, re)
	ts.Check(err)
}

func scriptSetenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv VAR FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

func scriptSecretless(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		if found := secrets.MatchString(ts.ReadFile(name)); found != neg {
			ts.Fatalf("%s: a secret is in it: %t", name, found)
		}
	}
}

// secrets are whatever has the exact form of a token or of a line of a key file.
var secrets = regexp.MustCompile(`[a-z][a-z0-9]{1,15}_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}|[0-9a-fA-F]{64}`)

// scriptFails runs a command until it fails, which it must within ten seconds: another process is told of a change a
// moment later.
func scriptFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fails COMMAND ARGS…")
	}
	for deadline := time.Now().Add(10 * time.Second); ts.Exec(args[0], args[1:]...) == nil; {
		if time.Now().After(deadline) {
			ts.Fatalf("%s still succeeds", args[0])
		}
	}
}
