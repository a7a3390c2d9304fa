package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bench is what rows share: a store, and the servers once a row has needed them.
type bench struct {
	settings
	work     string
	out      io.Writer
	data     dataset
	texts    []string
	services int

	server, echo     *process
	conns, echoConns []*grpc.ClientConn
	caller           string // secret of a service that may do everything
	echoToken        []string
}

// newBench makes or opens the store and starts the servers.
func newBench(ctx context.Context, s settings, work string, out io.Writer) (*bench, error) {
	b := &bench{settings: s, work: work, out: out}
	var err error
	if b.data, err = generated(ctx, s.dir, s.tokens, out); err != nil {
		return nil, err
	}
	if b.texts, err = b.data.presentable(ctx, s.working); err != nil {
		return nil, err
	}
	b.echoToken = b.texts[:1]
	if b.caller, err = b.service(ctx, b.data, "admin"); err != nil {
		return nil, err
	}
	if b.server, err = b.startPatd(ctx, b.data); err != nil {
		return nil, err
	}
	if b.echo, err = startEcho(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	if b.conns, err = dial(b.server, s.conns); err == nil {
		b.echoConns, err = dial(b.echo, s.conns)
	}
	if err == nil {
		err = b.warm(ctx, b.server, b.conns)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) close() error {
	errs := []error{closeAll(b.conns), closeAll(b.echoConns)}
	for _, p := range []*process{b.server, b.echo} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	return errors.Join(errs...)
}

// warm presents every token of the working set once, in batches.
func (b *bench) warm(ctx context.Context, server *process, conns []*grpc.ClientConn) error {
	begun := time.Now()
	const size = 100
	next := make(chan int)
	errs := make(chan error, len(conns))
	for w := range len(conns) {
		go func() {
			var failed error
			for from := range next {
				if failed != nil {
					continue
				}
				part := b.texts[from:min(from+size, len(b.texts))]
				_, failed = batchInOrder(conns, b.caller, part)(ctx, w, nil)
			}
			errs <- failed
		}()
	}
	for from := 0; from < len(b.texts); from += size {
		next <- from
	}
	close(next)
	var err error
	for range len(conns) {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	mib, err := server.resident()
	fmt.Fprintf(
		b.out,
		"%d tokens presented once each in %s; %s's resident memory is %.0f MiB\n\n",
		len(b.texts),
		time.Since(begun).Round(time.Millisecond),
		server.name,
		mib,
	)
	return err
}

func (b *bench) heading() {
	fmt.Fprintf(
		b.out,
		"%d tokens, %d rounds of %s each in turn, %d connections; median (least–most) of the rounds' ratios\n\n",
		b.tokens,
		b.rounds,
		b.period,
		b.settings.conns,
	)
	fmt.Fprintln(
		b.out,
		"| work | in flight | server CPU against baseline | calls/s against baseline | p99 against baseline | CPU s per 100k | calls/s | p50 µs | p99 µs | baseline's CPU s | written besides, µs a token |",
	)
	fmt.Fprintln(b.out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
}

func (b *bench) line(what string, s, base *subject) {
	beside := ""
	if b.settle > 0 {
		beside = fmt.Sprintf("%.2f", s.beside.Seconds()*1e6)
	}
	fmt.Fprintf(b.out, "| %s | %d | %s | %s | %s | %.3f | %.0f | %.0f | %.0f | %.3f | %s |\n", what, s.inFlight,
		ratioOf(s, base, cpuOf), ratioOf(s, base, rateOf), ratioOf(s, base, p99Of),
		s.typical(cpuOf), s.typical(rateOf), s.typical(p50Of), s.typical(p99Of), base.typical(cpuOf), beside)
}

func (b *bench) note(format string, args ...any) { fmt.Fprintf(b.out, "\n"+format+"\n", args...) }

// first is the number of calls in flight of rows that are measured with one.
func (b *bench) first() int { return b.inFlight[0] }

func (b *bench) baseline(inFlight int) *subject {
	return &subject{
		name:     "echo",
		server:   b.echo,
		inFlight: inFlight,
		call:     unaryCall(b.echoConns, b.caller, b.echoToken, echoTokenID),
	}
}

// unary is one call a token.
func (b *bench) unary(ctx context.Context) error {
	for _, n := range b.inFlight {
		base := b.baseline(n)
		s := &subject{
			name:     "Introspect",
			server:   b.server,
			inFlight: n,
			call:     unaryCall(b.conns, b.caller, b.texts, ""),
		}
		if err := b.compareSettled(ctx, base, s); err != nil {
			return err
		}
		b.line("Introspect, unary gRPC, warm, against echo", s, base)
	}
	return nil
}

// stream is many calls on one stream.
func (b *bench) stream(ctx context.Context) error {
	base := b.baseline(b.first())
	streams, err := openStreams(ctx, b.conns, b.caller)
	if status.Code(err) == codes.Unimplemented {
		b.note("IntrospectStream is not served")
		return nil
	}
	if err != nil {
		return err
	}
	s := &subject{name: "IntrospectStream", server: b.server, inFlight: b.first(), call: streams.call(b.texts)}
	if err := errors.Join(b.compareSettled(ctx, base, s), streams.close()); err != nil {
		return err
	}
	b.line("IntrospectStream, warm, against echo", s, base)
	return nil
}

// batch is a hundred tokens a call; the baseline is one call of echo.
func (b *bench) batch(ctx context.Context) error {
	const size = 100
	base := b.baseline(b.first())
	s := &subject{
		name:     "BatchIntrospect",
		server:   b.server,
		inFlight: b.first(),
		call:     batchCall(b.conns, b.caller, b.texts, size),
	}
	if err := b.compareSettled(ctx, base, s); err != nil {
		return err
	}
	b.line("BatchIntrospect of 100, a token against a call of echo", s, base)
	return nil
}

// rest is the JSON form of Introspect.
func (b *bench) rest(ctx context.Context) error {
	return b.overHTTP(ctx, "POST /v1/introspect, against echo-http", "/v1/introspect", "application/json", jsonBody)
}

// oauth is the form of RFC 7662.
func (b *bench) oauth(ctx context.Context) error {
	return b.overHTTP(
		ctx,
		"POST /oauth2/introspect, against echo-http",
		"/oauth2/introspect",
		"application/x-www-form-urlencoded",
		formBody,
	)
}

func (b *bench) overHTTP(ctx context.Context, what, path, contentType string, body func(string) string) error {
	client := httpClient(b.first())
	defer client.CloseIdleConnections()
	base := &subject{
		name:     "echo-http",
		server:   b.echo,
		inFlight: b.first(),
		call:     httpCall(client, b.echo.http+path, b.caller, contentType, body, b.echoToken, echoTokenID),
	}
	s := &subject{
		name:     path,
		server:   b.server,
		inFlight: b.first(),
		call:     httpCall(client, b.server.http+path, b.caller, contentType, body, b.texts, ""),
	}
	_, err := s.call(ctx, 0, rand.New(rand.NewPCG(1, 1)))
	if errors.Is(err, errNotServed) {
		b.note("%s is not served", path)
		return nil
	}
	if err == nil {
		err = b.compareSettled(ctx, base, s)
	}
	if err != nil {
		return err
	}
	b.line(what, s, base)
	return nil
}

// start is how long a server takes until it is ready.
func (b *bench) start(ctx context.Context) error {
	var took []time.Duration
	for range b.rounds {
		p, err := b.startPatd(ctx, b.data)
		if err != nil {
			return err
		}
		took = append(took, p.ready.Round(time.Millisecond))
		if err := p.stop(); err != nil {
			return err
		}
	}
	b.note("start-up with %d tokens, time to ready: %s", b.tokens, took)
	return nil
}
