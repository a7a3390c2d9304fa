package reserve_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// newDisk is a place on a file system of its own.
func newDisk(t *testing.T, kind, options string) *place {
	t.Helper()
	p := newPlace(t)
	if err := syscall.Mount(kind, p.dir, kind, 0, options); err != nil {
		t.Skipf("a file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(p.dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return p
}

// fill writes a file until the disk is full, and returns what makes room again.
func (p *place) fill(t *testing.T) (empty func()) {
	t.Helper()
	path := filepath.Join(p.dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestReserveOfAFullDisk fills a disk beside the reserve, which then has the room that is left.
func TestReserveOfAFullDisk(t *testing.T) {
	t.Parallel()
	p := newDisk(t, "tmpfs", "size=4m,mode=0700")
	r := p.open(size)
	r.Make()
	p.want(t, r, "made", false, size)
	empty := p.fill(t)
	if free := r.Free(); free != 0 {
		t.Fatalf("%d bytes are free on a full disk", free)
	}
	bigger := p.open(2 * size)
	bigger.Make()
	p.want(t, bigger, "when there is no room for a bigger one", false, size)
	if !r.Release() {
		t.Fatal("the reserve cannot be given up")
	}
	if free := r.Free(); free < size {
		t.Errorf("the reserve was given up, and %d bytes are free", free)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "revocation"), make([]byte, size/2), 0o600); err != nil {
		t.Errorf("a change that takes away has no room: %v", err)
	}
	if !r.Keeps() {
		t.Error("there is no room for the reserve, and every change is accepted")
	}
	next := p.open(size)
	next.Make()
	p.want(t, next, "after a start on the full disk", true, 0)
	p.wantLog(t, "the disk was full: only changes that take away", 1)

	empty()
	next.Make()
	p.want(t, next, "after a start with room", false, size)
	if r.Keeps() {
		t.Error("there is room again, and changes are refused")
	}
}

// TestNoRoomForTheReserve holds that a server without one says so and leaves no empty file, which would refuse every
// change, and that it makes the reserve as soon as there is room.
func TestNoRoomForTheReserve(t *testing.T) {
	t.Parallel()
	p := newDisk(t, "tmpfs", "size=4m,mode=0700")
	empty := p.fill(t)
	synctest.Test(t, func(t *testing.T) {
		r := p.open(size)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r.Make()
		p.want(t, r, "without room", false, -1)
		p.wantLog(t, "the disk has no room for the reserve", 1)
		go r.Watch(ctx)
		pass(2 * time.Second)
		p.want(t, r, "still without room", false, -1)
		empty()
		pass(2 * time.Second)
		p.want(t, r, "with room", false, size)
		cancel()
	})
}

// TestReserveWhereRoomCannotBeAllocated is on a file system that has no call for that, as network file systems have
// none: the reserve is written.
func TestReserveWhereRoomCannotBeAllocated(t *testing.T) {
	t.Parallel()
	p := newDisk(t, "ramfs", "mode=0700")
	if f, err := os.Create(filepath.Join(p.dir, "probe")); err != nil {
		t.Fatal(err)
	} else if err := errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, 1), f.Close()); err == nil {
		t.Skip("this file system can allocate room")
	}
	const odd = 2*size + 4097
	r := p.open(odd)
	r.Make()
	p.want(t, r, "made", false, odd)
	if text, err := os.ReadFile(p.file()); err != nil || len(text) != odd {
		t.Errorf("it can be read: %d bytes, %v", len(text), err)
	}
	r.Release()
	p.want(t, r, "given up", true, 0)
}
