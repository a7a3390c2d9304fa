// Package manual makes the manual pages and the completions of a command from the command itself, so that they say what
// --help says.
package manual

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
)

// Pages returns the pages of section 1 by file name: one for the root and one for each command under it that can be
// called. Version and day stand at the foot of each page.
func Pages(root *cobra.Command, version string, day time.Time) map[string][]byte {
	out := map[string][]byte{}
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		out[Name(cmd)+".1"] = page(cmd, version, day)
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				add(sub)
			}
		}
	}
	add(root)
	return out
}

// Completions returns the completion scripts by shell.
func Completions(root *cobra.Command) (map[string][]byte, error) {
	out := map[string][]byte{}
	for shell, write := range map[string]func(*bytes.Buffer) error{
		"bash": func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"zsh":  func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"fish": func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return nil, fmt.Errorf("write the completion of %s: %w", shell, err)
		}
		out[shell] = b.Bytes()
	}
	return out, nil
}

// Name returns the name of a command's page, such as patd-token-create.
func Name(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// page writes one page in the macros of man(7).
func page(cmd *cobra.Command, version string, day time.Time) []byte {
	var b bytes.Buffer
	name := Name(cmd)
	fmt.Fprintf(
		&b,
		".TH %s 1 %s %s %s\n",
		quoted(strings.ToUpper(name)),
		`"`+day.UTC().Format(time.DateOnly)+`"`,
		quoted("patd "+version),
		quoted("patd"),
	)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escaped(name), escaped(cmd.Short))
	b.WriteString(".SH SYNOPSIS\n.nf\n")
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\\fB%s\\fR \\fICOMMAND\\fR [flags]\n", escaped(cmd.CommandPath()))
	} else {
		fmt.Fprintf(
			&b,
			"\\fB%s\\fR%s\n",
			escaped(cmd.CommandPath()),
			escaped(strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath())),
		)
	}
	b.WriteString(".fi\n.SH DESCRIPTION\n")
	paragraphs(&b, or(cmd.Long, cmd.Short+"."))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, ".PP\nAlso: %s\n", escaped(strings.Join(cmd.Aliases, ", ")))
	}
	commands(&b, cmd)
	options(&b, cmd)
	if cmd.HasExample() {
		b.WriteString(".SH EXAMPLES\n.nf\n")
		for line := range strings.Lines(cmd.Example) {
			b.WriteString(guarded(strings.TrimRight(line, "\n")) + "\n")
		}
		b.WriteString(".fi\n")
	}
	seeAlso(&b, cmd)
	return b.Bytes()
}

// commands lists the commands under a command.
func commands(b *bytes.Buffer, cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	b.WriteString(".SH COMMANDS\n")
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			fmt.Fprintf(b, ".TP\n\\fB%s\\fR(1)\n%s\n", escaped(Name(sub)), guarded(sub.Short))
		}
	}
}

// options lists the flags of a command in the groups of its help, and then those of all commands.
func options(b *bytes.Buffer, cmd *cobra.Command) {
	groups := cli.FlagGroups(cmd)
	inherited := pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			inherited.AddFlag(f)
		}
	})
	if len(groups) == 0 && !inherited.HasFlags() {
		return
	}
	b.WriteString(".SH OPTIONS\n")
	for _, g := range groups {
		if g.Title != "" {
			fmt.Fprintf(b, ".SS %s\n", quoted(g.Title))
		}
		flags(b, g.Flags, "--")
	}
	if inherited.HasFlags() {
		fmt.Fprintf(b, ".SS %s\n", quoted("Of every command"))
		flags(b, inherited, "--")
	}
}

// flags lists flags, with what stands before their names.
func flags(b *bytes.Buffer, set *pflag.FlagSet, before string) {
	set.SortFlags = false
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", escaped(f.Shorthand))
		}
		fmt.Fprintf(b, "\\fB%s\\fR", escaped(before+f.Name))
		if kind != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", escaped(kind))
		}
		b.WriteString("\n" + guarded(usage))
		if shown := f.DefValue; !slices.Contains([]string{"", "false", "[]", "0"}, shown) &&
			!strings.Contains(usage, "(default") {
			b.WriteString(" (default " + escaped(shown) + ")")
		}
		b.WriteString("\n")
	})
}

// seeAlso names the pages above and beside a command.
func seeAlso(b *bytes.Buffer, cmd *cobra.Command) {
	names := []string{}
	if cmd.HasParent() {
		names = append(names, Name(cmd.Parent())+"(1)")
	}
	if cmd.Name() == "serve" || !cmd.HasParent() {
		names = append(names, "patd.yaml(5)")
	}
	b.WriteString(".SH SEE ALSO\n")
	for i, name := range names {
		end := ","
		if i == len(names)-1 {
			end = ""
		}
		page, section, _ := strings.Cut(name, "(")
		fmt.Fprintf(b, ".BR %s (%s%s\n", escaped(page), section, end)
	}
}

// paragraphs writes text whose paragraphs are parted by empty lines.
func paragraphs(b *bytes.Buffer, text string) {
	for i, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		for line := range strings.Lines(p) {
			b.WriteString(guarded(strings.TrimSpace(line)) + "\n")
		}
	}
}

// escaped is text without what troff would read as its own.
func escaped(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`,
		"…", `\&...`, "’", `\(cq`, "→", `\(->`, "≤", `\(<=`, "–", `\(en`, "×", `\(mu`).Replace(s)
}

// guarded is a line of text that does not begin with a request of troff.
func guarded(s string) string {
	if s = escaped(s); strings.HasPrefix(s, ".") {
		return `\&` + s
	}
	return s
}

// quoted is an argument of a macro.
func quoted(s string) string { return `"` + strings.ReplaceAll(escaped(s), `"`, `\(dq`) + `"` }

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Settings returns the page of section 5 about the configuration file: the flags of the command that serves are its
// keys.
func Settings(serve *cobra.Command, version string, day time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(
		&b,
		".TH PATD.YAML 5 %s %s %s\n",
		`"`+day.UTC().Format(time.DateOnly)+`"`,
		quoted("patd "+version),
		quoted("patd"),
	)
	b.WriteString(".SH NAME\npatd.yaml \\- settings of patd\n.SH DESCRIPTION\n")
	paragraphs(
		&b,
		`patd reads this file, which is YAML, where --config or the variable PATD_CONFIG names it; the packages name /etc/patd/patd.yaml.
A flag (--http-addr) overrides its variable (PATD_HTTP_ADDR), which overrides this file (http-addr). An unknown key is an error.

Durations are 90s, 12h, 180d; sizes 256MiB. Secrets do not belong here: settings that end in -file name files that hold them.

A changed file needs a restart. SIGHUP reads only the hash keys and the TLS certificate again.`,
	)
	b.WriteString(".SH KEYS\n")
	for _, g := range cli.FlagGroups(serve) {
		keys := pflag.NewFlagSet("", pflag.ContinueOnError)
		keys.SortFlags = false
		g.Flags.VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				keys.AddFlag(f)
			}
		})
		if !keys.HasFlags() {
			continue
		}
		if g.Title != "" {
			fmt.Fprintf(&b, ".SS %s\n", quoted(g.Title))
		}
		flags(&b, keys, "")
	}
	b.WriteString(".SH SEE ALSO\n.BR patd\\-serve (1)\n")
	return b.Bytes()
}
