// Package secretfile reads the small files that hold keys, passwords and tokens, by one rule: a regular file, perhaps
// through symbolic links, of bounded size. Opening and reading one never blocks, so that a named pipe in the place of
// a key file can neither hold up a server that reloads it nor keep the server from stopping.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// MaxSize is the size in bytes of the largest file that is read: far more than a key, a password, a token, or a chain
// of certificates needs.
const MaxSize = 1 << 20

// errNotRegular is returned for a pipe, a device, a socket or a directory.
var errNotRegular = errors.New("not a regular file; a pipe or a device cannot be read again when it changes")

// Read returns the content of a file. The error wraps that of opening it (fs.ErrNotExist, fs.ErrPermission) or says
// what is wrong with the file. It holds the path and nothing of the content.
func Read(path string) ([]byte, error) {
	// Opening a pipe that has no writer would block without O_NONBLOCK.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxSize {
		return nil, &fs.PathError{
			Op:   "read",
			Path: path,
			Err:  fmt.Errorf("larger than %d bytes, too large to be one", MaxSize),
		}
	}
	return text, nil
}

// ReadLine returns the content of a file that holds one secret on one line. Line ends at the end of the file are not
// part of the secret; everything else is. An empty secret is an error.
func ReadLine(path string) (string, error) {
	text, err := Read(path)
	if err != nil {
		return "", err
	}
	line := strings.TrimRight(string(text), "\r\n")
	if line == "" {
		return "", &fs.PathError{Op: "read", Path: path, Err: errors.New("the file is empty")}
	}
	return line, nil
}

// maxToken is the size in bytes of the longest token of patd's.
const maxToken = 256

// ReadToken returns the content of a file that holds one token of patd's on one line.
func ReadToken(path string) (string, error) {
	line, err := ReadLine(path)
	if err != nil {
		return "", err
	}
	if !IsToken(line) {
		return "", fmt.Errorf("%s holds something other than one token", path)
	}
	return line, nil
}

// IsToken reports whether a text could be one token: 1 to 256 printable characters of ASCII without spaces.
func IsToken(text string) bool {
	return text != "" && len(text) <= maxToken &&
		!strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// OthersCanRead reports whether more than its owner can read a file. A file that is not there, or that is not regular,
// is not read by others.
func OthersCanRead(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0
}
