package features_test

import (
	"testing"
	"time"

	"patd/features"
	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestPostgresBehindAPoolerKeepsItsLimits asks by way of a real PgBouncer, which refuses settings at the start of a
// connection: a question is still read-only and ended by the server, and nothing is left in the sessions that others
// get.
func TestPostgresBehindAPoolerKeepsItsLimits(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	server := dbtest.Postgres(t)
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			pooler := dbtest.PgBouncer(t, server, mode, "default_pool_size = 1")
			pooler.Admin().SetMaxIdleConns(0) // there is one session, for one program after the other
			url := secret.NewSecret(pooler.PostgresURL(pooler.Password))
			query := "SELECT name || '=' || setting FROM pg_settings WHERE name IN ('transaction_read_only', 'statement_timeout') AND $1::text = 'alice'"
			s, err := features.NewSQL(t.Context(), features.SQLConfig{URL: url, Query: query, Timeout: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, true)
			if err != nil || len(held.Features) != 2 {
				t.Fatalf("%v, %v", held.Features, err)
			}
			for _, setting := range held.Features {
				if setting == "transaction_read_only=off" || setting == "statement_timeout=0" {
					t.Errorf("a question was asked with %s", setting)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			var left string
			err = pooler.Admin().QueryRowContext(t.Context(),
				"SELECT current_setting('default_transaction_read_only') || ' ' || current_setting('statement_timeout')").
				Scan(&left)
			if err != nil || left != "off 0" {
				t.Errorf("the next program's session has %q, %v", left, err)
			}
		})
	}
}
