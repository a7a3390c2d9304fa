package features_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/features"
	"patd/internal/dbtest"
	"patd/tokens"
	"patd/tokens/secret"
)

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func asked(t *testing.T, s tokens.FeatureSource, user string, want ...string) {
	t.Helper()
	held, err := s.Features(t.Context(), tokens.User{ID: user}, true)
	if err != nil || !slices.Equal(held.Features, want) {
		t.Fatalf("features of %q: %v, %v; want %v", user, held.Features, err, want)
	}
}

// refused holds that a query is refused at the start, with the reason named. Those that would write are among them.
func refused(t *testing.T, c features.SQLConfig, queries map[string]string) {
	t.Helper()
	c.Timeout = limit
	for query, want := range queries {
		c.Query = query
		start := time.Now()
		s, err := features.NewSQL(t.Context(), c)
		if err == nil {
			s.Close()
			t.Errorf("%q was accepted", query)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: the error does not say %q: %v", query, want, err)
		}
		if d := time.Since(start); d > within {
			t.Errorf("%q was refused after %v", query, d)
		}
	}
}

// frozen holds that a server that keeps its connections open and answers nothing is an outage within the bound, even
// for more callers than there are connections, and is used again when it goes on.
func frozen(t *testing.T, server *dbtest.Server, c company, s *features.SQL) {
	t.Helper()
	c.exec(t, "DELETE FROM user_features")
	c.exec(t, "INSERT INTO user_features VALUES ('iced', 'a')")
	asked(t, s, "iced", "a")
	server.Freeze(t)
	errs := make(chan error, 12)
	for range cap(errs) {
		go func() {
			start := time.Now()
			_, err := s.Features(t.Context(), tokens.User{ID: "iced"}, true)
			if d := time.Since(start); d > within {
				t.Errorf("told after %v", d)
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err == nil {
			t.Error("a frozen server gave an answer")
		}
	}
	server.Thaw(t)
	deadline := time.Now().Add(20 * time.Second)
	for {
		held, err := s.Features(t.Context(), tokens.User{ID: "iced"}, true)
		if err == nil && slices.Equal(held.Features, []string{"a"}) {
			return
		}
		if err == nil || time.Now().After(deadline) {
			t.Fatalf("after the thaw: %v, %v", held.Features, err)
		}
	}
}

// endedByServer holds that connections which the server has ended are no outage: the first question after that is put
// again on a fresh one. end ends all of them.
func endedByServer(t *testing.T, c company, s *features.SQL, end string) {
	t.Helper()
	c.exec(t, "DELETE FROM user_features")
	c.exec(t, "INSERT INTO user_features VALUES ('alice', 'a')")
	for range 5 {
		var all sync.WaitGroup
		for range 8 { // as many connections as there may be
			all.Go(func() { asked(t, s, "alice", "a") })
		}
		all.Wait()
		c.exec(t, end)
		asked(t, s, "alice", "a")
		asked(t, s, "alice", "a")
	}
}

// TestADatabaseElsewhereMustProveItself holds that no spelling of a URL leads away from this machine without verified
// TLS, unless it says so.
func TestADatabaseElsewhereMustProveItself(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(services, []byte("[far]\nhost=db.invalid\n[near]\nhost=127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGSERVICEFILE", services)
	for _, name := range []string{"PGHOST", "PGSSLMODE", "PGSERVICE"} {
		t.Setenv(name, "")
	}
	for url, want := range map[string]bool{
		"postgres://u@db.invalid/x":                  true,
		"postgres://u@db.invalid/x?sslmode=":         true,
		"postgres://u@127.0.0.1,db.invalid/x":        true,
		"postgres:///x?host=db.invalid":              true,
		"postgres:///x?service=far":                  true,
		"postgres:///x?service=near":                 false,
		"postgres://u@127.0.0.1/x":                   false,
		"postgres://u@localhost/x":                   false,
		"postgres:///x?host=/run/postgresql":         false,
		"postgres://u@db.invalid/x?sslmode=disable":  false, // it says so
		"postgres://u@db.invalid/x?sslmode=require":  false,
		"mysql://u@db.invalid/x":                     true,
		"mysql://u@db.invalid:3306/x?tls=true":       true,
		"mariadb://u@192.0.2.1/x":                    true,
		"mysql://u@127.0.0.1/x":                      false,
		"mysql://u@localhost/x":                      false,
		"mysql://u@[::1]/x":                          false,
		"mysql://u@db.invalid/x?socket=/run/my.sock": false,
		"mysql://u@db.invalid/x?tls=false":           false, // it says so
		"mysql://u@db.invalid/x?tls=preferred":       false,
		"mysql://u@db.invalid/x?tls=skip-verify":     false,
	} {
		if got, err := features.Verified(url); err != nil || got != want {
			t.Errorf("%s: verified %v, %v; want %v", url, got, err, want)
		}
	}
}

// passwords holds that a wrong password is refused without being told, and that a new one in the file is taken up by
// new connections without a restart. change sets the account's password and cuts its connections.
func passwords(
	t *testing.T,
	server *dbtest.Server,
	scheme string,
	url func(string) string,
	query string,
	change func(string),
) {
	t.Helper()
	const wrong = "marker-wrong-Passw0rd"
	for name, c := range map[string]features.SQLConfig{
		"in the URL":    {URL: secret.NewSecret(url(wrong)), Query: query},
		"in a file":     {URL: secret.NewSecret(url("")), PasswordFile: secretFile(t, wrong), Query: query},
		"in both":       {URL: secret.NewSecret(url(wrong)), PasswordFile: secretFile(t, wrong), Query: query},
		"in a bad URL":  {URL: secret.NewSecret(scheme + "://user:" + wrong + "%zz@h/d"), Query: query},
		"a bad port":    {URL: secret.NewSecret(scheme + "://user:" + wrong + "@127.0.0.1:x1/d"), Query: query},
		"bad parameter": {URL: secret.NewSecret(url(wrong) + "?sslmode=" + wrong), Query: query},
		"nobody there":  {URL: secret.NewSecret(scheme + "://user:" + wrong + "@127.0.0.1:1/d"), Query: query},
	} {
		s, err := features.NewSQL(t.Context(), c)
		if err == nil {
			s.Close()
			t.Errorf("%s: a wrong password was taken", name)
			continue
		}
		if strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
	file := secretFile(t, server.Password)
	s := open(t, features.SQLConfig{URL: secret.NewSecret(url("")), PasswordFile: file, Query: query})
	asked(t, s, "nobody-of-that-name")
	change("another-password")
	// Its connections are cut now; the next are made with what is in the file, which at first is the old one.
	if held, err := s.Features(t.Context(), tokens.User{ID: "nobody-of-that-name"}, true); err == nil {
		t.Errorf("an old password opened a connection: %v", held)
	}
	if err := os.WriteFile(file, []byte("another-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked(t, s, "nobody-of-that-name")
}

func isOutage(t *testing.T, held tokens.Held, err error) {
	t.Helper()
	var e *tokens.Error
	if !errors.As(err, &e) || e.Code != tokens.CodeUnavailable || len(held.Features) > 0 {
		t.Fatalf("want an outage, got %v, %v", held, err)
	}
}
