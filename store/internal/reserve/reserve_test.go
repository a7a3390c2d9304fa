package reserve_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"patd/internal/proctest"
	"patd/store/internal/reserve"
)

const size = 1 << 20

// place is a database's directory, with the log of those that have a reserve there.
type place struct {
	dir string
	log *proctest.Output
}

// newPlace is a directory on the disk of temporary files, which has room.
func newPlace(t *testing.T) *place {
	t.Helper()
	return &place{t.TempDir(), proctest.NewOutput()}
}

// open is a process that opens the database, and sets so many bytes aside.
func (p *place) open(bytes int64) *reserve.Reserve {
	c := reserve.Config{Size: bytes, Logger: slog.New(slog.NewTextHandler(p.log, nil)), Now: time.Now}
	return reserve.New(filepath.Join(p.dir, "patd.db"), c)
}

func (p *place) file() string { return filepath.Join(p.dir, "patd.db-reserve") }

// want wants a reserve to be in a state, and its file to be as long as that says; negative: there is none.
func (p *place) want(t *testing.T, r *reserve.Reserve, when string, inUse bool, bytes int64) {
	t.Helper()
	held := int64(-1)
	if info, err := os.Stat(p.file()); err == nil {
		held = info.Size()
	}
	full, given, stated := r.State()
	if full != inUse || r.InUse() != inUse || given != inUse || held != bytes || stated != max(bytes, 0) ||
		r.Exists() != (bytes >= 0) {
		t.Errorf("%s: in use %v, %d bytes, %d in its file; want %v, %d", when, r.InUse(), stated, held, inUse, bytes)
	}
}

func (p *place) wantLog(t *testing.T, text string, times int) {
	t.Helper()
	if n := strings.Count(p.log.String(), text); n != times {
		t.Errorf("the log says %q %d times, want %d:\n%s", text, n, times, p.log.String())
	}
}

// pass lets so much of a bubble's time pass, and what is due then be done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestReserveIsSharedByProcesses has a server, and a command that makes no reserve but may use the server's.
func TestReserveIsSharedByProcesses(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	server, command := p.open(size), p.open(0)
	p.want(t, command, "before it is made", false, -1)
	if command.Release() {
		t.Error("what is not there was given up")
	}
	server.Make()
	p.want(t, server, "made", false, size)
	if server.Keeps() || command.Keeps() {
		t.Error("every change has room, and one is refused")
	}
	if !command.Release() {
		t.Fatal("a command cannot give the reserve up")
	}
	p.want(t, command, "given up", true, 0)
	if !command.Keeps() {
		t.Error("a command restores the reserve, which it does not make")
	}
	if !server.Release() {
		t.Error("the server does not find that a command gave the reserve up")
	}
	p.want(t, server, "given up by a command", true, 0)
	p.want(t, p.open(size), "found by the next start", true, 0)
	if server.Keeps() {
		t.Error("there is room again, and changes are refused")
	}
	p.want(t, server, "restored", false, size)
	if command.Keeps() {
		t.Error("the server has restored the reserve, and a command refuses changes")
	}
	p.wantLog(t, "the disk is full; its reserve is in use", 1)
	p.wantLog(t, "its reserve is restored", 2)
}

// TestReserveOfAnotherSize holds that the size is that of the newest start.
func TestReserveOfAnotherSize(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, bytes := range []int64{size, 3*size + 1, size / 2, size / 2} {
		r := p.open(bytes)
		r.Make()
		p.want(t, r, "made", false, bytes)
	}
	p.wantLog(t, "level", 0)
}

// TestReserveThatCannotBeGivenUp holds that the log says so, and that the change is then refused as one without room.
func TestReserveThatCannotBeGivenUp(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if err := os.Mkdir(p.file(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.file(), "a"), nil, 0o600); err != nil { // some file systems say 0 else
		t.Fatal(err)
	}
	r := p.open(size)
	if r.Release() || r.InUse() {
		t.Error("a directory was given up")
	}
	p.wantLog(t, "the reserve cannot be given up", 1)
}

// TestStoreWithoutReserve holds that a store on another machine's disk refuses nothing and knows nothing.
func TestStoreWithoutReserve(t *testing.T) {
	t.Parallel()
	var r *reserve.Reserve
	r.NoteFull()
	r.NoteRoom()
	full, given, held := r.State()
	if full || given || held != 0 || r.Full() || r.Exists() || r.InUse() || r.Keeps() || r.Release() || r.Free() >= 0 {
		t.Errorf("full %v, given up %v, %d bytes, %d are free", full, given, held, r.Free())
	}
	gone := newPlace(t)
	gone.dir = filepath.Join(gone.dir, "none")
	if free := gone.open(size).Free(); free != 0 {
		t.Errorf("%d bytes are free on a disk that is not there", free)
	}
}

// watched opens a reserve, makes it, and watches it until cancel.
func (p *place) watched(t *testing.T) (r *reserve.Reserve, cancel func()) {
	t.Helper()
	r = p.open(size)
	r.Make()
	ctx, cancel := context.WithCancel(t.Context())
	go r.Watch(ctx)
	return r, cancel
}

// TestDiskCountsAsFullForAWhile holds that a change without room is noted once, until another has room or none has
// lacked it for half a minute.
func TestDiskCountsAsFullForAWhile(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	synctest.Test(t, func(t *testing.T) {
		r, cancel := p.watched(t)
		r.NoteRoom()
		p.wantLog(t, "the disk has room again", 0)
		r.NoteFull()
		r.NoteFull()
		if full, given, _ := r.State(); !full || given || !r.Full() {
			t.Errorf("after a change without room: full %v, given up %v", full, given)
		}
		p.wantLog(t, "store: the disk is full", 1)
		r.NoteRoom()
		if r.Full() {
			t.Error("a change had room, and the disk counts as full")
		}
		p.wantLog(t, "the disk has room again", 1)

		r.NoteFull()
		for _, c := range []struct {
			after time.Duration
			full  bool
		}{{29 * time.Second, true}, {3 * time.Second, false}} {
			pass(c.after)
			if r.Full() != c.full {
				t.Errorf("%s later, full: %v", c.after, r.Full())
			}
		}
		cancel()
	})
}

// TestServerRestoresTheReserveItself holds that a server which gets no change notices room by itself, and makes a
// reserve that somebody removed.
func TestServerRestoresTheReserveItself(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	synctest.Test(t, func(t *testing.T) {
		r, cancel := p.watched(t)
		for when, spoil := range map[string]func() error{
			"given up": func() error { r.Release(); return nil },
			"removed":  func() error { return os.Remove(p.file()) },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			pass(2 * time.Second)
			p.want(t, r, "a moment after it was "+when, false, size)
		}
		cancel()
	})
}
