package store_test

import (
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/storetest"
	"patd/tokens"
)

// TestDrillEachPostgres runs the suite that every store passes on each version of PostgreSQL that patd supports.
func TestDrillEachPostgres(t *testing.T) {
	longtest.Drill(t)
	for version, bin := range dbtest.Versions(t, "../internal/dbtest") {
		t.Run(version, func(t *testing.T) {
			server := dbtest.PostgresOf(t, bin, "max_connections=300", "shared_buffers=64MB")
			empty := emptied(t, server)
			bare := func(t *testing.T) tokens.Store { return openURL(t, empty(t), store.Options{Connections: 2}) }
			storetest.Run(t, bare)
			t.Run("a fault is never an answer", func(t *testing.T) { storetest.RunFaults(t, bare) })
		})
	}
}
