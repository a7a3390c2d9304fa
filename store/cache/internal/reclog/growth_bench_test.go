package reclog

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"patd/internal/cputime"
)

// tokenBytes is the size of the record of a token whose scopes others have too.
const tokenBytes = 136

// grown are as many logs as a cache has, with n records of that size.
type grown struct {
	n     int
	logs  [64]Log
	mu    sync.Mutex
	looks []float64 // CPU time of a look in ns, by round
	reads []float64 // of two reads at random, of which the second depends on the first
}

// idOf is the id of the nth record: like a token's, the time in milliseconds before 22 bits at random.
func idOf(n int) uint64 {
	return uint64(200_000_000_000+n*1000)<<22 | uint64(n)*2654435761&(1<<22-1)
}

func (g *grown) log(id uint64) *Log { return &g.logs[Spread(id)>>32%uint64(len(g.logs))] }

// growTo fills logs. The garbage collector comes often, so that the memory of smaller indexes is soon used again.
func growTo(b *testing.B, n int) *grown {
	b.Helper()
	needed := n * (tokenBytes + 16)
	if free := available(b); free < needed+4<<30 {
		b.Skipf("%d records take %d MiB, and %d are free", n, needed>>20, free>>20)
	}
	g := &grown{n: n}
	for i := range g.logs {
		g.logs[i].Init(Config{Room: n/len(g.logs)*(tokenBytes+indexCost)*5/4 + 1<<20})
	}
	record := make([]byte, tokenBytes)
	for i := range n {
		id := idOf(i)
		binary.LittleEndian.PutUint64(record[againAt:], id)
		if _, ok := g.log(id).Put(Make(record, id)); !ok {
			b.Fatal("there is no room")
		}
	}
	for i := range g.logs {
		if s := g.logs[i].Stats(); s.Evicted > 0 {
			b.Fatalf("%d records went for want of room", s.Evicted)
		}
	}
	return g
}

// available is the memory that the machine has left, in bytes.
func available(b *testing.B) int {
	b.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Skip("what memory is free cannot be told here")
	}
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		b.Fatal(err)
	}
	return kib << 10
}

// bytesEach is what a record takes, its part of the index and the room that segments have left included.
func (g *grown) bytesEach() float64 {
	sum := 0
	for i := range g.logs {
		sum += len(g.logs[i].index.slots) * 8
		for _, s := range g.logs[i].segments {
			sum += cap(s)
		}
	}
	return float64(sum) / float64(g.n)
}

const looksPerRound = 100_000

// look looks up records at random.
func (g *grown) look(b *testing.B, rnd *rand.Rand) {
	for range looksPerRound {
		id := idOf(rnd.IntN(g.n))
		r := g.log(id).Look(&g.mu, id)
		if r == nil || binary.LittleEndian.Uint64(r[againAt:]) != id {
			b.Fatal("another record, or none")
		}
	}
}

// read reads the same memory as look, without looking anything up: a slot, and then a word of a segment.
func (g *grown) read(rnd *rand.Rand) (sum uint64) {
	for range looksPerRound {
		l := &g.logs[rnd.Uint64()%uint64(len(g.logs))]
		v := l.view.Load()
		slot := v.slots[rnd.Uint64()&uint64(len(v.slots)-1)]
		s := v.segments[(slot^sum)%uint64(len(v.segments))]
		sum += binary.LittleEndian.Uint64(s[(slot*golden>>20)%uint64(len(s)-8):])
	}
	return sum
}

func (g *grown) round(b *testing.B, rnd *rand.Rand) {
	b.Helper()
	t0 := cputime.Process()
	g.look(b, rnd)
	t1 := cputime.Process()
	sum := g.read(rnd)
	t2 := cputime.Process()
	if sum == 1 {
		b.Log("what was read is used")
	}
	g.looks = append(g.looks, float64(t1-t0)/looksPerRound)
	g.reads = append(g.reads, float64(t2-t1)/looksPerRound)
}

// BenchmarkGrowth fills logs of 100,000, 1,000,000 and PATD_BENCH_RECORDS records, and looks records up in all of them
// in turn. The figures are medians over the rounds, with their range: bytes a record, the CPU time of a look, and how
// much longer that takes than in the smallest, beside how much longer reading memory at random does.
func BenchmarkGrowth(b *testing.B) {
	sizes := []int{100_000, 1_000_000}
	for s := range strings.SplitSeq(os.Getenv("PATD_BENCH_RECORDS"), ",") {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatalf("PATD_BENCH_RECORDS: %v", err)
		}
		sizes = append(sizes, n)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	var all []*grown
	for _, n := range sizes {
		all = append(all, growTo(b, n))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	const rounds = 21
	for range rounds {
		for _, g := range all {
			g.round(b, rnd)
		}
	}
	for b.Loop() { // nothing is timed by the framework
		continue
	}
	b.ReportMetric(0, "ns/op")
	small := all[0]
	for _, g := range all {
		var grows, beside []float64
		for i := range rounds {
			grows = append(grows, g.looks[i]/small.looks[i])
			beside = append(beside, grows[i]/(g.reads[i]/small.reads[i]))
		}
		b.Logf("%9d records: %.1f bytes each; a look %s ns, two reads %s ns; growth from %d %s, beside the reads' %s",
			g.n, g.bytesEach(), spread(g.looks), spread(g.reads), small.n, spread(grows), spread(beside))
	}
}

// spread is the median of figures, with their range.
func spread(of []float64) string {
	list := slices.Sorted(slices.Values(of))
	text := func(f float64) string { return strconv.FormatFloat(f, 'g', 3, 64) }
	return text(list[len(list)/2]) + " (" + text(list[0]) + "–" + text(list[len(list)-1]) + ")"
}
