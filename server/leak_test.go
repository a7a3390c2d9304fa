package server_test

import (
	"context"
	"log/slog"
	"runtime"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/server"
)

// TestStreamsAndWatchesLeaveNothingBehind opens and ends thousands of them. That no goroutine is left is checked after
// each round, and once more at the end of all tests.
func TestStreamsAndWatchesLeaveNothingBehind(t *testing.T) {
	longtest.Slow(t)
	r := newRig(t, func(c *server.Config) { c.Logger = slog.New(slog.DiscardHandler) }) // the rig keeps what is logged
	_, secret := r.mint("u1", "a")
	conn, err := grpc.NewClient(r.srv.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	client := patdv1.NewIntrospectionServiceClient(conn)
	round := func() {
		ctx, cancel := context.WithCancel(as(r.admin))
		defer cancel()
		for range 50 {
			w, err := client.WatchInvalidations(ctx, &patdv1.WatchInvalidationsRequest{})
			must(t, err)
			_, err = w.Recv()
			must(t, err)
			s, err := client.IntrospectStream(ctx)
			must(t, err)
			ask(t, s, 1, secret)
			answered(t, s)
		}
	}
	// What is made once is made, and as many watches have ended as the server remembers for its receipts at most, some
	// seconds long.
	for range 1024/50 + 1 {
		round()
	}
	goroutines := 0
	settle := func() uint64 {
		waittest.Until(
			t,
			"all have ended",
			func() bool { return goroutines == 0 || runtime.NumGoroutine() <= goroutines },
		)
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools held goes at the second
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	waittest.Until(t, "the first have ended", func() bool {
		n := runtime.NumGoroutine()
		ended := n == goroutines
		goroutines = n
		return ended
	})
	before := settle()
	const rounds = 20
	for range rounds {
		round()
		settle()
	}
	const each = 256 // bytes; the least that is kept of a stream by mistake takes more
	if after := settle(); after > before+rounds*100*each {
		t.Errorf("the heap grew by %d bytes for %d streams", after-before, rounds*100)
	} else {
		t.Logf("the heap went from %d to %d bytes", before, after)
	}
}
