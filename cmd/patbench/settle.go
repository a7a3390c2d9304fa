package main

import (
	"context"
	"time"
)

const (
	// settled is the part of a processor below which a server has nothing of note left to do.
	settled = 0.05
	// settledFor is for how many seconds it must be.
	settledFor = 3
)

// compareSettled is compare for two subjects, of which the second is served by patd: uses are written in the background,
// so it begins when those that other calls left are written, and counts what the calls of this row leave. With no -settle
// it is compare.
func (b *bench) compareSettled(ctx context.Context, base, s *subject) error {
	if b.settle <= 0 {
		return b.compare(ctx, base, s)
	}
	idle, err := b.server.settle(ctx, b.settle)
	if err != nil {
		return err
	}
	begun := time.Now()
	before, err := b.server.cpuExactly()
	if err != nil {
		return err
	}
	if err := b.compare(ctx, base, s); err != nil {
		return err
	}
	if _, err := b.server.settle(ctx, b.settle); err != nil {
		return err
	}
	after, err := b.server.cpuExactly()
	if err != nil {
		return err
	}
	beside := (after - before).Seconds() - idle*time.Since(begun).Seconds()
	presented := 0
	for _, f := range append(s.rounds, s.warmedUp) {
		presented += f.presented
		beside -= f.cpu.Seconds()
	}
	s.beside = time.Duration(beside / float64(presented) * float64(time.Second))
	return nil
}

// settle waits until the server has nothing of note left to do, for so long at most. It returns the part of a processor
// that the server then uses.
func (p *process) settle(ctx context.Context, most time.Duration) (idle float64, err error) {
	last, err := p.cpuExactly()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	begun, since, used := time.Now(), time.Now(), time.Duration(0)
	for calm := 0; err == nil && calm < settledFor && time.Since(begun) < most; {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
		var now time.Duration
		if now, err = p.cpuExactly(); err != nil {
			break
		}
		if calm++; (now - last).Seconds() >= settled {
			calm, since, used = 0, time.Now(), 0
		} else {
			used += now - last
		}
		last = now
	}
	return used.Seconds() / time.Since(since).Seconds(), err
}
