package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/manual"
)

// manualCommand writes what packages install beside the binary.
func manualCommand(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "manual DIR",
		Short: "Write the manual pages and the completions of shells into a directory",
		Long: `Write the manual pages and the completions of shells into a directory, laid out as /usr/share: man/man1, man/man5,
bash-completion/completions, zsh/vendor-completions, fish/vendor_completions.d. Packages of patd have them already.

The date of the pages is that of the commit that the binary was built from, or SOURCE_DATE_EPOCH.`,
		Args: cli.Takes("DIR"),
	}
	cmd.RunE = c.Run(func(_ context.Context, args []string) error {
		files, err := manualFiles(cmd.Root(), day(c))
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			path := filepath.Join(args[0], name)
			// Everybody may read what these say.
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // see above
				return fmt.Errorf("make a directory of the manual: %w", err)
			}
			if err := os.WriteFile(path, files[name], 0o644); err != nil { //nolint:gosec // see above
				return fmt.Errorf("write a page of the manual: %w", err)
			}
		}
		return nil
	})
	return cmd
}

// manualFiles returns all that manual writes, by path.
func manualFiles(root *cobra.Command, day time.Time) (map[string][]byte, error) {
	serve, _, err := root.Find([]string{"serve"})
	if err != nil {
		return nil, fmt.Errorf("find the command that serves: %w", err)
	}
	out := map[string][]byte{"man/man5/patd.yaml.5": manual.Settings(serve, version(), day)}
	for name, text := range manual.Pages(root, version(), day) {
		out["man/man1/"+name] = text
	}
	completions, err := manual.Completions(root)
	if err != nil {
		return nil, err
	}
	out["bash-completion/completions/patd"] = completions["bash"]
	out["zsh/vendor-completions/_patd"] = completions["zsh"]
	out["fish/vendor_completions.d/patd.fish"] = completions["fish"]
	return out, nil
}

// day returns the date of the pages, the same for the same source.
func day(c *cli.Command) time.Time {
	if text, ok := c.Getenv("SOURCE_DATE_EPOCH"); ok {
		if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
			return time.Unix(seconds, 0)
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return at
			}
		}
	}
	return c.Now()
}
