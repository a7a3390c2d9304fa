package reserve

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

const (
	suffix = "-reserve"
	// watchEvery is how often a server looks whether there is room again.
	watchEvery = time.Second
	// fullFor is how long the disk counts as full after a change had no room, when none has succeeded since.
	fullFor = 30 * time.Second
)

// ErrKept is the cause when a change is refused, because the rest of the disk is for changes that only take away.
var ErrKept = errors.New("the rest of the disk is for changes that only take away")

// Reserve is the reserve of a store in a file. All methods but Make and Watch may be called on nil, a store that has
// none.
type Reserve struct {
	path string
	size int64 // what a server holds; 0: this process makes none
	log  *slog.Logger
	now  func() time.Time

	given atomic.Bool // the reserve is given up
	full  atomic.Bool // a change had no room
	since atomic.Int64

	mu sync.Mutex // of the file
}

// Config configures a Reserve. All fields are needed but Size.
type Config struct {
	Size   int64 // bytes; 0: this process makes none, and uses and does not restore one that is there
	Logger *slog.Logger
	Now    func() time.Time
}

// New returns the reserve of a database file. It makes none: see Make.
func New(database string, c Config) *Reserve {
	r := &Reserve{path: database + suffix, size: c.Size, log: c.Logger, now: c.Now}
	r.given.Store(r.held() == 0)
	return r
}

// held is how many bytes the reserve's file has; -1: there is none.
func (r *Reserve) held() int64 {
	var s syscall.Stat_t
	if syscall.Stat(r.path, &s) != nil {
		return -1
	}
	return s.Size
}

// Exists reports whether there is a reserve, given up or not.
func (r *Reserve) Exists() bool { return r != nil && r.held() >= 0 }

// Make makes the reserve where there is none, or one of another size. Where there is no room for it, patd goes on
// without.
func (r *Reserve) Make() {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch held := r.held(); {
	case held == 0:
		if r.look(); !r.given.Load() {
			return
		}
		r.log.Warn("store: the disk was full: only changes that take away, such as revocations, are accepted "+
			"until there is room for the reserve",
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
func (r *Reserve) fill() error {
	was := max(r.held(), 0)
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err = allocate(f, r.size); err == nil {
		was = r.size
	}
	err = errors.Join(err, f.Truncate(was))
	dir := filepath.Dir(r.path)
	return errors.Join(err, f.Sync(), f.Close(), durable.InheritDir(r.path, dir), durable.SyncDir(dir))
}

// Release gives the reserve up, and reports whether it is given up, now or before. Some file systems free its room only
// with the next flush.
func (r *Reserve) Release() bool {
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
	r.log.Error(
		"store: the disk is full; its reserve is in use, and only changes that take away, such as revocations, " +
			"are accepted until there is room",
	)
	return true
}

// InUse reports whether the reserve is given up, as far as is known.
func (r *Reserve) InUse() bool { return r != nil && r.given.Load() }

// Keeps reports whether what is left of the disk is not for every change. When there is room again it restores the
// reserve first.
func (r *Reserve) Keeps() bool {
	if !r.InUse() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	return r.given.Load()
}

// look restores the reserve where it was given up and there is room, or finds that another process did. The caller has
// the lock.
func (r *Reserve) look() {
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

// Free is how many bytes of the disk this process could take; negative: it is not known. A quota may be less.
func (r *Reserve) Free() int64 {
	if r == nil {
		return -1
	}
	return r.free()
}

// free is Free of a disk that is there; 0: it is not known.
func (r *Reserve) free() int64 {
	var s syscall.Statfs_t
	if syscall.Statfs(filepath.Dir(r.path), &s) != nil {
		return 0
	}
	return int64(s.Bavail) * int64(s.Bsize) //nolint:unconvert // their types are not the same everywhere
}

// NoteFull records that a change had no room.
func (r *Reserve) NoteFull() {
	if r == nil {
		return
	}
	r.since.Store(r.now().UnixNano())
	if !r.full.Swap(true) {
		r.log.Error("store: the disk is full", slog.String("file", filepath.Base(r.path)))
	}
}

// Full reports whether a change had no room, while the reserve is not in use.
func (r *Reserve) Full() bool { return r != nil && r.full.Load() && !r.given.Load() }

// NoteRoom records that a change that gives something had room: the disk is not full.
func (r *Reserve) NoteRoom() {
	if r.Full() && r.full.Swap(false) {
		r.log.Info("store: the disk has room again")
	}
}

// Watch looks every second, until ctx ends.
func (r *Reserve) Watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
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

// State returns whether the last change had no room, whether the reserve is in use, and how many bytes it holds.
func (r *Reserve) State() (full, given bool, held int64) {
	if r == nil {
		return false, false, 0
	}
	given = r.given.Load()
	return given || r.full.Load(), given, max(r.held(), 0)
}
