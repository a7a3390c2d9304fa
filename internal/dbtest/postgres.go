package dbtest

import (
	"cmp"
	"database/sql"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"patd/internal/proctest"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of Admin
)

// Postgres starts a PostgreSQL server, which ends with the test. Settings, such as "fsync=on", are put after its own.
func Postgres(tb testing.TB, settings ...string) *Server {
	tb.Helper()
	return PostgresOf(tb, postgresPrograms(tb), settings...)
}

// postgresPrograms is the directory of the newest PostgreSQL's programs, of those that the system's packages installed.
func postgresPrograms(tb testing.TB) string {
	tb.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(found, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(b, a)) })
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, filepath.Dir(path))
	}
	if len(found) == 0 {
		proctest.Missing(tb, "PostgreSQL")
	}
	return found[0]
}

// PostgresOf is [Postgres] with the programs of a directory.
func PostgresOf(tb testing.TB, bin string, settings ...string) *Server {
	tb.Helper()
	return postgres(tb, bin, "", settings...)
}

// postgres starts a server whose files are below a directory; empty: the usual one for temporary files.
func postgres(tb testing.TB, bin, in string, settings ...string) *Server {
	tb.Helper()
	s := newServerIn(tb, in, "postgres")
	s.User, s.Database = "patd_test", "postgres"
	data := filepath.Join(s.dir, "data")
	s.prepare(tb, bin, data)
	s.command = func(s *Server) *exec.Cmd {
		args := []string{"-D", data, "-p", s.Port, "-h", s.Host, "-k", s.dir}
		for _, setting := range append([]string{"fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=40"}, settings...) {
			args = append(args, "-c", setting)
		}
		//nolint:gosec,noctx // the same; it is ended by process.kill
		return exec.Command(filepath.Join(bin, "postgres"), args...)
	}
	s.open = func(s *Server) (*sql.DB, error) { return sql.Open("pgx/v5", s.PostgresURL(s.Password)) }
	s.run(tb)
	return s
}

// prepare makes the server's directory, and takes the password that it has. Only the first of a process is made by
// initdb.
func (s *Server) prepare(tb testing.TB, bin, data string) {
	tb.Helper()
	fresh.Lock()
	defer fresh.Unlock()
	if img := fresh.images[bin]; img != nil {
		s.Password = img.password
		if err := img.write(data, s.account); err != nil {
			tb.Fatalf("write the database's directory: %v", err)
		}
		return
	}
	passwords := filepath.Join(s.dir, "password")
	if err := os.WriteFile(passwords, []byte(s.Password+"\n"), 0o600); err != nil {
		tb.Fatalf("write the database's password: %v", err)
	}
	if err := s.account.give(passwords); err != nil {
		tb.Fatalf("write the database's password: %v", err)
	}
	//nolint:gosec,noctx // a program of the system's packages, which ends by itself
	s.once(tb, exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", s.User, "--pwfile", passwords,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=1"))
	img, err := readImage(data, s.Password)
	if err != nil {
		tb.Fatalf("read the database's directory: %v", err)
	}
	if fresh.images == nil {
		fresh.images = map[string]*image{}
	}
	fresh.images[bin] = img
}

// PostgresURL is the URL of the server with a password, which may be empty.
func (s *Server) PostgresURL(password string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(s.User),
		Host:     s.Addr(),
		Path:     "/" + s.Database,
		RawQuery: "sslmode=disable",
	}
	if password != "" {
		u.User = url.UserPassword(s.User, password)
	}
	return u.String()
}

// String names the server without its password.
func (s *Server) String() string { return s.User + "@" + s.Addr() + "/" + s.Database }
