package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/remote"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/proctest"
)

// rotating is a patd with a token that may rotate and renew itself, in a file.
type rotating struct {
	*daemon
	api       api
	admin, id string
	file      string
}

func newRotating(t *testing.T) *rotating {
	t.Helper()
	data, admin := administer(t)
	r := &rotating{daemon: serve(t, data), admin: admin, file: filepath.Join(t.TempDir(), "job.token")}
	r.api = connect(t, r.daemon, admin)
	r.call(t, http.MethodPut, "/v1/users/alice/features", admin, `{"features": ["a"]}`).want(t, "features", 200)
	secret, id := r.mint(t, "job")
	r.id = id
	r.put(t, secret+"\n")
	return r
}

// mint makes a token that may rotate and renew itself.
func (r *rotating) mint(t *testing.T, name string) (secret, id string) {
	t.Helper()
	until := time.Now().Add(300 * 24 * time.Hour).UTC().Format(time.RFC3339)
	got := r.call(
		t,
		http.MethodPost,
		"/v1/users/alice/tokens",
		r.admin,
		`{"name": "`+name+`", "scopes": ["a"], "ttl": "30d", "self_rotate": true, "renewable_until": "`+until+`"}`,
	).want(t, "mint", 200)
	return got.field(t, "secret"), got.field(t, "token", "token_id")
}

func (r *rotating) put(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// secret returns the secret in the file.
func (r *rotating) secret(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

// decide introspects a secret, which is the first use of a new one.
func (r *rotating) decide(t *testing.T, secret string) patdv1.IntrospectResponse_Decision {
	t.Helper()
	got, err := r.api.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: secret})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetDecision()
}

// agent is a running `patd agent`.
type agentProcess struct {
	cmd *exec.Cmd
	log *proctest.Output
}

func (r *rotating) start(t *testing.T, server string, args ...string) *agentProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &agentProcess{
		cmd: exec.Command(self, append([]string{"agent", "--token-file", r.file, "--server", server}, args...)...),
		log: proctest.NewOutput(),
	}
	a.cmd.Args[0] = "patd"
	a.cmd.Stderr, a.cmd.Stdout = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.cmd.Process.Kill() })
	return a
}

// end waits for the end and returns the exit code; -1: it was killed. Its log must hold no secret.
func (a *agentProcess) end(t *testing.T) int {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- a.cmd.Wait(); a.log.End() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("the agent does not end; it said\n%s", a.log)
	}
	if secrets.MatchString(a.log.String()) {
		t.Error("the agent logs a secret")
	}
	return a.cmd.ProcessState.ExitCode()
}

func (r *rotating) run(t *testing.T, args ...string) (code int, log string) {
	t.Helper()
	a := r.start(t, r.HTTP, args...)
	code = a.end(t)
	return code, a.log.String()
}

