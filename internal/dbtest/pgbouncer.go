package dbtest

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/proctest"
)

// PgBouncer starts a PgBouncer before a PostgreSQL server, which ends with the test. Its mode is "session",
// "transaction" or "statement"; settings, such as "ignore_startup_parameters = search_path", are put after its own.
// URLs of what it returns are those of the server, by way of the pooler.
func PgBouncer(tb testing.TB, of *Server, mode string, settings ...string) *Server {
	tb.Helper()
	bin := program("pgbouncer")
	if bin == "" {
		proctest.Missing(tb, "PgBouncer")
	}
	s := newServer(tb, "postgres")
	s.User, s.Password, s.Database = of.User, of.Password, of.Database
	users, config := filepath.Join(s.dir, "users"), filepath.Join(s.dir, "pgbouncer.ini")
	lines := append([]string{
		"[databases]", fmt.Sprintf("* = host=%s port=%s", of.Host, of.Port),
		"[pgbouncer]", "listen_addr = " + s.Host, "listen_port = " + s.Port, "unix_socket_dir =",
		"auth_type = scram-sha-256", "auth_file = " + users, "pool_mode = " + mode, "default_pool_size = 30",
	}, settings...)
	for path, text := range map[string]string{
		users: fmt.Sprintf("%q %q\n", s.User, s.Password), config: strings.Join(lines, "\n") + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatalf("write the pooler's settings: %v", err)
		}
		if err := s.account.give(path); err != nil {
			tb.Fatalf("write the pooler's settings: %v", err)
		}
	}
	s.command = func(*Server) *exec.Cmd {
		//nolint:gosec,noctx // a program of the system's packages; it is ended by process.kill
		return exec.Command(bin, config)
	}
	s.open = func(s *Server) (*sql.DB, error) {
		return sql.Open("pgx/v5", s.PostgresURL(s.Password)+"&default_query_exec_mode=exec")
	}
	s.run(tb)
	return s
}
