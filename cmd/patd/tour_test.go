package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"patd/internal/pagetest"
)

// step is a block of commands of the tour, and the lines that it must print. An ellipsis in a line stands for any text.
type step struct {
	page     string
	line     int
	commands string
	expected []string
}

// tour reads the steps out of the pages: blocks of commands, each with a block of what they print behind it.
func tour(blocks []pagetest.Block) ([]step, error) {
	var steps []step
	for _, b := range blocks {
		switch last := len(steps) - 1; {
		case b.Kind == "sh tour":
			steps = append(steps, step{page: b.Page, line: b.Line, commands: b.Text})
		case last < 0 || len(steps[last].expected) > 0:
			return nil, fmt.Errorf("%s:%d: output without commands", b.Page, b.Line)
		default:
			steps[last].expected = strings.Split(strings.TrimSpace(b.Text), "\n")
		}
	}
	for _, s := range steps {
		if len(s.expected) == 0 {
			return nil, fmt.Errorf("%s:%d: the tour does not show what this prints", s.page, s.line)
		}
	}
	return steps, nil
}

// shows reports whether the lines are in the output in their order.
func shows(output string, lines []string) error {
	for _, line := range lines {
		for _, part := range strings.Split(line, "…") {
			part = strings.TrimSpace(part)
			i := strings.Index(output, part)
			if i < 0 {
				return fmt.Errorf("%q of the line %q is missing, or not in this order", part, line)
			}
			output = output[i+len(part):]
		}
	}
	return nil
}

// TestTour takes the tour in bash and in zsh, as a reader pastes it: all blocks in order into one interactive shell
// beside a `patd dev`, after the export that this printed.
func TestTour(t *testing.T) {
	t.Parallel()
	steps, err := tour(pagetest.Blocks(t, "sh tour", "text tour"))
	if err != nil {
		t.Fatal(err)
	}
	for _, shell := range [][]string{{"bash", "--norc", "-i"}, {"zsh", "-f", "-i"}} {
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			for _, tool := range []string{shell[0], "curl"} {
				if _, err := exec.LookPath(tool); err != nil {
					missing(t, err)
				}
			}
			takeTour(t, shell, steps)
		})
	}
}

// missing skips a test for want of a program, or fails it where none may be missing.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func takeTour(t *testing.T, shell []string, steps []step) {
	t.Helper()
	dir := t.TempDir()
	d, err := start(
		dir,
		append(os.Environ(), "TMPDIR="+dir),
		"dev",
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.End)
	exports, err := d.Stdout.Await(patience, regexp.MustCompile(`(?m)^export .*$`))
	if err != nil {
		t.Fatal(err)
	}
	script := exports[0] + "\n"
	output := func(i int) string { return filepath.Join(dir, fmt.Sprintf("step-%d", i)) }
	for i, s := range steps {
		script += fmt.Sprintf("{\n:\n%s} >'%s' 2>&1\n", s.commands, output(i))
	}
	// Interactive, since a line that begins with # is a command to an interactive zsh, and reading its standard input,
	// as pasted text comes.
	cmd := exec.Command(shell[0], shell[1:]...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(script)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", shell[0], err, secrets.ReplaceAll(said, []byte("[secret]")))
	}
	for i, s := range steps {
		got, err := os.ReadFile(output(i))
		if err != nil {
			t.Fatalf("%s:%d did not run: %v\n%s", s.page, s.line, err, said)
		}
		if err := shows(string(got), s.expected); err != nil {
			t.Errorf(
				"%s:%d: %v; it printed\n%s",
				s.page,
				s.line,
				err,
				secrets.ReplaceAllString(string(got), "[secret]"),
			)
		}
	}
	// Whatever a shell took for a redirection is a file.
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(
			file,
		); name != "minted.json" && !strings.HasPrefix(name, "step-") &&
			!strings.HasPrefix(name, "patd-") {
			t.Errorf("the tour left a file %s", name)
		}
	}
	onlyForOwner(t, dir)
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// onlyForOwner looks at the files that pasted commands left: those that hold a secret are for their owner alone.
func onlyForOwner(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(entry.Name(), "step-") {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.Mode().Perm()&0o077 == 0 { // stores are large: what only the owner reads is not searched
			return err
		}
		if text, err := os.ReadFile(path); err == nil && secrets.Match(text) {
			t.Errorf("%s holds a secret, and has mode %o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestPastedBlocksHoldNoComments holds for blocks of commands: to an interactive zsh a line that begins with # is a
// command, and `# => x` writes a file.
func TestPastedBlocksHoldNoComments(t *testing.T) {
	t.Parallel()
	comment := regexp.MustCompile(`(?m)(^|\s)#(\s|$)`)
	for _, b := range pagetest.Blocks(t) {
		if strings.HasPrefix(b.Kind, "sh ") && comment.MatchString(b.Text) {
			t.Errorf("%s:%d: %q", b.Page, b.Line, comment.FindString(b.Text))
		}
	}
}

func TestTourIsReadFromPages(t *testing.T) {
	t.Parallel()
	commands := pagetest.Block{Kind: "sh tour", Text: "echo a\n"}
	prints := pagetest.Block{Kind: "text tour", Text: "… a\nb …\n"}
	steps, err := tour([]pagetest.Block{commands, prints, commands, prints})
	if err != nil || len(steps) != 2 || !slices.Equal(steps[1].expected, []string{"… a", "b …"}) {
		t.Errorf("%v %v", steps, err)
	}
	for _, blocks := range [][]pagetest.Block{{prints}, {commands, prints, prints}, {commands, commands, prints}} {
		if _, err := tour(blocks); err == nil {
			t.Errorf("%v is read", blocks)
		}
	}
	if err := shows("x a y\nb", steps[0].expected); err != nil {
		t.Error(err)
	}
	if err := shows("b a", steps[0].expected); err == nil {
		t.Error("the order does not count")
	}
}