// TestAgentRotatesTheFileAndRunsItsHook: what is not due stays, --now rotates, and the hook sees the new file.
func TestAgentRotatesTheFileAndRunsItsHook(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	first, seen := r.secret(t), filepath.Join(t.TempDir(), "seen")
	hook := written(
		t,
		"hook.sh",
		"#!/bin/sh\ncp \"$PATD_TOKEN_FILE\" \"$1\"; env > \"$1.env\"; tr '\\0' ' ' < \"/proc/$PPID/cmdline\" > \"$1.ps\"\n",
	)
	if err := os.Chmod(hook, 0o700); err != nil {
		t.Fatal(err)
	}
	with := []string{"--once", "--hook", hook + " " + seen}
	if code, log := r.run(t, with...); code != 0 || r.secret(t) != first {
		t.Errorf("nothing is due: %d %s", code, log)
	}
	if _, err := os.Stat(seen); !errors.Is(err, os.ErrNotExist) {
		t.Error("the hook has run for the first secret")
	}
	code, log := r.run(t, append(with, "--now")...)
	next := r.secret(t)
	if code != 0 || next == first || !strings.Contains(log, "expiry=RENEWED") ||
		!strings.Contains(log, "token_id="+r.id) {
		t.Errorf("it is not rotated: %d %s", code, log)
	}
	for _, secret := range []string{first, next} { // the grace
		if d := r.decide(t, secret); d != patdv1.IntrospectResponse_ALLOW {
			t.Errorf("in the grace: %s", d)
		}
	}
	if text, err := os.ReadFile(seen); err != nil || string(text) != next+"\n" {
		t.Errorf("the hook did not see the new secret: %v", err)
	}
	for _, name := range []string{".env", ".ps"} {
		if text, err := os.ReadFile(seen + name); err != nil || secrets.Match(text) {
			t.Errorf("%s holds a secret, or %v", name, err)
		}
	}
	if text, err := os.ReadFile(seen + ".ps"); err != nil || !strings.Contains(string(text), "--token-file") {
		t.Errorf("that is not the agent's command line: %q, %v", text, err)
	}
	if info, err := os.Stat(r.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if code, log := r.run(
		t,
		append(with, "--now")...); code != 1 || !strings.Contains(log, "ROTATION_IN_PROGRESS") ||
		r.secret(t) != next {
		t.Errorf("a second rotation in the grace: %d %s", code, log)
	}
	// A hook that fails runs again.
	another, _ := r.mint(t, "another")
	r.put(t, another+"\n")
	if code, log := r.run(t, "--once", "--hook", "false"); code != 1 || !strings.Contains(log, "the hook failed") {
		t.Errorf("a hook that fails: %d %s", code, log)
	}
	_ = os.Remove(seen)
	if code, log := r.run(t, with...); code != 0 || !strings.Contains(log, "the hook has run") {
		t.Errorf("after one that failed: %d %s", code, log)
	}
}

// killing is a proxy in front of patd that kills an agent at a moment of its rotation.
type killing struct {
	*httptest.Server
	mu    sync.Mutex
	when  string
	delay time.Duration
	kill  func()
	hits  atomic.Int64
}

func newKilling(t *testing.T, to string) *killing {
	t.Helper()
	at, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	k := &killing{}
	proxy := httputil.NewSingleHostReverseProxy(at)
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v1/self:rotate" {
			proxy.ServeHTTP(w, req)
			return
		}
		k.mu.Lock()
		when, delay, kill := k.when, k.delay, k.kill
		k.mu.Unlock()
		k.hits.Add(1)
		if when == "before" {
			kill()
			return
		}
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, req)
		if when == "between" {
			kill()
			return
		}
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
		if when == "after" {
			_ = http.NewResponseController(w).Flush()
			timer := time.NewTimer(delay)
			<-timer.C
			kill()
		}
	}))
	t.Cleanup(k.Close)
	return k
}

