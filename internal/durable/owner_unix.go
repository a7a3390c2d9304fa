//go:build unix

package durable

import (
	"io/fs"
	"os"
	"syscall"
)

// chown gives a file to the owner and group in info, unless it has them. It follows no symbolic link.
func chown(file string, info fs.FileInfo) error {
	want, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	present, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if have, ok := present.Sys().(*syscall.Stat_t); ok && have.Uid == want.Uid && have.Gid == want.Gid {
		return nil
	}
	return os.Lchown(file, int(want.Uid), int(want.Gid))
}
