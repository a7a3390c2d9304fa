package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

// Bounds of the write-behind buffer, and of one of its transactions, so that a mint never waits long for it.
const (
	maxSeen    = 1 << 16
	maxRekeys  = 8 // per credential
	flushBatch = 250
	seenShards = 16
	// promptly is how soon a rekeying is written: a retiring key should go, yet not with a transaction for each.
	promptly = 50 * time.Millisecond
)

type seenKey struct {
	id   tokens.ID
	kind tokens.Kind
}

type seenEntry struct {
	use    tokens.Use
	rekeys []tokens.Rekey
}

// merge adds what another entry of the same credential knows.
func (e *seenEntry) merge(o seenEntry) {
	if o.use.Time.After(e.use.Time) {
		e.use = o.use
	}
	for _, r := range o.rekeys {
		if len(e.rekeys) < maxRekeys && !slices.Contains(e.rekeys, r) {
			e.rekeys = append(e.rekeys, r)
		}
	}
}

// seenBuffer gathers what Touch notes: the latest use of each credential. It is bounded, and counts what it drops. Every
// introspection comes here, so that those of different credentials should not wait for one another.
type seenBuffer struct {
	shards  [seenShards]seenShard
	size    atomic.Int64 // entries in all of them
	dropped atomic.Uint64
	wake    chan struct{} // a level: something should be written soon
}

type seenShard struct {
	mu      sync.Mutex
	entries map[seenKey]*seenEntry
	_       [48]byte // the locks of two shards are not on one line of the processor's cache
}

func newSeenBuffer() *seenBuffer {
	b := &seenBuffer{wake: make(chan struct{}, 1)}
	for i := range b.shards {
		b.shards[i].entries = make(map[seenKey]*seenEntry)
	}
	return b
}

// shard spreads ids evenly: a multiple of the golden ratio leaves its mark on the upper bits.
func (b *seenBuffer) shard(id tokens.ID) *seenShard {
	return &b.shards[uint64(id)*0x9e3779b97f4a7c15>>32%seenShards]
}

func (b *seenBuffer) add(k seenKey, o seenEntry) {
	s := b.shard(k.id)
	s.mu.Lock()
	e := s.entries[k]
	if e != nil {
		e.merge(o)
	}
	s.mu.Unlock()
	if e == nil {
		b.addNew(s, k, o)
	}
	if len(o.rekeys) > 0 {
		b.wakeUp()
	}
}

// addNew makes an entry, if there is room, unless another has just made it.
func (b *seenBuffer) addNew(s *seenShard, k seenKey, o seenEntry) {
	n := b.size.Add(1)
	if n >= maxSeen/2 {
		b.wakeUp()
	}
	s.mu.Lock()
	e := s.entries[k]
	full := e == nil && n > maxSeen
	isNew := e == nil && !full
	switch {
	case isNew:
		fresh := new(seenEntry)
		fresh.merge(o)
		s.entries[k] = fresh
	case !full:
		e.merge(o)
	}
	s.mu.Unlock()
	if !isNew {
		b.size.Add(-1)
	}
	if full {
		b.dropped.Add(1)
	}
}

func (b *seenBuffer) wakeUp() { raise(b.wake) }

// take empties the buffer.
func (b *seenBuffer) take() map[seenKey]seenEntry {
	taken := make(map[seenKey]seenEntry, max(b.size.Load(), 0))
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		entries := s.entries
		s.entries = make(map[seenKey]*seenEntry)
		s.mu.Unlock()
		for k, e := range entries {
			taken[k] = *e
		}
		b.size.Add(-int64(len(entries)))
	}
	return taken
}

// Touch implements tokens.Store.
func (s *Store) Touch(seen tokens.Seen) {
	e := seenEntry{use: seen.Use}
	if seen.Kind == 0 {
		seen.Kind = tokens.KindPersonal
	}
	if seen.Kind != tokens.KindPersonal {
		e.use = tokens.Use{}
	}
	if seen.Rekey != nil {
		e.rekeys = []tokens.Rekey{*seen.Rekey}
	}
	if e.use.Time.IsZero() && len(e.rekeys) == 0 {
		return
	}
	s.seen.add(seenKey{id: seen.ID, kind: seen.Kind}, e)
}

// TouchesDropped counts what Touch could not note since Open, because too much was waiting to be written.
func (s *Store) TouchesDropped() uint64 { return s.seen.dropped.Load() }

