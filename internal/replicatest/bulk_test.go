package replicatest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
	"patd/tokens/secret"

	patdv1 "patd/gen/patd/v1"
)

// bulkSize is how many tokens are revoked: PATD_BULK, or a number that CI has the time for.
func bulkSize(t *testing.T) (n int, whole bool) {
	t.Helper()
	text := os.Getenv("PATD_BULK")
	if text == "" {
		return 1500, false
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n, true
}

// TestBulkRevocationSurvivesAKilledServer revokes a third of all tokens, and kills the server that does it while others
// mint and introspect. Those of the plan are revoked, and no other. With PATD_BULK=100000 it is of full size, and the
// p99 of introspection must stay within 1.5 of what it is without.
func TestBulkRevocationSurvivesAKilledServer(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	n, whole := bulkSize(t)
	c, st, ids := filled(t, "bulk", 3*n)
	victim, other := c.replicas[0], c.replicas[1]
	a := other.now()
	must(t, a.hold(t.Context(), "u", "billing.edit", "a"))
	tok, _, err := a.mint(t.Context(), "u", "probe", "a probe of introspection")
	must(t, err)
	before := latencies(t, a, tok.secret, nil, 1000)

	ctx := t.Context()
	filter := &patdv1.TokenFilter{Scope: "billing.edit"}
	plan, err := patdv1.NewInventoryServiceClient(victim.now().conn).
		BulkRevokeTokens(ctx, &patdv1.BulkRevokeTokensRequest{Filter: filter, DryRun: true})
	must(t, err)
	if plan.GetCount() != int64(n) {
		t.Fatalf("the plan selects %d tokens; want %d", plan.GetCount(), n)
	}
	act := func(r *replica) (*patdv1.BulkRevokeTokensResponse, error) {
		return patdv1.NewInventoryServiceClient(r.now().conn).BulkRevokeTokens(ctx, &patdv1.BulkRevokeTokensRequest{
			Filter: filter, Plan: plan.GetPlan(), Reason: "test",
		})
	}
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		if answer, err := act(victim); err == nil && answer.GetDone() {
			t.Error("the revocation was over before its server was killed")
		}
	}()
	inventory := patdv1.NewInventoryServiceClient(a.conn)
	waittest.Within(t, patience, "the first batch", func() bool {
		page, err := inventory.SearchTokens(ctx, &patdv1.SearchTokensRequest{State: patdv1.Token_REVOKED, PageSize: 1})
		must(t, err)
		return len(page.GetTokens()) > 0
	})
	victim.kill()
	<-cut
	// Tokens that match and are made now are not of the plan.
	_, err = a.tokens.CreateToken(
		ctx,
		&patdv1.CreateTokenRequest{User: "u", Name: "late", Scopes: []string{"billing.edit"}},
	)
	must(t, err)
	key := tokens.PlanKey(sha256.Sum256([]byte(plan.GetPlan())))
	during := latencies(t, a, tok.secret, func() (over bool) {
		must(t, st.View(ctx, func(tx tokens.ReadTx) error {
			b, err := tx.BulkRevocation(key)
			over = !b.EndTime.IsZero()
			return err
		}))
		return over
	}, 0)
	must(t, victim.startSoon())
	waittest.Within(t, patience, "the end", func() bool {
		answer, err := act(victim)
		must(t, err)
		if answer.GetDone() && (answer.GetRevokedCount() != int64(n) || answer.GetCount() != int64(n)) {
			t.Errorf("%d of %d tokens were revoked; want %d", answer.GetRevokedCount(), answer.GetCount(), n)
		}
		return answer.GetDone()
	})
	must(t, st.View(ctx, func(tx tokens.ReadTx) error {
		revoked := map[tokens.ID]bool{}
		q := tokens.InventoryQuery{
			Filter: tokens.Filter{State: tokens.StateRevoked},
			Now:    time.Now(),
			Limit:  10_000,
			Within: time.Hour,
		}
		for more := true; more; {
			page, err := tx.Inventory(q)
			if err != nil {
				return err
			}
			for _, t := range page.Tokens {
				revoked[t.ID] = true
			}
			q.After, more = page.Next, page.More
		}
		for i, id := range ids {
			if in := i%3 == 0; in != revoked[id] {
				return fmt.Errorf("token %d: of the plan %t, revoked %t", i, in, revoked[id])
			}
		}
		if len(revoked) != n {
			return fmt.Errorf("%d tokens are revoked; want %d", len(revoked), n)
		}
		got, err := tx.Events(tokens.EventQuery{Action: tokens.ActionTokenRevokeMatching, Limit: 10})
		if err == nil && len(got) != 1 {
			err = fmt.Errorf("%d events with the filter; want one", len(got))
		}
		return err
	}))
	t.Logf("p99 of introspection: %s without, %s during the revocation of %d tokens", p99(before), p99(during), n)
	if whole && p99(during) > p99(before)*3/2 {
		t.Errorf("the p99 of introspection is over 1.5 of that without")
	}
}

// filled is a store with n tokens, of which each third has the scope billing.edit, and two servers on it.
func filled(t *testing.T, name string, n int) (*cluster, *store.Store, []tokens.ID) {
	t.Helper()
	c := newStore(t, dbtest.Postgres(t), name)
	st, err := store.Open(t.Context(), c.url(c.db.Addr()), store.Options{Connections: 2})
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })
	file, err := os.ReadFile(c.key)
	must(t, err)
	ks, err := secret.ParseKeys(string(file))
	must(t, err)
	_, err = tokens.BindKeys(t.Context(), st, ks, "", time.Now())
	must(t, err)
	var keys []tokens.KeyRecord
	must(t, st.View(t.Context(), func(tx tokens.ReadTx) (err error) {
		keys, err = tx.Keys()
		return err
	}))
	hash := func(n int, _ tokens.ID) tokens.Hash {
		return tokens.Hash{Key: keys[0].Name, Sum: [32]byte{1, byte(n), byte(n >> 8), byte(n >> 16)}}
	}
	ids, err := storefill.Load(t.Context(), st, storefill.Config{Tokens: n, Hash: hash})
	must(t, err)
	for i := range 2 {
		c.add(i, c.db.Addr())
	}
	c.startAll()
	return c, st, ids
}

// latencies introspects one after another, n times, or until over, which is asked now and then.
func latencies(t *testing.T, a *api, secret string, over func() bool, n int) []time.Duration {
	t.Helper()
	var all []time.Duration
	for i := 0; over == nil && i < n || over != nil && (i%200 != 199 || !over()); i++ {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), answerWithin)
		d, err := a.decide(ctx, secret)
		cancel()
		if err != nil || d != allow {
			t.Fatalf("the token that is introspected: %s, %v", d, err)
		}
		all = append(all, time.Since(start))
		await(t.Context(), time.Millisecond, 2*time.Millisecond)
	}
	return all
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)*99/100]
}
