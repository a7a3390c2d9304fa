package pagetest

import (
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
)

var (
	madeReason = regexp.MustCompile(
		`(?:\bFail\([A-Za-z.]+, |\bInvalid\(|\bReason: +|\badd\(|\b[rR]eason[A-Z][A-Za-z]* += )"([A-Z]+(?:_[A-Z]+)*)"`,
	)
	shownReason = regexp.MustCompile("`([A-Z]+(?:_[A-Z]+)+)`")
)

// TestPageOfErrorsHasEachReason compares docs/api.md with the reasons that the code makes errors of.
func TestPageOfErrorsHasEachReason(t *testing.T) {
	cmd := exec.Command("git", "ls-files", "tokens/*.go", "server/*.go", "store/*.go")
	cmd.Dir = Root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	made, sources := map[string]bool{}, ""
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSpace(file)
		text, err := os.ReadFile(path.Join(Root(t), file))
		if strings.HasSuffix(file, "_test.go") || strings.Contains(file, "test/") || os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sources += string(text)
		for _, m := range madeReason.FindAllSubmatch(text, -1) {
			made[string(m[1])] = true
		}
	}
	if len(made) < 60 {
		t.Fatalf("there are only %d reasons in the code", len(made))
	}
	page, err := os.ReadFile(path.Join(Root(t), "docs/api.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, errors, ok := strings.Cut(string(page), "\n## Errors\n")
	if !ok {
		t.Fatal("docs/api.md has no section of errors")
	}
	for reason := range made {
		if !strings.Contains(errors, "`"+reason+"`") {
			t.Errorf("docs/api.md does not have the reason %s", reason)
		}
	}
	for _, m := range shownReason.FindAllStringSubmatch(errors, -1) {
		if !strings.Contains(sources, `"`+m[1]+`"`) && !codes[m[1]] {
			t.Errorf("docs/api.md has %s, which no code makes", m[1])
		}
	}
}

// codes are gRPC's, which are no reasons.
var codes = map[string]bool{
	"INVALID_ARGUMENT":    true,
	"PERMISSION_DENIED":   true,
	"NOT_FOUND":           true,
	"ALREADY_EXISTS":      true,
	"FAILED_PRECONDITION": true,
	"RESOURCE_EXHAUSTED":  true,
	"DEADLINE_EXCEEDED":   true,
}