// Flush writes now what Touch has noted so far. What cannot be written is kept for the next time. It goes in the order of the
// ids, so that what one transaction writes lies on few pages: of many tokens that was measured to halve its cost.
func (s *Store) Flush(ctx context.Context) error {
	taken := s.seen.take()
	batch := make(map[seenKey]seenEntry, min(len(taken), flushBatch))
	var err error
	for _, k := range slices.SortedFunc(maps.Keys(taken), func(a, b seenKey) int { return cmp.Compare(a.id, b.id) }) {
		batch[k] = taken[k]
		delete(taken, k)
		if len(batch) < flushBatch && len(taken) > 0 {
			continue
		}
		if err = s.writeSeen(ctx, batch); err != nil {
			break
		}
		clear(batch)
	}
	if err == nil {
		return nil
	}
	for _, left := range []map[seenKey]seenEntry{batch, taken} {
		for k, e := range left {
			s.seen.add(k, e)
		}
	}
	return fmt.Errorf("write behind %d uses: %w", len(batch)+len(taken), err)
}

const (
	// A use only moves last_used forward.
	updateLastUsed = `
UPDATE tokens SET last_used_us = ?2, last_used_ip = ?3 WHERE id = ?1 AND (last_used_us IS NULL OR last_used_us < ?2)`

	// A digest moves only while it is still the old one, and only to a key that the store knows.
	rekeyToken = `
UPDATE tokens SET key = n.num, digest = ?5 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND tokens.id = ?1 AND tokens.key = o.num AND tokens.digest = ?3`

	rekeyOldSecret = `
UPDATE old_secrets SET key = n.num, digest = ?5 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND token_id = ?1 AND old_secrets.key = o.num AND old_secrets.digest = ?3`

	rekeyService = `
UPDATE services SET key = n.num, digest = ?5 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND services.id = ?1 AND services.key = o.num AND services.digest = ?3`

	rekeyAccess = `
UPDATE access_tokens SET key = n.num, digest = ?5 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND access_tokens.id = ?1 AND access_tokens.key = o.num AND access_tokens.digest = ?3`

	rekeyRefresh = `
UPDATE refresh_tokens SET key = n.num, digest = ?5 FROM keys o, keys n
WHERE o.name = ?2 AND n.name = ?4 AND n.retire_us IS NULL AND refresh_tokens.id = ?1 AND refresh_tokens.key = o.num AND refresh_tokens.digest = ?3`
)

func (s *Store) writeSeen(ctx context.Context, batch map[seenKey]seenEntry) error {
	const op = "write what was seen"
	err := s.transact(ctx, op, func(t *tx) error {
		for k, e := range batch {
			if !e.use.Time.IsZero() {
				if _, err := t.exec(op, updateLastUsed, int64(k.id), micros(e.use.Time), addrBytes(e.use.IP)); err != nil {
					return err
				}
			}
			for _, r := range e.rekeys {
				if err := t.rekey(op, k, r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for k, e := range batch {
		if len(e.rekeys) > 0 {
			s.feed.forget(k.id)
		}
	}
	return nil
}

func (t *tx) rekey(op string, k seenKey, r tokens.Rekey) error {
	var statements []string
	switch k.kind {
	case tokens.KindPersonal:
		statements = []string{rekeyToken, rekeyOldSecret}
	case tokens.KindService:
		statements = []string{rekeyService}
	case tokens.KindAccess:
		statements = []string{rekeyAccess}
	case tokens.KindRefresh:
		statements = []string{rekeyRefresh}
	}
	for _, statement := range statements {
		_, err := t.exec(op, statement, int64(k.id), r.Old.Key, r.Old.Sum[:], r.New.Key, r.New.Sum[:])
		if err != nil {
			return err
		}
	}
	return nil
}

// writeBehind flushes and prunes at each interval, and flushes soon when woken, until ctx ends. After a failure it
// waits for the interval, whatever wakes it.
func (s *Store) writeBehind(ctx context.Context) {
	ticker := time.NewTicker(s.options.FlushInterval)
	defer ticker.Stop()
	soon := time.NewTimer(promptly)
	soon.Stop()
	defer soon.Stop()
	failing := false
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-s.seen.wake:
			if !failing {
				soon.Reset(promptly)
			}
			continue
		case <-soon.C:
			err = s.Flush(ctx)
		case <-ticker.C:
			err = errors.Join(s.Flush(ctx), s.catchUp(ctx), s.prune(ctx))
		}
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing {
			failing = err != nil
			s.report(ctx, err)
		}
	}
}

// report logs once when writing behind begins to fail, and once when it works again.
func (s *Store) report(ctx context.Context, err error) {
	if err != nil {
		s.options.Logger.WarnContext(ctx, "store: writing behind fails; it is tried again", "error", err)
		return
	}
	s.options.Logger.InfoContext(ctx, "store: writing behind works again")
}
