package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/remote"
)

// everySetting is a configuration file that says something of every flag of serve, and of those by which commands reach
// a server.
func everySetting(t *testing.T) string {
	t.Helper()
	c := &cli.Command{}
	all := serveCommand(c).Flags()
	remote.ConnectionFlags(all)
	var text strings.Builder
	all.VisitAll(func(f *pflag.Flag) {
		value, ok := map[string]string{
			"bool": "true", "int": "7", "rate": "2.5", "duration": "1h", "size": "1MiB", "string": f.DefValue, "stringArray": "[]",
		}[f.Value.Type()]
		if !ok {
			t.Errorf("--%s has a type that this test has no value of: %s", f.Name, f.Value.Type())
		}
		if f.Value.Type() == "string" {
			value = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(&text, "%s: %s\n", f.Name, value)
	})
	return text.String()
}

// TestEveryCommandTakesAFileWithEverySetting lets all commands share one file, as an operator does with PATD_CONFIG.
func TestEveryCommandTakesAFileWithEverySetting(t *testing.T) {
	file := everySetting(t)
	if !strings.Contains(file, "cache-size: 1MiB\n") || !strings.Contains(file, "token-file: ") {
		t.Fatalf("not every setting is in the file: this test proves nothing\n%s", file)
	}
	tried := 0
	var try func(*cobra.Command)
	try = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			try(sub)
		}
		tried++
		if err := config.FromFile(cmd.Flags(), []byte(file), config.AllSettings(remote.ConnectionFlags)); err != nil {
			t.Errorf("%s: %v", cmd.CommandPath(), err)
		}
	}
	try(newRoot((&cli.Command{})))
	if tried < 30 {
		t.Errorf("only %d commands were tried", tried)
	}
	if err := config.FromFile(
		serveCommand((&cli.Command{})).Flags(),
		[]byte(file+"cache-sise: 1MiB\n"),
		config.AllSettings(remote.ConnectionFlags),
	); err == nil ||
		!strings.Contains(err.Error(), `unknown key "cache-sise"`) {
		t.Errorf("a misspelt setting: %v", err)
	}
}
