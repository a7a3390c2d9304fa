package store_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"patd/store"
)

// cpuTimes returns a function that returns the CPU seconds that this process and the processes of a store's server have
// taken.
func cpuTimes(b *testing.B, st *store.Store) func() float64 {
	b.Helper()
	file, err := st.Texts(b.Context(), 0, `SELECT pg_read_file('postmaster.pid')`)
	if err != nil {
		b.Fatal(err)
	}
	server, _, _ := strings.Cut(file[0], "\n")
	self := strconv.Itoa(os.Getpid())
	return func() (seconds float64) {
		found, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, name := range found {
			text, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended
			}
			// Fields from the third on, see proc(5); the second may hold spaces.
			fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
			id := filepath.Base(filepath.Dir(name))
			if id != self && id != server && fields[1] != server {
				continue
			}
			for _, ticks := range fields[11:13] {
				n, _ := strconv.ParseFloat(ticks, 64)
				seconds += n / 100
			}
		}
		return seconds
	}
}
