package remote

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/login"
	patdv1 "patd/gen/patd/v1"
)

// signInTime is how long a person may take to sign in.
const signInTime = 10 * time.Minute

// Login is the command that signs a person in.
func Login(c *cli.Command) *cobra.Command {
	var (
		r                 Connection
		device, noBrowser bool
		issuer            string
	)
	cmd := &cobra.Command{
		Use:   "login [--device] [--addr ADDRESS]",
		Short: "Sign in at the identity provider, so that the other commands call as you",
		Long: `Sign in at the identity provider that the server names, so that the other commands call as you: as an operator if your
groups make you one, or else about your own tokens. A browser opens on this machine; --device gives a code to enter on
another one.

The credential is kept in a file that only you can read, one for each --addr, and refreshed before it ends. Commands use
it where neither --token-file nor PATD_TOKEN is given. ` + "`patd logout`" + ` ends it.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	f.BoolVar(
		&device,
		"device",
		false,
		"show a code to enter on another device, instead of using a browser on this one",
	)
	f.BoolVar(&noBrowser, "no-browser", false, "show the address to open, and start no browser")
	f.StringVar(&issuer, "expect-issuer", "", "sign in at this provider only: refuse a server that names another `URL`")
	cli.Grouped(f, "Connection", r.addressFlags)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if device && noBrowser {
			return errors.New("--device starts no browser anyway; give one of --device and --no-browser")
		}
		return nil
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error {
		ctx, cancel := context.WithTimeout(ctx, signInTime)
		defer cancel()
		server, err := r.signIn(ctx, issuer)
		if err != nil {
			return err
		}
		provider, err := login.Discover(ctx, server, c.Now)
		if err != nil {
			return err
		}
		defer provider.Close()
		fmt.Fprintln(c.Stderr, cli.Cell(fmt.Sprintf("Signing in to patd at %s with %s", r.Addr, server.Issuer)))
		var grant login.Grant
		if device {
			grant, err = provider.Device(
				ctx,
				func(address, code, complete string) { showCode(c, address, code, complete) },
			)
		} else {
			grant, err = provider.Browser(ctx, func(address string) { openBrowser(c, address, noBrowser) })
		}
		if err != nil {
			return err
		}
		return r.keep(ctx, c, login.Credential{Server: server, Grant: grant})
	})
	return cmd
}

// signIn asks the server how people sign in.
func (r *Connection) signIn(ctx context.Context, issuer string) (login.Server, error) {
	conn, err := r.connect(nil)
	if err != nil {
		return login.Server{}, err
	}
	defer conn.Close()
	s, err := patdv1.NewSignInServiceClient(conn).GetSignIn(ctx, &patdv1.GetSignInRequest{})
	if err != nil {
		return login.Server{}, r.explain(err)
	}
	if issuer != "" && issuer != s.GetIssuer() {
		return login.Server{}, errors.New(
			cli.Cell(
				fmt.Sprintf("the server names the provider %s, and not --expect-issuer %s", s.GetIssuer(), issuer),
			),
		)
	}
	return login.Server{
		Issuer:     s.GetIssuer(),
		ClientID:   s.GetClientId(),
		Scopes:     s.GetScopes(),
		Audiences:  s.GetAudiences(),
		Parameters: s.GetParameters(),
		Port:       int(s.GetRedirectPort()),
	}, nil
}

// keep writes a credential once the server has taken it, and says who is signed in.
func (r *Connection) keep(ctx context.Context, c *cli.Command, kept login.Credential) error {
	file, err := login.At(c.Getenv, r.Addr, c.Now)
	if err != nil {
		return err
	}
	conn, err := r.connect(Bearer{kept.Bearer})
	if err != nil {
		return err
	}
	defer conn.Close()
	who, err := patdv1.NewSignInServiceClient(conn).WhoAmI(ctx, &patdv1.WhoAmIRequest{})
	if err != nil {
		return fmt.Errorf("the server does not take the provider's token: %w", r.explain(err))
	}
	if err := file.Write(ctx, kept); err != nil {
		return err
	}
	if kept.Refresh.Reveal() == "" {
		fmt.Fprintf(
			c.Stderr,
			"patd: warning: the provider gave no refresh token, so this ends at %s; --oidc-cli-scopes of the server should have offline_access\n",
			kept.Expiry.UTC().Format(time.RFC3339),
		)
	}
	fmt.Fprintf(c.Stderr, "You are signed in. The credential is in %s\n", file.Path())
	return printCaller(c, who, false)
}

func showCode(c *cli.Command, address, code, complete string) {
	fmt.Fprintln(c.Stderr, cli.Cell(fmt.Sprintf("Open %s on any device and enter the code %s", address, code)))
	if complete != "" {
		fmt.Fprintln(c.Stderr, cli.Cell("or open "+complete))
	}
}

// openBrowser shows an address and starts a browser there, if it can.
func openBrowser(c *cli.Command, address string, never bool) {
	fmt.Fprintf(c.Stderr, "Open this address in a browser on this machine (it is good once): %s\n", address)
	if never {
		return
	}
	program := "xdg-open"
	if runtime.GOOS == "darwin" {
		program = "open"
	}
	//nolint:gosec,noctx // G204: our own loopback address; the browser outlives the command
	browser := exec.Command(
		program,
		address,
	)
	if err := browser.Start(); err == nil {
		_ = browser.Process.Release()
	}
}

// Logout is the command that ends what Login began.
func Logout(c *cli.Command) *cobra.Command {
	var r Connection
	cmd := &cobra.Command{
		Use:   "logout [--addr ADDRESS]",
		Short: "Sign out: delete the credential of patd login, and end it at the provider",
		Args:  cli.Takes(),
	}
	cli.Grouped(cmd.Flags(), "Connection", r.addressFlags)
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error {
		file, err := login.At(c.Getenv, r.Addr, c.Now)
		if err != nil {
			return err
		}
		gone, err := file.Remove(ctx)
		if errors.Is(err, login.ErrNone) {
			fmt.Fprintf(c.Stderr, "Nobody is signed in to %s\n", r.Addr)
			return nil
		}
		if gone != nil && gone.Refresh.Reveal() != "" {
			if revoked := revoke(ctx, c, gone); revoked != nil {
				fmt.Fprintln(
					c.Stderr,
					cli.Cell(
						fmt.Sprintf(
							"patd: warning: the refresh token could not be ended at %s, and is deleted here only: %v",
							gone.Issuer,
							revoked,
						),
					),
				)
			}
		}
		return err
	})
	return cmd
}

func revoke(ctx context.Context, c *cli.Command, gone *login.Credential) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	p, err := login.Discover(ctx, gone.Server, c.Now)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Revoke(ctx, gone.Refresh)
}

// WhoAmI is the command that says who the other commands call as.
func WhoAmI(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show who the commands call as, and what that one may do",
		Args:  cli.Takes(),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			who, err := patdv1.NewSignInServiceClient(conn).WhoAmI(ctx, &patdv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			return printCaller(c, who, asJSON)
		},
	)
}

func printCaller(c *cli.Command, who *patdv1.WhoAmIResponse, asJSON bool) error {
	if asJSON {
		return c.Message(who)
	}
	return cli.Record(c.Stdout, []cli.Field{
		{"user", who.GetUser()},
		{"service", who.GetService()},
		{"permissions", strings.Join(who.GetPermissions(), " ")},
		{"audience", who.GetAudience()},
		{"expires", cli.Moment(who.GetExpireTime(), "")},
	})
}

// person sends the credential of patd login with every call, and refreshes it when it is about to end.
type person struct{ file *login.File }

var _ credentials.PerRPCCredentials = person{}

// GetRequestMetadata returns the authorization header.
func (p person) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := p.file.Token(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return Bearer{token}.GetRequestMetadata(ctx)
}

// RequireTransportSecurity returns false: Transport decides about plain text.
func (person) RequireTransportSecurity() bool { return false }
