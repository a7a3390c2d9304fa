package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"patd/store"
)

// TestADatabaseElsewhereMustProveItself holds that no spelling of a URL leads away from this machine without verified
// TLS, unless it says so.
func TestADatabaseElsewhereMustProveItself(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	must(t, os.WriteFile(services, []byte("[far]\nhost=db.invalid\n[near]\nhost=127.0.0.1\n"), 0o600))
	t.Setenv("PGSERVICEFILE", services)
	for _, name := range []string{"PGHOST", "PGSSLMODE", "PGSERVICE"} {
		t.Setenv(name, "")
	}
	for url, verified := range map[string]bool{
		"postgres://u@db.invalid/x":                             true,
		"postgres://u@db.invalid/x?sslmode=":                    true,
		"postgres://u@127.0.0.1,db.invalid/x":                   true,
		"postgres:///x?host=db.invalid":                         true,
		"postgres:///x?service=far":                             true,
		"postgres://u@db.invalid/x?target_session_attrs=any":    true,
		"postgres:///x?service=near":                            false,
		"postgres://u@127.0.0.1/x":                              false,
		"postgres://u@[::1]:5432/x":                             false,
		"postgres://u@localhost/x":                              false,
		"postgres:///x?host=/run/postgresql":                    false,
		"postgres://u@db.invalid/x?sslmode=disable":             false, // it says so
		"postgres://u@db.invalid/x?sslmode=require&user=nobody": false,
	} {
		c, err := store.PostgresConfig(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		all := append([]bool{}, c.TLSConfig != nil && !c.TLSConfig.InsecureSkipVerify)
		for _, other := range c.Fallbacks {
			all = append(all, other.TLSConfig != nil && !other.TLSConfig.InsecureSkipVerify)
		}
		for _, got := range all {
			if got != verified {
				t.Errorf("%s: verified %v, want %t throughout", url, all, verified)
				break
			}
		}
		if c.ValidateConnect == nil || c.RuntimeParams["client_encoding"] != "UTF8" {
			t.Errorf("%s: may lead to a standby, or to another encoding", url)
		}
	}
}

func TestASearchPathIsOneSchema(t *testing.T) {
	t.Parallel()
	for path, good := range map[string]bool{
		"patd": true, "store_7": true, "_x": true,
		"": false, "a,public": false, "My": false, `"$user"`: false, "pg_temp": false, "7": false, "a b": false, "a;drop": false,
	} {
		if _, err := store.PostgresConfig("postgres://u@127.0.0.1/x?search_path=" + path); (err == nil) != good {
			t.Errorf("search_path %q: %v", path, err)
		}
	}
}
