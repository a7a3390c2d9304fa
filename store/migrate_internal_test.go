package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTheLockOfAMigrationWritesNothing looks beside the lock's file while it is held: a server must be able to start on
// a disk that is full.
func TestTheLockOfAMigrationWritesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the lock there are %v, %v", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("the lock's file was written: %v, %v", info, err)
	}
}
