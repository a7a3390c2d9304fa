package dbtest

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Standby copies a PostgreSQL server that runs, and starts the copy, which follows it as the standby of a name. It ends
// with the test, with the user, the password and the databases of the other.
func Standby(tb testing.TB, of *Server, name string) *Server {
	tb.Helper()
	bin := postgresPrograms(tb)
	s := newServer(tb, "postgres")
	s.User, s.Password, s.Database = of.User, of.Password, of.Database
	data := filepath.Join(s.dir, "data")
	//nolint:gosec,noctx // a program of the system's packages, which ends by itself
	backup := exec.Command(filepath.Join(bin, "pg_basebackup"), "-D", data, "-h", of.Host, "-p", of.Port, "-U", of.User,
		"--no-password", "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	backup.Env = append(os.Environ(), "PGPASSWORD="+of.Password)
	s.once(tb, backup)
	s.command = func(s *Server) *exec.Cmd {
		//nolint:gosec,noctx // the same; it is ended by process.kill
		return exec.Command(
			filepath.Join(bin, "postgres"),
			"-D",
			data,
			"-p",
			s.Port,
			"-h",
			s.Host,
			"-k",
			s.dir,
			"-c",
			"fsync=off",
			"-c",
			"full_page_writes=off",
			"-c",
			"shared_buffers=16MB",
			"-c",
			"max_connections=100",
			"-c",
			"cluster_name="+name,
		)
	}
	s.open = func(s *Server) (*sql.DB, error) { return sql.Open("pgx/v5", s.PostgresURL(s.Password)) }
	s.run(tb)
	return s
}

// Promote makes a standby the server that accepts writes, and waits until it is.
func (s *Server) Promote(tb testing.TB) {
	tb.Helper()
	// It does not wait itself: what it reads would be in the way of what is yet to be replayed.
	if _, err := s.admin.ExecContext(tb.Context(), `SELECT pg_promote(false)`); err != nil {
		tb.Fatalf("promote the standby: %v", err)
	}
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(startWithin); ; <-poll.C {
		standby := true
		err := s.admin.QueryRowContext(tb.Context(), `SELECT pg_is_in_recovery()`).Scan(&standby)
		switch {
		case err == nil && !standby:
			return
		case time.Now().After(deadline):
			tb.Fatalf("promote the standby: it still is one, %v\n%s", err, s.log())
		}
	}
}
