package store

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// A store that can be read may still take no change: a right was taken away, another holds the lock of writers, a rule
// of the schema is in the way. Then a server is not ready, for nothing can be revoked. A change that failed for no
// fault of its caller has a probe write what every change writes, and roll it back; while that fails it is repeated.

const (
	// failedChanges is how many changes must have failed in a row, with none that succeeded, where the probe succeeds.
	failedChanges = 5
	// failedRecently is how long after the last of them they count.
	failedRecently = 30 * time.Second
	// probePause is the pause between two probes.
	probePause = 2 * time.Second
)

var errProbed = errors.New("the probe is rolled back")

// failing is what is known of changes that fail.
type failing struct {
	row    atomic.Int64  // how many have failed since one succeeded
	last   atomic.Int64  // when the last did, in nanoseconds of Unix time
	probed atomic.Bool   // so has the last probe
	wake   chan struct{} // a level: a change has failed
}

// noteChange takes in how a change ended.
func (s *Store) noteChange(err error) {
	f := &s.failing
	var e *tokens.Error
	switch {
	case err == nil:
		if f.row.Load() != 0 || f.probed.Load() {
			f.row.Store(0)
			s.noteProbe(nil)
		}
	case errors.As(err, &e) && (e.Reason == "STORE_UNAVAILABLE" || e.Reason == "OUTCOME_UNKNOWN"):
		f.last.Store(s.options.Now().UnixNano())
		f.row.Add(1)
		raise(f.wake)
	}
}

func (s *Store) noteProbe(err error) {
	switch failed := err != nil; {
	case failed == s.failing.probed.Swap(failed):
	case failed:
		s.options.Logger.LogAttrs(context.Background(), slog.LevelError,
			"store: the database can be read and takes no change", slog.Any("error", err))
	default:
		s.options.Logger.LogAttrs(context.Background(), slog.LevelInfo, "store: the database takes changes again")
	}
}

// ChangesFail returns why changes cannot be made at present; nil when they can, as far as is known.
func (s *Store) ChangesFail() error {
	f := &s.failing
	recent := f.row.Load() >= failedChanges && s.options.Now().UnixNano()-f.last.Load() < int64(failedRecently)
	if !f.probed.Load() && !recent {
		return nil
	}
	return tokens.StoreUnavailable("check that the store takes changes", errors.New("every change fails"))
}

// probeChanges probes after a change that failed, until ctx ends.
func (s *Store) probeChanges(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.failing.wake:
		}
		for again := true; again; again = s.failing.probed.Load() {
			err := s.probe(ctx)
			if ctx.Err() != nil {
				return
			}
			s.noteProbe(err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(probePause):
			}
		}
	}
}

const checkNow = `SET CONSTRAINTS ALL IMMEDIATE`

// probe writes what every change writes, and rolls it back.
func (s *Store) probe(ctx context.Context) error {
	err := s.transact(ctx, "check that the store takes changes", func(t *tx) error {
		now := s.options.Now()
		e := tokens.Event{Time: now, Actor: "store", Action: "store.probe", Outcome: tokens.OutcomeSuccess}
		var seq uint64
		if err := t.record([]tokens.Event{e}, db.Micros(now), &seq); err != nil {
			return err
		}
		// Rules that are checked at the commit. In a shared transaction they may be another's.
		if t.c.Dialect().Remote && !t.shared {
			if _, err := t.exec("check the rules of the schema", checkNow); err != nil {
				return err
			}
		}
		return errProbed
	})
	if errors.Is(err, errProbed) {
		return nil
	}
	return err
}

// raise raises a level that one goroutine waits for.
func raise(level chan<- struct{}) {
	select {
	case level <- struct{}{}:
	default:
	}
}
