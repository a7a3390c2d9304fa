package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/pagetest"
	"patd/internal/waittest"
)

// pasted is one source of the pages: how its block is told from the others, and where it finds what it needs.
type pasted struct {
	name, mark string
	tools      []string
	// around makes what is on a reader's machine already, and returns the environment and the addresses here of what
	// the page has at its usual place.
	around func(t *testing.T, dir string) (env []string, places []string)
}

func pastedSources() []pasted {
	return []pasted{
		{"SQLite", "sqlite:", []string{"sqlite3"}, func(*testing.T, string) ([]string, []string) { return nil, nil }},
		{"PostgreSQL", "postgres://", []string{"createdb", "psql"}, func(t *testing.T, _ string) ([]string, []string) {
			t.Helper()
			s := dbtest.Postgres(t)
			return []string{
					"PGHOST=" + s.Host,
					"PGPORT=" + s.Port,
					"PGUSER=" + s.User,
					"PGPASSWORD=" + s.Password,
				}, []string{
					"127.0.0.1:5432",
					s.Addr(),
				}
		}},
		{"MariaDB", "mysql://", []string{"mariadb"}, func(t *testing.T, dir string) ([]string, []string) {
			t.Helper()
			s := dbtest.MariaDB(t)
			// The page makes the database, which the test's server has already.
			if _, err := s.Admin().ExecContext(t.Context(), "DROP DATABASE company"); err != nil {
				t.Fatal(err)
			}
			options := "[client]\nuser=" + s.User + "\npassword=" + s.Password + "\nhost=" + s.Host + "\nport=" + s.Port + "\n"
			if err := os.WriteFile(filepath.Join(dir, ".my.cnf"), []byte(options), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{"HOME=" + dir}, []string{"127.0.0.1:3306", s.Addr()}
		}},
		{
			"Callback",
			"HELD",
			[]string{"python3"},
			func(t *testing.T, _ string) ([]string, []string) { t.Helper(); return nil, elsewhere(t) },
		},
		{"SQLServer", "pyodbc", []string{"python3"}, func(t *testing.T, dir string) ([]string, []string) {
			t.Helper()
			// It stands in for the driver and for SQL Server, down to how that compares.
			write(t, filepath.Join(dir, "pyodbc.py"), `import sqlite3
class Error(Exception): pass
class Cursor(list):
    def fetchall(self): return self
class Connection:
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def execute(self, query, user):
        db = sqlite3.connect(":memory:")
        db.execute("CREATE TABLE user_features (user_id TEXT COLLATE NOCASE, feature TEXT)")
        db.execute("INSERT INTO user_features VALUES ('alice', 'reports.read'), ('alice', 'billing.read')")
        return Cursor(db.execute(query, (user.rstrip(" "),)))
def connect(text, timeout, readonly):
    if "PWD={change me}" not in text: raise Error(text)
    return Connection()
`)
			return nil, elsewhere(t)
		}},
	}
}

// TestSourcesCanBePasted pastes what the pages say of each source into a shell in an empty directory, with patd and
// its store in it, and then asks for features and mints with them. Only the ports are others.
func TestSourcesCanBePasted(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	blocks, sources := pagetest.Blocks(t, "sh source"), pastedSources()
	if len(blocks) != len(sources) {
		t.Fatalf("the pages have %d blocks about sources, and %d are known here", len(blocks), len(sources))
	}
	for i, s := range sources {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(blocks[i].Text, s.mark) {
				t.Fatalf("block %d does not mention %s:\n%s", i+1, s.mark, blocks[i].Text)
			}
			paste(t, blocks[i].Text, s)
		})
	}
}

func paste(t *testing.T, block string, s pasted) {
	t.Helper()
	k := newDesk(t, s.tools...)
	data, admin := administer(t)
	if err := os.Symlink(data, filepath.Join(k.dir, "data")); err != nil {
		t.Fatal(err)
	}
	env, places := s.around(t, k.dir)
	k.env = append(k.env, env...)
	d := k.serve(t, block, append(places, "\n./patd serve ", "\nexec ./patd serve ")...)
	// The block does not wait for the endpoint that it starts.
	waittest.Until(t, "the source answers", func() bool {
		return d.call(t, http.MethodGet, "/v1/users/alice/features", admin, "").code != http.StatusServiceUnavailable
	})
	d.call(t, http.MethodGet, "/v1/users/alice/features", admin, "").
		want(t, "features", 200, `"billing.read"`, `"reports.read"`, `"stale":false`)
	for _, other := range []string{"ALICE", "alice%20", "nobody"} {
		d.call(t, http.MethodGet, "/v1/users/"+other+"/features", admin, "").
			want(t, "features of "+other, 200, `"features":[]`)
	}
	d.call(t, http.MethodPost, "/v1/users/alice/tokens", admin, `{"name": "n", "scopes": ["reports.read"]}`).
		want(t, "mint", 200, `"secret"`)
	d.call(t, http.MethodPost, "/v1/users/alice/tokens", admin, `{"name": "m", "scopes": ["reports.write"]}`).
		want(t, "mint what is not held", 400, "SCOPE_NOT_HELD")
}

// elsewhere moves the endpoint of a page to a port that is free.
func elsewhere(t *testing.T) []string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return []string{`"127.0.0.1", 8070`, `"127.0.0.1", ` + port, "127.0.0.1:8070", "127.0.0.1:" + port}
}
