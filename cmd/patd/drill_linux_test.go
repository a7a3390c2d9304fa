package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"patd/cmd/patd/internal/cli/config"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

// TestADrillHoldsNoListOfCredentials practises a restore of a store with many tokens: what works is listed, compared
// and ended without a list in memory, which took some 700 bytes a token.
func TestADrillHoldsNoListOfCredentials(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	const many, most = 20_000, 12 // MiB
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	patd(t, "service", "create", "ci", "--permission", "introspect", "--data-dir", data)
	fill(t, data, many)
	out, alive := collected(t, "drill", "restore", "--json", "--temp-dir", dir, "--data-dir", data)
	var said struct {
		Steps []struct{ Step, Detail string }
	}
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatal(err)
	}
	details := map[string]string{}
	for _, s := range said.Steps {
		details[s.Step] = s.Detail
	}
	for step, want := range map[string]string{
		"compare the restored store with the store": fmt.Sprintf("%d credentials, none beyond", many+1),
		"revoke in the copy":                        "20 credentials, and a user suspended where there was one",
		"compare it with the copy":                  fmt.Sprintf("%d credentials, none beyond", many+1-20),
		"end all that works, and check":             fmt.Sprintf("ended %d credentials", many+1-20),
	} {
		if details[step] != want {
			t.Errorf("%s: %q, want %q", step, details[step], want)
		}
	}
	holdsLittle(t, alive, many, most)
}

// TestCredentialsAreListedAndEndedWithoutAListInMemory lists and ends what works in a store with many tokens. A list in
// memory would take some 700 bytes a token.
func TestCredentialsAreListedAndEndedWithoutAListInMemory(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	const many, most = 30_000, 12 // MiB
	data := filepath.Join(t.TempDir(), "data")
	patd(t, "service", "create", "ci", "--permission", "introspect", "--data-dir", data)
	fill(t, data, many)
	out, alive := collected(t, "credential", "list", "--data-dir", data)
	if n := bytes.Count(out, []byte("\n")); n != 1+many+1 || bytes.Count(out, []byte("\ntoken ")) != many ||
		!bytes.HasPrefix(out, []byte("KIND ")) || bytes.Count(out, []byte("KIND ")) != 1 {
		t.Errorf("the list has %d lines: %.300s", n, out)
	}
	holdsLittle(t, alive, many, most)
	out, alive = collected(t, "credential", "list", "--json", "--data-dir", data)
	if n := bytes.Count(out, []byte(`{"kind":"token",`)); n != many {
		t.Errorf("the list has %d tokens: %.300s", n, out)
	}
	holdsLittle(t, alive, many, most)
	out, alive = collected(t, "credential", "end", "--kind", "token", "--confirm", fmt.Sprint(many), "--data-dir", data)
	if want := fmt.Sprintf("ended %d credentials\n", many); string(out) != want {
		t.Errorf("%s, want %s", out, want)
	}
	holdsLittle(t, alive, many, most)
	if left := patd(t, "credential", "end", "--data-dir", data); !strings.HasPrefix(left, "1 credential would end;") {
		t.Errorf("afterwards: %s", left)
	}
}

// collected runs a command. It returns what it prints, and how many MiB were alive after each collection of garbage.
func collected(t *testing.T, args ...string) (printed []byte, alive []int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, trace bytes.Buffer
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Args[0], cmd.Env, cmd.Stdout, cmd.Stderr = "patd", append(cmd.Environ(), "GODEBUG=gctrace=1"), &out, &trace
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %.1000s\n%s", err, &out, &trace)
	}
	// gc 1 @0.1s 1%: … 4->5->2 MB, …
	for _, m := range regexp.MustCompile(`(?m)^gc \d+ .* \d+->\d+->(\d+) MB`).FindAllStringSubmatch(trace.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		alive = append(alive, n)
	}
	return out.Bytes(), alive
}

// holdsLittle fails if more was alive than that, with so many tokens.
func holdsLittle(t *testing.T, alive []int, many, most int) {
	t.Helper()
	if len(alive) < 10 || slices.Max(alive) > most {
		t.Errorf("%d MiB are alive with %d tokens, at most %d are to be", alive, many, most)
		return
	}
	t.Logf("at most %d MiB were alive in %d collections", slices.Max(alive), len(alive))
}

// fill loads a store with tokens of its key.
func fill(t *testing.T, data string, n int) {
	t.Helper()
	keys, err := config.KeyFile(filepath.Join(data, "hash.key")).Read()
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), "sqlite:"+filepath.Join(data, "patd.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.UseRowKeys(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	digest := func(int, tokens.ID) (h tokens.Hash) {
		h.Key = keys.Current()
		_, _ = rand.Read(h.Sum[:])
		return h
	}
	if _, err := storefill.Load(t.Context(), st, storefill.Config{Tokens: n, Hash: digest}); err != nil {
		t.Fatal(err)
	}
}
