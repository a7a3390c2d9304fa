//go:build !unix

package durable

import "io/fs"

// chown does nothing: files have no owner and group of that kind here.
func chown(string, fs.FileInfo) error { return nil }
