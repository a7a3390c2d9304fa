package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/status"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/login"
	"patd/internal/loopback"
	"patd/internal/secretfile"
	"patd/tokens"
	"patd/tokens/secret"
)

// Connection is the address of a server and the credential for it.
type Connection struct {
	Addr, tokenFile, caFile string
	Insecure                bool
	timeout                 cli.Duration

	person bool // the credential is that of patd login
}

// flags adds the flags of every command that calls with a credential.
func (r *Connection) flags(f *pflag.FlagSet) {
	r.addressFlags(f)
	f.StringVar(
		&r.tokenFile,
		"token-file",
		"",
		"`file` with the service token to call with; or PATD_TOKEN holds the token itself; without either, what patd login made",
	)
}

// addressFlags adds the flags of every command that works over gRPC.
func (r *Connection) addressFlags(f *pflag.FlagSet) {
	r.timeout = cli.Duration(10 * time.Second)
	f.StringVar(&r.Addr, "addr", "127.0.0.1:9090", "gRPC `address` of the server")
	f.StringVar(
		&r.caFile,
		"ca-file",
		"",
		"PEM `file` of the authorities to trust, instead of the system's; implies TLS",
	)
	if f.Lookup("insecure") == nil { // shared with serve where all settings are gathered
		f.BoolVar(&r.Insecure, "insecure", false, "send the token in plain text to an address that is not loopback")
	}
	f.Var(&r.timeout, "timeout", "time limit of each call")
}

// overRemote runs work over a connection.
type overRemote func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error

// remoteCommand makes a command that works over gRPC. Its faults exit with the given code.
func remoteCommand(c *cli.Command, cmd *cobra.Command, fault int, do overRemote) *cobra.Command {
	var r Connection
	cli.Grouped(cmd.Flags(), "Connection", r.flags)
	cmd.RunE = c.Run(func(ctx context.Context, args []string) error { return connected(ctx, c, &r, fault, args, do) })
	return cmd
}

// connected runs work over a connection. Its faults exit with the given code.
func connected(ctx context.Context, c *cli.Command, r *Connection, fault int, args []string, do overRemote) error {
	warnOfReaders(c, r.tokenFile)
	conn, err := dial(ctx, c, r)
	if err == nil {
		defer conn.Close()
		err = do(ctx, conn, args)
	}
	var own *cli.ExitError
	if err == nil || errors.As(err, &own) {
		return err
	}
	return &cli.ExitError{Code: fault, Cause: r.explain(err)}
}

// errNoCredential is the error where nothing says who is calling.
var errNoCredential = errors.New(
	"say who is calling: --token-file FILE or PATD_TOKEN_FILE with a service token, which `patd service create` makes, or sign in with `patd login`",
)

// dial makes a connection that carries the service token, or else the credential of patd login.
func dial(ctx context.Context, c *cli.Command, r *Connection) (*grpc.ClientConn, error) {
	if text, _ := c.Getenv("PATD_TOKEN"); text == "" && r.tokenFile == "" {
		if file, err := login.At(c.Getenv, r.Addr, c.Now); err == nil {
			_, err = file.Token(ctx)
			if err == nil {
				r.person = true
				return r.connect(person{file})
			}
			if !errors.Is(err, login.ErrNone) {
				return nil, err
			}
		}
	}
	secret, err := credential(c, r)
	if err != nil {
		return nil, err
	}
	return r.connect(Bearer{secret})
}

// connect makes a connection that carries a credential; nil: none. The first call connects it.
func (r *Connection) connect(carried credentials.PerRPCCredentials) (*grpc.ClientConn, error) {
	transport, err := r.Transport()
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(r.timeout)
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(experimental.AcceptCompressors(gzip.Name)),
		grpc.WithUnaryInterceptor(
			func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				ctx, cancel := context.WithTimeout(ctx, timeout)
				defer cancel()
				return invoke(ctx, method, in, out, cc, opts...)
			},
		),
	}
	if carried != nil {
		options = append(options, grpc.WithPerRPCCredentials(carried))
	}
	conn, err := grpc.NewClient("passthrough:///"+r.Addr, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", r.Addr, err)
	}
	return conn, nil
}

// credential reads the service token.
func credential(c *cli.Command, r *Connection) (tokens.Secret, error) {
	if r.tokenFile != "" {
		text, err := secretfile.ReadToken(r.tokenFile)
		if err != nil {
			return tokens.Secret{}, fmt.Errorf("read the service token: %w", err)
		}
		return secret.NewSecret(text), nil
	}
	text, _ := c.Getenv("PATD_TOKEN")
	switch text = strings.TrimRight(text, "\r\n"); {
	case text == "":
		return tokens.Secret{}, &cli.ExitError{Code: cli.ExitUsage, Cause: errNoCredential}
	case !secretfile.IsToken(text):
		return tokens.Secret{}, errors.New("PATD_TOKEN holds something other than one token")
	}
	return secret.NewSecret(text), nil
}

// warnOfReaders warns when more than its owner can read the file of the service token.
func warnOfReaders(c *cli.Command, tokenFile string) {
	if secretfile.OthersCanRead(tokenFile) {
		fmt.Fprintf(
			c.Stderr,
			"patd: warning: the service token in %s can be read by others than its owner; chmod 600 it\n",
			tokenFile,
		)
	}
}

// Transport returns credentials for plain text, on this machine, or TLS.
func (r *Connection) Transport() (credentials.TransportCredentials, error) {
	host, _, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return nil, errors.New("--addr must be HOST:PORT")
	}
	if r.caFile != "" {
		pem, err := secretfile.Read(r.caFile)
		if err != nil {
			return nil, fmt.Errorf("read --ca-file: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca-file %s holds no certificate in PEM", r.caFile)
		}
		return credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}), nil
	}
	if r.Insecure || loopback.Host(host) {
		return insecure.NewCredentials(), nil
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), nil
}

// Bearer sends the service token with every call. Transport has decided whether the connection may carry it.
type Bearer struct{ Secret tokens.Secret }

var _ credentials.PerRPCCredentials = Bearer{}

// GetRequestMetadata returns the authorization header.
func (b Bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.Secret.Reveal()}, nil
}

// RequireTransportSecurity returns false: Transport decides about plain text.
func (Bearer) RequireTransportSecurity() bool { return false }

// explain makes a call's error readable: the server's reason and text, and every field at fault.
func (r *Connection) explain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	reason, fields := "", []string{}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations()[min(1, len(d.GetFieldViolations())):] {
				fields = append(fields, v.GetField()+": "+v.GetDescription())
			}
		}
	}
	text := s.Message()
	switch {
	case reason != "":
		text = strings.Join(append([]string{reason + ": " + text}, fields...), "; ")
		if r.person && s.Code() == codes.Unauthenticated {
			text += "; sign in again with `patd login`"
		}
	case s.Code() == codes.Unavailable:
		text = fmt.Sprintf("cannot reach patd at %s (--addr or PATD_ADDR says where it is): %s", r.Addr, text)
		if !r.Insecure && !strings.Contains(text, "refused") && r.caFile == "" {
			text += "; plain text is used on loopback only, unless --insecure says so"
		}
	case s.Code() == codes.DeadlineExceeded:
		text = fmt.Sprintf("patd at %s did not answer within %s", r.Addr, &r.timeout)
	}
	return errors.New(cli.Cell(text))
}

// ConnectionFlags adds the flags of all commands that work over a connection.
func ConnectionFlags(f *pflag.FlagSet) { new(Connection).flags(f) }
