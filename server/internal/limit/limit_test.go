package limit_test

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/internal/longtest"
	"patd/server/internal/limit"
)

// clock is a clock that tests set.
type clock struct{ at time.Time }

func newClock() *clock { return &clock{at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time         { return c.at }
func (c *clock) wait(d time.Duration)   { c.at = c.at.Add(d) }
func (c *clock) seconds() time.Duration { return c.at.Sub(newClock().at) }

func limiter(t testing.TB, c limit.Config) *limit.Limiter {
	t.Helper()
	l, err := limit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestConfigIsChecked(t *testing.T) {
	for _, bad := range []limit.Config{
		{Burst: 1}, {Rate: -1, Burst: 1}, {Rate: math.NaN(), Burst: 1}, {Rate: math.Inf(1), Burst: 1}, {Rate: 1},
		{Rate: 1, Burst: -1}, {Rate: 1e-9, Burst: 1}, {Rate: 1e-3, Burst: math.MaxInt}, {Rate: 1, Burst: 1, MaxKeys: -1},
		{Rate: 1, Burst: 1, MaxKeys: 1 << 27},
	} {
		if _, err := limit.New(bad); err == nil {
			t.Errorf("New(%+v) is taken", bad)
		}
	}
	for _, good := range []limit.Config{{Rate: 1, Burst: 1}, {Rate: 1e9, Burst: 1}, {Rate: 1.0 / 86400, Burst: 100}, {Rate: 1, Burst: 1, MaxKeys: 1}} {
		if _, err := limit.New(good); err != nil {
			t.Errorf("New(%+v): %v", good, err)
		}
	}
}

func TestNilLimiterLimitsNothing(t *testing.T) {
	var l *limit.Limiter
	for range 1000 {
		l.Fail(limit.Name("a"))
		if ok, after := l.Allow(limit.Name("a")); !ok || after != 0 {
			t.Fatal("refused")
		}
		if blocked, after := l.Blocked(limit.Name("a")); blocked || after != 0 {
			t.Fatal("blocked")
		}
	}
}

func TestBurstThenRate(t *testing.T) {
	c := newClock()
	l := limiter(t, limit.Config{Rate: 2, Burst: 3, Now: c.now})
	k := limit.Name("a")
	for i := range 3 {
		if ok, after := l.Allow(k); !ok || after != 0 {
			t.Fatalf("call %d of the burst: %v, %s", i, ok, after)
		}
	}
	if ok, after := l.Allow(k); ok || after != 500*time.Millisecond {
		t.Fatalf("past the burst: %v, %s", ok, after)
	}
	if ok, _ := l.Allow(limit.Name("b")); !ok {
		t.Fatal("another key pays for it")
	}
	c.wait(500*time.Millisecond - 1)
	if ok, after := l.Allow(k); ok || after != 1 {
		t.Fatalf("a nanosecond early: %v, %s", ok, after)
	}
	c.wait(1)
	if ok, _ := l.Allow(k); !ok {
		t.Fatal("refused after waiting as told")
	}
	c.wait(time.Hour)
	for range 3 {
		if ok, _ := l.Allow(k); !ok {
			t.Fatal("the burst did not come back")
		}
	}
	if ok, _ := l.Allow(k); ok {
		t.Fatal("more than a burst came back")
	}
}

// However keys are mixed and crowded out, no key is allowed more than burst + rate × t in any span, and whoever waits
// as told, alone, is allowed. A table of eight places for thirty keys is under a flood most of the time.
func TestNoKeyExceedsItsBoundInAnyWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		rate, burst := rapid.Float64Range(0.01, 1000).Draw(t, "rate"), rapid.IntRange(1, 20).Draw(t, "burst")
		l, err := limit.New(
			limit.Config{
				Rate:    rate,
				Burst:   burst,
				MaxKeys: rapid.SampledFrom([]int{1, 16, 1000}).Draw(t, "keys"),
				Now:     c.now,
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		allowed := map[int][]time.Duration{}
		for range rapid.IntRange(1, 300).Draw(t, "calls") {
			c.wait(time.Duration(rapid.Int64Range(0, int64(1e9/rate)).Draw(t, "wait")))
			i := rapid.IntRange(0, 29).Draw(t, "key")
			k := key(i)
			blocked, told := l.Blocked(k)
			ok, after := l.Allow(k)
			if ok == blocked || after != told || ok != (after == 0) {
				t.Fatalf("Blocked says %v, %s; Allow says %v, %s", blocked, told, ok, after)
			}
			if !ok && rapid.Bool().Draw(t, "patient") {
				c.wait(after)
				if ok, again := l.Allow(k); !ok {
					t.Fatalf("refused after waiting %s as told: %s more", after, again)
				} else {
					allowed[i] = append(allowed[i], c.seconds())
				}
			} else if ok {
				allowed[i] = append(allowed[i], c.seconds())
			}
		}
		for i, times := range allowed {
			for from := range times {
				for to := from; to < len(times); to++ {
					span := (times[to] - times[from]).Seconds()
					if n := float64(to - from + 1); n > float64(burst)+rate*span+1e-6 {
						t.Fatalf(
							"key %d was allowed %v times in %v s at %v per second and a burst of %d",
							i,
							n,
							span,
							rate,
							burst,
						)
					}
				}
			}
		}
	})
}

// A key that had to share a coarse bucket, and then gets a place, does not get a second burst with it.
func TestPlaceOfItsOwnIsNoSecondBurst(t *testing.T) {
	c := newClock()
	l := limiter(t, limit.Config{Rate: 1, Burst: 2, MaxKeys: 8, Now: c.now})
	for i := range 8 {
		l.Fail(limit.Name(fmt.Sprint("in its place ", i)))
	}
	k, allowed := limit.Name("late"), 0
	for range 10 {
		if ok, _ := l.Allow(k); ok {
			allowed++
		}
	}
	c.wait(time.Second) // all places are free again, and one token is back
	for range 10 {
		if ok, _ := l.Allow(k); ok {
			allowed++
		}
	}
	if allowed != 2+1 {
		t.Errorf("allowed %d times in a second, want a burst of 2 and 1", allowed)
	}
}

func key(i int) limit.Key {
	if i%2 == 0 {
		return limit.Name(fmt.Sprint("caller ", i))
	}
	return limit.Address(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
}

func TestFailuresBlockAndSuccessIsFree(t *testing.T) {
	c := newClock()
	l := limiter(t, limit.Config{Rate: 1, Burst: 2, Now: c.now})
	k := limit.Address(netip.MustParseAddr("192.0.2.1"))
	for range 1000 {
		if blocked, _ := l.Blocked(k); blocked {
			t.Fatal("looking costs something")
		}
	}
	l.Fail(k)
	if blocked, _ := l.Blocked(k); blocked {
		t.Fatal("blocked before the burst was used up")
	}
	l.Fail(k)
	if blocked, after := l.Blocked(k); !blocked || after != time.Second {
		t.Fatalf("after the burst: %v, %s", blocked, after)
	}
	c.wait(time.Second)
	if blocked, _ := l.Blocked(k); blocked {
		t.Fatal("blocked after waiting as told")
	}
	for range 1000 { // attempts that were under way together
		l.Fail(k)
	}
	blocked, after := l.Blocked(k)
	if !blocked || after != 2*time.Second {
		t.Fatalf("the debt is not one burst: %v, %s", blocked, after)
	}
	c.wait(after)
	if blocked, _ := l.Blocked(k); blocked {
		t.Fatal("blocked after waiting as told")
	}
}

func TestAddressesThatAreOneKey(t *testing.T) {
	for _, pair := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"fe80::1%eth0", "fe80::2%eth1", true},
		{"0.0.0.0", "::", false},
	} {
		a, b := limit.Address(netip.MustParseAddr(pair.a)), limit.Address(netip.MustParseAddr(pair.b))
		if (a == b) != pair.same {
			t.Errorf("%s and %s: one key %v, want %v", pair.a, pair.b, a == b, pair.same)
		}
	}
	if a, b := limit.Address(netip.Addr{}), limit.Address(netip.Addr{}.Unmap()); a != b {
		t.Error("callers without an address have many keys")
	}
	if limit.Name("192.0.2.1") == limit.Address(netip.MustParseAddr("192.0.2.1")) ||
		limit.Name("") == limit.Address(netip.Addr{}) {
		t.Error("a name and an address are one key")
	}
}

// strangers makes addresses, each another /64 or IPv4 address, out of the given network.
func strangers(i int) limit.Key {
	if i%2 == 0 {
		return limit.Address(netip.AddrFrom4([4]byte{100, byte(i >> 17), byte(i >> 9), byte(i >> 1)}))
	}
	return limit.Address(
		netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 25), byte(i >> 17), byte(i >> 9), byte(i >> 1)}),
	)
}

