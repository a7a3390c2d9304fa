package replicatest

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/tokens"

	patdv1 "patd/gen/patd/v1"
)

// TestNarrowingManySurvivesAKilledServer pauses the unused scopes of a third of all tokens, and kills the server that
// does it: those of the plan are narrowed, each once, and no other.
func TestNarrowingManySurvivesAKilledServer(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	const n = 1500
	c, st, ids := filled(t, "narrow", 3*n)
	victim, other := c.replicas[0], c.replicas[1]
	ctx, a := t.Context(), other.now()
	must(t, a.hold(ctx, "u", "billing.edit", "a"))
	filter := &patdv1.TokenFilter{Scope: "billing.edit"}
	plan, err := patdv1.NewInventoryServiceClient(victim.now().conn).
		BulkNarrowTokens(ctx, &patdv1.BulkNarrowTokensRequest{Filter: filter, DryRun: true})
	must(t, err)
	if plan.GetCount() != n {
		t.Fatalf("the plan selects %d tokens; want %d", plan.GetCount(), n)
	}
	act := func(r *replica) (*patdv1.BulkNarrowTokensResponse, error) {
		return patdv1.NewInventoryServiceClient(r.now().conn).
			BulkNarrowTokens(ctx, &patdv1.BulkNarrowTokensRequest{Filter: filter, Plan: plan.GetPlan()})
	}
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		if answer, err := act(victim); err == nil && answer.GetDone() {
			t.Error("the narrowing was over before its server was killed")
		}
	}()
	waittest.Within(t, patience, "the first batch", func() (some bool) {
		must(t, st.View(ctx, func(tx tokens.ReadTx) error {
			got, err := tx.Events(tokens.EventQuery{Action: tokens.ActionTokenNarrow, Limit: 1})
			some = len(got) > 0
			return err
		}))
		return some
	})
	victim.kill()
	<-cut
	// A token that matches and is made now is not of the plan.
	_, err = a.tokens.CreateToken(
		ctx,
		&patdv1.CreateTokenRequest{User: "u", Name: "late", Scopes: []string{"billing.edit"}},
	)
	must(t, err)
	key := tokens.PlanKey(sha256.Sum256([]byte(plan.GetPlan())))
	waittest.Within(t, patience, "another server to carry it out", func() (over bool) {
		must(t, st.View(ctx, func(tx tokens.ReadTx) error {
			b, err := tx.Narrowing(key)
			over = !b.EndTime.IsZero()
			return err
		}))
		return over
	})
	must(t, victim.startSoon())
	waittest.Within(t, patience, "the end", func() bool {
		answer, err := act(victim)
		must(t, err)
		if answer.GetDone() &&
			(answer.GetNarrowedCount() != n || answer.GetCount() != n || answer.GetPausedScopeCount() != plan.GetScopeCount()) {
			t.Errorf("%d of %d tokens and %d scopes were paused; want %d tokens, %d scopes",
				answer.GetNarrowedCount(), answer.GetCount(), answer.GetPausedScopeCount(), n, plan.GetScopeCount())
		}
		return answer.GetDone()
	})
	must(t, st.View(ctx, func(tx tokens.ReadTx) error {
		for i, id := range ids {
			tok, err := tx.Token(id)
			if err != nil {
				return err
			}
			if in := i%3 == 0; in != (len(tok.Scopes) == 0) || in != (len(tok.Paused) > 0) {
				return fmt.Errorf("token %d: of the plan %t, scopes %v, paused %v", i, in, tok.Scopes, tok.Paused)
			}
		}
		counts, q := map[tokens.Action]int{}, tokens.EventQuery{Limit: 1000}
		of := map[tokens.ID]int{}
		for {
			got, err := tx.Events(q)
			if err != nil {
				return err
			}
			for _, e := range got {
				if counts[e.Action]++; e.Action == tokens.ActionTokenNarrow {
					of[e.TokenID]++
				}
			}
			if len(got) < q.Limit {
				break
			}
			q.Before = got[len(got)-1].Seq
		}
		if counts[tokens.ActionTokenNarrow] != n || len(of) != n || counts[tokens.ActionTokenNarrowMatching] != 1 ||
			counts[tokens.ActionTokenNarrowEnd] != 1 {
			return fmt.Errorf("events of %d tokens: %v", len(of), counts)
		}
		return nil
	}))
}
