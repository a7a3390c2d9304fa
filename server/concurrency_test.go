package server_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

const together = 64

// allTogether runs fn in many goroutines that start at once.
func allTogether(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			fn(i)
		})
	}
	close(start)
	wg.Wait()
}

func TestRotateAgainstRotateLeavesAtMostTwoLiveSecrets(t *testing.T) {
	t.Parallel()
	newRigs(t, rotateAgainstRotate)
}

func rotateAgainstRotate(t *testing.T, r *rig) {
	id, first := r.mint("u1", "a")
	secrets := make([]string, 16)
	allTogether(len(secrets), func(i int) {
		resp, err := patdv1.NewTokenServiceClient(r.conn).
			RotateToken(as(r.admin), &patdv1.RotateTokenRequest{User: "u1", TokenId: id, Force: true})
		if err != nil {
			t.Error(err)
			return
		}
		secrets[i] = resp.GetSecret()
	})
	count := map[patdv1.IntrospectResponse_Decision]int{}
	for _, s := range append(secrets, first) {
		count[r.introspect(s)]++
	}
	if count[patdv1.IntrospectResponse_ALLOW] != 2 || count[patdv1.IntrospectResponse_SUPERSEDED] != len(secrets)-1 {
		t.Errorf("after %d rotations: %v", len(secrets), count)
	}
}

// TestOneOfManyRotationsIsMade holds that rotations at the same time end no secret that a caller was just given.
func TestOneOfManyRotationsIsMade(t *testing.T) { newRigs(t, oneOfManyRotations) }

func oneOfManyRotations(t *testing.T, r *rig) {
	id, first := r.mint("u1", "a")
	var made atomic.Pointer[string]
	allTogether(16, func(int) {
		resp, err := patdv1.NewTokenServiceClient(r.conn).
			RotateToken(as(r.admin), &patdv1.RotateTokenRequest{User: "u1", TokenId: id})
		switch {
		case err == nil && made.Swap(&resp.Secret) != nil:
			t.Error("a second rotation was made")
		case err != nil && reasonIn(err) != "ROTATION_IN_PROGRESS":
			t.Error(err)
		}
	})
	for _, s := range []string{first, *made.Load()} {
		if d := r.introspect(s); d != patdv1.IntrospectResponse_ALLOW {
			t.Errorf("a secret in its time is %v", d)
		}
	}
}

// TestRevokedTokenIsNeverAllowed introspects without a pause, over gRPC and REST, while tokens are revoked. An
// introspection that started after the revocation had been answered must not say ALLOW.
func TestRevokedTokenIsNeverAllowed(t *testing.T) { newRigs(t, revokeAgainstIntrospect) }

func revokeAgainstIntrospect(t *testing.T, r *rig) {
	const rounds, watchers = 20, 4
	for i := range rounds {
		id, secret := r.mint("u1", fmt.Sprint(i))
		var revoked, stop atomic.Bool
		var wg sync.WaitGroup
		for w := range watchers {
			wg.Go(func() {
				for last := false; !last; {
					last = stop.Load()
					after := revoked.Load()
					d := decisionBy(r, w%2 == 0, secret)
					if after && d != patdv1.IntrospectResponse_REVOKED {
						t.Errorf("after its revocation was answered the token is %s", d)
						return
					}
				}
			})
		}
		_, err := patdv1.NewTokenServiceClient(r.conn).
			RevokeToken(as(r.admin), &patdv1.RevokeTokenRequest{User: "u1", TokenId: id})
		revoked.Store(true)
		for range 5 {
			if d := decisionBy(r, true, secret); d != patdv1.IntrospectResponse_REVOKED {
				t.Errorf("after its revocation was answered the token is %s", d)
			}
		}
		stop.Store(true)
		wg.Wait()
		must(t, err)
	}
}

func decisionBy(r *rig, overGRPC bool, secret string) patdv1.IntrospectResponse_Decision {
	if overGRPC {
		resp, err := patdv1.NewIntrospectionServiceClient(r.conn).
			Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret})
		if err != nil {
			r.t.Error(err)
		}
		return resp.GetDecision()
	}
	return patdv1.IntrospectResponse_Decision(patdv1.IntrospectResponse_Decision_value[restDecision(r, secret)])
}

func TestOneNameIsTakenOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	var made, taken atomic.Int32
	allTogether(together, func(i int) {
		_, err := patdv1.NewTokenServiceClient(r.conn).CreateToken(as(r.admin), &patdv1.CreateTokenRequest{
			User: "u1", Name: []string{"Deploy", "deploy", "DEPLOY"}[i%3], Scopes: []string{"a"},
		})
		switch reason, _ := grpcReason(err); {
		case err == nil:
			made.Add(1)
		case status.Code(err) == codes.AlreadyExists && reason == "NAME_TAKEN":
			taken.Add(1)
		default:
			t.Error(err)
		}
	})
	if made.Load() != 1 || taken.Load() != together-1 {
		t.Errorf("made %d, taken %d", made.Load(), taken.Load())
	}
}

func TestLimitHoldsAgainstManyAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	const before = 80
	for i := range before {
		_, err := r.svc.Mint(
			context.Background(),
			tokens.Operator(),
			tokens.MintRequest{User: "u1", Name: fmt.Sprint(i), Scopes: []string{"a"}},
		)
		must(t, err)
	}
	var made, refused atomic.Int32
	allTogether(together, func(i int) {
		_, err := patdv1.NewTokenServiceClient(r.conn).
			CreateToken(as(r.admin), &patdv1.CreateTokenRequest{User: "u1", Name: fmt.Sprint("x", i), Scopes: []string{"a"}})
		switch reason, _ := grpcReason(err); {
		case err == nil:
			made.Add(1)
		case reason == "TOKEN_LIMIT_REACHED":
			refused.Add(1)
		default:
			t.Error(err)
		}
	})
	if made.Load() != 100-before || refused.Load() != together-(100-before) {
		t.Errorf("made %d, refused %d", made.Load(), refused.Load())
	}
}

func TestOneIdempotencyKeyMintsOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	secrets := make([]string, together)
	allTogether(together, func(i int) {
		resp, err := patdv1.NewTokenServiceClient(r.conn).CreateToken(as(r.admin), &patdv1.CreateTokenRequest{
			User: "u1", Name: "a", Scopes: []string{"a"}, RequestId: "0123456789abcdef",
		})
		if err != nil {
			t.Error(err)
		}
		secrets[i] = resp.GetSecret()
	})
	for _, s := range secrets {
		if s == "" || s != secrets[0] {
			t.Fatal("two secrets, or none, came of one idempotency key")
		}
	}
}