// A million addresses in one moment: memory stays what it was, the limited stay limited, the known keep their own
// bucket, the flood gets no more than the table and its coarse buckets hold, and strangers elsewhere are served.
func TestFloodOfAddresses(t *testing.T) {
	longtest.Slow(t)
	const maxKeys, burst, flood = 1 << 14, 5, 1_000_000
	c := newClock()
	before := heap()
	l := limiter(t, limit.Config{Rate: 0.1, Burst: burst, MaxKeys: maxKeys, Now: c.now})
	limited := make([]limit.Key, 100)
	for i := range limited {
		limited[i] = limit.Name(fmt.Sprint("limited ", i))
		for ok := true; ok; {
			ok, _ = l.Allow(limited[i])
		}
	}
	known := limit.Name("known")
	if ok, _ := l.Allow(known); !ok {
		t.Fatal("the known caller is refused before the flood")
	}

	admitted := 0
	for i := range flood {
		if ok, _ := l.Allow(strangers(i)); ok {
			admitted++
		}
	}
	if most := maxKeys + maxKeys/8*burst; admitted > most {
		t.Errorf("the flood was allowed %d times, at most %d were to be", admitted, most)
	}
	if grown := int64(heap()) - int64(before); grown > 17*maxKeys+64<<10 { // and what else is on the heap
		t.Errorf("memory grew by %d bytes for %d keys", grown, maxKeys)
	}
	for i, k := range limited {
		if ok, after := l.Allow(k); ok || after != 10*time.Second {
			t.Fatalf("limited key %d after the flood: %v, %s", i, ok, after)
		}
	}
	for range burst - 1 {
		if ok, _ := l.Allow(known); !ok {
			t.Error("the known caller pays for the flood")
		}
	}

	// The coarse buckets that the flood drew on are dry; a network of 2048 of them that it did not is untouched.
	served, asked := 0, 1000
	for i := range asked {
		if blocked, _ := l.Blocked(limit.Address(netip.AddrFrom4([4]byte{198, 18, byte(i), 1}))); !blocked {
			served++
		}
	}
	t.Logf("admitted %d of %d, %d of %d strangers served during the flood", admitted, flood, served, asked)
	c.wait(10 * time.Second)
	if blocked, _ := l.Blocked(limit.Address(netip.MustParseAddr("198.18.0.1"))); blocked {
		t.Error("a stranger is still refused after the flood")
	}
	runtime.KeepAlive(l)
}

