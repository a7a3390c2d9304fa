package dbtest

import (
	"database/sql"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"patd/internal/proctest"

	"github.com/go-sql-driver/mysql"
)

// MariaDB starts a MariaDB server, which ends with the test.
func MariaDB(tb testing.TB) *Server {
	tb.Helper()
	server, install := program("mariadbd"), program("mariadb-install-db")
	if server == "" || install == "" {
		proctest.Missing(tb, "MariaDB")
	}
	s := newServer(tb, "mysql")
	s.User, s.Database = "patd_test", "company"
	data := filepath.Join(s.dir, "data")
	//nolint:gosec,noctx // a program of the system's packages, which ends by itself
	s.once(tb, exec.Command(install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal",
		"--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=8M"))
	// Run once, as the server starts: the account and the database of the test.
	script := filepath.Join(s.dir, "init.sql")
	statements := "CREATE DATABASE IF NOT EXISTS company CHARACTER SET utf8mb4;\n" +
		"CREATE USER IF NOT EXISTS patd_test@'%' IDENTIFIED BY '" + s.Password + "';\n" +
		"GRANT ALL ON *.* TO patd_test@'%' WITH GRANT OPTION;\n"
	if err := os.WriteFile(script, []byte(statements), 0o600); err != nil {
		tb.Fatalf("write the database's first statements: %v", err)
	}
	if err := s.account.give(script); err != nil {
		tb.Fatalf("write the database's first statements: %v", err)
	}
	s.command = func(s *Server) *exec.Cmd {
		//nolint:gosec,noctx // the same; it is ended by process.kill
		return exec.Command(server, "--no-defaults", "--datadir="+data, "--bind-address="+s.Host, "--port="+s.Port,
			"--socket="+filepath.Join(s.dir, "sock"), "--pid-file="+filepath.Join(s.dir, "pid"), "--init-file="+script,
			"--skip-name-resolve", "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=16M",
			"--innodb-log-file-size=8M", "--innodb-fast-shutdown=2", "--tmpdir="+s.dir)
	}
	s.open = func(s *Server) (*sql.DB, error) {
		c := mysql.NewConfig()
		c.User, c.Passwd, c.Net, c.Addr, c.DBName = s.User, s.Password, "tcp", s.Addr(), s.Database
		c.Logger = &mysql.NopLogger{}
		connector, err := mysql.NewConnector(c)
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(connector), nil
	}
	s.run(tb)
	return s
}

// MySQLURL is the URL of the server, as package features reads it, with a password, which may be empty.
func (s *Server) MySQLURL(password string) string {
	u := url.URL{Scheme: "mysql", User: url.User(s.User), Host: s.Addr(), Path: "/" + s.Database}
	if password != "" {
		u.User = url.UserPassword(s.User, password)
	}
	return u.String()
}

// program finds a program where packages put servers, which is not always in the search path.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin"} {
		if path := filepath.Join(dir, name); isFile(path) {
			return path
		}
	}
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
