package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/store"
	"patd/tokens"
)

// withGrants is a store with one token, a family of two refresh tokens and two access tokens, one of them the family's.
// Access tokens end after an hour, the family after two.
func withGrants(t *testing.T, c *clock) *store.Store {
	t.Helper()
	st := open(t, newPath(t), store.Options{Now: c.now, FlushInterval: time.Hour})
	id, now := fill(t, st, 1)[0], c.now()
	f := tokens.Family{
		ID:         1,
		TokenID:    id,
		Scopes:     []string{"a"},
		Audiences:  []string{"api"},
		IssueTime:  now,
		ExpireTime: now.Add(2 * time.Hour),
	}
	h := func(n byte) tokens.Hash { return tokens.Hash{Key: "fill", Sum: [32]byte{n, 1}} }
	err := st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		if err := tx.InsertFamily(f); err != nil {
			return nil, err
		}
		for i := range 2 {
			r := tokens.RefreshToken{ID: tokens.ID(10 + i), Family: f, IssueTime: now}
			if i == 0 {
				r.UseTime = now
			}
			if err := tx.InsertRefresh(r, h(byte(i))); err != nil {
				return nil, err
			}
			a := tokens.AccessToken{
				ID:         tokens.ID(20 + i),
				TokenID:    id,
				Scopes:     []string{"a"},
				IssueTime:  now,
				ExpireTime: now.Add(time.Hour),
			}
			if i == 0 {
				a.Family = f.ID
			}
			if err := tx.InsertAccess(a, h(byte(2+i))); err != nil {
				return nil, err
			}
		}
		e := tokens.Event{
			Time:    now,
			Actor:   "operator",
			Action:  tokens.ActionTokenExchange,
			TokenID: id,
			Outcome: tokens.OutcomeSuccess,
		}
		return []tokens.Event{e}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestGrantsArePrunedADayAfterTheirEnd(t *testing.T) {
	t.Parallel()
	c := newClock()
	st := withGrants(t, c)
	for _, step := range []struct {
		wait                      time.Duration
		access, refresh, families string
	}{
		{25*time.Hour - time.Microsecond, "2", "2", "1"},
		{time.Microsecond, "0", "2", "1"},
		{time.Hour - time.Microsecond, "0", "2", "1"},
		{time.Microsecond, "0", "0", "0"},
	} {
		c.move(step.wait)
		if err := st.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := []string{count(t, st, "access_tokens"), count(t, st, "refresh_tokens"), count(t, st, "families")}
		if want := []string{step.access, step.refresh, step.families}; !slices.Equal(got, want) {
			t.Errorf("rows of access tokens, refresh tokens and families: %v, want %v", got, want)
		}
		if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("check: %v, %v", found, err)
		}
	}
}

func TestPruningGoesOnUntilNothingIsLeft(t *testing.T) {
	t.Parallel()
	c := newClock()
	st := withGrants(t, c)
	// More than one transaction of it drops.
	exec1(t, st, `WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 2600)
		INSERT INTO refresh_tokens SELECT i, 1, key, digest, 1, 1, NULL FROM n, (SELECT key, digest FROM tokens LIMIT 1)`)
	c.move(26 * time.Hour)
	if err := st.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"access_tokens", "refresh_tokens", "families"} {
		if got := count(t, st, table); got != "0" {
			t.Errorf("%s rows of %s are left", got, table)
		}
	}
}

func TestCheckFindsPlantedDamageInGrants(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	for _, c := range []struct{ damage, finding string }{
		{`UPDATE access_tokens SET key = 77`, "points to a row of keys"},
		{`UPDATE access_tokens SET token_id = 77`, "access_tokens: row 0000000000K points to a row of tokens"},
		{`UPDATE access_tokens SET family = 77`, "access_tokens: row 0000000000K points to a row of families"},
		{`UPDATE families SET token_id = 77`, "families: row 00000000001 points to a row of tokens"},
		{`UPDATE refresh_tokens SET family = 77`, "refresh_tokens: row 0000000000A points to a row of families"},
		{`UPDATE access_tokens SET serial = 1`, "of a secret that its token never had"},
		{`UPDATE families SET serial = -1`, "of a secret that its token never had"},
		{`UPDATE access_tokens SET expire_us = expire_us * 2`, "does not agree with its family"},
		{`UPDATE families SET revoke_us = 1, revoked_by = 'x'`, "does not agree with its family"},
		{`INSERT INTO refresh_tokens SELECT 99, family, key, digest, 1, NULL, NULL FROM refresh_tokens LIMIT 1`, "more than one refresh token"},
		{`UPDATE access_tokens SET revoke_us = 1, revoked_by = 'x'`, "revoked without an audit event"},
		{`PRAGMA ignore_check_constraints = ON; UPDATE access_tokens SET digest = x'00'`, "CHECK constraint failed in access_tokens"},
		{`PRAGMA ignore_check_constraints = ON; UPDATE refresh_tokens SET digest = x'00'`, "CHECK constraint failed in refresh_tokens"},
		{`DROP TRIGGER events_no_delete; DELETE FROM events WHERE action = 'token.exchange'`, "has no audit event"},
		{`UPDATE keys SET retire_us = 1`, "access or refresh token 0000000000K is live under a retired key"},
		{`DROP TRIGGER refresh_tokens_stay_used`, "trigger refresh_tokens_stay_used is missing"},
	} {
		t.Run(c.damage, func(t *testing.T) {
			st := withGrants(t, newClock())
			if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
				t.Fatalf("check before the damage: %v, %v", found, err)
			}
			exec1(t, st, `PRAGMA foreign_keys = OFF`)
			exec1(t, st, c.damage)
			found, err := st.Check(t.Context())
			if err != nil || !strings.Contains(strings.Join(found, "\n"), c.finding) {
				t.Errorf("found %q, %v; want %q", found, err, c.finding)
			}
		})
	}
}

func TestAnEndIsFinalInTheDatabaseItself(t *testing.T) {
	t.Parallel()
	st := withGrants(t, newClock())
	for _, end := range []string{
		`UPDATE access_tokens SET revoke_us = 1, revoked_by = 'x'`, `UPDATE families SET revoke_us = 1, revoked_by = 'x'`,
		`UPDATE refresh_tokens SET use_us = 1 WHERE use_us IS NULL`,
	} {
		exec1(t, st, end)
	}
	for _, undo := range []string{
		`UPDATE access_tokens SET revoke_us = NULL, revoked_by = NULL`, `UPDATE families SET revoke_us = NULL, revoked_by = NULL`,
		`UPDATE refresh_tokens SET use_us = NULL`,
	} {
		if err := st.Exec(t.Context(), undo); err == nil {
			t.Errorf("%s was done", undo)
		}
	}
}
