package server_test

import (
	"context"
	"sync"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
	"patd/tokens/secret"
)

// asks has a service ask for a token on the rig's one connection. gRPC sends the same header value once, and names it
// by its place in HPACK's table then, so that the server may remember who sent it.
func (r *rig) asks(service, token string) (*patdv1.IntrospectResponse, error) {
	return patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(as(service), &patdv1.IntrospectRequest{Token: token})
}

// asksOften has the server remember a service, if it remembers any.
func (r *rig) asksOften(t *testing.T, service, token string) {
	t.Helper()
	for range 5 {
		if got, err := r.asks(service, token); err != nil || !got.GetActive() {
			t.Fatalf("%v, %v", got, err)
		}
	}
}

// TestARememberedCallerIsAskedAgainAfterEachChange changes what the access of a service rests on, while its credential
// is the one that was proven last on its connection: the very next call is refused.
func TestARememberedCallerIsAskedAgainAfterEachChange(t *testing.T) {
	t.Parallel()
	newRigs(t, func(t *testing.T, r *rig) {
		ctx := context.Background()
		_, token := r.mint("u1", "a")
		keys := r.keys.Get()
		for _, c := range []struct {
			name   string
			change func(service string)
			reason string
		}{
			{"revoked", r.endService, "TOKEN_REVOKED"},
			{"rotated", func(service string) {
				_, err := r.svc.RotateService(
					ctx,
					tokens.Operator(),
					tokens.RotateServiceRequest{Name: service, Grace: new(time.Duration)},
				)
				must(t, err)
			}, "TOKEN_SUPERSEDED"},
			{"key-gone", func(string) {
				other, err := secret.ParseKeys("k2:202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f")
				must(t, err)
				r.keys.Set(other)
			}, "KEY_UNAVAILABLE"},
			{"expired", func(string) { r.wait(400 * tokens.Day) }, "TOKEN_EXPIRED"},
		} {
			service := r.service(c.name, "introspect")
			r.asksOften(t, service, token)
			c.change(c.name)
			got, err := r.asks(service, "no token")
			if reason, _ := grpcReason(err); reason != c.reason {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
			r.keys.Set(keys)
		}
	})
}

// TestRememberedCallersAreNotMixedUp has services with different rights ask at the same time, on one connection.
func TestRememberedCallersAreNotMixedUp(t *testing.T) {
	t.Parallel()
	newRigs(t, func(t *testing.T, r *rig) {
		_, token := r.mint("u1", "a")
		good, bad := r.service("good", "introspect"), r.service("bad", "catalog")
		var ends sync.WaitGroup
		for w := range 4 {
			ends.Go(func() {
				for range 100 {
					if w%2 == 0 {
						if got, err := r.asks(good, token); err != nil || !got.GetActive() {
							t.Errorf("who may ask gets %v, %v", got, err)
						}
						continue
					}
					got, err := r.asks(bad, token)
					if reason, _ := grpcReason(err); reason != "PERMISSION_DENIED" {
						t.Errorf("who may not ask gets %v, %v", got, err)
					}
				}
			})
		}
		ends.Wait()
	})
}
