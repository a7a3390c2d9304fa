package dbtest

import (
	"sync"
	"testing"

	"patd/internal/longtest"
)

// shared is the PostgreSQL server that tests of one process share, while any of them uses it.
var shared struct {
	sync.Mutex
	server *Server
	users  int
	ends   []func()
}

// outliving is the test that starts the shared server, without its end: what it leaves to clean up is left to the last
// user.
type outliving struct{ testing.TB }

func (outliving) Cleanup(end func()) { shared.ends = append(shared.ends, end) }

// SharedPostgres returns a PostgreSQL server that the process's tests share: one with files and a start of its own
// costs more than most tests. It is for tests that each use a schema of their own and neither kill or freeze the server
// nor change what belongs to all its schemas; those use [Postgres].
func SharedPostgres(tb testing.TB) *Server {
	tb.Helper()
	longtest.Slow(tb)
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		shared.server = Postgres(outliving{tb}, "max_connections=300", "shared_buffers=64MB")
	}
	shared.users++
	tb.Cleanup(leaveShared)
	return shared.server
}

// leaveShared ends the server with its last user.
func leaveShared() {
	shared.Lock()
	defer shared.Unlock()
	if shared.users--; shared.users > 0 {
		return
	}
	for i := len(shared.ends) - 1; i >= 0; i-- {
		shared.ends[i]()
	}
	shared.server, shared.ends = nil, nil
}
