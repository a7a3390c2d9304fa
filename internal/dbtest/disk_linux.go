package dbtest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"patd/internal/proctest"
)

// PostgresOnDisk is [Postgres] with a disk of its own, of so many bytes. Only root can make one.
func PostgresOnDisk(tb testing.TB, size int, settings ...string) *Server {
	tb.Helper()
	if os.Geteuid() != 0 {
		proctest.Missing(tb, "the right to mount a disk")
	}
	disk, err := os.MkdirTemp("", "disk") // see newServerIn
	if err != nil {
		tb.Fatalf("make a directory for the database's disk: %v", err)
	}
	tb.Cleanup(func() { _ = os.Remove(disk) })
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size="+strconv.Itoa(size)+",mode=0755"); err != nil {
		proctest.Missing(tb, "the right to mount a disk ("+err.Error()+")")
	}
	tb.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			tb.Errorf("unmount the database's disk: %v", err)
		}
	})
	return postgres(
		tb,
		postgresPrograms(tb),
		disk,
		append([]string{"max_wal_size=32MB", "min_wal_size=2MB"}, settings...)...)
}

// FillDisk writes to the server's disk until it is full, and returns what makes room again.
func (s *Server) FillDisk(tb testing.TB) (empty func()) {
	tb.Helper()
	path := filepath.Join(s.dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatalf("fill the disk: %v", err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		tb.Fatalf("fill the disk: %v", err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			tb.Errorf("empty the disk: %v", err)
		}
	}
}
