package client_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"patd/client"
	"patd/client/clienttest"
)

// remembering is a Verifier with tokens in memory.
func remembering(b testing.TB, many int, call client.Call) (*client.Verifier, []string) {
	s := clienttest.NewServer(b)
	secrets := make([]string, many)
	for i := range secrets {
		secrets[i], _ = s.Mint(clienttest.Token{
			User:       "u",
			Name:       "n",
			Scopes:     []string{"bills.read", "bills.write", "reports.read", "reports.write"},
			ExpireTime: time.Now().Add(time.Hour),
		})
	}
	v, err := client.New(s.Conn(b), client.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { v.Close() })
	for deadline := time.Now().Add(time.Minute); !v.Stats().Watching; {
		if time.Now().After(deadline) {
			b.Fatal("the watch is not heard")
		}
		_, _ = v.Verify(b.Context(), secrets[0], call)
	}
	for _, secret := range secrets {
		if got, err := v.Verify(b.Context(), secret, call); err != nil || !got.Allowed() {
			b.Fatalf("%+v, %v", got, err)
		}
	}
	return v, secrets
}

var usual = client.Call{
	Audience: "reports",
	Scopes:   []string{"reports.read"},
	ClientIP: netip.MustParseAddr("192.0.2.1"),
}

func TestRememberedCheckAllocatesNothing(t *testing.T) {
	v, secrets := remembering(t, 10, usual)
	i := 0
	if got := testing.AllocsPerRun(1000, func() {
		if got, err := v.Verify(t.Context(), secrets[i%len(secrets)], usual); err != nil || !got.Allowed() {
			t.Fatalf("%+v, %v", got, err)
		}
		i++
	}); got > 0 {
		t.Errorf("%v allocations a check", got)
	}
}

// BenchmarkVerifyCached is a check out of memory, of tokens in random order and by all processors at once. The figure
// to reach is below a microsecond with two, and no allocation.
func BenchmarkVerifyCached(b *testing.B) {
	v, secrets := remembering(b, 10_000, usual)
	before := v.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		ctx := b.Context()
		order := rand.New(rand.NewPCG(rand.Uint64(), 0))
		for pb.Next() {
			got, err := v.Verify(ctx, secrets[order.IntN(len(secrets))], usual)
			if err != nil || !got.Allowed() {
				b.Fatalf("%+v, %v", got, err)
			}
		}
	})
	b.StopTimer()
	if s := v.Stats(); s.Hits-before.Hits < uint64(b.N)*99/100 {
		b.Errorf("%d of %d checks out of memory", s.Hits-before.Hits, b.N)
	}
}

// BenchmarkVerifyOneToken is the same with one token for all, which is where processors meet.
func BenchmarkVerifyOneToken(b *testing.B) {
	v, secrets := remembering(b, 1, usual)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx := b.Context()
		for pb.Next() {
			if got, err := v.Verify(ctx, secrets[0], usual); err != nil || !got.Allowed() {
				b.Fatalf("%+v, %v", got, err)
			}
		}
	})
}

// BenchmarkVerifyGarbage is a flood of text that is no token.
func BenchmarkVerifyGarbage(b *testing.B) {
	v, secrets := remembering(b, 1, usual)
	garbage := secrets[0][:len(secrets[0])-1] + "!"
	b.ReportAllocs()
	for b.Loop() {
		if got, err := v.Verify(b.Context(), garbage, usual); err != nil || got.Decision != client.NotFound {
			b.Fatalf("%+v, %v", got, err)
		}
	}
}
