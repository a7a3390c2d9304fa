package config

import (
	"errors"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/server"
)

// connectionSettings bound the connections of a server.
type connectionSettings struct {
	max                                              automatic
	maxAnonymous                                     cli.Count
	httpIdle, grpcIdle, age, grace, anonymousTimeout cli.Duration
}

func (s *connectionSettings) flags(f *pflag.FlagSet) {
	s.maxAnonymous = 1024
	s.httpIdle, s.grpcIdle, s.anonymousTimeout = cli.Duration(
		620*time.Second,
	), cli.Duration(
		15*time.Minute,
	), cli.Duration(
		2*time.Minute,
	)
	s.age, s.grace = cli.Duration(30*time.Minute), cli.Duration(time.Minute)
	f.Var(
		&s.max,
		"max-connections",
		"at most this many connections at once, half of them for REST and half for gRPC; 0: as many as the process's limit of descriptors allows, up to 10000",
	)
	f.Var(
		&s.maxAnonymous,
		"max-anonymous-connections",
		"at most this many connections to each address that have shown no good credential; the oldest makes room",
	)
	f.Var(
		&s.httpIdle,
		"http-idle-timeout",
		"close an idle REST connection after this time; longer than the balancer's in front",
	)
	f.Var(&s.grpcIdle, "grpc-idle-timeout", "close an idle gRPC connection after this time")
	f.Var(
		&s.anonymousTimeout,
		"grpc-anonymous-timeout",
		"close a gRPC connection that has shown no good credential in this time",
	)
	f.Var(
		&s.age,
		"grpc-connection-age",
		"have a gRPC client make a new connection after this time, give or take a tenth, so that new servers get their share",
	)
	f.Var(&s.grace, "grpc-connection-age-grace", "let calls go on for this long after that")
}

// Limits returns the settings in the server's form. 0s is no limit.
func (s *connectionSettings) Limits() server.ConnectionLimits {
	orNever := func(d cli.Duration) time.Duration {
		if d <= 0 {
			return -1
		}
		return time.Duration(d)
	}
	most := int(s.max)
	if most == 0 {
		most = descriptors()
	}
	return server.ConnectionLimits{
		Max: most, MaxAnonymous: int(s.maxAnonymous), AnonymousTimeout: orNever(s.anonymousTimeout),
		HTTPIdle: orNever(s.httpIdle), GRPCIdle: orNever(s.grpcIdle), Age: orNever(s.age), Grace: orNever(s.grace),
	}
}

// automatic is a flag's value: a count, or 0 for one that depends on the machine.
type automatic int

// Set reads a count.
func (n *automatic) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 0 {
		return errors.New("must be a number from 0")
	}
	*n = automatic(v)
	return nil
}

// String writes a count.
func (n *automatic) String() string { return strconv.Itoa(int(*n)) }

// Type names the value in a command's help.
func (n *automatic) Type() string { return "int" }

// descriptors returns how many connections the process may have without running out of descriptors: a quarter of them,
// and at least 64 where there are so many, are left for the store, the log and outgoing calls.
func descriptors() int {
	const most = 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return most
	}
	got := int(min(limit.Cur, 2*most))
	return max(min(got-max(got/4, 64), most), 8)
}
