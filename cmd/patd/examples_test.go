package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
)

// TestEveryCommandHasExamplesThatItTakes runs the examples in the help of each command as far as its flags and
// arguments.
func TestEveryCommandHasExamplesThatItTakes(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	walk(newRoot(&cli.Command{}), func(cmd *cobra.Command) {
		known[strings.TrimPrefix(cmd.CommandPath(), "patd ")] = true
		leaf := cmd.Runnable() && !cmd.HasAvailableSubCommands() || cmd.Name() == "events"
		if leaf && cmd.Name() != "help" && cmd.Parent().Name() != "completion" && !cmd.HasExample() {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
	})
	for path, example := range examples() {
		if !known[path] {
			t.Errorf("an example of %s, which does not exist", path)
		}
		for line := range strings.Lines(example) {
			words, ok := shellWords(line)
			if !ok || words[0] != "patd" {
				t.Errorf("%s: %s", path, line)
				continue
			}
			cmd, rest, err := newRoot(&cli.Command{}).Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil || strings.TrimPrefix(cmd.CommandPath(), "patd ") != path {
				t.Errorf("%s: %s is %s, %v", path, line, cmd.CommandPath(), err)
			}
		}
	}
}

// shellWords splits a command line as a shell does that sees only quotes, up to a redirection.
func shellWords(line string) (words []string, ok bool) {
	var word strings.Builder
	started, quote := false, rune(0)
	for _, c := range strings.TrimSpace(line) + " " {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			started, quote = true, c
		case c == ' ':
			if started {
				words = append(words, word.String())
			}
			started = false
			word.Reset()
		case (c == '<' || c == '>') && !started:
			return words, len(words) > 0
		default:
			started = true
			word.WriteRune(c)
		}
	}
	return words, quote == 0 && len(words) > 0
}

// TestEveryFlagStandsInAGroup of its command's help, where there are many.
func TestEveryFlagStandsInAGroup(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"serve", "dev"} {
		cmd, _, err := newRoot(&cli.Command{}).Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		text := cmd.UsageString()
		if _, own, found := strings.Cut(
			text,
			"\nFlags:\n",
		); found ||
			!strings.Contains(text, "\nToken and policy flags:\n") {
			t.Errorf("%s has flags in no group:\n%s", name, own)
		}
	}
}
