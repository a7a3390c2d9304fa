package limit_test

import (
	"testing"

	"patd/server/internal/limit"
)

func BenchmarkAllow(b *testing.B) {
	for _, bench := range []struct {
		name string
		key  func(i int) limit.Key
	}{
		{"one name", func(int) limit.Key { return limit.Name("service:gateway") }},
		{"a million addresses", func(i int) limit.Key { return strangers(i % 1_000_000) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			l := limiter(b, limit.Config{Rate: 1, Burst: 10})
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for i := 0; p.Next(); i++ {
					l.Allow(bench.key(i))
				}
			})
		})
	}
}

func BenchmarkBlocked(b *testing.B) {
	l := limiter(b, limit.Config{Rate: 1, Burst: 10})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Blocked(strangers(i % 1_000_000))
	}
}
