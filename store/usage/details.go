package usage

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

const (
	maxDetailed  = 1 << 16 // tokens whose details no cache keeps
	maxScopes    = 256     // of a token
	maxSources   = 8       // of a token, until they are written
	detailsBatch = 500     // tokens a transaction

	// Details are read before they are written, which costs more than a use: those of fewDetails tokens are written
	// within an interval, those of few are gathered like many uses, and more for detailsFor intervals.
	fewDetails  = 64
	detailsFor  = 64
	detailsPart = 64 // tokens of a part that is written at once
)

// DayMicros is a day in microseconds.
const DayMicros = 24 * 60 * 60 * 1_000_000

// ScopeUse counts uses of one scope on one day. The scope of uses whose service did not say what it required is empty.
type ScopeUse struct {
	Scope string
	Day   int64 // days since 1970, UTC
	Count int64
}

// Source is where a token was used from, and the service that asked about it.
type Source struct {
	IP      netip.Addr // invalid: not known
	Service string
	Micros  int64 // of the last use from there, in microseconds of Unix time
}

// Detail is what is recorded of the uses of one token.
type Detail struct {
	Scopes  []ScopeUse
	Sources []Source
}

// Detailed is a token and the details of its uses.
type Detailed struct {
	ID tokens.ID
	Detail
}

// AddScope adds uses of a scope. The later day counts.
func (d *Detail) AddScope(u ScopeUse) {
	i := slices.IndexFunc(d.Scopes, func(known ScopeUse) bool { return known.Scope == u.Scope })
	switch {
	case i >= 0:
		d.Scopes[i].Day = max(d.Scopes[i].Day, u.Day)
		d.Scopes[i].Count += u.Count
	case len(d.Scopes) <= maxScopes: // and the empty one
		d.Scopes = append(d.Scopes, u)
	}
}

// AddSource adds a source, in place of the oldest when there are many.
func (d *Detail) AddSource(s Source) {
	oldest := 0
	for i, known := range d.Sources {
		if known.IP == s.IP && known.Service == s.Service {
			d.Sources[i].Micros = max(known.Micros, s.Micros)
			return
		}
		if known.Micros < d.Sources[oldest].Micros {
			oldest = i
		}
	}
	switch {
	case len(d.Sources) < maxSources:
		d.Sources = append(d.Sources, s)
	case d.Sources[oldest].Micros < s.Micros:
		d.Sources[oldest] = s
	}
}

// Add adds the details of another record of the same token.
func (d *Detail) Add(other Detail) {
	for _, u := range other.Scopes {
		d.AddScope(u)
	}
	for _, s := range other.Sources {
		d.AddSource(s)
	}
}

// DetailKeeper keeps details of uses until they are written, as a Keeper keeps uses.
type DetailKeeper interface {
	// DetailsWaiting is about how many tokens have details to be written.
	DetailsWaiting() int
	// PendingDetails appends the ids of those that it has not returned before.
	PendingDetails(ids []tokens.ID) []tokens.ID
	// TakeDetails adds the details of a token to d, to be written now; false: there are none.
	TakeDetails(id tokens.ID, d *Detail) bool
}

// details are those that no cache keeps. They are bounded; it counts what it drops.
type details struct {
	shards  [shards]detailShard
	size    atomic.Int64 // tokens in all of them
	dropped *atomic.Uint64
	wake    func() // is called when there will soon be no room
}

type detailShard struct {
	mu    sync.Mutex
	known map[tokens.ID]*Detail
	used  []tokens.ID // of those, as far as PendingDetails has not returned them
	_     [24]byte
}

var _ DetailKeeper = (*details)(nil)

func (b *details) init(dropped *atomic.Uint64, wake func()) {
	b.dropped, b.wake = dropped, wake
	for i := range b.shards {
		b.shards[i].known = make(map[tokens.ID]*Detail)
	}
}

func (b *details) shard(id tokens.ID) *detailShard {
	return &b.shards[uint64(id)*0x9e3779b97f4a7c15>>32%shards]
}

// add adds details of a token, unless there is no room. It keeps neither the lists nor the texts.
func (b *details) add(id tokens.ID, d Detail) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[id]
	if known == nil {
		n := b.size.Add(1)
		if n > maxDetailed {
			b.size.Add(-1)
			b.dropped.Add(1)
			return
		}
		if n == maxDetailed/4*3 {
			b.wake()
		}
		known = new(Detail)
		s.known[id] = known
		s.used = append(s.used, id)
	}
	for _, u := range d.Scopes {
		if !slices.ContainsFunc(known.Scopes, func(k ScopeUse) bool { return k.Scope == u.Scope }) {
			u.Scope = strings.Clone(u.Scope)
		}
		known.AddScope(u)
	}
	for _, from := range d.Sources {
		from.Service = strings.Clone(from.Service)
		known.AddSource(from)
	}
}

