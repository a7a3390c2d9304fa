//go:build !linux

package dbtest

import (
	"testing"

	"patd/internal/proctest"
)

// PostgresOnDisk is for Linux.
func PostgresOnDisk(tb testing.TB, _ int, _ ...string) *Server {
	tb.Helper()
	proctest.Missing(tb, "Linux")
	return nil
}

// FillDisk is for Linux.
func (s *Server) FillDisk(tb testing.TB) (empty func()) {
	tb.Helper()
	proctest.Missing(tb, "Linux")
	return nil
}
