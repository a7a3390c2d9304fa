package receipt

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"patd/tokens"
)

// TestAReceiptIsQuickWithSeveralServers has three servers whose watches all acknowledge, and one that was killed, stands
// still, or left.
func TestAReceiptIsQuickWithSeveralServers(t *testing.T) {
	const quick, bound = 500 * time.Millisecond, feedTrust + verifierTrust
	of := func(s script) script {
		s.Revoke, s.Wait = 20000, 20000
		s.Servers = []serverScript{{Lag: 5}, {Lag: 5}, {Lag: 5}}
		for home := range 3 {
			s.Verifiers = append(s.Verifiers, verifierScript{Home: home, Acknowledges: true, AckDelay: 5, Latency: 10})
		}
		return s
	}
	short := of(script{Events: []event{{At: 19000, For: 99000, Kind: freezes, Which: 2}}})
	short.Wait = 5000
	starts := of(script{})
	starts.Servers[2].Start = 19990
	for name, c := range map[string]struct {
		script      script
		everywhere  bool
		silent      []string
		least, most time.Duration
	}{
		"all are there":            {of(script{}), true, nil, 0, quick},
		"one starts":               {starts, true, nil, 0, bound / 2},
		"one was killed just now":  {of(script{Events: []event{{At: 19990, Kind: dies, Which: 2}}}), true, nil, bound, bound + 1500*time.Millisecond},
		"one stands still":         {of(script{Events: []event{{At: 19000, For: 99000, Kind: freezes, Which: 2}}}), true, nil, bound, bound + 1500*time.Millisecond},
		"not within a wait":        {short, false, []string{"server:server2"}, 5 * time.Second, 5 * time.Second},
		"one left just now":        {of(script{Events: []event{{At: 19990, Kind: leaves, Which: 2}}}), true, nil, verifierTrust, verifierTrust + 2*time.Second},
		"one left a while ago":     {of(script{Events: []event{{At: 9000, Kind: leaves, Which: 2}}}), true, nil, 0, quick},
		"one stood still and woke": {of(script{Events: []event{{At: 8000, For: 9000, Kind: freezes, Which: 2}}}), true, nil, 0, quick},
	} {
		wrong, got, took := play(t, c.script, asTheyAre)
		if wrong != "" || got.Everywhere != c.everywhere || !slices.Equal(got.Silent, c.silent) || took < c.least ||
			took > c.most {
			t.Errorf("%s: %+v after %v %s", name, got, took, wrong)
		}
	}
}

// TestAKilledServerCostsReceiptsNothingOnceItIsCountedAsGone revokes again and again after a server was killed.
func TestAKilledServerCostsReceiptsNothingOnceItIsCountedAsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		defer running.Wait()
		defer stop()
		store := newModelStore()
		first := store.startServer(ctx, "first", time.Millisecond, &running)
		second := store.startServer(ctx, "second", time.Millisecond, &running)
		first.run()
		second.run()
		pause(ctx, 10*time.Second)
		second.kill()
		began := time.Now()
		var took time.Duration
		for time.Since(began) < silentFor+feedTrust+verifierTrust+2*time.Second {
			store.change()
			at := time.Now()
			got := first.board.Wait(ctx, tokens.Actor{Kind: tokens.OperatorActor}, time.Second)
			if took = time.Since(at); time.Since(began) < feedTrust && got.Everywhere {
				t.Fatalf("%v after it was killed: %+v", time.Since(began), got)
			}
		}
		if took > 50*time.Millisecond {
			t.Errorf("a receipt still takes %v", took)
		}
		pause(ctx, time.Second)
		store.mu.Lock()
		defer store.mu.Unlock()
		if len(store.rows) != 1 {
			t.Errorf("%d servers are kept", len(store.rows))
		}
	})
}
