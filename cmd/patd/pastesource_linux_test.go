package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/pagetest"
)

// pasted is one source of the pages: how its block is told from the others, and where it finds what it needs.
type pasted struct {
	name, mark string
	tools      []string
	// around makes what is on a reader's machine already, and answers the environment and the addresses here of what the
	// page has at its usual place.
	around func(t *testing.T, dir string) (env []string, places []string)
}

func pastedSources() []pasted {
	return []pasted{
		{"SQLite", "sqlite:", []string{"sqlite3"}, func(*testing.T, string) ([]string, []string) { return nil, nil }},
		{"PostgreSQL", "postgres://", []string{"createdb", "psql"}, func(t *testing.T, _ string) ([]string, []string) {
			t.Helper()
			s := dbtest.Postgres(t)
			return []string{"PGHOST=" + s.Host, "PGPORT=" + s.Port, "PGUSER=" + s.User, "PGPASSWORD=" + s.Password}, []string{"127.0.0.1:5432", s.Addr()}
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
		{"Callback", "callback", []string{"python3"}, func(t *testing.T, _ string) ([]string, []string) {
			t.Helper()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			return nil, []string{`"127.0.0.1", 8070`, `"127.0.0.1", ` + port, "127.0.0.1:8070", "127.0.0.1:" + port}
		}},
	}
}

// TestSourcesCanBePasted pastes what the pages say of each source into a shell in an empty directory, with patd and
// its store in it, and then asks for features and mints with them. Only the ports are others.
func TestSourcesCanBePasted(t *testing.T) {
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
	for _, tool := range append(s.tools, "bash") {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, err)
		}
	}
	data, admin := administer(t)
	dir := t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Symlink(self, filepath.Join(dir, "patd")), os.Symlink(data, filepath.Join(dir, "data")))
	}
	if err != nil {
		t.Fatal(err)
	}
	env, places := s.around(t, dir)
	// The shell becomes patd, and so it is patd that is told to stop.
	places = append(places, "\n./patd serve ", "\nexec ./patd serve ")
	bash := exec.Command("bash", "-eu", "-c", strings.NewReplacer(places...).Replace(block))
	bash.Dir = dir
	bash.Env = append(append(os.Environ(), "PATD_HTTP_ADDR=127.0.0.1:0", "PATD_GRPC_ADDR=127.0.0.1:0", "PATD_DRAIN_DELAY=0s"), env...)
	// A group of its own, so that what the block leaves in the background ends with patd.
	bash.SysProcAttr, bash.WaitDelay = &syscall.SysProcAttr{Setpgid: true}, time.Second
	t.Cleanup(func() {
		if bash.Process != nil {
			_ = syscall.Kill(-bash.Process.Pid, syscall.SIGKILL)
		}
	})
	d, err := launch(bash)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-bash.Process.Pid, syscall.SIGTERM)
		<-d.exited
		if d.err != nil {
			t.Error(d.err)
		}
	})
	// The block does not wait for the endpoint that it starts.
	eventually(t, "the source answers", patience, func() bool {
		return d.call(t, http.MethodGet, "/v1/users/alice/features", admin, "").code != http.StatusServiceUnavailable
	})
	d.call(t, http.MethodGet, "/v1/users/alice/features", admin, "").want(t, "features", 200, `"billing.read"`, `"reports.read"`, `"stale":false`)
	for _, other := range []string{"ALICE", "alice%20", "nobody"} {
		d.call(t, http.MethodGet, "/v1/users/"+other+"/features", admin, "").want(t, "features of "+other, 200, `"features":[]`)
	}
	d.call(t, http.MethodPost, "/v1/users/alice/tokens", admin, `{"name": "n", "scopes": ["reports.read"]}`).want(t, "mint", 200, `"secret"`)
	d.call(t, http.MethodPost, "/v1/users/alice/tokens", admin, `{"name": "m", "scopes": ["reports.write"]}`).want(t, "mint what is not held", 400, "SCOPE_NOT_HELD")
}
