package replicatest

import (
	"fmt"
	"testing"

	"patd/internal/waittest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// aCommitThatIsCutOffIsAnswered cuts the connection in the middle of commits, while the database can be reached at once
// again: the caller gets the token, once, whether the commit had arrived or not.
func aCommitThatIsCutOffIsAnswered(t *testing.T, c *cluster) {
	k, a := c.cutters[0], c.replicas[0].now()
	must(t, a.hold(t.Context(), "cut", "a"))
	before := k.done()
	for n, fate := range []cut{beforeCommit, afterCommit, beforeCommit, afterCommit} {
		name := fmt.Sprint("token ", n)
		k.arm(fate, false)
		tok, replayed, err := a.mint(t.Context(), "cut", name, "a key for "+name)
		if err != nil || replayed {
			t.Fatalf("a mint whose commit is cut off: %v, replayed %t", err, replayed)
		}
		if k.done() != before+n+1 {
			t.Fatalf("%d commits were cut, want %d", k.done()-before, n+1)
		}
		for _, r := range c.replicas {
			if got, err := r.now().decide(t.Context(), tok.secret); err != nil || got != allow {
				t.Errorf("%s says %s, %v of the token", r.name, got, err)
			}
		}
		again, replayed, err := c.replicas[1].now().mint(t.Context(), "cut", name, "a key for "+name)
		if err != nil || !replayed || again != tok {
			t.Errorf("the retry gets token %s, replayed %t, %v; want %s", again.id, replayed, err, tok.id)
		}
	}
	if n := len(active(t, c.replicas[1], "cut")); n != 4 {
		t.Errorf("%d tokens were made, want 4", n)
	}
}

// aCommitNobodyKnowsOfIsReportedAsSuch cuts the connection in the middle of a commit, and lets no other through: the
// caller is told that the outcome is unknown, and the retry with the idempotency key finds out.
func aCommitNobodyKnowsOfIsReportedAsSuch(t *testing.T, c *cluster) {
	for n, fate := range []cut{beforeCommit, afterCommit} {
		k, r := c.cutters[n], c.replicas[n]
		t.Run([]string{"HadNotArrived", "HadArrived"}[n], func(t *testing.T) {
			t.Parallel()
			unknownThenRetried(t, k, r, c.replicas[2], fate)
		})
	}
}

// unknownThenRetried cuts a commit of one replica, and retries on another and on the same.
func unknownThenRetried(t *testing.T, k *cutter, r, elsewhere *replica, fate cut) {
	t.Helper()
	a, user := r.now(), fmt.Sprint("unknown-", fate)
	must(t, a.hold(t.Context(), user, "a"))
	k.arm(fate, true)
	_, _, err := a.mint(t.Context(), user, "token", "a key for "+user)
	if status.Code(err) != codes.Unavailable || reason(err) != "OUTCOME_UNKNOWN" {
		t.Errorf("a commit cut off for long: %v, reason %q", err, reason(err))
	}
	known := len(active(t, elsewhere, user))
	if want := map[cut]int{beforeCommit: 0, afterCommit: 1}[fate]; known != want {
		t.Errorf("%d tokens were made by a commit that was cut, want %d", known, want)
	}
	tok, replayed, err := elsewhere.now().mint(t.Context(), user, "token", "a key for "+user)
	if err != nil || replayed != (known == 1) {
		t.Errorf("the retry elsewhere: replayed %t, %v", replayed, err)
	}
	k.open()
	waittest.Within(t, patience, "the retry is answered where it was unknown", func() bool {
		again, replayed, err := a.mint(t.Context(), user, "token", "a key for "+user)
		if err == nil && (!replayed || again != tok) {
			t.Fatalf("the retry gets token %s, replayed %t; want %s", again.id, replayed, tok.id)
		}
		return err == nil
	})
}
