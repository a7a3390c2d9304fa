package cli

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/tokens/secret"
)

// synonyms are verbs that mean the same, whatever the noun.
var synonyms = [][]string{{"show", "get"}, {"list", "ls"}, {"delete", "remove", "rm"}, {"create", "new"}}

// meant are verbs that some nouns do not have, and what they may have instead.
var meant = map[string][]string{
	"revoke": {"delete", "remove", "rm"}, "create": {"mint", "issue", "add"}, "show": {"describe", "info"},
	"update": {"edit", "patch", "replace", "set"}, "replace": {"update", "edit", "patch", "set"},
	"serve": {"start", "run", "server"},
}

// aliases gives each command the synonyms of its name that no other command beside it has.
func aliases(under []*cobra.Command) {
	taken := map[string]bool{}
	for _, sub := range under {
		taken[sub.Name()] = true
	}
	for _, sub := range under {
		for _, same := range synonyms {
			if !slices.Contains(same, sub.Name()) {
				continue
			}
			for _, name := range same {
				if !taken[name] {
					taken[name] = true
					sub.Aliases = append(sub.Aliases, name)
				}
			}
		}
		for _, name := range meant[sub.Name()] {
			if !taken[name] {
				sub.SuggestFor = append(sub.SuggestFor, name)
			}
		}
	}
}

var commandForm = regexp.MustCompile(`^[a-z][a-z-]{0,23}$`)

// UnknownCommand returns the error for a word where a command should stand. It repeats the word only if it looks like a
// command: it may be a misplaced secret.
func UnknownCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			names = append(names, sub.Name())
		}
	}
	text := "there is no such command"
	if commandForm.MatchString(word) && !secret.MayContainSecret(word) {
		text = fmt.Sprintf("there is no command %q", word)
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(word); len(near) > 0 {
			text += "; did you mean " + strings.Join(near, " or ") + "? The"
			return fmt.Errorf("%s commands are %s", text, strings.Join(names, ", "))
		}
	}
	return fmt.Errorf("%s; the commands are %s", text, strings.Join(names, ", "))
}

// FlagError returns the error of a flag that a command does not take. Where a command was to come first, and does not
// exist, that is the fault.
func FlagError(cmd *cobra.Command, err error) error {
	if given := cmd.Flags().Args(); cmd.HasAvailableSubCommands() && len(given) > 0 {
		return UnknownCommand(cmd, given[0])
	}
	return err
}

const flagGroup = "patd-flag-group"

// Grouped adds flags that stand together in a command's help, under a title.
func Grouped(f *pflag.FlagSet, title string, add func(*pflag.FlagSet)) {
	had := map[string]bool{}
	f.VisitAll(func(flag *pflag.Flag) { had[flag.Name] = true })
	add(f)
	f.VisitAll(func(flag *pflag.Flag) {
		if !had[flag.Name] && flag.Annotations[flagGroup] == nil {
			_ = f.SetAnnotation(flag.Name, flagGroup, []string{title}) // the flag exists
		}
	})
}

// Usage prints how a command is used: examples, commands under it, and its flags in groups.
func Usage(cmd *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if cmd.Runnable() && !cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s\n", cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n", cmd.CommandPath())
	}
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAlso: %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.HasExample() {
		b.WriteString("\nExamples:\n")
		for line := range strings.Lines(cmd.Example) {
			b.WriteString("  " + line)
		}
		b.WriteString("\n")
	}
	commandsUsage(&b, cmd)
	flagsUsage(&b, cmd)
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n`%s COMMAND --help` says more about a command.\n", cmd.CommandPath())
	}
	_, err := io.WriteString(cmd.OutOrStderr(), b.String())
	return err
}

// commandsUsage lists the commands under a command, by their groups.
func commandsUsage(b *strings.Builder, cmd *cobra.Command) {
	titles := map[string]string{"": "Commands"}
	order := []string{}
	for _, g := range cmd.Groups() {
		titles[g.ID] = g.Title
		order = append(order, g.ID)
	}
	width := 0
	for _, sub := range cmd.Commands() {
		width = max(width, len(sub.Name()))
	}
	for _, id := range append(order, "") {
		first := true
		for _, sub := range cmd.Commands() {
			if !sub.IsAvailableCommand() || sub.GroupID != id {
				continue
			}
			if first {
				fmt.Fprintf(b, "\n%s:\n", titles[id])
				first = false
			}
			fmt.Fprintf(b, "  %-*s  %s\n", width, sub.Name(), sub.Short)
		}
	}
}

// FlagGroup is a group of flags in a command's help, in their order.
type FlagGroup struct {
	Title string // "" for those that stand in none
	Flags *pflag.FlagSet
}

// FlagGroups returns the flags of a command in the order in which their groups were added. A command's own come first.
func FlagGroups(cmd *cobra.Command) (out []FlagGroup) {
	sets, titles := map[string]*pflag.FlagSet{}, []string{""}
	cmd.LocalFlags().SortFlags = false
	cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		title := ""
		if named := flag.Annotations[flagGroup]; named != nil {
			title = named[0]
		}
		if sets[title] == nil {
			sets[title] = pflag.NewFlagSet(title, pflag.ContinueOnError)
			if title != "" {
				titles = append(titles, title)
			}
		}
		sets[title].AddFlag(flag)
	})
	for _, title := range titles {
		if sets[title] != nil && sets[title].HasAvailableFlags() {
			out = append(out, FlagGroup{Title: title, Flags: sets[title]})
		}
	}
	return out
}

// flagsUsage lists the flags of a command.
func flagsUsage(b *strings.Builder, cmd *cobra.Command) {
	for _, g := range FlagGroups(cmd) {
		heading := g.Title + " flags"
		if g.Title == "" {
			heading = "Flags"
		}
		fmt.Fprintf(b, "\n%s:\n%s", heading, g.Flags.FlagUsages())
	}
	if cmd.HasAvailableInheritedFlags() {
		fmt.Fprintf(b, "\nGlobal flags:\n%s", cmd.InheritedFlags().FlagUsages())
	}
}