// TestAnAgentKilledAtAnyMomentLeavesASecretThatWorks kills it before patd rotates, between that and the answer, and at
// moments after the answer; the next one goes on from there.
func TestAnAgentKilledAtAnyMomentLeavesASecretThatWorks(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	k := newKilling(t, r.HTTP)
	moments := []struct {
		when  string
		delay time.Duration
	}{{"before", 0}, {"between", 0}, {"after", 0}, {"after", time.Millisecond}, {"after", 2 * time.Millisecond}, {"after", 4 * time.Millisecond}, {"between", 0}}
	for _, m := range moments {
		before := r.secret(t)
		ready := make(chan struct{})
		var a *agentProcess
		k.mu.Lock()
		k.when, k.delay, k.kill = m.when, m.delay, func() { <-ready; _ = a.cmd.Process.Kill() }
		k.mu.Unlock()
		hits := k.hits.Load()
		a = r.start(t, k.URL, "--now", "--retire-on-first-use")
		close(ready)
		if code := a.end(t); code != -1 || k.hits.Load() != hits+1 {
			t.Fatalf("killed %s %s: exit code %d; it said\n%s", m.when, m.delay, code, a.log)
		}
		left := r.secret(t)
		self := r.call(t, http.MethodGet, "/v1/self", left, "") // no first use, as an introspection is
		if self.code != http.StatusOK {
			t.Errorf("killed %s %s: the file's secret does not work: %d", m.when, m.delay, self.code)
		}
		if code, log := r.run(t, "--once", "--retire-on-first-use"); code != 0 {
			t.Errorf("the next one, after a kill %s %s: %d %s", m.when, m.delay, code, log)
		}
		now := r.secret(t)
		if done := now != before; done != (m.when != "before") {
			t.Errorf("after a kill %s %s the secret is another one: %v", m.when, m.delay, done)
		}
		if d := r.decide(t, now); d != patdv1.IntrospectResponse_ALLOW {
			t.Errorf("after a kill %s %s: %s", m.when, m.delay, d)
		}
		if m.when != "before" && r.decide(t, before) != patdv1.IntrospectResponse_SUPERSEDED {
			t.Errorf("after a kill %s %s the file does not hold the newest secret", m.when, m.delay)
		}
	}
	if left, err := filepath.Glob(
		filepath.Join(filepath.Dir(r.file), ".job.token.new-*"),
	); err != nil ||
		len(left) > len(moments) {
		t.Errorf("what is left: %v, %v", left, err)
	}
}

