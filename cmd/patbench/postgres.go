package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
)

// postgres is unary's call to a server whose store is in PostgreSQL, with the same tokens, against the one whose store
// is a file: with a warm cache neither is asked.
func (b *bench) postgres(ctx context.Context) (err error) {
	if b.database == "" {
		b.note("the row postgres needs -database-url")
		return nil
	}
	server, err := b.startOnPostgres(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	conns, err := dial(server, b.settings.conns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(conns)) }()
	if err := b.warm(ctx, server, conns); err != nil {
		return err
	}
	base := &subject{
		name:     "SQLite",
		server:   b.server,
		inFlight: b.first(),
		call:     unaryCall(b.conns, b.caller, b.texts, ""),
	}
	s := &subject{
		name:     "PostgreSQL",
		server:   server,
		inFlight: b.first(),
		call:     unaryCall(conns, b.caller, b.texts, ""),
	}
	if err := b.compare(ctx, base, s); err != nil {
		return err
	}
	b.line("Introspect, unary gRPC, warm, store in PostgreSQL against SQLite", s, base)
	return nil
}

// startOnPostgres copies the dataset into the database and serves it from there.
func (b *bench) startOnPostgres(ctx context.Context) (*process, error) {
	began := time.Now()
	file := filepath.Join(b.data.dir, "patd.db")
	//nolint:gosec // our own command
	move := exec.CommandContext(
		ctx,
		b.patd,
		"copy",
		"--from",
		"sqlite:"+file,
		"--to",
		b.database,
	)
	if out, err := move.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the store: %w: %s", err, out)
	}
	b.note("%d tokens copied to PostgreSQL and verified in %s", b.tokens, time.Since(began).Round(time.Millisecond))
	return start(
		ctx,
		"patd on PostgreSQL",
		nil,
		b.patd,
		"serve",
		"--database-url",
		b.database,
		"--hash-key-file",
		filepath.Join(b.data.dir, "hash.key"),
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
		"--log-format",
		"json",
	)
}

func closeAll(conns []*grpc.ClientConn) error {
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
