//go:build !linux

package reserve

import "os"

// allocate gives a file room on its disk.
func allocate(f *os.File, size int64) error { return writeZeros(f, size) }