func (b *details) crowded() bool { return b.size.Load() >= maxDetailed/4*3 }

// DetailsWaiting implements DetailKeeper.
func (b *details) DetailsWaiting() int { return int(b.size.Load()) }

// PendingDetails implements DetailKeeper.
func (b *details) PendingDetails(ids []tokens.ID) []tokens.ID {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		ids = append(ids, s.used...)
		s.used = s.used[:0]
		s.mu.Unlock()
	}
	return ids
}

// TakeDetails implements DetailKeeper.
func (b *details) TakeDetails(id tokens.ID, d *Detail) bool {
	s := b.shard(id)
	s.mu.Lock()
	known := s.known[id]
	if known != nil {
		b.size.Add(-1)
		if delete(s.known, id); len(s.known) == 0 {
			s.known, s.used = make(map[tokens.ID]*Detail), nil // a map does not become smaller
		}
	}
	s.mu.Unlock()
	if known == nil {
		return false
	}
	d.Add(*known)
	return true
}

// RecordDetail records details of the uses of a token, unless there is no room.
func (b *Buffer) RecordDetail(id tokens.ID, d Detail) { b.details.add(id, d) }

func (b *Buffer) detailKeepers() []DetailKeeper {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keepDetails
}

// DetailsCrowded reports that there will soon be no room for details.
func (b *Buffer) DetailsCrowded() bool { return b.details.crowded() }

// FlushDetails has write write the details of tokens, of nil: of all, in the order of ids. All that were recorded when it
// begins are written when it ends, whoever else flushes. write may be called many times and does not keep the slice;
// what it fails to write is kept.
func (b *Buffer) FlushDetails(
	ctx context.Context, of []tokens.ID, write func(context.Context, []Detailed) error,
) error {
	if err := enter(ctx, b.flushingDetails); err != nil {
		return fmt.Errorf("write the uses of scopes: %w", err)
	}
	defer func() { <-b.flushingDetails }()
	keepers, ids := b.detailKeepers(), sorted(slices.Clone(of))
	if of == nil {
		b.gatherDetails(keepers)
		ids = b.sweepOfDetails.takeAll()
	}
	return b.writeDetails(ctx, keepers, ids, write)
}

// FlushDetailsPart has write write a part of the details, as FlushDetails does, and returns when the next one is due.
func (b *Buffer) FlushDetailsPart(
	ctx context.Context, interval time.Duration, write func(context.Context, []Detailed) error,
) (pause time.Duration, err error) {
	if err := enter(ctx, b.flushingDetails); err != nil {
		return interval, fmt.Errorf("write the uses of scopes: %w", err)
	}
	defer func() { <-b.flushingDetails }()
	keepers := b.detailKeepers()
	b.gatherDetails(keepers)
	if err := b.writeDetails(ctx, keepers, b.sweepOfDetails.take(), write); err != nil {
		return interval, err
	}
	waiting := 0
	for _, k := range keepers {
		waiting += k.DetailsWaiting()
	}
	round := interval
	switch {
	case waiting > few:
		round = detailsFor * interval
	case waiting > fewDetails:
		round = gatherFor * interval
	}
	return b.sweepOfDetails.pause(round), nil
}

// gatherDetails adds what is new to the sweep.
func (b *Buffer) gatherDetails(keepers []DetailKeeper) {
	var ids []tokens.ID
	for _, k := range keepers {
		ids = k.PendingDetails(ids)
	}
	b.sweepOfDetails.add(ids)
}

// writeDetails writes the details of sorted ids, as far as they still have some.
func (b *Buffer) writeDetails(
	ctx context.Context, keepers []DetailKeeper, left []tokens.ID, write func(context.Context, []Detailed) error,
) error {
	batch := make([]Detailed, 0, min(len(left), detailsBatch))
	for len(left) > 0 {
		ids := left[:min(len(left), detailsBatch)]
		batch = batch[:0]
		for _, id := range ids {
			one, found := Detailed{ID: id}, false
			for _, k := range keepers {
				found = k.TakeDetails(id, &one.Detail) || found
			}
			if found {
				batch = append(batch, one)
			}
		}
		left = left[len(ids):]
		if len(batch) == 0 {
			continue
		}
		if err := write(ctx, batch); err != nil {
			for _, one := range batch {
				b.RecordDetail(one.ID, one.Detail)
			}
			b.sweepOfDetails.add(left)
			return fmt.Errorf("write the uses of scopes of %d tokens: %w", len(batch)+len(left), err)
		}
	}
	return nil
}
