package store_test

import (
	"path/filepath"
	"testing"

	"patd/internal/dbtest"
	"patd/store"
	"patd/tokens"
)

// TestNamesOfFormerProgramsAreFound is about rows whose names were folded by the program of v0.1.0, which may write to
// the same database.
func TestNamesOfFormerProgramsAreFound(t *testing.T) {
	t.Parallel()
	for engine, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "patd.db") },
		"postgres": func(t *testing.T) string { return newSchema(t, dbtest.SharedPostgres(t)) },
	} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			st := openURL(t, url(t), store.Options{})
			id := fill(t, st, 1)[0]
			exec1(t, st, `UPDATE tokens SET name = 'ＣＩ  job', name_key = 'ｃｉ  job'`)
			exec1(
				t,
				st,
				`INSERT INTO features (name, display_name, consent, is_default, optional, published, is_system, search)
VALUES ('f', 'ＣＩ  job', 1, 0, 0, 0, 0, 'ｃｉ  job')`,
			)
			must(t, st.View(t.Context(), func(tx tokens.ReadTx) error {
				tok, err := tx.Token(id)
				must(t, err)
				for _, q := range []string{"ＣＩ", "ｃｉ  job", "J", "ＣＩ  JOB"} {
					list, err := tx.Tokens(tokens.TokenQuery{UserKey: tok.UserKey, NameHas: q, Limit: 2})
					if err != nil || len(list) != 1 {
						t.Errorf("tokens that have %q: %v, %v", q, list, err)
					}
					features, err := tx.Features(tokens.FeatureQuery{Has: q, Limit: 2})
					if err != nil || len(features) != 1 {
						t.Errorf("features that have %q: %v, %v", q, features, err)
					}
				}
				if list, err := tx.Tokens(
					tokens.TokenQuery{UserKey: tok.UserKey, NameHas: "\u200b", Limit: 2},
				); err != nil ||
					len(list) != 0 {
					t.Errorf("tokens that have what shows nothing: %v, %v", list, err)
				}
				return nil
			}))
		})
	}
}
