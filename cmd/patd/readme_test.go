package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// step is some commands of the README's tour and what their output must contain.
type step struct {
	commands string
	expected []string
}

var tourBlock = regexp.MustCompile("(?ms)^```sh tour\n(.*?)^```$")

// tour reads the steps out of a Markdown text: they stand in blocks that begin with ```sh tour, and the lines
// `# => text` after some commands say what these print.
func tour(markdown string) []step {
	var steps []step
	for _, block := range tourBlock.FindAllStringSubmatch(markdown, -1) {
		next := step{}
		for line := range strings.Lines(block[1]) {
			text, expected := strings.CutPrefix(line, "# => ")
			if !expected && len(next.expected) > 0 {
				steps, next = append(steps, next), step{}
			}
			if expected {
				next.expected = append(next.expected, strings.TrimSpace(text))
			} else {
				next.commands += line
			}
		}
		steps = append(steps, next)
	}
	return steps
}

// TestReadmeTour takes the README's tour: all its blocks, in order, in one bash session beside a `patd dev`, with the
// variables that this printed and, in the path, patd itself.
func TestReadmeTour(t *testing.T) {
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("the tour needs %s: %v", tool, err)
		}
	}
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	steps, expectations := tour(string(text)), 0
	dir := t.TempDir()
	d, err := start(dir, append(os.Environ(), "TMPDIR="+dir), "dev", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	exports, err := d.stdout.await(regexp.MustCompile(`(?m)^export .*$`))
	if err != nil {
		t.Fatal(err)
	}
	script := exports[0] + "\n"
	output := func(i int) string { return filepath.Join(dir, fmt.Sprintf("step-%d", i)) }
	for i, s := range steps {
		script += fmt.Sprintf("{\n:\n%s} >'%s' 2>&1\n", s.commands, output(i))
	}
	bash := exec.Command("bash", "-u", "-c", script)
	bash.Dir = dir
	if out, err := bash.CombinedOutput(); err != nil && len(out) > 0 {
		t.Errorf("bash: %v\n%s", err, out)
	}
	for i, s := range steps {
		got, err := os.ReadFile(output(i))
		if err != nil {
			t.Fatalf("step %d did not run: %v\n%s", i, err, s.commands)
		}
		for _, want := range s.expected {
			expectations++
			if !strings.Contains(string(got), want) {
				t.Errorf("this should print %q:\n%s\nit printed\n%s", want, s.commands, secrets.ReplaceAllString(string(got), "[secret]"))
			}
		}
	}
	if expectations == 0 {
		t.Error("the README has no tour: blocks that begin with ```sh tour and hold lines `# => text`")
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}

func TestTourIsReadFromMarkdown(t *testing.T) {
	steps := tour("text\n```sh\nnot this\n```\n```sh tour\necho a\necho b\n# => a\n# => b\n\n# a remark\necho c\n```\n```sh tour\necho d\n# => d\n```\n")
	if got := fmt.Sprintf("%q", steps); got != `[{"echo a\necho b\n" ["a" "b"]} {"\n# a remark\necho c\n" []} {"echo d\n" ["d"]}]` {
		t.Errorf("the steps are %s", got)
	}
}
