package config

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

	"patd/internal/durable"
	"patd/internal/secretfile"
	"patd/tokens"
	"patd/tokens/secret"
)

// KeyFile is the path of a file of digest keys: lines of `keyid:64 hex digits`, the first current, and the line that
// says that the rows of the store are sealed.
//
// The file is made once, together with a new store. Rotation replaces it as a whole, so any reader, at any moment,
// reads a complete one.
type KeyFile string

// Read reads the keys. It returns fs.ErrNotExist when there is no file.
func (k KeyFile) Read() (*tokens.Keys, error) {
	text, err := k.Text()
	if err != nil {
		return nil, err
	}
	ks, err := secret.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; put the right file back from your backup", k, err)
	}
	return ks, nil
}

// Text returns the text of the file.
func (k KeyFile) Text() (string, error) {
	text, err := secretfile.Read(string(k))
	if err != nil {
		return "", fmt.Errorf("read the hash key: %w", err)
	}
	return string(text), nil
}

// partOfKey is the pattern of temporary files beside the key file.
const partOfKey = ".hash.key-*"

// Create makes a file with one fresh key for a new store, whose rows are sealed from the start, unless there is one: of
// several concurrent processes, one makes it and all read the same.
func (k KeyFile) Create() error {
	line, err := secret.NewKeyLine(KeyName(1), rand.Reader)
	if err != nil {
		return err
	}
	unlock, err := k.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	// Every process that makes a key file holds the lock, so a rename replaces nothing.
	switch _, err := os.Lstat(string(k)); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make the hash key: %w", err)
	}
	return k.put(
		string(k),
		line.Reveal()+"\n"+secret.SealedLine()+"\n",
		func(temp string) error { return durable.InheritDir(temp, filepath.Dir(string(k))) },
	)
}

// Replace replaces the text of the file, atomically and durably. Owner and mode stay.
func (k KeyFile) Replace(text string) error {
	target, err := filepath.EvalSymlinks(string(k))
	if err != nil {
		return fmt.Errorf("replace the hash key: %w", err)
	}
	return k.put(target, text, func(temp string) error { return durable.Inherit(temp, target) })
}

// put writes a text to a temporary file, sets its owner, and renames it to its place.
func (k KeyFile) put(path, text string, own func(temp string) error) error {
	temp, err := durable.Part(filepath.Dir(path), partOfKey, text, nil)
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

// Sweep removes temporary files that a killed process left beside the key file: they hold keys, and have no use.
func (k KeyFile) Sweep(now time.Time) {
	if k == "" {
		return
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(string(k)), partOfKey))
	if err != nil {
		return
	}
	for _, name := range left {
		if info, err := os.Lstat(name); err == nil && now.Sub(info.ModTime()) > time.Minute {
			os.Remove(name)
		}
	}
}

// Lock keeps other commands from changing the file until it is unlocked.
func (k KeyFile) Lock() (unlock func(), err error) {
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

// ReadableByOthers reports whether more than its owner can read the file.
func (k KeyFile) ReadableByOthers() bool {
	return secretfile.OthersCanRead(string(k))
}

// Without returns the text of a key file without the line of one key.
func Without(text, name string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if id, _, _ := strings.Cut(strings.TrimSpace(line), ":"); id != name {
			b.WriteString(line)
		}
	}
	return b.String()
}

// KeyName returns the name of the nth key of a store.
func KeyName(n int) string { return fmt.Sprintf("k%d", n) }

// MakeDir makes the data directory, for its owner alone.
func MakeDir(dir string) error {
	if dir == "" {
		return nil
	}
	switch info, err := os.Stat(dir); {
	case err == nil && !info.IsDir():
		return fmt.Errorf("--data-dir %s is not a directory", dir)
	case err == nil:
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	return durable.SyncDir(filepath.Dir(filepath.Clean(dir)))
}

func absent(file string) (bool, error) {
	switch _, err := os.Stat(file); {
	case err == nil:
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	default:
		return false, fmt.Errorf("look for the store: %w", err)
	}
}

// Stamp identifies a version of a file: when it was written, how long it is, and which file it is.
type Stamp struct {
	written time.Time
	size    int64
	node    uint64
}

// Stamp returns the stamp of the present file.
func (k KeyFile) Stamp() Stamp {
	info, err := os.Stat(string(k))
	if err != nil {
		return Stamp{size: -1}
	}
	s := Stamp{written: info.ModTime(), size: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		s.node = stat.Ino
	}
	return s
}
