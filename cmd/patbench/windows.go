package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// window is how long each part is in which windows measures.
const window = 100 * time.Millisecond

// windows measures how evenly the server works: the CPU time a token in each window, while uses are written. A round of
// writing takes 40 s.
func (b *bench) windows(ctx context.Context) error {
	if b.evenFor <= 0 {
		b.note("how evenly the server works is not measured: -windows does not say for how long")
		return nil
	}
	streams, err := openStreams(ctx, b.conns, b.caller)
	if err != nil {
		return err
	}
	present, presented := streams.call(b.texts), new(atomic.Int64)
	load := &subject{
		name:     "windows",
		server:   b.server,
		inFlight: b.first(),
		call: func(ctx context.Context, worker int, rnd *rand.Rand) (int, error) {
			n, err := present(ctx, worker, rnd)
			presented.Add(int64(n))
			return n, err
		},
	}
	ended := make(chan error, 1)
	go func() {
		_, err := load.measure(ctx, b.evenFor)
		ended <- err
	}()
	costs, err := b.sample(presented, ended)
	if err = errors.Join(err, streams.close()); err != nil {
		return err
	}
	if len(costs) < 10 {
		return fmt.Errorf("-windows is too short: %d windows", len(costs))
	}
	mean := 0.0
	for _, c := range costs {
		mean += c / float64(len(costs))
	}
	most := slices.Index(costs, slices.Max(costs))
	over := 0
	for _, c := range costs {
		if c > 1.1*mean {
			over++
		}
	}
	at := time.Duration(most) * window
	slices.Sort(costs)
	of := func(percent int) float64 { return costs[(len(costs)-1)*percent/100] / mean }
	b.note(
		"IntrospectStream, CPU a token in %d windows of %s, over their mean of %.2f µs: p50 %.2f, p90 %.2f, p99 %.2f, "+
			"most %.2f, after %s; %d are over 1.1",
		len(costs),
		window,
		mean*1e6,
		of(50),
		of(90),
		of(99),
		of(100),
		at,
		over,
	)
	return nil
}

// sample returns the CPU seconds a token in each window, until the load has ended.
func (b *bench) sample(presented *atomic.Int64, ended <-chan error) (costs []float64, err error) {
	tick := time.NewTicker(window)
	defer tick.Stop()
	<-tick.C
	cpu, err := b.server.cpuExactly()
	for n := presented.Load(); err == nil; {
		select {
		case err := <-ended:
			return costs, err
		case <-tick.C:
		}
		var now time.Duration
		if now, err = b.server.cpuExactly(); err != nil {
			break
		}
		if more := presented.Load(); more > n {
			costs = append(costs, (now-cpu).Seconds()/float64(more-n))
			cpu, n = now, more
		}
	}
	return costs, errors.Join(err, <-ended)
}

// cpuExactly is the CPU time that the process has used, to the nanosecond: see clock_getcpuclockid(3).
func (p *process) cpuExactly() (time.Duration, error) {
	var t unix.Timespec
	const scheduled = 2
	err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|scheduled), &t) // as the kernel has it
	return time.Duration(t.Nano()), err
}
