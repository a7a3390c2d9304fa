package main

import (
	"github.com/spf13/pflag"

	"patd/server"
)

// rateSettings bound how often callers may do what costs.
type rateSettings struct {
	mint, serviceMint, failure, leak                     rate
	mintBurst, serviceMintBurst, failureBurst, leakBurst int
}

func (s *rateSettings) flags(f *pflag.FlagSet) {
	for _, e := range []struct {
		rate  *rate
		burst *int
		r     rate
		b     int
		name  string
		what  string
	}{
		{&s.mint, &s.mintBurst, 1, 100, "mint", "mints and rotations of one signed-in user"},
		{&s.serviceMint, &s.serviceMintBurst, 1000, 20_000, "service-mint", "mints and rotations of one service"},
		{&s.failure, &s.failureBurst, 10, 1000, "auth-failure", "bad credentials from one address"},
		{&s.leak, &s.leakBurst, 1, 60, "leak-report", "reports of leaked secrets from one address"},
	} {
		*e.rate, *e.burst = e.r, e.b
		f.Var(e.rate, e.name+"-rate", e.what+" per second, over time; off or 0: no limit, whatever the burst")
		f.Var((*count)(e.burst), e.name+"-burst", e.what+" at once")
	}
}

// apply writes the limits into a server's configuration, where a negative rate is none and 0 the default.
func (s *rateSettings) apply(to *server.Config) {
	for _, e := range []struct {
		from rate
		to   *float64
	}{{s.mint, &to.MintRate}, {s.serviceMint, &to.ServiceMintRate}, {s.failure, &to.FailureRate}, {s.leak, &to.LeakRate}} {
		if *e.to = float64(e.from); e.from == 0 {
			*e.to = -1
		}
	}
	to.MintBurst, to.ServiceMintBurst, to.FailureBurst = s.mintBurst, s.serviceMintBurst, s.failureBurst
	to.LeakBurst = s.leakBurst
}