// A flood out of one /48 takes every place of the table and is held to what one coarse bucket gives; a stranger from
// elsewhere is served all the while.
func TestFloodFromOneNetworkStaysThere(t *testing.T) {
	const burst = 5
	c := newClock()
	l := limiter(t, limit.Config{Rate: 0.1, Burst: burst, MaxKeys: 1 << 12, Now: c.now})
	for i := range 1 << 16 {
		l.Fail(limit.Address(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, byte(i >> 8), byte(i)})))
	}
	blocked := 0
	for i := range 1000 {
		if b, _ := l.Blocked(limit.Address(netip.AddrFrom4([4]byte{192, 0, byte(i >> 2), byte(i)}))); b {
			blocked++
		}
	}
	if blocked > 20 { // one coarse bucket of 512 is dry; four addresses here share each /24
		t.Errorf("%d of 1000 strangers are blocked by a flood from another network", blocked)
	}
	if b, _ := l.Blocked(limit.Address(netip.MustParseAddr("2001:db8:1:ffff:ffff::1"))); !b {
		t.Error("the flooding network is not blocked")
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestBoundHoldsForManyAtOnce(t *testing.T) {
	const burst, keys, workers, calls = 50, 40, 8, 3000
	c := newClock()
	l := limiter(t, limit.Config{Rate: 1, Burst: burst, MaxKeys: 8, Now: c.now})
	var allowed [keys]atomic.Int64
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range calls {
				n := (i + w) % keys
				if ok, _ := l.Allow(limit.Name(fmt.Sprint(n))); ok {
					allowed[n].Add(1)
				}
				if i%100 == 0 {
					l.Fail(limit.Name("somebody who fails"))
					l.Blocked(limit.Name("somebody who fails"))
				}
			}
		})
	}
	all.Wait()
	sum := int64(0)
	for n := range allowed {
		sum += allowed[n].Load()
		if got := allowed[n].Load(); got > burst {
			t.Errorf("key %d was allowed %d times at one moment", n, got)
		}
	}
	if sum < burst {
		t.Errorf("only %d calls were allowed", sum)
	}
}

func TestClockSetBackRefusesNobodyForLong(t *testing.T) {
	c := newClock()
	l := limiter(t, limit.Config{Rate: 1, Burst: 1, Now: c.now})
	c.wait(-time.Hour)
	if ok, _ := l.Allow(limit.Name("a")); !ok {
		t.Fatal("refused")
	}
	if ok, after := l.Allow(limit.Name("a")); ok || after != time.Second {
		t.Fatalf("%v, %s", ok, after)
	}
}
