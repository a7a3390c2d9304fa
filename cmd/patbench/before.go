package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
)

// tokensOfBoth is how many tokens, at most, each of the binaries that the row before compares has made, each of a user
// of its own.
const tokensOfBoth = 1000

// contender is one of two binaries, which serves a store that it has made itself: the schemas may differ.
type contender struct {
	server *process
	conns  []*grpc.ClientConn
	caller string
	texts  []string
}

// before compares the binary with an earlier one.
func (b *bench) before(ctx context.Context) (err error) {
	if b.earlier == "" {
		b.note("no earlier binary to compare with: -before names none")
		return nil
	}
	var both [2]*contender
	for i, binary := range []string{b.earlier, b.patd} {
		if both[i], err = b.contender(ctx, binary, fmt.Sprint("contender-", i)); err != nil {
			return fmt.Errorf("prepare %s: %w", binary, err)
		}
		defer func() { err = errors.Join(err, closeAll(both[i].conns), both[i].server.stop()) }()
	}
	for _, row := range []struct {
		what string
		call func(*contender) (call, func() error, error)
	}{
		{"Introspect, unary gRPC", func(c *contender) (call, func() error, error) {
			return unaryCall(c.conns, c.caller, c.texts, ""), nothing, nil
		}},
		{"IntrospectStream", func(c *contender) (call, func() error, error) {
			s, err := openStreams(ctx, c.conns, c.caller)
			if err != nil {
				return nil, nil, err
			}
			return s.call(c.texts), s.close, nil
		}},
		{"BatchIntrospect of 100, a token", func(c *contender) (call, func() error, error) {
			return batchCall(c.conns, c.caller, c.texts, 100), nothing, nil
		}},
		{"POST /v1/introspect", func(c *contender) (call, func() error, error) {
			client := httpClient(b.first())
			end := func() error { client.CloseIdleConnections(); return nil }
			return httpCall(client, c.server.http+"/v1/introspect", c.caller, "application/json", jsonBody, c.texts, ""), end, nil
		}},
	} {
		var subjects [2]*subject
		var ends [2]func() error
		for i, c := range both {
			subjects[i] = &subject{name: row.what, server: c.server, inFlight: b.first()}
			if subjects[i].call, ends[i], err = row.call(c); err != nil {
				return err
			}
		}
		if err := errors.Join(b.compare(ctx, subjects[:]...), ends[0](), ends[1]()); err != nil {
			return err
		}
		b.line(row.what+", against the binary before", subjects[1], subjects[0])
	}
	return nil
}

func nothing() error { return nil }

// contender starts a binary on a new store, and has it make tokens.
func (b *bench) contender(ctx context.Context, binary, name string) (*contender, error) {
	one := *b
	one.patd = binary
	d := dataset{dir: filepath.Join(b.work, name)}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	var c contender
	var err error
	if one.caller, err = one.service(ctx, d, "admin"); err != nil {
		return nil, err
	}
	if c.server, err = one.startPatd(ctx, d); err != nil {
		return nil, err
	}
	c.caller = one.caller
	var made []*patdv1.CreateTokenResponse
	if c.conns, err = dial(c.server, b.settings.conns); err == nil {
		one.conns = c.conns
		made, err = one.minted(ctx, min(tokensOfBoth, b.tokens))
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(c.conns), c.server.stop())
	}
	for _, m := range made {
		c.texts = append(c.texts, m.GetSecret())
	}
	return &c, nil
}
