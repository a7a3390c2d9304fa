// Package sdktest has what the tests of the libraries in other languages share: a throw-away patd, the programs that
// use a library, and the blocks of its README.
package sdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"patd/internal/proctest"
	"patd/internal/waittest"
)

// Patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const Patience = 5 * time.Minute

// Size returns how much a test does: a number of the environment, which `make bench-sdk` sets, or what is usual.
func Size(name string, usual int) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil || n <= 0 {
		return usual
	}
	return n
}

// patience is longer where a test does more than is usual.
func patience() time.Duration {
	if os.Getenv("PATD_TOKENS")+os.Getenv("PATD_REVOCATIONS") != "" {
		return time.Hour
	}
	return Patience
}

// Run runs a program in a directory with more of an environment, and returns what it writes.
func Run(dir string, env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // what the tests name
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Blocks returns the files that a page has in blocks of a language: ```java Server.java.
func Blocks(t *testing.T, page, language string) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	pattern := regexp.MustCompile("(?s)```" + language + " (\\S+)\n(.*?)```")
	for _, block := range pattern.FindAllSubmatch(text, -1) {
		out[string(block[1])] = block[2]
	}
	if len(out) == 0 {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return out
}

// WriteBlocks writes the files that a page has in blocks of a language into a directory.
func WriteBlocks(t *testing.T, page, language, dir string) {
	t.Helper()
	for name, text := range Blocks(t, page, language) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Block returns the block of a page with this information after its fence.
func Block(t *testing.T, page, info string) []byte {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("```"+info+"\n"))
	block, _, ok := bytes.Cut(rest, []byte("```"))
	if !ok {
		t.Fatalf("%s has no block %q", page, info)
	}
	return block
}

// Conform plays all scenarios of sdk/conformance with a driver, which has more of an environment.
func Conform(t *testing.T, root, patd string, env []string, driver ...string) {
	t.Helper()
	// On a busy machine, what must come gets more time.
	play(
		t,
		root,
		env,
		append([]string{"-patd", patd, "-strict", "-lanes", "6", "-slack", "4", "-again", "2", "--"}, driver...),
	)
}

// Measure measures with a driver, which has more of an environment, how long revoked tokens pass under load: a few, to
// see that it works, or PATD_REVOCATIONS of them.
func Measure(t *testing.T, root, patd string, env []string, driver ...string) {
	t.Helper()
	times := strconv.Itoa(Size("PATD_REVOCATIONS", 5))
	t.Log("\n" + play(t, root, env, append([]string{"-patd", patd, "-slack", "4", "-measure", times, "--"}, driver...)))
}

// play runs sdk/conformance, and returns what it writes.
func play(t *testing.T, root string, env, args []string) string {
	t.Helper()
	runner := filepath.Join(t.TempDir(), "conformance")
	if out, err := Run(root, nil, "go", "build", "-o", runner, "patd/sdk/conformance"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := Run(root, env, runner, args...)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return out
}

// Scratch has a throw-away patd, and a directory.
type Scratch struct {
	*testing.T
	Dir, URL, TokenFile string
	header              string // a file with the header of a call with the token
}

var exported = regexp.MustCompile(`export PATD_URL=(\S+) PATD_HEADER='([^']+)' .*PATD_TOKEN_FILE='([^']+)'`)

// New starts `patd dev`, and reads what it prints.
func New(t *testing.T, patd string) *Scratch {
	t.Helper()
	s := &Scratch{T: t, Dir: t.TempDir()}
	log := filepath.Join(s.Dir, "patd.log")
	http, grpc := proctest.FreeAddr(t), proctest.FreeAddr(t)
	s.Start(
		//nolint:gosec,noctx // Start ends it
		exec.Command(patd, "dev", "--http-addr", http, "--grpc-addr", grpc),
		log,
	)
	s.Until("patd dev", func() bool {
		text, err := os.ReadFile(log)
		s.must(err)
		found := exported.FindSubmatch(text)
		if found == nil || !bytes.Contains(text, []byte("msg=ready")) {
			return false
		}
		s.URL, s.header, s.TokenFile = string(found[1]), string(found[2]), string(found[3])
		return true
	})
	return s
}

func (s *Scratch) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// Env returns an environment in which programs find patd.
func (s *Scratch) Env(more ...string) []string {
	return append(more, "PATD_URL="+s.URL, "PATD_HEADER="+s.header, "PATD_TOKEN_FILE="+s.TokenFile)
}

// Start starts a program that writes to a file, and ends with the test, by SIGTERM and with one of the codes, 0 if none
// is given.
func (s *Scratch) Start(cmd *exec.Cmd, log string, codes ...int) {
	s.Helper()
	out, err := os.Create(log)
	s.must(err)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, out, out
	s.must(cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			good := err == nil
			for _, code := range codes {
				good = good || cmd.ProcessState.ExitCode() == code
			}
			if text, _ := os.ReadFile(log); !good {
				s.Errorf("%s: %v\n%s", cmd.Path, err, text)
			}
		case <-time.After(Patience):
			_ = cmd.Process.Kill()
			s.Errorf("%s does not end", cmd.Path)
		}
		_ = out.Close()
	})
}

