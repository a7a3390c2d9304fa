package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// batchInOrder introspects all the texts in one call.
func batchInOrder(conns []*grpc.ClientConn, secret string, texts []string) call {
	next := 0
	return batchOf(conns, secret, func(*rand.Rand) string { next++; return texts[next-1] }, len(texts))
}

// minted makes tokens of users of their own, and answers their secrets.
func (b *bench) minted(ctx context.Context, n int) ([]*patdv1.CreateTokenResponse, error) {
	users, mints := patdv1.NewUserServiceClient(b.conns[0]), patdv1.NewTokenServiceClient(b.conns[0])
	ctx = bearer(ctx, b.caller)
	out := make([]*patdv1.CreateTokenResponse, n)
	for i := range out {
		user := fmt.Sprintf("bench-%d-%d", time.Now().UnixNano(), i)
		if _, err := users.SetUserFeatures(ctx, &patdv1.SetUserFeaturesRequest{User: user, Features: []string{"reports.read"}}); err != nil {
			return nil, err
		}
		var err error
		if out[i], err = mints.CreateToken(ctx, &patdv1.CreateTokenRequest{User: user, Name: "bench", Scopes: []string{"reports.read"}}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// underLoad keeps introspections in flight while f runs.
func (b *bench) underLoad(ctx context.Context, f func(context.Context) error) error {
	load := &subject{name: "load", server: b.server, inFlight: b.first(), call: unaryCall(b.conns, b.caller, b.texts, "")}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	var over atomic.Bool
	go func() {
		var err error
		for !over.Load() && err == nil {
			_, err = load.measure(ctx, 100*time.Millisecond)
		}
		ended <- err
	}()
	err := f(ctx)
	over.Store(true)
	err = errors.Join(err, <-ended)
	cancel()
	return err
}

// revoke asks about each token at once after its revocation was answered: not one answer may be from before it.
func (b *bench) revoke(ctx context.Context) error {
	made, err := b.minted(ctx, b.revocations)
	if err != nil {
		return err
	}
	stale, seen := 0, 0
	err = b.underLoad(ctx, func(ctx context.Context) error {
		mints, asks := patdv1.NewTokenServiceClient(b.conns[0]), patdv1.NewIntrospectionServiceClient(b.conns[len(b.conns)-1])
		ctx = bearer(ctx, b.caller)
		for _, m := range made {
			before, err := asks.Introspect(ctx, &patdv1.IntrospectRequest{Token: m.GetSecret()})
			if err != nil {
				return err
			}
			if before.GetActive() {
				seen++
			}
			if _, err := mints.RevokeToken(ctx, &patdv1.RevokeTokenRequest{User: m.GetToken().GetUser(), TokenId: m.GetToken().GetTokenId()}); err != nil {
				return err
			}
			after, err := asks.Introspect(ctx, &patdv1.IntrospectRequest{Token: m.GetSecret()})
			if err != nil {
				return err
			}
			if after.GetActive() {
				stale++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if seen != len(made) {
		return fmt.Errorf("only %d of %d tokens were active before", seen, len(made))
	}
	b.note("revoke → refused, same server, under full load: %d revocations, %d stale answers", len(made), stale)
	return nil
}

// memory is what a flood of made-up tokens costs: they are well formed, so that each is looked for.
func (b *bench) memory(ctx context.Context) error {
	before, err := b.server.resident()
	if err != nil {
		return err
	}
	base := &subject{name: "Introspect", server: b.server, inFlight: b.first(), call: unaryCall(b.conns, b.caller, b.texts, "")}
	if err := b.compare(ctx, base); err != nil {
		return err
	}
	quiet := base.typical(cpuOf)
	most, err := b.floodWith(ctx, b.flood)
	if err != nil {
		return err
	}
	after := &subject{name: "Introspect", server: b.server, inFlight: b.first(), call: unaryCall(b.conns, b.caller, b.texts, "")}
	if err := b.compare(ctx, after); err != nil {
		return err
	}
	b.note("memory: %.0f MiB resident with %d tokens warm; while %d made-up tokens were presented at most %.0f MiB; an introspection costs %.2f of what it did before",
		before, b.tokens, b.flood, most, after.typical(cpuOf)/quiet)
	return nil
}

// floodWith presents made-up tokens in batches and answers the most that the server had in memory.
func (b *bench) floodWith(ctx context.Context, n int) (float64, error) {
	const size = 1000
	most := 0.0
	rnd := rand.NewChaCha8([32]byte{9})
	asks := b.conns[0]
	for sent := 0; sent < n; sent += size {
		request := make([]byte, 0, size*80)
		for range size {
			secret, err := tokens.Mint(tokens.PrefixPersonal, tokens.ID(rnd.Uint64()|1), rnd)
			if err != nil {
				return 0, err
			}
			request = protowire.AppendTag(request, 1, protowire.BytesType)
			request = protowire.AppendBytes(request, requestOf(nil, secret.Reveal()))
		}
		var answer raw
		if err := asks.Invoke(bearer(ctx, b.caller), patdv1.IntrospectionService_BatchIntrospect_FullMethodName, &raw{request}, &answer, grpc.ForceCodecV2(rawCodec{})); err != nil {
			return 0, err
		}
		if sent%(100*size) == 0 {
			mib, err := b.server.resident()
			if err != nil {
				return 0, err
			}
			most = max(most, mib)
		}
	}
	return most, nil
}

// percentile is of sorted durations.
func percentile(all []time.Duration, p int) time.Duration {
	slices.Sort(all)
	return all[min(len(all)*p/100, len(all)-1)]
}