func TestAnAgentFollowsItsFileAloneUntilItIsAskedToEnd(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	a := r.start(t, r.HTTP, "--poll", "20ms")
	if _, err := a.log.Await(patience, regexp.MustCompile("following the token.*"+r.id)); err != nil {
		t.Fatal(err)
	}
	if code, log := r.run(t, "--once", "--now"); code != 1 || !strings.Contains(log, "another patd agent, process ") {
		t.Errorf("a second one: %d %s", code, log)
	}
	secret, id := r.mint(t, "another")
	r.put(t, secret+"\n")
	if _, err := a.log.Await(patience, regexp.MustCompile("was replaced(?s).*following the token.*"+id)); err != nil {
		t.Error(err)
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := a.end(t); code != 0 {
		t.Errorf("it ends with %d: %s", code, a.log)
	}
	if code, log := r.run(t, "--once"); code != 0 {
		t.Errorf("once it has ended: %d %s", code, log)
	}
}

// TestTwoAgentsOfOneTokenAgree: on file systems without locks, or with copies of the file, each gets the same new
// secret.
func TestTwoAgentsOfOneTokenAgree(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	other := &rotating{
		daemon: r.daemon,
		api:    r.api,
		admin:  r.admin,
		id:     r.id,
		file:   filepath.Join(t.TempDir(), "job.token"),
	}
	other.put(t, r.secret(t)+"\n")
	one, two := r.start(t, r.HTTP, "--once", "--now"), other.start(t, r.HTTP, "--once", "--now")
	if a, b := one.end(t), two.end(t); a != 0 || b != 0 {
		t.Errorf("exit codes %d and %d: %s%s", a, b, one.log, two.log)
	}
	if r.secret(t) != other.secret(t) || r.decide(t, r.secret(t)) != patdv1.IntrospectResponse_ALLOW {
		t.Error("they hold different secrets, or none that works")
	}
}

func TestAgentRefusesWhatCannotWork(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRotating(t)
	plain := r.api.mint(t, "alice", "plain", "a")
	for _, c := range []struct {
		content, says string
		code          int
		args          []string
	}{
		{plain, "may not rotate itself", 1, nil},
		{"garbage", "CREDENTIAL_INVALID", 1, nil},
		{"two words", "something other than one token", 1, nil},
		{"", "the file is empty", 1, nil},
		{plain, "--grace must be", 2, []string{"--grace", "1s"}},
		{plain, "begin with https", 2, []string{"--server", "http://patd.example"}},
		{plain, "takes no arguments", 2, []string{"job.token"}},
	} {
		r.put(t, c.content+"\n")
		if code, log := r.run(
			t,
			append([]string{"--once"}, c.args...)...); code != c.code ||
			!strings.Contains(log, c.says) {
			t.Errorf("%q: %d %s", c.says, code, log)
		}
	}
	_ = os.Remove(r.file)
	if code, log := r.run(t, "--once"); code != 1 || !strings.Contains(log, "no such file") {
		t.Errorf("no file: %d %s", code, log)
	}
}

func TestAgentCanBePasted(t *testing.T) {
	t.Parallel()
	r, k := newRotating(t), newDesk(t)
	before := r.secret(t)
	file := filepath.Join(k.dir, "agent.token")
	if err := os.Rename(r.file, file); err != nil {
		t.Fatal(err)
	}
	k.paste(t, block(t, "sh agent"), "http://127.0.0.1:8080", r.HTTP)
	r.file = file
	if now := r.secret(t); now == before || r.decide(t, now) != patdv1.IntrospectResponse_ALLOW {
		t.Error("the file does not hold a new secret that works")
	}
}

// TestUnitsOfTheAgentAreSound has systemd look at the units of docs/renewing.md, the service as it stands and as the
// page says that the timer's is.
func TestUnitsOfTheAgentAreSound(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	newDesk(t, "systemd-analyze")
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	service := block(t, "ini agent.service")
	command := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/patd (agent .*)$`).FindStringSubmatch(service)
	if command == nil {
		t.Fatal("the unit starts no agent")
	}
	wantAgentFlags(t, strings.Fields(command[1]))
	service = strings.NewReplacer("/usr/local/bin/patd", self, "User=export\n", "User=root\n").Replace(service)
	once := regexp.MustCompile(`(?s)Restart=\S+\nRestartSec=\S+\n|\n\[Install\].*`).ReplaceAllString(service, "")
	once = strings.NewReplacer("Type=exec", "Type=oneshot", " agent ", " agent --once ").Replace(once)
	for name, text := range map[string]string{"staying.service": service, "agent.service": once, "agent.timer": block(t, "ini agent.timer")} {
		write(t, filepath.Join(dir, name), text)
	}
	for _, name := range []string{"staying.service", "agent.service", "agent.timer"} {
		if out, err := exec.Command("systemd-analyze", "verify", filepath.Join(dir, name)).
			CombinedOutput(); err != nil ||
			strings.Contains(string(out), name) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// wantAgentFlags checks that a command line is one that the agent takes.
func wantAgentFlags(t *testing.T, args []string) {
	t.Helper()
	cmd, rest, err := newRoot(&cli.Command{Shared: remote.ConnectionFlags}).Find(args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err != nil || cmd.Name() != "agent" || cmd.Flags().Lookup("token-file").Value.String() == "" ||
		len(cmd.Flags().Args()) > 0 {
		t.Errorf("%q: %v", args, err)
	}
}

func TestPodOfTheAgentHasItsFlags(t *testing.T) {
	t.Parallel()
	type container struct {
		Name         string
		Args         []string
		VolumeMounts []struct {
			Name, MountPath string
			ReadOnly        bool
		} `yaml:"volumeMounts"`
	}
	var pod struct {
		Spec struct {
			InitContainers []container `yaml:"initContainers"`
			Volumes        []struct {
				Name string
				More map[string]any `yaml:",inline"`
			}
		}
	}
	if err := yaml.Unmarshal([]byte(block(t, "yaml agent")), &pod); err != nil {
		t.Fatal(err)
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = v.More["persistentVolumeClaim"] != nil
	}
	for _, c := range pod.Spec.InitContainers {
		if c.Name != "agent" {
			continue
		}
		wantAgentFlags(t, c.Args)
		if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].ReadOnly || !volumes[c.VolumeMounts[0].Name] {
			t.Errorf("the agent cannot keep its file: %+v", c.VolumeMounts)
		}
		return
	}
	t.Error("there is no agent")
}
