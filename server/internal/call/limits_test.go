package call

import (
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/server/internal/metrics"
	"patd/tokens"
)

// TestAFloodOfAddressesTakesNoMemory has a million addresses fail, each of which is remembered or shares a bucket.
func TestAFloodOfAddressesTakesNoMemory(t *testing.T) {
	longtest.Slow(t)
	now := time.Now()
	l, err := NewLimits(LimitsConfig{FailureBurst: 1, Now: func() time.Time { return now }}, metrics.New("test"))
	if err != nil {
		t.Fatal(err)
	}
	bad := BadCredential("bad")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 1_000_000 {
		_ = l.Failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), nil, bad)
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew by %d bytes", after-before)
	}
	if err := l.Failed(netip.MustParseAddr("10.0.0.1"), nil, bad); errors.Is(err, bad) {
		t.Error("the first of them is forgotten")
	}
	runtime.KeepAlive(l)
}

// TestDefaultLimits are those that Config documents.
func TestDefaultLimits(t *testing.T) {
	now := time.Now()
	l, err := NewLimits(LimitsConfig{Now: func() time.Time { return now }}, metrics.New("test"))
	if err != nil {
		t.Fatal(err)
	}
	mints := Right{mints: true}
	for _, c := range []struct {
		name  string
		spend func() bool
		burst int
		rate  int
	}{
		{"a user's mints", func() bool {
			return l.spend(t.Context(), mints, tokens.Actor{Kind: tokens.UserActor, User: "u"}) == nil
		}, 100, 1},
		{"a service's mints", func() bool {
			return l.spend(t.Context(), mints, tokens.Actor{Kind: tokens.ServiceActor, Name: "s"}) == nil
		}, 20_000, 1000},
		{"refusals", func() bool { return l.Recordable(tokens.Actor{Kind: tokens.ServiceActor, Name: "s"}) }, 100, 1},
		{"a user's changes", func() bool {
			return l.spend(t.Context(), Right{}, tokens.Actor{Kind: tokens.UserActor, User: "u"}) == nil
		}, 100, 1},
		{"a user's revocations", func() bool {
			return l.spend(t.Context(), Right{ends: true}, tokens.Actor{Kind: tokens.UserActor, User: "u"}) == nil
		}, 100, 1},
		{"a service's changes", func() bool {
			return l.spend(t.Context(), Right{}, tokens.Actor{Kind: tokens.ServiceActor, Name: "s"}) == nil
		}, 100_000, 2000},
		{"a service's revocations", func() bool {
			return l.spend(t.Context(), Right{ends: true}, tokens.Actor{Kind: tokens.ServiceActor, Name: "s"}) == nil
		}, 100_000, 2000},
		{"a token's exchanges", func() bool {
			return l.Exchange(t.Context(), tokens.Actor{Kind: tokens.TokenActor, TokenID: 1}) == nil
		}, 100, 1},
		{"bad credentials", func() bool {
			bad := BadCredential("bad")
			return errors.Is(l.Failed(netip.MustParseAddr("192.0.2.1"), nil, bad), bad)
		}, 1000, 10},
	} {
		count := func() (n int) {
			for c.spend() {
				n++
			}
			return n
		}
		if n := count(); n != c.burst {
			t.Errorf("%s: %d at once, want %d", c.name, n, c.burst)
		}
		now = now.Add(time.Second)
		if n := count(); n != c.rate {
			t.Errorf("%s: %d a second, want %d", c.name, n, c.rate)
		}
	}
}

func TestTextsThatHoldAJWTAreWithheld(t *testing.T) {
	const jwt = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
	for _, text := range []string{jwt, "verify " + jwt + ": no", "a" + jwt, "%22" + jwt, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "(ewogImFsZyI6ICJub25lIn0.e30.)", "ewogImFsZyI6ICJub25lIn0.e30."} {
		if SafeText(text) == text || loggable(text) != "" {
			t.Errorf("%q is not withheld", text)
		}
	}
	for _, text := range []string{
		"service:gateway", "token:15ODq7pq8Hy", "dial tcp: lookup eyes.example.com: no such host", "user:alice@example.com", "patd.v1.TokenService/GetToken",
		"open /var/lib/patd/new_connections_file.db: no space", "user:newest_member_of_the.team", "v1.26.8", "ewe.example",
	} {
		if SafeText(text) != text || loggable(text) != text {
			t.Errorf("%q is withheld", text)
		}
	}
}
