package client_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/client"
	"patd/client/clienttest"
)

// fails checks that a check fails by a fault.
func (r *rig) fails(what, token string, within time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), within)
	defer cancel()
	got, err := r.verifier.Verify(ctx, token, client.Call{})
	if err == nil {
		r.Fatalf("%s: %s, want an error", what, got.Decision)
	}
	if got.Decision != 0 {
		r.Errorf("%s: an error comes with %s", what, got.Decision)
	}
}

// A connection that hangs brings no news: memory may be used for 3 seconds more, and not a moment longer.
func TestHungConnectionIsNotTrusted(t *testing.T) {
	bubble(t, client.Config{Timeout: time.Second}, func(r *rig) {
		secret, id := r.mint()
		synctest.Wait()
		r.want("before", client.Allow, secret)
		r.server.Hang()
		r.server.Revoke(id) // no watcher is notified
		began := time.Now()
		for time.Since(began) < 20*time.Second {
			ctx, cancel := context.WithTimeout(r.Context(), 10*time.Millisecond)
			got, err := r.verifier.Verify(ctx, secret, client.Call{})
			cancel()
			if err == nil && time.Since(began) > 3*time.Second {
				r.Fatalf("%s after it began to hang: %s", time.Since(began), got.Decision)
			}
			if err != nil && time.Since(began) < time.Second {
				r.Fatalf("%s after it began to hang, memory is not used: %v", time.Since(began), err)
			}
			pass(40 * time.Millisecond)
		}
		r.server.Release()
		for range 100 {
			if got, err := r.verifier.Verify(
				r.Context(),
				secret,
				client.Call{},
			); err == nil &&
				got.Decision != client.Revoked {
				r.Fatalf("after it has hung: %s", got.Decision)
			}
			pass(50 * time.Millisecond)
		}
		r.want("at last", client.Revoked, secret)
	})
}

func TestKilledServerIsNotTrusted(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		r.want("before", client.Allow, secret)
		r.server.Cut()
		pass(1500 * time.Millisecond)
		r.want("within the bound", client.Allow, secret)
		pass(1500 * time.Millisecond)
		for range 10 {
			r.fails("after the bound", secret, time.Second)
			pass(time.Second)
		}
		if r.verifier.Stats().Watching {
			r.Error("it says that it watches")
		}
		r.server.Mend()
		pass(10 * time.Second)
		r.wantAsked(
			"what was known before, once the watch was resumed",
			0,
			func() { r.want("it", client.Allow, secret) },
		)
	})
}

// What happened while the watch was broken is told when it is resumed, before memory is used again.
func TestResumedWatchHasMissedNothing(t *testing.T) {
	bubble(t, client.Config{MaxAge: time.Hour}, func(r *rig) {
		const many = 5000 // more than one message tells
		gone, id := r.mint()
		kept, _ := r.mint()
		synctest.Wait()
		r.want("before", client.Allow, gone)
		r.want("before", client.Allow, kept)
		r.server.Cut()
		pass(time.Minute)
		for i := range many {
			r.server.Suspend(fmt.Sprint("other", i))
		}
		r.server.Revoke(id)
		r.server.Mend()
		for range 200 {
			if got, err := r.verifier.Verify(
				r.Context(),
				gone,
				client.Call{},
			); err == nil &&
				got.Decision != client.Revoked {
				r.Fatalf("the token that was revoked meanwhile: %s", got.Decision)
			}
			pass(25 * time.Millisecond)
		}
		r.wantAsked("the other one", 0, func() { r.want("it", client.Allow, kept) })
	})
}

func TestAnotherHistoryStartsOver(t *testing.T) {
	bubble(t, client.Config{MaxAge: time.Hour}, func(r *rig) {
		secret, id := r.mint()
		other, _ := r.mint()
		synctest.Wait()
		r.want("before", client.Allow, secret)
		r.want("before", client.Allow, other)
		r.server.RevokeQuietly(id)
		r.server.NewHistory()
		pass(3 * time.Second)
		r.want("under another history", client.Revoked, secret)
		r.wantAsked("what was known of the old history", 1, func() { r.want("it", client.Allow, other) })
		r.wantAsked("what is known of the new one", 0, func() { r.want("it", client.Allow, other) })
	})
}

