package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/internal/longtest"
	"patd/internal/proctest"
)

// TestManualHasEveryCommandAndFlag compares the pages that `patd manual` writes with the commands, and has two programs
// look for faults in them.
func TestManualHasEveryCommandAndFlag(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "manual", dir)
	cmd.Args[0] = "patd"
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=86400")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("patd manual: %v %s", err, out)
	}
	plain := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte(`"1970-01-02"`)) {
			t.Errorf("%s is not of the day of SOURCE_DATE_EPOCH", file)
		}
		return strings.ReplaceAll(string(text), `\-`, "-")
	}
	pages := 0
	walk(newRoot(&cli.Command{}), func(cmd *cobra.Command) {
		if cmd.HasParent() && !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			return
		}
		pages++
		file := "man/man1/" + strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		text := plain(file)
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(text, `\fB--`+f.Name+`\fR`) {
				t.Errorf("%s does not have --%s", file, f.Name)
			}
		})
		for line := range strings.Lines(cmd.Example) {
			if first, _, _ := strings.Cut(line, "'"); !strings.Contains(text, strings.TrimSpace(first)) {
				t.Errorf("%s does not have the example %s", file, line)
			}
		}
	})
	if pages < 60 {
		t.Errorf("there are only %d pages", pages)
	}
	serve, _, err := newRoot(&cli.Command{}).Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	settings := plain("man/man5/patd.yaml.5")
	serve.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" && !strings.Contains(settings, `\fB`+f.Name+`\fR`) {
			t.Errorf("patd.yaml(5) does not have %s", f.Name)
		}
	})

	files, err := filepath.Glob(filepath.Join(dir, "man/man*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, lint := range [][]string{{"mandoc", "-T", "lint", "-W", "warning"}, {"groff", "-man", "-Tutf8", "-ww", "-z", "-K", "utf-8"}} {
		if _, err := exec.LookPath(lint[0]); err != nil {
			proctest.Missing(t, lint[0])
		}
		if out, err := exec.Command(lint[0], append(lint[1:], files...)...).
			CombinedOutput(); err != nil ||
			len(out) > 0 {
			t.Errorf("%s: %v\n%.3000s", strings.Join(lint, " "), err, out)
		}
	}
	for file, syntax := range map[string][]string{
		"bash-completion/completions/patd": {"bash", "-n"}, "zsh/vendor-completions/_patd": {"zsh", "-n"},
	} {
		if _, err := exec.LookPath(syntax[0]); err != nil {
			proctest.Missing(t, syntax[0])
		}
		if out, err := exec.Command(syntax[0], append(syntax[1:], filepath.Join(dir, file))...).
			CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", file, err, out)
		}
	}
	if text, err := os.ReadFile(
		filepath.Join(dir, "fish/vendor_completions.d/patd.fish"),
	); err != nil ||
		!bytes.Contains(text, []byte("complete -c patd")) {
		t.Errorf("the completion of fish: %v", err)
	}
}
