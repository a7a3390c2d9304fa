package replicatest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
)

// aFirstUseRetiresEverywhereInTime rotates tokens so that the first use of the new secret ends the old one, uses the
// new one on one replica, by a client that has already answered about it from its memory where it may, and looks when
// all replicas and all clients refuse the old one.
func aFirstUseRetiresEverywhereInTime(t *testing.T, c *cluster) {
	var clients []*client.Verifier
	for _, r := range c.replicas {
		v, err := client.New(r.now().conn, client.Config{})
		must(t, err)
		t.Cleanup(func() { must(t, v.Close()) })
		clients = append(clients, v)
	}
	must(t, c.replicas[0].now().hold(t.Context(), "retires", "a", "b"))
	f := &freshness{}
	for round := range 12 {
		if err := f.retire(t.Context(), c, clients, round); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("the old secret after the first use of the new one: %s", f)
	if f.stale > 0 || f.quantile(100) > bound {
		t.Errorf("%s: want none over %s, none stale", f, bound)
	}
}

func (f *freshness) retire(ctx context.Context, c *cluster, clients []*client.Verifier, round int) error {
	home := round % len(c.replicas)
	at := c.replicas[home].now()
	tok, _, err := at.mint(ctx, "retires", fmt.Sprint(round), "")
	if err != nil {
		return err
	}
	passes := func(n int, secret, scope string) (bool, error) {
		r, err := clients[n].Verify(ctx, secret, client.Call{Scopes: []string{scope}})
		return r.Allowed(), err
	}
	all := func(secret string) error {
		for n := range clients {
			for range 3 {
				if ok, err := passes(n, secret, "a"); err != nil || !ok {
					return fmt.Errorf("a secret in its time is refused by client %d: %w", n, errors.Join(err))
				}
			}
		}
		return nil
	}
	if err := all(tok.secret); err != nil {
		return err
	}
	rotated, err := c.replicas[(home+1)%len(c.replicas)].now().tokens.RotateToken(ctx, &patdv1.RotateTokenRequest{
		User: tok.user, TokenId: tok.id, Grace: durationpb.New(time.Hour), RetirePrevious: patdv1.Rotation_ON_FIRST_USE,
	})
	if err != nil {
		return err
	}
	// A scope that it lacks is no use, and leaves no answer in the client's memory from which the first use could pass.
	if ok, err := untilKnown(ctx, func() (bool, error) {
		r, err := clients[home].Verify(ctx, rotated.GetSecret(), client.Call{Scopes: []string{"nope"}})
		return r.Decision == client.InsufficientScope, err
	}); err != nil || !ok {
		return fmt.Errorf("a new secret without the scope: %w", errors.Join(err))
	}
	if err := all(tok.secret); err != nil {
		return err
	}
	if ok, err := passes(home, rotated.GetSecret(), "a"); err != nil || !ok {
		return fmt.Errorf("the first use is refused: %w", errors.Join(err))
	}
	used := time.Now()
	if got, err := at.decide(ctx, tok.secret); err != nil || got != superseded {
		f.stale++
	}
	for n := range clients {
		for {
			ok, err := passes(n, tok.secret, "a")
			if err != nil {
				return err
			}
			got, err := c.replicas[n].now().decide(ctx, tok.secret)
			if err != nil {
				return err
			}
			if !ok && got == superseded {
				break
			}
			if time.Since(used) > patience {
				return fmt.Errorf("client %d passes %v, its replica says %s", n, ok, got)
			}
			await(ctx, 5*time.Millisecond, 6*time.Millisecond)
		}
		f.add(time.Since(used))
	}
	return all(rotated.GetSecret())
}

// untilKnown repeats what a replica may say no to, because it has not received the rotation yet.
func untilKnown(ctx context.Context, try func() (bool, error)) (ok bool, err error) {
	for end := time.Now().Add(bound); time.Now().Before(end) && await(ctx, 5*time.Millisecond, 6*time.Millisecond); {
		if ok, err = try(); ok || err != nil {
			return ok, err
		}
	}
	return ok, err
}
