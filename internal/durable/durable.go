// Package durable makes and replaces files so that they survive a power loss whole, with the right owner, on every file
// system, with hard links or without.
//
// A command that root runs on a store must leave files that the service's own account can read. So a file that
// replaces another keeps its owner, group and mode, and a new one belongs to the owner of its directory.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if runtime.GOOS == "windows" {
		return nil // it syncs no directories, and makes names durable by itself
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// Part writes a text to a new file in a directory, onto disk, for its owner alone. The file is to be renamed to its
// place, and SyncDir is to follow. pattern is that of os.CreateTemp. created, which may be nil, is called when the file
// exists and is empty.
func Part(dir, pattern, text string, created func()) (path string, err error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return "", err
	}
	if created != nil {
		created()
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// Publish gives a whole file that is on disk another name in the same directory, and never replaces a file that has
// appeared there meanwhile: the error is then fs.ErrExist. Where the file system has no hard links, an empty file
// claims the name and the rename replaces it; a process that is killed between the two leaves the empty file.
func Publish(part, path string) error {
	err := os.Link(part, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	claim, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := claim.Close(); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if err := os.Rename(part, path); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Keep gives a file a second name. Where the file system has no hard links, the second name is a copy with the same
// owner and mode. It is on disk when Keep returns; its name is once SyncDir does. The second name must be free.
func Keep(path, second string) error {
	err := os.Link(path, second)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := Copy(second, path); err != nil {
		return err
	}
	return Inherit(second, path)
}

// Copy copies a file onto disk, for its owner alone. The destination must not exist.
func Copy(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// Inherit gives a file the owner, group and permissions of another one, which it replaces or stands for. It is an error
// when the caller may not: the file would then be lost to its readers.
func Inherit(file, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("look up the owner of %s: %w", from, err)
	}
	// The owner changes first: a file never has the new permissions under the old owner.
	if err := chown(file, info); err != nil {
		return fmt.Errorf("give %s to the owner of %s (run this as root or as that user): %w", file, from, err)
	}
	if err := os.Chmod(file, info.Mode().Perm()); err != nil {
		return fmt.Errorf("give %s the mode of %s: %w", file, from, err)
	}
	return nil
}

// InheritDir gives a new file the owner and group of the directory that it is made for, when root makes it. Other
// users' files stay their own. The permissions stay as they are.
func InheritDir(file, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look up the owner of %s: %w", dir, err)
	}
	if err := chown(file, info); err != nil {
		return fmt.Errorf("give %s to the owner of %s: %w", file, dir, err)
	}
	return nil
}
