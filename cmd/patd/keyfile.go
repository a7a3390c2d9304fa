package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"patd/tokens"
)

// keyFile is the path of a file of digest keys: lines of `keyid:64 hex digits`, the first current.
//
// The file is made once, together with a new store, and replaced as a whole by rotating: whoever reads it, at whatever
// moment, reads a complete one.
type keyFile string

// maxKeyFile is far more than a key file holds.
const maxKeyFile = 1 << 16

// read reads the keys. The error is fs.ErrNotExist when there is no file.
func (k keyFile) read() (*tokens.Keys, error) {
	text, err := k.text()
	if err != nil {
		return nil, err
	}
	ks, err := tokens.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; put the right file back from your backup", k, err)
	}
	return ks, nil
}

func (k keyFile) text() (string, error) {
	info, err := os.Stat(string(k))
	if err != nil {
		return "", fmt.Errorf("read the hash key: %w", err)
	}
	if info.Size() > maxKeyFile {
		return "", fmt.Errorf("read the hash key: %s is too large to be one", k)
	}
	text, err := os.ReadFile(string(k))
	if err != nil {
		return "", fmt.Errorf("read the hash key: %w", err)
	}
	return string(text), nil
}

// create makes a file with one fresh key, unless there is one: of several processes that try at once, one makes it and
// all read the same.
func (k keyFile) create() error {
	line, err := tokens.NewKeyLine(keyName(1), rand.Reader)
	if err != nil {
		return err
	}
	temp, err := k.temporary(line.Reveal() + "\n")
	if err != nil {
		return fmt.Errorf("make the hash key: %w", err)
	}
	defer os.Remove(temp)
	// A link, unlike a rename, never replaces what is there.
	if err := os.Link(temp, string(k)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the hash key: %w", err)
	}
	return syncDir(filepath.Dir(string(k)))
}

// replace puts a new text in the place of the present one, at once and durably.
func (k keyFile) replace(text string) error {
	target, err := filepath.EvalSymlinks(string(k))
	if err != nil {
		return fmt.Errorf("replace the hash key: %w", err)
	}
	temp, err := keyFile(target).temporary(text)
	if err != nil {
		return fmt.Errorf("replace the hash key: %w", err)
	}
	defer os.Remove(temp)
	if err := os.Rename(temp, target); err != nil {
		return fmt.Errorf("replace the hash key: %w", err)
	}
	return syncDir(filepath.Dir(target))
}

// temporary writes a file beside the key file, to disk, readable by its owner only.
func (k keyFile) temporary(text string) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(string(k)), ".hash.key-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// sweep removes temporary files that a killed process left beside the key file: they hold keys, and nobody needs them.
func (k keyFile) sweep(now time.Time) {
	if k == "" {
		return
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(string(k)), ".hash.key-*"))
	if err != nil {
		return
	}
	for _, name := range left {
		if info, err := os.Lstat(name); err == nil && now.Sub(info.ModTime()) > time.Minute {
			os.Remove(name)
		}
	}
}

// lock keeps other commands from changing the file until it is unlocked.
func (k keyFile) lock() (unlock func(), err error) {
	d, err := os.Open(filepath.Dir(string(k)))
	if err != nil {
		return nil, fmt.Errorf("lock the hash key: %w", err)
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("lock the hash key: %w", err)
	}
	return func() { d.Close() }, nil
}

// readableByOthers tells whether more than its owner can read the file.
func (k keyFile) readableByOthers() bool {
	info, err := os.Stat(string(k))
	return err == nil && info.Mode().Perm()&0o077 != 0
}

// without answers the text of a key file without the line of one key.
func without(text, name string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if id, _, _ := strings.Cut(strings.TrimSpace(line), ":"); id != name {
			b.WriteString(line)
		}
	}
	return b.String()
}

// keyName is the name of the nth key of a store.
func keyName(n int) string { return fmt.Sprintf("k%d", n) }

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
