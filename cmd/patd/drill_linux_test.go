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
	"strconv"
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
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, trace bytes.Buffer
	cmd := exec.CommandContext(t.Context(), self, "drill", "restore", "--json", "--temp-dir", dir, "--data-dir", data)
	cmd.Args[0], cmd.Env, cmd.Stdout, cmd.Stderr = "patd", append(cmd.Environ(), "GODEBUG=gctrace=1"), &out, &trace
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s\n%s", err, &out, &trace)
	}
	var said struct {
		Steps []struct{ Step, Detail string }
	}
	if err := json.Unmarshal(out.Bytes(), &said); err != nil {
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
	// What is alive after each collection: gc 1 @0.1s 1%: … 4->5->2 MB, …
	collections := regexp.MustCompile(`(?m)^gc \d+ .* \d+->\d+->(\d+) MB`).FindAllStringSubmatch(trace.String(), -1)
	top := 0
	for _, m := range collections {
		n, _ := strconv.Atoi(m[1])
		top = max(top, n)
	}
	if len(collections) < 10 || top > most {
		t.Errorf(
			"%d MiB are alive with %d tokens, at most %d are to be; %d collections",
			top,
			many,
			most,
			len(collections),
		)
	}
	t.Logf("at most %d MiB were alive in %d collections", top, len(collections))
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
