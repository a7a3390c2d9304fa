package replicatest

import (
	"testing"
	"time"

	"patd/internal/waittest"
)

// standStill is longer than a replica trusts what it knows without news.
const standStill = 6 * time.Second

// aReplicaThatStoodStillTrustsNothing stops a replica's process, as a machine does that is moved, and has another
// revoke what it knows. When it runs again, its first answer is from the database.
func aReplicaThatStoodStillTrustsNothing(t *testing.T, c *cluster) {
	still, other := c.replicas[1], c.replicas[0]
	must(t, other.now().hold(t.Context(), "still", "a"))
	tok, _, err := other.now().mint(t.Context(), "still", "still", "")
	must(t, err)
	for range 2 {
		if got, err := still.now().decide(t.Context(), tok.secret); err != nil || got != allow {
			t.Fatalf("a new token is %s, %v", got, err)
		}
	}
	still.daemon().freeze(t)
	frozen := time.Now()
	// A transaction of the one that stands still may be in the way of others, who wait until the database ends it.
	if err := other.now().revoke(t.Context(), tok); err != nil {
		t.Errorf("revoke while a replica stands still: %v", err)
	}
	waittest.Within(t, patience, "it stood still for long", func() bool { return time.Since(frozen) > standStill })
	still.daemon().thaw(t)
	if got, err := still.now().
		decide(t.Context(), tok.secret); err == nil && got != revoked ||
		err != nil && !isOutage(err) {
		t.Errorf("after standing still, a revoked token is %s, %v", got, err)
	}
	waittest.Within(t, patience, "it answers again", func() bool {
		got, err := still.now().decide(t.Context(), tok.secret)
		return err == nil && got == revoked
	})
}
