package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
)

// batchInOrder introspects all the texts in one call.
func batchInOrder(conns []*grpc.ClientConn, secret string, texts []string) call {
	next := 0
	return batchOf(conns, secret, func(*rand.Rand) string { next++; return texts[next-1] }, len(texts))
}

// minted makes tokens of users of their own, and returns their secrets.
func (b *bench) minted(ctx context.Context, n int) ([]*patdv1.CreateTokenResponse, error) {
	users, mints := patdv1.NewUserServiceClient(b.conns[0]), patdv1.NewTokenServiceClient(b.conns[0])
	ctx = bearer(ctx, b.caller)
	out := make([]*patdv1.CreateTokenResponse, n)
	for i := range out {
		user := fmt.Sprintf("bench-%d-%d", time.Now().UnixNano(), i)
		if _, err := users.SetUserFeatures(
			ctx,
			&patdv1.SetUserFeaturesRequest{User: user, Features: []string{"reports.read"}},
		); err != nil {
			return nil, err
		}
		var err error
		if out[i], err = mints.CreateToken(
			ctx,
			&patdv1.CreateTokenRequest{User: user, Name: "bench", Scopes: []string{"reports.read"}},
		); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// underLoad keeps introspections in flight while f runs.
func (b *bench) underLoad(ctx context.Context, f func(context.Context) error) error {
	load := &subject{
		name:     "load",
		server:   b.server,
		inFlight: b.first(),
		call:     unaryCall(b.conns, b.caller, b.texts, ""),
	}
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
		mints, asks := patdv1.NewTokenServiceClient(
			b.conns[0],
		), patdv1.NewIntrospectionServiceClient(
			b.conns[len(b.conns)-1],
		)
		ctx = bearer(ctx, b.caller)
		for _, m := range made {
			before, err := asks.Introspect(ctx, &patdv1.IntrospectRequest{Token: m.GetSecret()})
			if err != nil {
				return err
			}
			if before.GetActive() {
				seen++
			}
			if _, err := mints.RevokeToken(
				ctx,
				&patdv1.RevokeTokenRequest{User: m.GetToken().GetUser(), TokenId: m.GetToken().GetTokenId()},
			); err != nil {
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
	if stale > 0 {
		return fmt.Errorf("%d tokens were still active after their revocation had been answered", stale)
	}
	return nil
}

// percentile is of sorted durations.
func percentile(all []time.Duration, p int) time.Duration {
	return all[min(len(all)*p/100, len(all)-1)]
}
