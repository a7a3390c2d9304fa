package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestNoticesCostARangeOfAnIndex looks at the plan of each statement, in both databases: each goes along the range of
// its index, and none sorts or reads a table.
func TestNoticesCostARangeOfAnIndex(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	lite := open(t, newPath(t), store.Options{})
	for statement, index := range store.NoticeStatements() {
		plan, err := lite.Texts(
			t.Context(),
			3,
			"EXPLAIN QUERY PLAN "+statement,
			slices.Repeat([]any{1}, parameters(statement))...)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		steps := strings.Join(plan, "\n")
		along := "INDEX " + index + " ("
		if index == "tokens_pkey" {
			along = "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
		}
		if !strings.Contains(steps, along) || strings.Contains(steps, "SCAN") ||
			strings.Contains(steps, "TEMP B-TREE") {
			t.Errorf("plan of %s\n%s\nwant a range of %s", statement, steps, index)
		}
	}
	big := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
	if _, err := storefill.Load(t.Context(), big, storefill.Config{Tokens: 3000, Users: 300}); err != nil {
		t.Fatal(err)
	}
	exec1(t, big, `INSERT INTO idle_checks (token_id, due_us) SELECT id, issue_us FROM tokens`)
	exec1(t, big, `INSERT INTO notices (kind, end_us, id, before_us) SELECT 1, expire_us, id, 1 FROM tokens`)
	analyze(t, big)
	exec1(t, big, `SET plan_cache_mode = force_generic_plan`)
	for _, statement := range store.ForgetNotices() {
		plan, err := big.Plan(t.Context(), statement)
		if err != nil || !strings.Contains(plan, "notices_pkey") || strings.Contains(plan, "Seq Scan") {
			t.Errorf("notices are forgotten by\n%s, %v", plan, err)
		}
	}
	for statement, index := range store.NoticeStatements() {
		plan, err := big.Plan(t.Context(), statement)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		if index != "services_expire" && !strings.Contains(plan, index) ||
			strings.Contains(plan, "Seq Scan on tokens") {
			t.Errorf("%s\nplan\n%s\nwant %s", store.PostgresForm(statement), plan, index)
		}
	}
}

// parameters is how many parameters a statement has.
func parameters(statement string) (n int) {
	for strings.Contains(statement, fmt.Sprintf("?%d", n+1)) {
		n++
	}
	if n == 0 {
		n = strings.Count(statement, "?")
	}
	return n
}

// TestMarksNeedNoEvent and what is an effect needs one.
func TestMarksNeedNoEvent(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	for name, st := range map[string]*store.Store{
		"sqlite":   open(t, newPath(t), store.Options{}),
		"postgres": openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{}),
	} {
		ids := fill(t, st, 3)
		at := time.Now().UTC().Truncate(time.Microsecond)
		update := func(fn func(tokens.Tx) error) error {
			return st.Update(context.Background(), func(tx tokens.Tx) ([]tokens.Event, error) { return nil, fn(tx) })
		}
		check := tokens.IdleCheck{
			TokenID:      ids[0],
			Due:          at,
			Unused:       at.Add(-1),
			Announced:    at,
			AnnounceTime: at,
			ResumeTime:   at,
		}
		check.Unused = at.Add(-time.Second)
		must(t, update(func(tx tokens.Tx) error {
			if err := tx.PutIdleCheck(check); err != nil {
				return err
			}
			return tx.PutNoticeMark(tokens.NoticeMark{Name: "m", Time: at, Note: "n"})
		}))
		must(t, st.View(t.Context(), func(tx tokens.ReadTx) error {
			if m, err := tx.NoticeMark("m"); err != nil || !m.Time.Equal(at) || m.Note != "n" {
				t.Errorf("%s: the mark is %+v, %v", name, m, err)
			}
			if got, err := tx.DueIdleChecks(at, 9); err != nil || len(got) != 1 || got[0] != check {
				t.Errorf("%s: the checks are %+v, %v, want %+v", name, got, err, check)
			}
			return nil
		}))
		if err := update(
			func(tx tokens.Tx) error { return tx.PutNotice(tokens.NoticeOfToken, ids[0], at, time.Hour) },
		); err == nil {
			t.Errorf("%s: a notice was recorded without its event", name)
		}
		// The tokens of a stretch, each once, and those that have a check are due again.
		var last tokens.ID
		n := 0
		for more := true; more; {
			must(t, update(func(tx tokens.Tx) (err error) {
				var got int
				last, got, err = tx.BeginIdleChecks(last, at.Add(time.Hour), at, 2)
				n, more = n+got, got == 2
				return err
			}))
		}
		must(t, st.View(t.Context(), func(tx tokens.ReadTx) error {
			got, err := tx.DueIdleChecks(at, 9)
			if n != 3 || len(got) != 3 {
				t.Errorf("%s: %d tokens were gone through, and %d are due", name, n, len(got))
			}
			return err
		}))
	}
}

// TestOneOfSeveralServersWritesNotices has several servers on one PostgreSQL look for what is due at the same moment,
// with clocks that differ, so that the lease keeps none of them away: each notice is there once.
func TestOneOfSeveralServersWritesNotices(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	url := newSchema(t, dbtest.SharedPostgres(t))
	first := openURL(t, url, store.Options{})
	keys, err := secret.ParseKeys("k1:" + strings.Repeat("ab", 32))
	must(t, err)
	now := time.Now().UTC().Truncate(time.Microsecond)
	prefixes, err := tokens.BindKeys(t.Context(), first, keys, "", now)
	must(t, err)
	var offset atomic.Int64
	server := func(st *store.Store, ahead time.Duration) *tokens.Service {
		s, err := tokens.NewService(tokens.Config{
			Store:    st,
			Keys:     secret.NewKeyring(keys),
			Prefixes: prefixes,
			Notices:  tokens.Notices{Expiry: []time.Duration{tokens.Day}},
			Now:      func() time.Time { return now.Add(time.Duration(offset.Load()) + ahead) },
		})
		must(t, err)
		return s
	}
	servers := []*tokens.Service{
		server(first, 0),
		server(openURL(t, url, store.Options{}), time.Hour),
		server(openURL(t, url, store.Options{}), -time.Hour),
	}
	_, err = servers[0].WriteNotices(t.Context())
	must(t, err)
	_, err = servers[0].SetUserFeatures(t.Context(), tokens.Operator(), "u", []string{"a"})
	must(t, err)
	const many = 20
	for i := range many {
		ttl := 2 * tokens.Day
		_, err := servers[0].Mint(
			t.Context(),
			tokens.Operator(),
			tokens.MintRequest{
				User:     "u",
				Name:     fmt.Sprint(i),
				Scopes:   []string{"a"},
				Lifetime: tokens.Lifetime{TTL: &ttl},
			},
		)
		must(t, err)
	}
	offset.Store(int64(tokens.Day + 2*time.Hour))
	var wg sync.WaitGroup
	for range 3 {
		for _, s := range servers {
			wg.Go(func() {
				if _, err := s.WriteNotices(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	must(t, first.View(t.Context(), func(tx tokens.ReadTx) error {
		events, err := tx.Events(tokens.EventQuery{Action: tokens.ActionTokenExpiring, Limit: 1000})
		of := map[tokens.ID]int{}
		for _, e := range events {
			of[e.TokenID]++
		}
		if len(events) != many || len(of) != many {
			t.Errorf("%d notices of %d tokens, want one of each of %d", len(events), len(of), many)
		}
		return err
	}))
}
