package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"patd/internal/logpipe"
)

// System is the environment of one run of the command.
type System struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Getenv reads an environment variable, and reports whether it is set.
	Getenv func(string) (string, bool)
	// Environ lists the environment variables as NAME=VALUE; nil: they are not known.
	Environ func() []string
	// Hurry returns a channel that the second signal closes; a third one ends the process. Nil: none.
	Hurry func() <-chan struct{}
	// Libraries directs the libraries' own log lines into a log. Nil: they write where they like.
	Libraries func(*slog.Logger)
}

// JSON prints a value, indented.
func (c *Command) JSON(v any) error {
	enc := json.NewEncoder(c.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// JSONLine prints a value in one line.
func (c *Command) JSONLine(v any) error {
	enc := json.NewEncoder(c.Stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Message prints a message in REST's form, indented.
func (c *Command) Message(m proto.Message) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(c.Stdout)
	return err
}

// The exit codes. Introspect has its own, see there.
const (
	ExitOK    = 0
	ExitFault = 1
	ExitUsage = 2
)

// Command is one run of the command line.
type Command struct {
	System
	Now func() time.Time
	// Version is that of this program.
	Version string
	// Started reports that arguments and settings were good and the work has begun: later errors are not usage errors.
	Started bool
	Config  string
	// Shared adds the flags that a configuration file may set for commands that do not serve.
	Shared func(*pflag.FlagSet)
	// Arguments are the flags given on the command line, which everybody on the machine can read.
	Arguments map[string]bool
	// Log buffers what a server writes to stderr, Announce logs lines that appear at every level. Nil: it does not
	// serve.
	Log      *logpipe.Writer
	Announce *slog.Logger
	// Structured reports that lines on stderr are log records, including the last one.
	Structured bool
}

// Group makes cmd a command that only has others under it.
func (c *Command) Group(cmd *cobra.Command, under ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	aliases(under)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return UnknownCommand(cmd, args[0])
		}
		var names []string
		for _, sub := range under {
			names = append(names, sub.Name())
		}
		return fmt.Errorf("say which command: %s", strings.Join(names, ", "))
	}
	cmd.AddCommand(under...)
	return cmd
}

// work is the body of a command, after its arguments and settings are read.
type work func(ctx context.Context, args []string) error

// Run turns a command's work into a function for cobra; once it starts, errors are not usage errors.
func (c *Command) Run(w work) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.Started = true
		return w(cmd.Context(), args)
	}
}

// Takes requires the named arguments. Its error repeats none of those given: one may be a misplaced secret.
func Takes(names ...string) cobra.PositionalArgs {
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

// ExitError is an error with an exit code of its own; without a cause nothing more is printed.
type ExitError struct {
	Code  int
	Cause error
}

func (e *ExitError) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Cause.Error()
}

func (e *ExitError) Unwrap() error { return e.Cause }
