package tokensource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"patd/internal/durable"
	"patd/internal/secretfile"
	"patd/tokens/secret"
)

// leftover is how old an unfinished file is before it counts as one that a killed program left.
const leftover = 10 * time.Minute

// File is a Store in a file that holds the token and nothing else but a line end. A new secret replaces the file whole,
// by a rename in its directory: a reader sees the earlier secret or the new one, also after a power loss. Owner, group
// and mode stay. Where the path is a symbolic link, the file that it leads to is replaced.
type File struct {
	path string
	now  func() time.Time
	step func(name string) // called between the steps of Save, by tests
}

var (
	_ Store    = (*File)(nil)
	_ Preparer = (*File)(nil)
)

// NewFile returns the Store of a file, which must hold a token.
func NewFile(path string) *File {
	return &File{
		path: path,
		//nolint:forbidigo // it decides only what is old enough to be removed
		now:  time.Now,
		step: func(string) {},
	}
}

// Load reads the file.
func (f *File) Load(context.Context) (Stored, error) {
	text, err := secretfile.ReadToken(f.path)
	if err != nil {
		return Stored{}, fmt.Errorf("read the token: %w", err)
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return Stored{}, fmt.Errorf("read the token: %w", err)
	}
	return Stored{secret.NewSecret(text), info.ModTime()}, nil
}

// Prepare makes sure that a file can be written beside the present one, with its owner and mode, and removes what
// killed programs left.
func (f *File) Prepare(context.Context) error {
	target, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return fmt.Errorf("find the token's file: %w", err)
	}
	f.clean(target)
	part, err := f.write(target, "a new secret stands here\n")
	if err != nil {
		return err
	}
	return os.Remove(part)
}

// Save replaces the file.
func (f *File) Save(ctx context.Context, previous, next secret.Secret) error {
	f.step("start")
	target, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return fmt.Errorf("find the token's file: %w", err)
	}
	present, err := secretfile.Read(target)
	if err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	line := strings.TrimRight(string(present), "\r\n")
	if !same(secret.NewSecret(line), previous) {
		return ErrReplaced
	}
	part, err := f.write(target, next.Reveal()+string(present[len(line):]))
	if err != nil {
		return err
	}
	f.step("written")
	if err := os.Rename(part, target); err != nil {
		return errors.Join(fmt.Errorf("replace the token's file: %w", err), os.Remove(part))
	}
	f.step("renamed")
	if err := durable.SyncDir(filepath.Dir(target)); err != nil {
		return err
	}
	f.step("synced")
	return nil
}

// pattern is the form of the names of unfinished files.
func pattern(target string) string { return "." + filepath.Base(target) + ".new-*" }

// write puts a text into a new file on disk beside target, with target's owner and mode, and returns its path.
func (f *File) write(target, text string) (path string, err error) {
	part, err := durable.Part(filepath.Dir(target), pattern(target), text, func() { f.step("created") })
	if err != nil {
		return "", fmt.Errorf("write beside the token's file: %w", err)
	}
	if err := durable.Inherit(part, target); err != nil {
		return "", errors.Join(err, os.Remove(part))
	}
	return part, nil
}

// clean removes unfinished files that are old.
func (f *File) clean(target string) {
	found, _ := filepath.Glob(filepath.Join(filepath.Dir(target), pattern(target))) // its error is of a bad pattern
	for _, path := range found {
		if info, err := os.Lstat(
			path,
		); err == nil && info.Mode().IsRegular() &&
			f.now().Sub(info.ModTime()) > leftover {
			_ = os.Remove(path) // or the next one does
		}
	}
}
