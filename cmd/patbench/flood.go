package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	floodSize     = 1000 // made-up tokens in one call
	floodInFlight = 2
)

// memory is what a flood of made-up tokens costs: in memory, and of the good calls that are made at the same time.
//
// A flooded server loses at least the processor time that the flood takes. What is to be known is whether it loses
// more, as it would if made-up tokens pushed good ones out of memory or held locks. So the good calls are measured
// alone, the flood alone, and both at once, in turn: the good calls that are lost, at the processor time of each, are
// held against the flood's tokens, at the time of each. Time is that of the server and of this program, which share the
// machine.
func (b *bench) memory(ctx context.Context) error {
	good := &subject{
		name:     "Introspect",
		server:   b.server,
		inFlight: b.first(),
		call:     unaryCall(b.conns, b.caller, b.texts, ""),
	}
	flood := &subject{
		name:     "flood",
		server:   b.server,
		inFlight: floodInFlight,
		call:     floodCall(b.conns, b.caller, b.data),
	}
	if err := b.compare(ctx, good); err != nil { // so that what the good calls themselves take is there
		return err
	}
	before, err := b.server.resident()
	if err != nil {
		return err
	}
	good.rounds = nil
	var together []figures
	var harm, left []float64
	for range b.rounds {
		g, f, err := b.flooded(ctx, good, flood)
		if err != nil {
			return err
		}
		together = append(together, g)
		alone, floodAlone := good.rounds[len(good.rounds)-1], flood.rounds[len(flood.rounds)-1]
		lost := (alone.perSecond - g.perSecond) * alone.cpuEach()
		harm = append(harm, lost/(f.perSecond*floodAlone.cpuEach()))
		left = append(left, g.perSecond/alone.perSecond)
	}
	most, err := b.keepFlooding(ctx, flood, before)
	if err != nil {
		return err
	}
	during := &subject{rounds: together}
	b.note(
		"memory: %.0f MiB resident with %d of %d tokens warm; a flood of %d made-up tokens grew that by %.0f MiB at most",
		before,
		len(b.texts),
		b.tokens,
		b.flood,
		most-before,
	)
	b.note(
		"flood: beside %d calls with %d made-up tokens each, good traffic keeps %s of its calls/s (p99 %.0f µs, alone %.0f µs); what it loses is %s of the CPU that the flood takes",
		floodInFlight,
		floodSize,
		spreadOf(left),
		during.typical(p99Of),
		good.typical(p99Of),
		spreadOf(harm),
	)
	return nil
}

// flooded measures good calls alone, the flood alone, and both at once, and returns the figures of the three.
func (b *bench) flooded(ctx context.Context, good, flood *subject) (g, f figures, err error) {
	for _, s := range []*subject{good, flood} {
		alone, err := s.measure(ctx, b.period)
		if err != nil {
			return g, f, fmt.Errorf("measure %s: %w", s.name, err)
		}
		s.rounds = append(s.rounds, alone)
	}
	var wg sync.WaitGroup
	var gerr, ferr error
	wg.Go(func() { g, gerr = good.measure(ctx, b.period) })
	wg.Go(func() { f, ferr = flood.measure(ctx, b.period) })
	wg.Wait()
	return g, f, errors.Join(gerr, ferr)
}

// keepFlooding presents as many made-up tokens as are wanted, and returns the most that the server had in memory.
func (b *bench) keepFlooding(ctx context.Context, flood *subject, most float64) (float64, error) {
	const look = 250 * time.Millisecond
	for presented := 0; presented < b.flood; {
		f, err := flood.measure(ctx, look)
		if err != nil {
			return 0, err
		}
		presented += f.presented
		mib, err := b.server.resident()
		if err != nil {
			return 0, err
		}
		most = max(most, mib)
	}
	return most, nil
}

// floodCall presents made-up tokens, all of which must be not found. Their ids lie between those of the store, so that
// they look for pages all over it, as those of somebody who knows how ids are made would.
func floodCall(conns []*grpc.ClientConn, s string, d dataset) call {
	first, last := d.ids[0], d.ids[len(d.ids)-1]
	return func(ctx context.Context, worker int, rnd *rand.Rand) (int, error) {
		request := make([]byte, 0, floodSize*80)
		var seed [32]byte
		for i := range seed {
			seed[i] = byte(rnd.Uint32())
		}
		random := rand.NewChaCha8(seed)
		for range floodSize {
			text, err := secret.Mint(secret.PrefixPersonal, first+tokens.ID(rnd.Uint64N(uint64(last-first)+1)), random)
			if err != nil {
				return 0, err
			}
			request = protowire.AppendTag(request, 1, protowire.BytesType)
			request = protowire.AppendBytes(request, requestOf(make([]byte, 0, 80), text.Reveal()))
		}
		var answer raw
		err := conns[worker%len(conns)].Invoke(
			bearer(ctx, s),
			patdv1.IntrospectionService_BatchIntrospect_FullMethodName,
			&raw{request},
			&answer,
			grpc.ForceCodecV2(rawCodec{}),
		)
		if err != nil {
			return 0, err
		}
		return floodSize, checkNotFound(answer.bytes, floodSize)
	}
}

// notFound is an answer that says no more than that.
var notFound = []byte{2 << 3, byte(patdv1.IntrospectResponse_NOT_FOUND)}

// checkNotFound wants a batch's answer to be that many times not found.
func checkNotFound(batch []byte, n int) error {
	for range n {
		_, _, tagged := protowire.ConsumeTag(batch)
		if tagged < 0 {
			return errors.New("a batch's answer is cut short")
		}
		one, size := protowire.ConsumeBytes(batch[tagged:])
		if size < 0 || string(one) != string(notFound) {
			return fmt.Errorf("the answer to a made-up token is %x", one)
		}
		batch = batch[tagged+size:]
	}
	if len(batch) > 0 {
		return errors.New("a batch's answer holds more than was asked")
	}
	return nil
}
