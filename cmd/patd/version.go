package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
)

func versionCommand(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: cli.Takes()}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = c.Run(func(context.Context, []string) error {
		if asJSON {
			return c.JSON(build())
		}
		_, err := fmt.Fprint(c.Stdout, versionLine())
		return err
	})
	return cmd
}

// build is what `version --json` prints: from what this binary was built, and for what.
func build() map[string]any {
	out := map[string]any{
		"version":  version(),
		"go":       runtime.Version(),
		"platform": runtime.GOOS + "/" + runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return out
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			out["commit"] = s.Value
		case "vcs.time":
			out["commit_time"] = s.Value
		case "vcs.modified":
			out["modified"] = s.Value == "true"
		}
	}
	return out
}

// versionLine returns the output of version, and of --version.
func versionLine() string {
	return fmt.Sprintf("patd %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// version returns what the Go tool recorded about the source of this binary.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
