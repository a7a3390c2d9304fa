package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
)

var builtPatd = flag.String("patd", "", "the program that tests of memory run; empty: it is built")

const (
	// unknownBudget is the default of --unknown-caller-memory.
	unknownBudget = 64 << 20
	// unknownMargin is what strangers may cost beside their messages: connections and streams, and garbage, of which
	// the collector lets as much gather as it does of calls by anybody.
	unknownMargin = 64 << 20
)

// programToMeasure is the real program, built for this test. This test binary, which stands in for the program
// elsewhere, may be one that looks for races, which takes several times the memory.
func programToMeasure(t *testing.T) string {
	t.Helper()
	if *builtPatd != "" {
		return *builtPatd
	}
	program := filepath.Join(t.TempDir(), "patd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build patd: %v\n%s", err, out)
	}
	return program
}

// attacked is a server of the real program with a token to introspect. env is what its environment has besides.
func attacked(t *testing.T, env ...string) (d *daemon, good func(context.Context) error) {
	var err error
	t.Helper()
	dir := t.TempDir()
	data, admin := administer(t)
	d, err = startAs(programToMeasure(t), dir, append(os.Environ(), env...), "serve", "--data-dir", data,
		"--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--log-level", "error")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.End)
	a := connect(t, d, admin)
	_, err = a.users.SetUserFeatures(t.Context(), &patdv1.SetUserFeaturesRequest{User: "u", Features: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	secret := a.mint(t, "u", "n", "a")
	return d, func(ctx context.Context) error {
		got, err := a.introspect.Introspect(ctx, &patdv1.IntrospectRequest{Token: secret})
		if err == nil && got.GetDecision() != patdv1.IntrospectResponse_ALLOW {
			err = fmt.Errorf("the decision is %s", got.GetDecision())
		}
		return err
	}
}

var memoryLine = regexp.MustCompile(`(?m)^(VmHWM|VmRSS):\s+(\d+) kB$`)

// memory is what the process holds, and the most that it held since forgetPeak.
func (d *daemon) memory(t *testing.T) (now, peak int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, m := range memoryLine.FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(m[2])
		found[m[1]] = n << 10
	}
	return found["VmRSS"], found["VmHWM"]
}

