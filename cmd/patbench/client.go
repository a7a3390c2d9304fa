package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	patdv1 "patd/gen/patd/v1"

	"patd/client"
)

// checks is how many checks of remembered tokens are timed in one round.
const checks = 2_000_000

// watched is the client library: what a check out of memory takes, and how long a revoked token goes on passing.
func (b *bench) watched(ctx context.Context) (err error) {
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
	took, err := b.remembered(ctx, v)
	if err != nil {
		return err
	}
	b.note(
		"client library, out of memory, 2 goroutines: %s a check (medians of %d rounds of %d; the time of each goroutine)",
		took,
		b.rounds,
		checks,
	)
	return b.forgotten(ctx, v)
}

// callersSecret is the credential of the verifier.
func (b *bench) callersSecret(context.Context) (string, error) { return b.caller, nil }

// remembered times checks of tokens that the verifier has in memory.
func (b *bench) remembered(ctx context.Context, v *client.Verifier) (time.Duration, error) {
	texts := b.texts[:min(len(b.texts), 10_000)]
	for _, token := range texts {
		if r, err := v.Verify(ctx, token, client.Call{}); err != nil || !r.Allowed() {
			return 0, errors.Join(errors.New("a token does not pass"), err)
		}
	}
	var rounds []time.Duration
	for range b.rounds {
		var wg sync.WaitGroup
		errs := make([]error, 2)
		begun := time.Now()
		for g := range errs {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(g), 1))
				for range checks / len(errs) {
					if r, err := v.Verify(ctx, texts[rnd.IntN(len(texts))], client.Call{}); err != nil || !r.Allowed() {
						errs[g] = errors.Join(errors.New("a token does not pass"), err)
						return
					}
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return 0, err
		}
		rounds = append(rounds, time.Since(begun)/(checks/2))
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2], nil
}

// forgotten is how long after the answer of a revocation a verifier lets a token pass, with introspections under way.
func (b *bench) forgotten(ctx context.Context, v *client.Verifier) error {
	made, err := b.minted(ctx, b.revocations)
	if err != nil {
		return err
	}
	var took []time.Duration
	err = b.underLoad(ctx, func(ctx context.Context) error {
		mints := patdv1.NewTokenServiceClient(b.conns[0])
		for _, m := range made {
			if r, err := v.Verify(ctx, m.GetSecret(), client.Call{}); err != nil || !r.Allowed() {
				return errors.Join(errors.New("a token does not pass"), err)
			}
			if _, err := mints.RevokeToken(
				bearer(ctx, b.caller),
				&patdv1.RevokeTokenRequest{User: m.GetToken().GetUser(), TokenId: m.GetToken().GetTokenId()},
			); err != nil {
				return err
			}
			answered := time.Now()
			for wait := time.NewTicker(time.Millisecond); ; <-wait.C {
				r, err := v.Verify(ctx, m.GetSecret(), client.Call{})
				if err != nil {
					return err
				}
				if since := time.Since(answered); !r.Allowed() {
					took = append(took, since)
					wait.Stop()
					break
				} else if since > 10*time.Second {
					return fmt.Errorf("token %s passes 10 s after it was revoked", m.GetToken().GetTokenId())
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(took)
	b.note(
		"revoke → refused, through the client library, under full load: %d revocations, p50 %s, p99 %s, at most %s",
		len(
			took,
		),
		percentile(took, 50).Round(time.Millisecond),
		percentile(took, 99).Round(time.Millisecond),
		took[len(took)-1].Round(time.Millisecond),
	)
	return nil
}
