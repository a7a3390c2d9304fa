package config

import (
	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/server"
)

// rateSettings bound the rates of costly operations per caller.
type rateSettings struct {
	mint, serviceMint, change, serviceChange                     cli.Rate
	exchange, refusal, failure, leak                             cli.Rate
	mintBurst, serviceMintBurst, changeBurst, serviceChangeBurst int
	exchangeBurst, refusalBurst, failureBurst, leakBurst         int
}

func (s *rateSettings) Flags(f *pflag.FlagSet) {
	for _, e := range []struct {
		rate  *cli.Rate
		burst *int
		r     cli.Rate
		b     int
		name  string
		what  string
	}{
		{&s.mint, &s.mintBurst, 1, 100, "mint", "mints and rotations of one signed-in user"},
		{&s.serviceMint, &s.serviceMintBurst, 1000, 20_000, "service-mint", "mints and rotations of one service"},
		{&s.change, &s.changeBurst, 1, 100, "change", "changes other than mints, and again as many revocations, by one signed-in user"},
		{&s.serviceChange, &s.serviceChangeBurst, 2000, 100_000, "service-change", "changes other than mints, and again as many revocations, by one service"},
		{&s.exchange, &s.exchangeBurst, 1, 100, "exchange", "exchanges and refreshes of one personal access token"},
		{&s.refusal, &s.refusalBurst, 1, 100, "refusal-record", "refused attempts of one caller that the audit log records"},
		{&s.failure, &s.failureBurst, 10, 1000, "auth-failure", "bad credentials from one address"},
		{&s.leak, &s.leakBurst, 1, 60, "leak-report", "reports of leaked secrets from one address"},
	} {
		*e.rate, *e.burst = e.r, e.b
		f.Var(e.rate, e.name+"-rate", e.what+" per second, over time; off or 0: no limit, whatever the burst")
		f.Var((*cli.Count)(e.burst), e.name+"-burst", e.what+" at once")
	}
}

// Apply writes the limits into a server's configuration, where a negative rate is none and 0 the default.
func (s *rateSettings) Apply(to *server.Config) {
	for _, e := range []struct {
		from cli.Rate
		to   *float64
	}{
		{s.mint, &to.MintRate}, {s.serviceMint, &to.ServiceMintRate}, {s.change, &to.ChangeRate}, {s.serviceChange, &to.ServiceChangeRate},
		{s.exchange, &to.ExchangeRate}, {s.refusal, &to.RefusalRate}, {s.failure, &to.FailureRate}, {s.leak, &to.LeakRate},
	} {
		if *e.to = float64(e.from); e.from == 0 {
			*e.to = -1
		}
	}
	to.MintBurst, to.ServiceMintBurst, to.FailureBurst = s.mintBurst, s.serviceMintBurst, s.failureBurst
	to.ChangeBurst, to.ServiceChangeBurst, to.ExchangeBurst = s.changeBurst, s.serviceChangeBurst, s.exchangeBurst
	to.RefusalBurst, to.LeakBurst = s.refusalBurst, s.leakBurst
}