func (d *daemon) forgetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.Cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestStrangersCostNoMoreThanTheirBudget has clients without a good credential, from 8 addresses, send each endpoint
// that there is the worst messages of their size, 24 at once, and then 1500 messages that never end to all endpoints.
// What the process grows by, at its peak, is the budget of unknown callers and a margin at most.
func TestStrangersCostNoMoreThanTheirBudget(t *testing.T) {
	longtest.Only(t)
	if longtest.Race {
		t.Skip("what it measures is another process")
	}
	// What the process holds is measured, not how long garbage may lie: by default that may grow to four times what is
	// in use.
	d, good := attacked(t, "GOGC=50")
	for range 2000 { // what serving takes anyway
		if err := good(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	calls, all, without := worstCalls(t, d), strangers(t, d, true), 1500
	before, _ := d.memory(t)
	most := map[string]int{}
	for _, c := range calls {
		d.forgetPeak(t)
		atOnce(t.Context(), all, c)
		_, peak := d.memory(t)
		most[c.endpoint] = max(most[c.endpoint], peak-before)
	}
	d.forgetPeak(t)
	taken, end := unfinished(t, d, calls, without)
	_, peak := d.memory(t)
	end()
	most[fmt.Sprint("unfinished messages, ", taken, " of them taken")] = peak - before
	worst := ""
	for endpoint, growth := range most {
		if growth > most[worst] {
			worst = endpoint
		}
		if growth > unknownBudget+unknownMargin {
			t.Errorf("%s: the process grows by %d MiB, more than the %d MiB of unknown callers and a margin of %d MiB",
				endpoint, growth>>20, unknownBudget>>20, unknownMargin>>20)
		}
	}
	t.Logf("%d endpoints, %d kinds of messages; from %d MiB the process grew by %d MiB at most, by %s",
		len(most), len(calls), before>>20, most[worst]>>20, worst)
	if err := good(t.Context()); err != nil {
		t.Errorf("introspection afterwards: %v", err)
	}
}

// TestStrangersDoNotSlowDownGoodIntrospections has clients without a good credential send the worst messages of all
// endpoints, 24 at once and each again 100 ms after its answer, and holds the 99th percentile of good introspections to
// five times what it is without them. Both are measured in turn, in many short rounds. What else the machine does only
// adds, to either, so that the better rounds of both are held against each other; and there are more rounds while it
// is too busy to say. It runs alone.
func TestStrangersDoNotSlowDownGoodIntrospections(t *testing.T) {
	longtest.Alone(t)
	const most, fewest, rounds = 5, 8, 32
	d, good := attacked(t)
	calls, all := worstCalls(t, d), strangers(t, d, false)
	// So that each round has its share of all kinds.
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	measure(t, good) // what the first calls take
	var alone, among []time.Duration
	times := func() float64 { return float64(better(among)) / float64(better(alone)) }
	for len(alone) < fewest || times() > most && len(alone) < rounds {
		d.settle(t)
		alone = append(alone, measure(t, good))
		stop := keepSending(t.Context(), all, calls)
		among = append(among, measure(t, good))
		stop()
	}
	t.Logf("the p99 of good introspections is %.1f times as long among strangers: %v of %v, without %v of %v", times(),
		better(among), among, better(alone), alone)
	if times() > most {
		t.Errorf("want %d times at most", most)
	}
}

// better is what a quarter of the rounds reach.
func better(of []time.Duration) time.Duration { return slices.Sorted(slices.Values(of))[len(of)/4] }

// settle waits until the server has done what it was sent: it takes no time of the processor for a while.
func (d *daemon) settle(t *testing.T) {
	t.Helper()
	before, since := d.ticks(t), time.Now()
	waittest.Until(t, "the server has nothing to do", func() bool {
		if now := d.ticks(t); now > before {
			before, since = now, time.Now()
		}
		return time.Since(since) > 150*time.Millisecond
	})
}

// ticks is how long the process has had a processor, in hundredths of a second.
func (d *daemon) ticks(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ") // the name may hold spaces
	fields := strings.Fields(after)
	user, uerr := strconv.Atoi(fields[11])
	system, serr := strconv.Atoi(fields[12])
	if uerr != nil || serr != nil {
		t.Fatal(uerr, serr)
	}
	return user + system
}

// measure is the 99th percentile of what good introspections take, sixteen at a time.
func measure(t *testing.T, good func(context.Context) error) time.Duration {
	t.Helper()
	const period, atLeast = 500 * time.Millisecond, 20 // calls of each
	var took [16][]time.Duration
	var working sync.WaitGroup
	began := time.Now()
	for i := range took {
		working.Go(func() {
			for time.Since(began) < period || len(took[i]) < atLeast {
				sent := time.Now()
				if err := good(t.Context()); err != nil {
					t.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(sent))
			}
		})
	}
	working.Wait()
	every := slices.Concat(took[:]...)
	if len(every) == 0 {
		t.FailNow()
	}
	slices.Sort(every)
	return every[len(every)*99/100]
}

// keepSending has the strangers send all calls in turn, three each at a time, until stop is called.
func keepSending(ctx context.Context, all []*stranger, calls []worstCall) (stop func()) {
	const pause = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	var next atomic.Int64
	var sending sync.WaitGroup
	for _, s := range all {
		for range 3 {
			sending.Go(func() {
				for ctx.Err() == nil {
					one, done := context.WithTimeout(ctx, callTime)
					calls[int(next.Add(1))%len(calls)].send(one, s)
					done()
					select {
					case <-ctx.Done():
					case <-time.After(pause):
					}
				}
			})
		}
	}
	return func() {
		cancel()
		sending.Wait()
	}
}

// unfinished sends messages to all endpoints in turn, each of which promises as much as there may be, gives almost as
// much as is taken of a stranger, and does not end. It returns once all were sent or refused, and how many were not
// refused.
func unfinished(t *testing.T, d *daemon, calls []worstCall, n int) (taken int, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var sending, settled sync.WaitGroup
	var refused atomic.Int64
	var endpoints []string
	for _, c := range calls {
		endpoints = append(endpoints, c.endpoint)
	}
	endpoints = slices.Compact(endpoints)
	const given = 63 << 10
	for i := range n {
		kind, rest, _ := strings.Cut(endpoints[i%len(endpoints)], " ")
		method, path, _ := strings.Cut(rest, " ")
		url, head, promised := d.HTTP+path, "", int64(1<<20)
		if kind == "gRPC" {
			method, url, head, promised = http.MethodPost, "http://"+d.GRPC+rest, "\x00\x00\x1f\xff\x00", -1
		}
		settled.Add(1)
		done := sync.OnceFunc(settled.Done)
		body := io.MultiReader(strings.NewReader(head), strings.NewReader(strings.Repeat("{", given)), never{ctx, done})
		r, err := http.NewRequestWithContext(ctx, method, url, body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = promised
		r.Header.Set("Content-Type", map[string]string{"gRPC": "application/grpc", "REST": "application/json"}[kind])
		r.Header.Set("Te", "trailers")
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%200))}}
		transport := &http.Transport{DialContext: from.DialContext, DisableKeepAlives: kind == "REST"}
		transport.Protocols = &http.Protocols{}
		transport.Protocols.SetHTTP1(kind == "REST")
		transport.Protocols.SetUnencryptedHTTP2(kind == "gRPC")
		sending.Go(func() {
			defer transport.CloseIdleConnections()
			resp, err := transport.RoundTrip(r)
			if err == nil {
				resp.Body.Close()
			}
			if ctx.Err() == nil {
				refused.Add(1)
			}
			done()
		})
	}
	within(t, "all messages are sent or refused", settled.Wait)
	return n - int(refused.Load()), func() {
		cancel()
		sending.Wait()
	}
}

// never is a reader that says when it is reached, and ends with a context only.
type never struct {
	ctx     context.Context
	reached func()
}

func (r never) Read([]byte) (int, error) {
	r.reached()
	<-r.ctx.Done()
	return 0, r.ctx.Err()
}

// within fails a test in which something takes longer than anything does.
func within(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { do(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
	}
}
