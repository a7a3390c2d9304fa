package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/agent"
	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/remote"
	"patd/cmd/patd/internal/cli/storeadmin"
)

// Main runs one command line, without the program's name, and returns its exit code.
func Main(ctx context.Context, args []string, sys cli.System) int {
	c := &cli.Command{System: sys, Now: time.Now, Version: version(), Shared: remote.ConnectionFlags}
	root := newRoot(c)
	root.SetArgs(args)
	root.SetIn(sys.Stdin)
	root.SetOut(sys.Stdout)
	root.SetErr(sys.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	code := exitCode(c, cmd, err)
	if c.Log != nil {
		_ = c.Log.Close() // it never fails
	}
	return code
}

func newRoot(c *cli.Command) *cobra.Command {
	root := &cobra.Command{
		Use:               "patd",
		Short:             "Personal access tokens: mint, list, rotate, revoke, introspect",
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return config.Configure(c, cmd) },
		CompletionOptions: cobra.CompletionOptions{DisableNoDescFlag: true},
	}
	root.SetVersionTemplate(versionLine())
	root.SetUsageFunc(cli.Usage)
	root.SetFlagErrorFunc(cli.FlagError)
	root.SetHelpCommand(helpCommand())
	root.PersistentFlags().
		StringVar(&c.Config, "config", "", "read settings from this YAML `file`; its keys are the names of flags")
	c.Group(
		root,
		devCommand(
			c,
		),
		serveCommand(c),
		storeadmin.Service(c),
		remote.Login(c),
		remote.Logout(c),
		remote.WhoAmI(c),
		remote.Token(c),
		remote.User(c),
		remote.Feature(c),
		remote.Scopes(c),
		remote.Audience(
			c,
		),
		remote.Webhook(c),
		remote.Introspect(c),
		remote.Events(c, storeadmin.EventsExport(c), storeadmin.EventsPrune(c)),
		storeadmin.Keys(c),
		storeadmin.Migrate(
			c,
		),
		storeadmin.Backup(c),
		storeadmin.Restore(c),
		storeadmin.Credential(c),
		storeadmin.Drill(c),
		storeadmin.Check(c),
		storeadmin.Copy(c),
		agent.Command(
			c,
		),
		remote.Scanner(c),
		remote.Health(c),
		doctorCommand(c),
		topCommand(c),
		manualCommand(c),
		versionCommand(c),
	)
	root.InitDefaultCompletionCmd()
	describe(root)
	return root
}

// exitCode prints the error in one line, and returns the exit code.
func exitCode(c *cli.Command, cmd *cobra.Command, err error) int {
	if err == nil {
		return cli.ExitOK
	}
	code, hint := cli.ExitFault, ""
	var own *cli.ExitError
	switch {
	case errors.As(err, &own):
		if code = own.Code; own.Cause == nil {
			return code
		}
	case !c.Started:
		code, hint = cli.ExitUsage, fmt.Sprintf(" (see `%s --help`)", cmd.CommandPath())
	}
	line := fmt.Sprintf("%s: %s%s", cmd.CommandPath(), cli.Redact(remote.Explain(err)), hint)
	// A usage error is for the person at the terminal, who did not ask for records.
	if c.Structured && (c.Started || cmd.Flags().Changed("log-format")) {
		c.Announce.Error(line)
		return code
	}
	fmt.Fprintln(c.Stderr, line)
	return code
}
