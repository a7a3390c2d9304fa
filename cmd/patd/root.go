package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"patd/internal/logpipe"
	"patd/tokens"
)

// The exit codes. Introspect has its own meaning of them, see there.
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2
)

// command is one run of the command line.
type command struct {
	System
	now func() time.Time
	// started tells that arguments and settings were good and the work has begun: from then on an error is not one
	// of usage.
	started bool
	config  string
	// arguments are the flags that the command line itself gave, which everybody on the machine can read.
	arguments map[string]bool
	// log buffers what a server writes to stderr, and announce logs what is to be read at every level. Nil: it does not serve.
	log      *logpipe.Writer
	announce *slog.Logger
	// structured tells that lines on stderr are records of the log, the last one too.
	structured bool
}

// Main runs one command line, without the program's name, and answers its exit code.
func Main(ctx context.Context, args []string, sys System) int {
	c := &command{System: sys, now: time.Now}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(sys.Stdin)
	root.SetOut(sys.Stdout)
	root.SetErr(sys.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	code := c.exit(cmd, err)
	if c.log != nil {
		_ = c.log.Close() // it never fails
	}
	return code
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "patd",
		Short:             "Personal access tokens: mint, list, rotate, revoke, introspect",
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: c.configure,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetVersionTemplate(versionLine())
	root.PersistentFlags().StringVar(&c.config, "config", "", "read settings from this YAML `file`; its keys are the names of flags")
	c.group(root,
		c.devCommand(), c.serveCommand(), c.serviceCommand(), c.tokenCommand(), c.userCommand(), c.featureCommand(),
		c.audienceCommand(), c.introspectCommand(), c.eventsCommand(), c.keysCommand(), c.migrateCommand(), c.backupCommand(), c.restoreCommand(),
		c.checkCommand(), c.copyCommand(), c.scannerCommand(), c.versionCommand(),
	)
	return root
}

// group makes cmd a command that only has others under it.
func (c *command) group(cmd *cobra.Command, under ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, sub := range under {
			names = append(names, sub.Name())
		}
		if len(args) > 0 {
			return fmt.Errorf("there is no such command; the commands are %s", strings.Join(names, ", "))
		}
		return fmt.Errorf("say which command: %s", strings.Join(names, ", "))
	}
	cmd.AddCommand(under...)
	return cmd
}

// work is what a command does once its arguments and settings are read.
type work func(ctx context.Context, args []string) error

func (c *command) run(w work) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.started = true
		return w(cmd.Context(), args)
	}
}

// takes demands the named arguments. Its error repeats none of those given: one may be a secret in the wrong place.
func takes(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == len(names):
			return nil
		case len(names) == 0:
			return errors.New("takes no arguments")
		case len(names) == 1:
			return errors.New("takes one argument: " + names[0])
		default:
			return fmt.Errorf("takes %d arguments: %s", len(names), strings.Join(names, " "))
		}
	}
}

// exitError is an error with an exit code of its own; without a cause there is nothing more to say.
type exitError struct {
	code  int
	cause error
}

func (e *exitError) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.cause.Error()
}

func (e *exitError) Unwrap() error { return e.cause }

// exit says what went wrong, in one line, and answers the exit code.
func (c *command) exit(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFault, ""
	var own *exitError
	switch {
	case errors.As(err, &own):
		if code = own.code; own.cause == nil {
			return code
		}
	case !c.started:
		code, hint = exitUsage, fmt.Sprintf(" (see `%s --help`)", cmd.CommandPath())
	}
	line := fmt.Sprintf("%s: %s%s", cmd.CommandPath(), redact(explain(err)), hint)
	// A mistake of usage is told to whoever typed it, who did not ask for records.
	if c.structured && (c.started || cmd.Flags().Changed("log-format")) {
		c.announce.Error(line)
		return code
	}
	fmt.Fprintln(c.Stderr, line)
	return code
}

// keyLine has the form of a key in a line of a key file.
var keyLine = regexp.MustCompile(`[0-9a-fA-F]{64}`)

// redact removes secrets and keys from what is about to be printed as an error. Nothing should ever be found; it is the last door.
func redact(text string) string { return keyLine.ReplaceAllString(tokens.Redact(text), "[secret]") }