// Serve starts a server that listens at the port in PORT and finds patd, as Start does, and returns its address.
func (s *Scratch) Serve(cmd *exec.Cmd, codes ...int) string {
	s.Helper()
	addr := proctest.FreeAddr(s.T)
	_, port, _ := strings.Cut(addr, ":")
	cmd.Env = append(append(os.Environ(), cmd.Env...), s.Env("PORT="+port)...)
	s.Start(cmd, filepath.Join(s.Dir, "server.log"), codes...)
	return "http://" + addr
}

// Until waits until something is so.
func (s *Scratch) Until(what string, so func() bool) {
	s.Helper()
	waittest.Within(s.T, Patience, what, so)
}

// Calls pastes the block of a page that creates a token and calls a route of 127.0.0.1 at a port, which is another one
// here, and wants the response to be 200 with a text.
func (s *Scratch) Calls(page, info, port, addr, response string) {
	s.Helper()
	text := strings.ReplaceAll(string(Block(s.T, page, info)), "127.0.0.1:"+port, addr)
	out, err := Run(s.Dir, s.Env(), "bash", "-euc", text)
	if err != nil || !strings.Contains(out, " 200 ") || !strings.HasSuffix(strings.TrimSpace(out), response) {
		s.Errorf("%s, %s: %v\n%s", page, info, err, out)
	}
}

// call calls patd and returns the response.
func (s *Scratch) call(method, path, body string) map[string]any {
	s.Helper()
	secret, err := os.ReadFile(s.TokenFile)
	s.must(err)
	code, text := s.Request(method, s.URL+path, strings.TrimSpace(string(secret)), body)
	var out map[string]any
	if code != http.StatusOK || json.Unmarshal([]byte(text), &out) != nil {
		s.Fatalf("%s %s: %d\n%s", method, path, code, text)
	}
	return out
}

// Request sends a request with a token, unless it is empty, and returns the status and the body; 0 and the error if
// there is no response.
func (s *Scratch) Request(method, url, secret, body string) (int, string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	s.must(err)
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	s.must(err)
	return resp.StatusCode, string(text)
}

// Mint creates a token of the demo user.
func (s *Scratch) Mint(scope string) (id, secret string) {
	s.Helper()
	body := fmt.Sprintf(
		`{"name": "test %s %d"`,
		scope,
		time.Now().UnixNano(),
	) + `, "scopes": ["` + scope + `"], "ttl": "1d"}`
	secret, _ = s.call(http.MethodPost, "/v1/users/demo/tokens", body)["secret"].(string)
	return strings.Split(secret, "_")[1], secret
}

// Guards finds out whether a route needs the scope reports.read, as GuardedBy does.
func (s *Scratch) Guards(url, response, refusal string) {
	s.Helper()
	s.GuardedBy(
		func(secret string) (int, string) { return s.Request(http.MethodGet, url, secret, "") },
		response,
		refusal,
	)
}

// GuardedBy finds out whether a request needs the scope reports.read: only a token with it passes, with this response,
// and not for long after it is revoked. The response to one without it has the text of the refusal.
func (s *Scratch) GuardedBy(get func(secret string) (int, string), response, refusal string) {
	s.Helper()
	s.Until("it listens", func() bool { code, _ := get(""); return code == http.StatusUnauthorized })
	id, may := s.Mint("reports.read")
	_, mayNot := s.Mint("deploy.run")
	for range 5 {
		if code, text := get(may); code != http.StatusOK || text != response {
			s.Errorf("%d %s", code, text)
		}
	}
	if code, text := get(mayNot); code != http.StatusForbidden || !strings.Contains(text, refusal) {
		s.Errorf("%d %s", code, text)
	}
	s.call(http.MethodDelete, "/v1/users/demo/tokens/"+id, "")
	s.Until("the token is refused", func() bool { code, _ := get(may); return code == http.StatusUnauthorized })
}
