package replicatest

import (
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
)

// TestThreeReplicasAreOne holds guarantees of three replicas on one database which all is well with, but for some of
// their connections. Without LONG_TESTS it holds the first alone.
func TestThreeReplicasAreOne(t *testing.T) {
	longtest.Slow(t)
	c := newCluster(t, dbtest.Postgres(t), "patd", 3)
	for _, g := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"RevokedIsRefusedEverywhereInTime", revokedIsRefusedEverywhereInTime},
		{"RevokedIsRefusedInTimeThoughNobodyIsNotified", revokedIsRefusedInTimeThoughNobodyIsNotified},
		{"DeprovisionedIsRefusedEverywhereInTime", deprovisionedIsRefusedEverywhereInTime},
		{"AFirstUseRetiresEverywhereInTime", aFirstUseRetiresEverywhereInTime},
		{"OneOfManyGetsAName", oneOfManyGetsAName},
		{"NobodyGetsOverTheLimit", nobodyGetsOverTheLimit},
		{"AnIdempotencyKeyMakesOneToken", anIdempotencyKeyMakesOneToken},
		{"AnIdempotencyKeyIsOfOneRequest", anIdempotencyKeyIsOfOneRequest},
		{"ABrowserMeetsAnyReplica", aBrowserMeetsAnyReplica},
		{"HistoriesAreLinearizable", historiesAreLinearizable},
		{"AReplicaThatStoodStillTrustsNothing", aReplicaThatStoodStillTrustsNothing},
		{"TheLastUseIsTheLatest", theLastUseIsTheLatest}, // it stops replicas
	} {
		t.Run(g.name, func(t *testing.T) { g.test(t, c) })
		if !longtest.Enabled() {
			return
		}
	}
}
