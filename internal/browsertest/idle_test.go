//go:build !race

package browsertest

import (
	"path/filepath"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// TestAnOwnerResumesAPausedTokenInABrowser has a server that pauses tokens soon, in the browser that tests share.
func TestAnOwnerResumesAPausedTokenInABrowser(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	need(t)
	dir, addr := t.TempDir(), proctest.FreeAddr(t)
	data := []string{"--data-dir", filepath.Join(dir, "data")}
	admin, err := service(nil, data...)
	must(t, err)
	p, err := serve(addr, nil, append(data, "--idle-ttl", "10s")...)
	must(t, err)
	t.Cleanup(func() { must(t, p.Stop()) })
	setup{Patd: p.url, Admin: admin}.script(t, "idle.mjs")
}
