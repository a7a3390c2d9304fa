package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"

	"patd/client"
	"patd/cmd/patbench/internal/rival"
)

// rivalKind is a server that patd is measured beside.
type rivalKind struct {
	name, flag string
	binary     func(settings) string
	start      func(context.Context, rival.Config) (*rival.Server, error)
}

func rivalKinds() []rivalKind {
	return []rivalKind{
		{"OpenBao", "-openbao", func(s settings) string { return s.openbao }, rival.OpenBao},
		{"Ory Hydra", "-hydra", func(s settings) string { return s.hydra }, rival.Hydra},
		{"Unkey", "-unkey", func(s settings) string { return s.unkey }, rival.Unkey},
		{"Redis", "-redis", func(s settings) string { return s.redis }, rival.Redis},
	}
}

// redisOnPath is the Redis that the machine has; empty: none.
func redisOnPath() string {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return ""
	}
	return path
}

// rivals measures patd's ways to be asked and, in the same rounds, the servers whose binaries are named. One that is
// not is said to be absent.
func (b *bench) rivals(ctx context.Context) (err error) {
	subjects, end, err := b.ours(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	for _, kind := range rivalKinds() {
		binary := kind.binary(b.settings)
		if binary == "" {
			b.note("%s is absent: %s names no binary", kind.name, kind.flag)
			continue
		}
		server, rerr := b.startRival(ctx, kind, binary)
		if rerr != nil {
			return rerr
		}
		defer func() { err = errors.Join(err, server.Stop()) }()
		for _, w := range server.Works {
			of := &subject{name: w.Name, server: pid(server.PID()), inFlight: b.first(), call: w.Call}
			subjects = append(subjects, of)
		}
	}
	if err := b.compare(ctx, subjects...); err != nil {
		return err
	}
	b.note("beside rivals, which have %d tokens each; ratios are those to patd's unary calls", b.tokensOfRivals())
	fmt.Fprintln(b.out, "\n| work | in flight | server CPU | calls/s | CPU s per 100k | calls/s | p50 µs | p99 µs |")
	fmt.Fprintln(b.out, "| --- | --- | --- | --- | --- | --- | --- | --- |")
	base := subjects[0]
	for _, s := range subjects {
		ratios := fmt.Sprintf("%s | %s", ratioOf(s, base, cpuOf), ratioOf(s, base, rateOf))
		fmt.Fprintf(b.out, "| %s | %d | %s | %.3f | %.0f | %.0f | %.0f |\n", s.name, s.inFlight, ratios,
			s.typical(cpuOf), s.typical(rateOf), s.typical(p50Of), s.typical(p99Of))
	}
	return nil
}

// tokensOfRivals is how many tokens each rival has.
func (b *bench) tokensOfRivals() int { return min(b.rivalTokens, b.tokens) }

// startRival starts a rival in a directory of its own.
func (b *bench) startRival(ctx context.Context, kind rivalKind, binary string) (*rival.Server, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.work, "rival")
	if err != nil {
		return nil, err
	}
	c := rival.Config{Binary: binary, Dir: dir, Tokens: b.tokensOfRivals(), Workers: b.first()}
	return kind.start(ctx, c)
}

// ours are patd's ways to be asked; the first is unary.
func (b *bench) ours(ctx context.Context) ([]*subject, func() error, error) {
	streams, err := openStreams(ctx, b.conns, b.caller)
	if err != nil {
		return nil, nil, err
	}
	web, url := httpClient(b.first()), b.server.http+"/v1/introspect"
	rest := httpCall(web, url, b.caller, "application/json", jsonBody, b.texts, "")
	end := func() error {
		web.CloseIdleConnections()
		return streams.close()
	}
	of := func(name string, c call) *subject {
		return &subject{name: name, server: b.server, inFlight: b.first(), call: c}
	}
	return []*subject{
		of("patd, Introspect, unary gRPC", unaryCall(b.conns, b.caller, b.texts, "")),
		of("patd, IntrospectStream", streams.call(b.texts)),
		of("patd, BatchIntrospect of 100, a token", batchCall(b.conns, b.caller, b.texts, 100)),
		of("patd, POST /v1/introspect", rest),
	}, end, nil
}

// localInFlight is how many goroutines check tokens without a server at a time, and localTokens how many there are.
const (
	localInFlight = 2
	localTokens   = 1_000
)

// local measures checks without a call to a server: those of the client library, out of memory, and those of JWTs. The
// CPU time is this program's, that of the library's watch and reports included.
func (b *bench) local(ctx context.Context) (err error) {
	texts := b.texts[:min(len(b.texts), localTokens)]
	conn, err := client.Dial(b.server.grpc, client.ServiceToken(b.callersSecret))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	v, err := client.New(conn, client.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	for _, token := range texts {
		if err := verified(ctx, v, token); err != nil {
			return err
		}
	}
	jwts, err := rival.JWTs(ctx, len(texts))
	if err != nil {
		return err
	}
	of := func(name string, c call) *subject {
		return &subject{name: name, server: itself{}, inFlight: localInFlight, call: c}
	}
	library := of("patd, client library", verifyCall(v, texts))
	subjects := []*subject{library}
	for _, w := range jwts {
		subjects = append(subjects, of(w.Name, w.Call))
	}
	if err := b.compare(ctx, subjects...); err != nil {
		return err
	}
	b.note("checks of %d tokens without a server; ratios are those to the client library", len(texts))
	fmt.Fprintln(b.out, "\n| check | goroutines | CPU | time | CPU ns a check | checks/s |")
	fmt.Fprintln(b.out, "| --- | --- | --- | --- | --- | --- |")
	timeOf := func(f figures) float64 { return 1 / f.perSecond }
	for _, s := range subjects {
		fmt.Fprintf(b.out, "| %s | %d | %s | %s | %.0f | %.0f |\n", s.name, s.inFlight, ratioOf(s, library, cpuOf),
			ratioOf(s, library, timeOf), s.typical(cpuOf)*1e4, s.typical(rateOf))
	}
	return nil
}

// verified wants a token to pass, and the result to be about it.
func verified(ctx context.Context, v *client.Verifier, token string) error {
	r, err := v.Verify(ctx, token, client.Call{})
	if err == nil && (!r.Allowed() || r.Token.ID != tokenIDOf(token)) {
		err = fmt.Errorf("wrong answer about %s: %v", tokenIDOf(token), r.Decision)
	}
	return err
}

// verifyCall checks tokens at random, so many a call that the clock is not read between two checks.
func verifyCall(v *client.Verifier, texts []string) call {
	const checks = 500
	return func(ctx context.Context, _ int, rnd *rand.Rand) (int, error) {
		for range checks {
			if err := verified(ctx, v, texts[rnd.IntN(len(texts))]); err != nil {
				return 0, err
			}
		}
		return checks, nil
	}
}
