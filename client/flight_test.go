package client_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/client"
	"patd/client/clienttest"
)

func TestConcurrentMissesAskOnce(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		r.server.Hold()
		r.wantAsked("a hundred checks at once", 1, func() {
			go func() {
				synctest.Wait()
				r.server.Unhold()
			}()
			all(100, func(int) {
				if got := r.decide(secret, "read"); got != client.Allow {
					r.Errorf("one of them: %s", got)
				}
			})
		})
	})
}

// Without a watch nobody vouches for an answer that was asked for before a check began.
func TestUnwatchedCheckTakesNoOlderAnswer(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.mint()
		r.server.Hold()
		first := make(chan client.Decision)
		go func() { first <- r.decide(secret) }()
		synctest.Wait()
		r.server.Revoke(id)
		pass(time.Millisecond)
		late := make(chan client.Decision)
		const many = 20
		for range many {
			go func() { late <- r.decide(secret) }()
		}
		synctest.Wait()
		r.server.Step()
		if got := <-first; got != client.Allow {
			r.Errorf("the check from before: %s", got)
		}
		synctest.Wait()
		r.server.Unhold()
		for range many {
			if got := <-late; got != client.Revoked {
				r.Errorf("a check from after the revocation: %s", got)
			}
		}
		if got := r.asked(); got != 2 {
			r.Errorf("asked %d times, want 2", got)
		}
	}, clienttest.WithoutWatch())
}

func TestWhoGivesUpFailsAloneAndInTime(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		r.server.Hold()
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		patient := make(chan client.Decision)
		gone := make(chan error)
		go func() {
			_, err := r.verifier.Verify(ctx, secret, client.Call{})
			gone <- err
		}()
		synctest.Wait()
		go func() { patient <- r.decide(secret) }()
		began := time.Now()
		if err := <-gone; err == nil || time.Since(began) != time.Second {
			r.Errorf("who gives up after a second: %v after %s", err, time.Since(began))
		}
		r.server.Unhold()
		if got := <-patient; got != client.Allow {
			r.Errorf("who waits: %s", got)
		}
	})
}

func TestQuestionsInFlightAreBounded(t *testing.T) {
	bubble(t, client.Config{MaxInFlight: 3}, func(r *rig) {
		secrets := make([]string, 10)
		for i := range secrets {
			secrets[i], _ = r.mint()
		}
		synctest.Wait()
		r.server.Hold()
		go func() {
			synctest.Wait()
			if got := r.server.Holding(); got != 3 {
				r.Errorf("%d questions under way, want 3", got)
			}
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			more, _ := r.mint()
			if _, err := r.verifier.Verify(ctx, more, client.Call{}); err == nil {
				r.Error("who waits for its turn longer than it likes gets an answer")
			}
			r.server.Unhold()
		}()
		all(len(secrets), func(i int) {
			if got := r.decide(secrets[i]); got != client.Allow {
				r.Errorf("token %d: %s", i, got)
			}
		})
	})
}

func TestNobodyWaitsForItsTurnForEver(t *testing.T) {
	bubble(t, client.Config{MaxInFlight: 1, Timeout: 3 * time.Second}, func(r *rig) {
		first, _ := r.mint()
		second, _ := r.mint()
		synctest.Wait()
		r.server.Hold()
		all(10, func(i int) {
			token, want := second, codes.Unavailable
			if i == 0 {
				token, want = first, codes.DeadlineExceeded
			} else {
				pass(time.Second) // the first is under way
			}
			_, err := r.verifier.Verify(r.Context(), token, client.Call{})
			if got := status.Code(
				err,
			); got != want && got != codes.DeadlineExceeded ||
				time.Since(r.began) > 10*time.Second {
				r.Errorf("check %d: %v after %s", i, err, time.Since(r.began))
			}
		})
	})
}

// A stream that breaks with questions on it loses none.
func TestBrokenStreamLosesNoQuestion(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		for range 20 {
			r.server.Hold()
			done := make(chan error)
			fresh, _ := r.mint()
			go func() {
				_, err := r.verifier.Verify(r.Context(), fresh, client.Call{})
				done <- err
			}()
			synctest.Wait()
			r.server.Drop()
			r.server.Unhold()
			if err := <-done; err != nil {
				r.Fatalf("the question on the stream: %v", err)
			}
			pass(time.Second)
		}
		if c := r.server.Calls(); c.Streamed == 0 {
			r.Error("the stream is not used")
		}
		r.want("after it", client.Allow, secret)
	})
}

// A stream that answers nothing any more is given up, and questions find another way.
func TestDeadStreamIsGivenUp(t *testing.T) {
	bubble(t, client.Config{Timeout: time.Second}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		r.server.Hold()
		r.fails("the question that is never answered", secret, time.Minute)
		pass(time.Second)
		if c := r.server.Calls(); c.Streams != 2 {
			r.Errorf("%d streams were opened, want 2", c.Streams)
		}
		r.server.Unhold()
		pass(time.Second)
		r.want("the next", client.Allow, secret)
	})
}

func TestOlderServerIsAskedByCalls(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		for range 3 {
			secret, _ := r.mint()
			r.want("a token", client.Allow, secret)
		}
		if c := r.server.Calls(); c.Unary != 3 {
			r.Errorf("calls: %+v", c)
		}
	}, clienttest.WithoutStream())
}
