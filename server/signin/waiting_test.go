package signin_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"patd/tokens/secret"
)

// TestAProviderThatHangsHoldsUpABoundedNumberOfCalls has as many calls wait as may. The next are refused at once, those
// of another provider are served, and those that wait get their answer.
func TestAProviderThatHangsHoldsUpABoundedNumberOfCalls(t *testing.T) {
	t.Parallel()
	const most = 4
	clock := newClock()
	hanging, other := newProvider(t, clock), newProvider(t, clock)
	working := hanging.DiscoveryResponse()
	asked, release := make(chan struct{}), make(chan struct{})
	hanging.Set(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		working(w, r)
	}, nil)
	c := hanging.config()
	c.Issuers = append(c.Issuers, other.config().Issuers...)
	c.MaxWaiting, c.Timeout = most, time.Minute
	s := signIn(t, c)
	good := hanging.Sign(t, hanging.good())

	// More calls than there are places: those for which there is none say so while the provider still hangs.
	refused, signedIn := make(chan error, 3*most), make(chan string, 3*most)
	var ends sync.WaitGroup
	for range 3 * most {
		ends.Go(func() {
			who, err := s.Verify(t.Context(), secret.NewSecret(good))
			if err != nil {
				refused <- err
				return
			}
			signedIn <- who.User
		})
	}
	<-asked
	for range 2 * most {
		<-refused
	}
	wantUnavailable(t, s, good)
	wantUser(t, s, other.Sign(t, other.good()), "alice")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Verify(ctx, secret.NewSecret(good)); err == nil {
		t.Error("a call that is over is answered")
	}
	close(release)
	ends.Wait()
	if len(signedIn) != most || len(refused) != 0 {
		t.Errorf("%d calls were answered, and %d more refused", len(signedIn), len(refused))
	}
	wantUser(t, s, good, "alice")
}
