package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patd/internal/cputime"
)

// call presents the tokens that follow from a random number, and checks the answers. It says how many there were.
type call func(ctx context.Context, worker int, rnd *rand.Rand) (tokens int, err error)

// subject is one of two things that are compared.
type subject struct {
	name     string
	server   metered
	inFlight int
	call     call
	rounds   []figures
	warmedUp figures
	beside   time.Duration // what a token takes of the server's CPU time outside of the rounds, where that was measured
}

// metered is what a subject's CPU time is read from: a process, mostly.
type metered interface{ cpu() (time.Duration, error) }

// figures are what one round measured.
type figures struct {
	perSecond float64       // tokens a second
	p50, p99  time.Duration // of a call
	presented int
	cpu       time.Duration // CPU time of the server
	busy      time.Duration // CPU time of the server and of this program
}

// cpuEach is the CPU time, in seconds, that a token took of the server and of this program.
func (f figures) cpuEach() float64 { return f.busy.Seconds() / float64(f.presented) }

// compare measures subjects in turn. The first is the baseline.
func (b *bench) compare(ctx context.Context, subjects ...*subject) error {
	for _, s := range subjects {
		var err error
		if s.warmedUp, err = s.measure(ctx, b.period/3); err != nil {
			return fmt.Errorf("warm up %s: %w", s.name, err)
		}
	}
	for range b.rounds {
		for _, s := range subjects {
			f, err := s.measure(ctx, b.period)
			if err != nil {
				return fmt.Errorf("measure %s: %w", s.name, err)
			}
			s.rounds = append(s.rounds, f)
		}
	}
	return nil
}

// measure keeps calls in flight for a while.
func (s *subject) measure(ctx context.Context, period time.Duration) (figures, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ownBefore := cputime.Process()
	before, err := s.server.cpu()
	if err != nil {
		return figures{}, err
	}
	var (
		presented atomic.Int64
		wg        sync.WaitGroup
		mu        sync.Mutex
		took      []time.Duration
		failed    error
	)
	begun := time.Now()
	end := begun.Add(period)
	for w := range s.inFlight {
		wg.Go(func() {
			n, mine, err := s.work(ctx, w, end)
			presented.Add(int64(n))
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if err != nil && failed == nil {
				failed = err
				cancel() // one error is enough
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	after, err := s.server.cpu()
	if err = errors.Join(failed, err); err != nil {
		return figures{}, err
	}
	slices.Sort(took)
	return figures{
		perSecond: float64(presented.Load()) / elapsed.Seconds(),
		p50:       took[len(took)/2], p99: took[len(took)*99/100],
		presented: int(presented.Load()), cpu: after - before, busy: after - before + cputime.Process() - ownBefore,
	}, nil
}

// work is one of the calls in flight. It calls once at least, however short the period is.
func (s *subject) work(ctx context.Context, worker int, end time.Time) (int, []time.Duration, error) {
	rnd := rand.New(rand.NewPCG(rand.Uint64(), uint64(worker)))
	took := make([]time.Duration, 0, 1<<14)
	presented := 0
	for now := time.Now(); presented == 0 || now.Before(end); {
		n, err := s.call(ctx, worker, rnd)
		if err != nil {
			return presented, took, err
		}
		then := now
		now = time.Now()
		took = append(took, now.Sub(then))
		presented += n
	}
	return presented, took, nil
}

// ratio is a figure relative to the baseline's, round by round.
type ratio struct{ median, least, most float64 }

func (r ratio) String() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", r.median, r.least, r.most) }

func ratioOf(s, base *subject, of func(figures) float64) ratio {
	all := make([]float64, len(s.rounds))
	for i := range all {
		all[i] = of(s.rounds[i]) / of(base.rounds[i])
	}
	return spreadOf(all)
}

// spreadOf is the median of figures, and their range.
func spreadOf(all []float64) ratio {
	slices.Sort(all)
	return ratio{all[len(all)/2], all[0], all[len(all)-1]}
}

// typical is the median of a figure over the rounds.
func (s *subject) typical(of func(figures) float64) float64 {
	all := make([]float64, len(s.rounds))
	for i := range all {
		all[i] = of(s.rounds[i])
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// cpuOf is the CPU time, in seconds, that 100 000 tokens took of the server.
func cpuOf(f figures) float64 { return f.cpu.Seconds() / float64(f.presented) * 100_000 }

func rateOf(f figures) float64 { return f.perSecond }
func p50Of(f figures) float64  { return float64(f.p50.Microseconds()) }
func p99Of(f figures) float64  { return float64(f.p99.Microseconds()) }
