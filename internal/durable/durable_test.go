package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"patd/internal/durable"
)

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestPublishNeverReplacesAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	part, path := filepath.Join(dir, "part"), filepath.Join(dir, "file")
	write(t, part, "new", 0o600)
	if err := durable.Publish(part, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	write(t, part, "newer", 0o600)
	if err := durable.Publish(part, path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("publishing over a file: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) == "newer" {
		t.Error("the file was replaced")
	}
}

func TestAReplacementKeepsTheMode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, replacement := filepath.Join(dir, "old"), filepath.Join(dir, "new")
	write(t, old, "old", 0o640)
	write(t, replacement, "new", 0o600)
	if err := durable.Inherit(replacement, old); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(replacement); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestRootsFilesBelongToTheOwnerOfTheirDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	const nobody = 65534
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	write(t, file, "x", 0o600)
	if err := durable.InheritDir(file, dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != nobody || st.Gid != nobody ||
		info.Mode().Perm() != 0o600 {
		t.Errorf("%+v, mode %v", st, info.Mode())
	}
}
