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

// windows measures how evenly servers work: the CPU time a token in each window. patd writes uses meanwhile, of which a
// round takes 40 s; echo writes nothing, so that its line is the noise of the machine.
func (b *bench) windows(ctx context.Context) error {
	if b.evenFor <= 0 {
		b.note("how evenly the server works is not measured: -windows does not say for how long")
		return nil
	}
	streams, err := openStreams(ctx, b.conns, b.caller)
	if err != nil {
		return err
	}
	of := func(name string, server *process, c call) even {
		return even{&subject{name: name, server: server, inFlight: b.first(), call: c}, server}
	}
	b.note(
		"CPU time a token in each window of %s, over the mean of all, for %s each\n\n"+
			"| work | in flight | windows | mean µs | over 1.1 | p50 | p90 | p99 | most | after |\n"+
			"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
		b.window,
		b.evenFor,
	)
	for _, e := range []even{
		of("the empty call, unary gRPC", b.echo, b.baseline(b.first()).call),
		of("patd, Introspect, unary gRPC", b.server, unaryCall(b.conns, b.caller, b.texts, "")),
		of("patd, IntrospectStream", b.server, streams.call(b.texts)),
	} {
		if err = b.evenness(ctx, e); err != nil {
			err = fmt.Errorf("measure %s: %w", e.name, err)
			break
		}
	}
	return errors.Join(err, streams.close())
}

// even is a subject whose server's CPU time is read exactly.
type even struct {
	*subject

	process *process
}

// evenness measures one subject, and prints its line.
func (b *bench) evenness(ctx context.Context, e even) error {
	present, presented := e.call, new(atomic.Int64)
	e.call = func(ctx context.Context, worker int, rnd *rand.Rand) (int, error) {
		n, err := present(ctx, worker, rnd)
		presented.Add(int64(n))
		return n, err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := e.measure(ctx, b.evenFor)
		ended <- err
	}()
	costs, err := e.process.sample(b.window, presented, ended)
	if err != nil {
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
	slices.Sort(costs)
	of := func(percent int) float64 { return costs[(len(costs)-1)*percent/100] / mean }
	fmt.Fprintf(
		b.out,
		"| %s | %d | %d | %.2f | %.1f %% | %.2f | %.2f | %.2f | %.2f | %s |\n",
		e.name,
		e.inFlight,
		len(costs),
		mean*1e6,
		100*float64(over)/float64(len(costs)),
		of(50),
		of(90),
		of(99),
		of(100),
		time.Duration(most)*b.window,
	)
	return nil
}

// sample returns the CPU seconds a token in each window until the load has ended, but for the last one, in which it
// ends.
func (p *process) sample(window time.Duration, presented *atomic.Int64, ended <-chan error) ([]float64, error) {
	tick := time.NewTicker(window)
	defer tick.Stop()
	<-tick.C
	var costs []float64
	cpu, err := p.cpuExactly()
	for n := presented.Load(); err == nil; {
		select {
		case err := <-ended:
			return costs[:max(len(costs)-1, 0)], err
		case <-tick.C:
		}
		var now time.Duration
		if now, err = p.cpuExactly(); err != nil {
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
