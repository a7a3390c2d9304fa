package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
)

// announced logs the stages of serving: started, asked to stop, stopped. The server itself logs that it is ready.
func announced(ctx context.Context, log *slog.Logger, serve func() error) error {
	log.Info("starting", "version", version())
	told := make(chan struct{})
	unasked := context.AfterFunc(ctx, func() {
		defer close(told)
		log.Info("stopping")
	})
	defer func() {
		if !unasked() {
			<-told
		}
		log.Info("stopped")
	}()
	return serve()
}

// refusePlainText refuses addresses that are plainly not loopback before anything is made or opened. The server refuses
// names that resolve to such addresses.
func refusePlainText(s *config.Settings) error {
	if s.Insecure || s.TLSCert != "" || s.TLSKey != "" {
		return nil
	}
	for _, l := range []struct{ flag, addr string }{{"http", s.HTTPAddr}, {"grpc", s.GRPCAddr}, {"metrics", s.MetricsAddr}} {
		host, _, err := net.SplitHostPort(l.addr)
		if err != nil {
			continue
		}
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && !ip.Unmap().IsLoopback() {
			return errors.New(
				"--" + l.flag + "-addr is not loopback, and plain text is refused there: give --tls-cert and --tls-key, or --insecure",
			)
		}
	}
	return nil
}

// warnOfVariables logs variables that look like settings but are none, such as misspelt ones: without the value, which
// may be secret.
func warnOfVariables(c *cli.Command, root *cobra.Command, log *slog.Logger) {
	if c.Environ == nil {
		return
	}
	known := map[string]bool{
		config.HashKeyVariable:     true,
		config.CallbackKeyVariable: true,
		"PATD_TOKEN":               true,
		"PATD_URL":                 true,
		"PATD_HEADER":              true,
		"PATD_VERSION":             true,
	}
	learnVariables(root, known)
	var odd []string
	for _, v := range c.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "PATD_") && !known[name] && !serviceLink(name) {
			odd = append(odd, name)
		}
	}
	if len(odd) > 0 {
		slices.Sort(odd)
		log.Warn("environment variables that match no setting are ignored", "variables", odd)
	}
}

// serviceLink reports whether Kubernetes sets a variable in every container beside a service called patd.
func serviceLink(name string) bool {
	return name == "PATD_PORT" || strings.HasPrefix(name, "PATD_PORT_") || name == "PATD_SERVICE_HOST" ||
		strings.HasPrefix(name, "PATD_SERVICE_PORT")
}

// learnVariables collects the variables of the flags of a command and of all its subcommands.
func learnVariables(cmd *cobra.Command, known map[string]bool) {
	learn := func(f *pflag.Flag) { known[config.Variable(f.Name)] = true }
	cmd.Flags().VisitAll(learn)
	cmd.PersistentFlags().VisitAll(learn)
	for _, under := range cmd.Commands() {
		learnVariables(under, known)
	}
}
