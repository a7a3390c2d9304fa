package store

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"patd/internal/durable"
)

// A store in a file keeps a reserve: a file beside it that holds room on the disk and nothing else. When the disk is full, changes
// fail before they get to that room. One that only takes away, such as a revocation, has the reserve given up, runs again and
// has the room; from then on all others are refused until the reserve can be made again. An empty reserve says that it was given up,
// to the next start and to other processes.

const (
	reserveSuffix = "-reserve"
	// reserveWatch is how often a server looks whether there is room again.
	reserveWatch = time.Second
	// fullFor is how long the disk counts as full after a change had no room, when none has succeeded since.
	fullFor = 30 * time.Second
)

var errReserved = errors.New("the rest of the disk is for changes that only take away")

// reserve is the reserve of a store in a file. All methods may be called on nil, a store that has none.
type reserve struct {
	path string
	size int64 // what a server holds; 0: this process makes none
	log  *slog.Logger
	now  func() time.Time

	given atomic.Bool // the reserve is given up
	full  atomic.Bool // a change had no room
	since atomic.Int64

	mu sync.Mutex // of the file
}

func newReserve(database string, o Options) *reserve {
	r := &reserve{path: database + reserveSuffix, size: o.Reserve, log: o.Logger, now: o.Now}
	r.given.Store(r.held() == 0)
	return r
}

// held is how many bytes the reserve's file has; -1: there is none.
func (r *reserve) held() int64 {
	var s syscall.Stat_t
	if syscall.Stat(r.path, &s) != nil {
		return -1
	}
	return s.Size
}

// exists reports whether there is a reserve, given up or not.
func (r *reserve) exists() bool { return r != nil && r.held() >= 0 }

// make makes the reserve where there is none, or one of another size. Where there is no room for it, patd goes on without.
func (r *reserve) make() {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch held := r.held(); {
	case held == 0:
		if r.look(); !r.given.Load() {
			return
		}
		r.log.Warn("store: the disk was full: only changes that take away, such as revocations, are accepted until there is room for the reserve",
			slog.Int64("reserve_bytes", r.size))
	case held == r.size:
	default:
		if err := r.fill(); err != nil && held < 0 {
			_ = os.Remove(r.path) // an empty one would say that it was given up
			r.log.Warn("store: the disk has no room for the reserve that revocations could use when it is full",
				slog.Int64("reserve_bytes", r.size), slog.Any("error", err))
		}
	}
}

// fill makes the file as long as the reserve, with its room. When that fails it is as it was.
func (r *reserve) fill() error {
	was := max(r.held(), 0)
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err = allocate(f, r.size); err == nil {
		was = r.size
	}
	err = errors.Join(err, f.Truncate(was))
	return errors.Join(err, f.Sync(), f.Close(), durable.InheritDir(r.path, filepath.Dir(r.path)), durable.SyncDir(filepath.Dir(r.path)))
}

// release gives the reserve up, and reports whether it is given up, now or before. Some file systems free its room only with the
// next flush.
func (r *reserve) release() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if held := r.held(); held <= 0 {
		r.given.Store(held == 0) // perhaps by another process
		return held == 0
	}
	f, err := os.OpenFile(r.path, os.O_RDWR, 0)
	if err != nil {
		r.log.Error("store: the reserve cannot be given up", slog.Any("error", err))
		return false
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		r.log.Error("store: the reserve cannot be given up", slog.Any("error", err))
		return false
	}
	_ = f.Sync() // best effort: the room may be there without
	r.given.Store(true)
	r.log.Error("store: the disk is full; its reserve is in use, and only changes that take away, such as revocations, are accepted until there is room")
	return true
}

// inUse reports whether the reserve is given up, as far as is known.
func (r *reserve) inUse() bool { return r != nil && r.given.Load() }

// keeps reports whether what is left of the disk is not for every change. When there is room again it restores the reserve first.
func (r *reserve) keeps() bool {
	if !r.inUse() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	return r.given.Load()
}

// look restores the reserve where it was given up and there is room, or finds that another process did. Whoever calls it has
// the lock.
func (r *reserve) look() {
	held := r.held()
	if held == 0 && r.size > 0 {
		// With a margin: what has just room for the reserve is full again at once.
		if r.free() >= r.size+r.size/8 && r.fill() == nil {
			held = r.size
		}
	}
	if given := held == 0; given != r.given.Swap(given) && !given {
		r.full.Store(false)
		r.log.Info("store: the disk has room again; its reserve is restored, and every change is accepted")
	}
}

// free is how many bytes of the disk this process could take. A quota may be less.
func (r *reserve) free() int64 {
	var s syscall.Statfs_t
	if syscall.Statfs(filepath.Dir(r.path), &s) != nil {
		return 0
	}
	return int64(s.Bavail) * int64(s.Bsize) //nolint:unconvert // their types are not the same everywhere
}

// noteFull takes in that a change had no room.
func (r *reserve) noteFull() {
	if r == nil {
		return
	}
	r.since.Store(r.now().UnixNano())
	if !r.full.Swap(true) {
		r.log.Error("store: the disk is full", slog.String("file", filepath.Base(r.path)))
	}
}

// noteRoom takes in that changes had room: when one gives something, the disk is not full.
func (r *reserve) noteRoom(done []*member) {
	if r == nil || !r.full.Load() || r.given.Load() {
		return
	}
	for _, m := range done {
		if m.uncommitted && !m.ends {
			r.full.Store(false)
			r.log.Info("store: the disk has room again")
			return
		}
	}
}

// watch looks every second, until ctx ends.
func (r *reserve) watch(ctx context.Context) {
	tick := time.NewTicker(reserveWatch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		r.look()
		if r.held() < 0 && r.free() >= 2*r.size && r.fill() != nil {
			_ = os.Remove(r.path)
		}
		r.mu.Unlock()
		if r.full.Load() && !r.given.Load() && r.now().UnixNano()-r.since.Load() > int64(fullFor) {
			r.full.Store(false)
		}
	}
}

// writeZeros gives a file room where the system has no call for that.
func writeZeros(f *os.File, size int64) error {
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// Disk is what is known of the disk of a store in a file.
type Disk struct {
	Full    bool  // the last change had no room
	Given   bool  // the reserve is in use: only changes that take away are accepted
	Reserve int64 // bytes that the reserve holds
}

// Disk returns what is known of the store's disk; of PostgreSQL's, nothing.
func (s *Store) Disk() Disk {
	r := s.group.reserve
	if r == nil {
		return Disk{}
	}
	given := r.given.Load()
	return Disk{Full: given || r.full.Load(), Given: given, Reserve: max(r.held(), 0)}
}