func TestWithoutWatchEachCheckAsks(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, _ := r.mint()
		r.wantAsked("five checks", 5, func() {
			for range 5 {
				r.want("it", client.Allow, secret)
			}
		})
	}, clienttest.WithoutWatch())
}

// A revocation that comes while the answer is under way: the answer was made before, and arrives after the news.
func TestAnswerOvertakenByItsInvalidationIsNotUsed(t *testing.T) {
	for name, change := range map[string]func(r *rig, id string){
		"token":   func(r *rig, id string) { r.server.Revoke(id) },
		"user":    func(r *rig, _ string) { r.server.Suspend("u") },
		"history": func(r *rig, id string) { r.server.RevokeQuietly(id); r.server.NewHistory() },
	} {
		for _, options := range [][]clienttest.Option{nil, {clienttest.WithoutStream()}} {
			t.Run(fmt.Sprint(name, len(options)), func(t *testing.T) {
				bubble(t, client.Config{}, func(r *rig) {
					secret, id := r.mint()
					synctest.Wait()
					r.server.Hold()
					done := make(chan client.Decision)
					go func() {
						got, err := r.verifier.Verify(r.Context(), secret, client.Call{})
						if err != nil && status.Code(err) != codes.Unavailable {
							r.Errorf("the check under way: %v", err)
						}
						done <- got.Decision
					}()
					synctest.Wait()
					if r.server.Holding() != 1 {
						r.Fatal("the server is not asked")
					}
					change(r, id)
					pass(time.Second)
					r.server.Unhold()
					if got := <-done; got == client.Allow {
						r.Error("the check under way passes, though it is known to be outdated")
					}
					if got := r.decide(secret); got == client.Allow {
						r.Error("the next check passes: the outdated answer was remembered")
					}
				}, options...)
			})
		}
	}
}

// A replica that lags behind answers what is known to be outdated. That is not remembered, however long ago the news
// came.
func TestAnswerOfALaggingReplicaIsNotRemembered(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.mint()
		other, _ := r.mint()
		synctest.Wait()
		r.want("before", client.Allow, secret)
		r.server.Freeze()
		r.server.Revoke(id)
		synctest.Wait()
		_ = r.decide(secret) // the replica knows no better
		r.wantAsked("a token that nothing was told of", 1, func() {
			for range 3 {
				r.want("it", client.Allow, other)
			}
		})
		r.server.Thaw()
		r.want("once the replica has caught up", client.Revoked, secret)
	})
}

// What a replica answers from before the watch began is not remembered: nobody told what changed since.
func TestAnswerFromBeforeTheWatchIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := clienttest.Start()
		secret, id := s.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}})
		s.Freeze()
		s.Revoke(id)
		conn := s.Dial()
		v, err := client.New(conn, client.Config{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, _ = v.Verify(t.Context(), secret, client.Call{})
		s.Thaw()
		if got, err := v.Verify(t.Context(), secret, client.Call{}); err != nil || got.Decision != client.Revoked {
			t.Errorf("%s, %v", got.Decision, err)
		}
		v.Close()
		conn.Close()
		s.Close()
	})
}

// What patd asks to have acknowledged is, after it was applied, and nothing else is. That it fails has no effect.
func TestAppliedChangesAreAcknowledged(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.mint()
		synctest.Wait()
		r.want("before", client.Allow, secret)
		pass(2 * time.Second)
		if n := r.server.Calls().Acknowledgements; n != 0 {
			r.Errorf("%d acknowledgements that patd did not ask for", n)
		}
		r.server.AskToAcknowledge(true)
		r.server.Revoke(id)
		synctest.Wait()
		if !r.server.Acknowledged() {
			r.Error("a change is not acknowledged")
		}
		r.wantAsked("a check after the acknowledgement", 1, func() { r.want("after", client.Revoked, secret) })

		secret, id = r.mint()
		synctest.Wait()
		r.want("another", client.Allow, secret)
		r.server.Fail(status.Error(codes.Unavailable, "down"))
		r.server.Revoke(id)
		synctest.Wait()
		if r.server.Acknowledged() {
			r.Fatal("the acknowledgement was to fail")
		}
		r.fails("a check while patd is down", secret, time.Second)
		r.server.Fail(nil)
		pass(1500 * time.Millisecond) // the next heartbeat asks again
		if !r.server.Acknowledged() || !r.verifier.Stats().Watching {
			r.Error("after an acknowledgement failed, the watch does not go on")
		}
	})
}
