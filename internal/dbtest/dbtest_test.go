package dbtest_test

import (
	"context"
	"testing"
	"time"

	"patd/internal/dbtest"
)

func TestPostgresSurvivesKill(t *testing.T) { survivesKill(t, dbtest.Postgres(t)) }

func TestMariaDBSurvivesKill(t *testing.T) { survivesKill(t, dbtest.MariaDB(t)) }

// survivesKill holds what other tests build on: a killed or frozen server does not answer, and the same data is there
// again afterwards.
func survivesKill(t *testing.T, s *dbtest.Server) {
	t.Helper()
	db := s.Admin()
	ask := func(within time.Duration) (int, error) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		n := 0
		err := db.QueryRowContext(ctx, "SELECT count(*) FROM kept").Scan(&n)
		return n, err
	}
	for _, statement := range []string{"CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)"} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill(t)
	if _, err := ask(time.Second); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Start(t)
	if n, err := ask(10 * time.Second); err != nil || n != 1 {
		t.Fatalf("after the start: %d rows, %v", n, err)
	}
	s.Freeze(t)
	if _, err := ask(200 * time.Millisecond); err == nil {
		t.Fatal("a frozen server answers")
	}
	s.Thaw(t)
	if n, err := ask(10 * time.Second); err != nil || n != 1 {
		t.Fatalf("after the thaw: %d rows, %v", n, err)
	}
}
