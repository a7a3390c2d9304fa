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

// TestPausedScopesHaveAChecksum edits what is stored of paused scopes, which then nobody resumes; and a program from
// before pauses, which reads the column scopes alone, does not find them in effect.
func TestPausedScopesHaveAChecksum(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		mint := func(name string) tokens.Minted {
			m, err := d.Mint(
				t.Context(),
				d.admin,
				tokens.MintRequest{User: d.user, Name: name, Scopes: []string{"a", "b"}},
			)
			d.must(err)
			_, err = d.Narrow(
				t.Context(),
				d.admin,
				tokens.NarrowRequest{User: d.user, TokenID: m.Token.ID.String(), Scopes: []string{"b"}},
			)
			d.must(err)
			return m
		}
		m := mint("paused")
		mint("other")
		for _, set := range []string{
			`paused = replace(paused, 'b', 'c')`, `paused = '9' || paused`, `paused_mac = NULL`,
			`paused_mac = (SELECT o.paused_mac FROM tokens o WHERE o.name = 'other')`,
		} {
			exec1(
				t,
				d.st,
				`CREATE TEMPORARY TABLE was AS SELECT paused AS text, paused_mac AS mac FROM tokens WHERE name = 'paused'`,
			)
			exec1(t, d.st, `UPDATE tokens SET `+set+` WHERE name = 'paused'`)
			if _, err := d.ResumeScopes(
				t.Context(),
				d.admin,
				d.user,
				m.Token.ID.String(),
				nil,
			); reason(
				err,
			) != "RECORD_INVALID" {
				t.Errorf("resumed after %s: %v", set, err)
			}
			if _, err := d.st.Lookup(t.Context(), m.Token.ID); reason(err) != "RECORD_INVALID" {
				t.Errorf("looked up after %s: %v", set, err)
			}
			exec1(t, d.st, `UPDATE tokens SET (paused, paused_mac) = (SELECT text, mac FROM was) WHERE name = 'paused'`)
			exec1(t, d.st, `DROP TABLE was`)
		}
		d.sound("edited and put back")
		for _, all := range []bool{false, true} {
			if all {
				_, err := d.Narrow(
					t.Context(),
					d.admin,
					tokens.NarrowRequest{User: d.user, TokenID: m.Token.ID.String(), Scopes: []string{"a"}},
				)
				d.must(err)
			}
			want := map[bool]string{false: "a", true: `\`}[all]
			if count(t, d.st, `tokens WHERE name = 'paused' AND scopes = '`+want+`'`) != "1" {
				t.Errorf("scopes in effect are not %q", want)
			}
		}
		c, err := d.st.Lookup(t.Context(), m.Token.ID)
		d.must(err)
		if len(c.Token.Scopes) != 0 || !slices.Equal(c.Token.PausedScopes(d.clock.now()), []string{"a", "b"}) {
			t.Errorf("all paused: %v, %v", c.Token.Scopes, c.Token.Paused)
		}
		if _, err := d.ResumeScopes(t.Context(), d.admin, d.user, m.Token.ID.String(), nil); err != nil {
			t.Errorf("as it was: %v", err)
		}
		d.sound("resumed")
	})
}

// TestAStoreFromBeforeKnowsSinceWhenUsesAreRecorded brings a store with tokens to the present schema, and a new one.
func TestAStoreFromBeforeKnowsSinceWhenUsesAreRecorded(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	since := func(st *store.Store) (at time.Time) {
		t.Helper()
		if err := st.View(
			t.Context(),
			func(tx tokens.ReadTx) (err error) { at, err = tx.UsesSince(); return err },
		); err != nil {
			t.Fatal(err)
		}
		return at
	}
	if at := since(create(t, t.TempDir()+"/new.db", store.Options{})); !at.IsZero() {
		t.Errorf("a new store: %v", at)
	}
	path := t.TempDir() + "/old.db"
	old, err := store.MakeOld(t.Context(), path, 19)
	if err != nil {
		t.Fatal(err)
	}
	for statement := range strings.SplitSeq(`
INSERT INTO keys (num, name, check_value, create_us) VALUES (1, 'k', zeroblob(32), 1);
INSERT INTO users (key, user, state, create_us) VALUES (1, 'u', 1, 1);
INSERT INTO tokens (id, user, key, digest, name, name_key, scopes, issue_us, expire_us) VALUES (1, 1, 1, zeroblob(32), 'n', 'n', 'a', 1, 2)`, ";") {
		if _, err := old.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Minute)
	if at := since(open(t, path, store.Options{})); at.Before(before) || at.After(time.Now().Add(time.Minute)) {
		t.Errorf("a store with tokens: %v", at)
	}
}
