package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"patd/internal/durable"
	"patd/internal/secretfile"
	"patd/tokens"
)

// keyFile is the path of a file of digest keys: lines of `keyid:64 hex digits`, the first current.
//
// The file is made once, together with a new store, and replaced as a whole by rotating: whoever reads it, at whatever
// moment, reads a complete one.
type keyFile string

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
	text, err := secretfile.Read(string(k))
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
	unlock, err := k.lock()
	if err != nil {
		return err
	}
	defer unlock()
	// Whoever makes a key file holds the lock, so a rename replaces nothing.
	switch _, err := os.Lstat(string(k)); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make the hash key: %w", err)
	}
	return k.put(string(k), line.Reveal()+"\n", func(temp string) error { return durable.InheritDir(temp, filepath.Dir(string(k))) })
}

// replace puts a new text in the place of the present one, at once and durably. Owner and mode stay.
func (k keyFile) replace(text string) error {
	target, err := filepath.EvalSymlinks(string(k))
	if err != nil {
		return fmt.Errorf("replace the hash key: %w", err)
	}
	return k.put(target, text, func(temp string) error { return durable.Inherit(temp, target) })
}

// put writes a text under another name, gives that file its owner, and renames it to its place.
func (k keyFile) put(path, text string, own func(temp string) error) error {
	temp, err := keyFile(path).temporary(text)
	if err != nil {
		return fmt.Errorf("write the hash key: %w", err)
	}
	defer os.Remove(temp)
	if err := own(temp); err != nil {
		return fmt.Errorf("write the hash key: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write the hash key: %w", err)
	}
	return durable.SyncDir(filepath.Dir(path))
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

// writableByOthers returns the directories of the store and its key that more than their owner can write to.
func (p place) writableByOthers() []string {
	var dirs []string
	for _, file := range []string{p.database, string(p.keys)} {
		dir := filepath.Dir(file)
		if info, err := os.Stat(dir); file != "" && err == nil && info.Mode().Perm()&0o022 != 0 && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
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
