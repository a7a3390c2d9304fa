package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/features/signature"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
)

// The times of the tests of sources: short, so that the tests are, and long beside what a busy machine adds.
const (
	sourceTTL      = time.Second
	sourceMaxStale = 3 * time.Second
	sourceTimeout  = 500 * time.Millisecond
	sourceSlack    = 2 * time.Second
)

// entitlements is the company's own record of who holds what, as its programs change it.
type entitlements interface {
	grant(t *testing.T, user, feature string)
	take(t *testing.T, user, feature string)
}

// companyTable is such a record in a database.
type companyTable struct {
	db            *sql.DB
	insert, erase string
}

func newCompanyTable(t *testing.T, db *sql.DB, first, second string) companyTable {
	t.Helper()
	c := companyTable{
		db:     db,
		insert: "INSERT INTO user_features (user_id, feature) VALUES (" + first + ", " + second + ")",
		erase:  "DELETE FROM user_features WHERE user_id = " + first + " AND feature = " + second,
	}
	c.exec(
		t,
		"CREATE TABLE user_features (user_id varchar(255) NOT NULL, feature varchar(128) NOT NULL, PRIMARY KEY (user_id, feature))",
	)
	return c
}

func (c companyTable) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	if _, err := c.db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (c companyTable) grant(t *testing.T, user, feature string) { c.exec(t, c.insert, user, feature) }
func (c companyTable) take(t *testing.T, user, feature string)  { c.exec(t, c.erase, user, feature) }

// outage is one way for a source not to answer, and the end of it.
type outage struct {
	name       string
	begin, end func()
}

// companySource is a source under test: how patd is told of it, the record behind it, and how it fails.
type companySource struct {
	flags   []string
	record  entitlements
	outages []outage
}

func databaseSource(t *testing.T, s *dbtest.Server, url, mark string, record entitlements) companySource {
	t.Helper()
	return companySource{
		flags: []string{
			"--features-source", "sql", "--features-database-url", url,
			"--features-database-password-file", written(t, "password", s.Password+"\n"),
			"--features-query", "SELECT feature FROM user_features WHERE user_id = " + mark,
		},
		record: record,
		outages: []outage{
			{"killed", func() { s.Kill(t) }, func() { s.Start(t) }},
			{"frozen", func() { s.Freeze(t) }, func() { s.Thaw(t) }},
		},
	}
}

func TestFeaturesFromPostgreSQL(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	s := dbtest.Postgres(t)
	testSource(t, databaseSource(t, s, s.PostgresURL(""), "$1", newCompanyTable(t, s.Admin(), "$1", "$2")))
}

func TestFeaturesFromMariaDB(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	s := dbtest.MariaDB(t)
	testSource(t, databaseSource(t, s, s.MySQLURL(""), "?", newCompanyTable(t, s.Admin(), "?", "?")))
}

func TestFeaturesFromSQLite(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	file := written(t, "company.db", "")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	record := newCompanyTable(t, db, "?", "?")
	testSource(t, companySource{
		flags: []string{
			"--features-source", "sql", "--features-database-url", "sqlite:" + file,
			"--features-query", "SELECT feature FROM user_features WHERE user_id = ?",
		},
		record: record,
		outages: []outage{
			{
				"changed",
				func() { record.exec(t, "ALTER TABLE user_features RENAME TO moved") },
				func() { record.exec(t, "ALTER TABLE moved RENAME TO user_features") },
			},
		},
	})
}

// testSource holds what patd promises of any source: a token loses and regains what its user does, within the TTL or at
// once after a refresh, and an outage is an error, never a wrong answer.
func testSource(t *testing.T, s companySource) {
	t.Helper()
	data, admin := administer(t)
	for _, feature := range []string{"billing.read", "reports.read", "reports.write"} {
		s.record.grant(t, "alice", feature)
	}
	s.record.grant(t, "bob", "reports.read")

	// With an hour's TTL nothing but a refresh makes a change count.
	d := serve(t, data, append(s.flags, "--features-ttl", "1h", "--features-max-stale", "1h")...)
	a := connect(t, d, admin)
	tokens := []string{
		a.mint(t, "alice", "one", "billing.read", "reports.read"),
		a.mint(t, "alice", "two", "billing.read", "reports.read"),
	}
	bob := []string{a.mint(t, "bob", "one", "reports.read")}
	a.wantScopes(t, "minted", tokens, "billing.read", "reports.read")
	a.wantScopes(t, "minted", bob, "reports.read")
	s.record.take(t, "alice", "billing.read")
	a.wantScopes(t, "the row is gone, the answer still counts", tokens, "billing.read", "reports.read")
	d.call(t, http.MethodPost, "/v1/users/alice/tokens", admin, `{"name": "three", "scopes": ["billing.read"]}`).
		want(t, "minting asks anew", 400, "SCOPE_NOT_HELD")
	d.call(t, http.MethodPost, "/v1/users/alice:refresh", admin, `{}`).want(t, "refresh", 200)
	a.wantScopes(t, "the row is gone", tokens, "reports.read")
	a.wantScopes(t, "another user", bob, "reports.read")
	s.record.grant(t, "alice", "billing.read")
	patd(t, "user", "refresh", "alice", "--addr", d.GRPC, "--token-file", written(t, "token", admin))
	a.wantScopes(t, "the row is back", tokens, "billing.read", "reports.read")
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}

	d = serve(t, data, s.short()...)
	a = connect(t, d, admin)
	narrowsByItself(t, a, s.record, tokens)
	for _, o := range s.outages {
		t.Run(o.name, func(t *testing.T) { survivesOutage(t, d, a, admin, o, tokens) })
		a.wantScopes(t, "another user, after an outage", bob, "reports.read")
		narrowsByItself(t, a, s.record, tokens)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if found := secrets.FindString(d.Log.String()); found != "" {
		t.Error("a secret stands in the log")
	}
}

// short is the settings with the times of the tests.
func (s companySource) short() []string {
	return append(
		s.flags,
		"--features-ttl",
		sourceTTL.String(),
		"--features-max-stale",
		sourceMaxStale.String(),
		"--features-timeout",
		sourceTimeout.String(),
	)
}

// narrowsByItself takes a feature from alice and gives it back.
func narrowsByItself(t *testing.T, a api, record entitlements, tokens []string) {
	t.Helper()
	a.wantScopes(t, "before the row is taken", tokens, "billing.read", "reports.read")
	for _, step := range []struct {
		what   string
		change func(*testing.T, string, string)
		want   string
	}{{"the row is taken", record.take, "reports.read"}, {"the row is back", record.grant, "billing.read reports.read"}} {
		step.change(t, "alice", "billing.read")
		for _, secret := range tokens {
			took := waittest.Within(t, sourceTTL+sourceSlack, step.what, func() bool {
				scopes, _, err := a.may(t, secret)
				if err != nil {
					t.Fatal(err)
				}
				return strings.Join(scopes, " ") == step.want
			})
			t.Logf("%s: the scopes follow after %s (TTL %s)", step.what, took.Round(time.Millisecond), sourceTTL)
		}
	}
}

// survivesOutage begins an outage and ends it. The record does not change meanwhile, so any other answer is a wrong
// one.
func survivesOutage(t *testing.T, d *daemon, a api, admin string, o outage, tokens []string) {
	t.Helper()
	a.wantScopes(t, "before the outage", tokens, "billing.read", "reports.read")
	o.begin()
	ended := false
	defer func() {
		if !ended {
			o.end()
		}
	}()
	sawStale := false
	took := waittest.Within(t, sourceMaxStale+2*sourceTimeout+sourceSlack, "an outage", func() bool {
		scopes, stale, err := a.may(t, tokens[0])
		if err == nil && strings.Join(scopes, " ") != "billing.read reports.read" {
			t.Fatalf("during the outage the token may %v", scopes)
		}
		sawStale = sawStale || stale
		return err != nil
	})
	t.Logf("unavailable after %s (TTL %s, at most %s stale)", took.Round(time.Millisecond), sourceTTL, sourceMaxStale)
	if !sawStale {
		t.Error("no answer during the outage was marked as stale")
	}
	began := time.Now()
	d.call(t, http.MethodPost, "/v1/introspect", admin, `{"token": "`+tokens[1]+`"}`).
		want(t, "introspect by REST", 503, "FEATURES_UNAVAILABLE")
	d.call(t, http.MethodPost, "/v1/users/alice/tokens", admin, `{"name": "outage", "scopes": ["reports.read"]}`).
		want(t, "mint", 503, "FEATURES_UNAVAILABLE")
	d.call(t, http.MethodGet, "/v1/users/stranger/features", admin, "").
		want(t, "features of one who was never asked about", 503, "FEATURES_UNAVAILABLE")
	if took := time.Since(began); took > 3*2*sourceTimeout+sourceSlack {
		t.Errorf("three refusals took %s", took)
	}
	o.end()
	ended = true
	took = waittest.Until(t, "recovery", func() bool {
		scopes, stale, err := a.may(t, tokens[0])
		if err == nil && (stale || strings.Join(scopes, " ") != "billing.read reports.read") {
			t.Fatalf("after the outage the token may %v, stale %t", scopes, stale)
		}
		return err == nil
	})
	t.Logf("available again %s after the source was", took.Round(time.Millisecond))
}

// TestDatabaseMayComeLater starts patd before the company's database.
func TestDatabaseMayComeLater(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	server := dbtest.Postgres(t)
	record := newCompanyTable(t, server.Admin(), "$1", "$2")
	record.grant(t, "alice", "reports.read")
	s := databaseSource(t, server, server.PostgresURL(""), "$1", record)
	data, admin := administer(t)
	wrong := append(s.short(), "--features-query", "SELECT feature FROM no_such_table WHERE user_id = $1")
	if _, err := run(
		append(
			[]string{"serve", "--data-dir", data, "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"},
			wrong...)...); err == nil ||
		!strings.Contains(err.Error(), "no_such_table") {
		t.Errorf("a query that the database refuses: %v", err)
	}
	for _, o := range s.outages {
		t.Run(o.name, func(t *testing.T) {
			o.begin()
			d := serve(t, data, s.short()...)
			if _, err := d.Log.Await(
				patience,
				regexp.MustCompile("the source of features cannot be reached"),
			); err != nil {
				t.Error(err)
			}
			a := connect(t, d, admin)
			mint := func() error {
				_, err := a.tokens.CreateToken(
					t.Context(),
					&patdv1.CreateTokenRequest{User: "alice", Name: o.name, Scopes: []string{"reports.read"}},
				)
				return err
			}
			if err := mint(); reason(err) != "FEATURES_UNAVAILABLE" {
				t.Errorf("mint before the database is there: %v", err)
			}
			o.end()
			took := waittest.Until(t, "the database is there", func() bool {
				err := mint()
				if err != nil && reason(err) != "FEATURES_UNAVAILABLE" {
					t.Fatal(err)
				}
				return err == nil
			})
			t.Logf("served %s after the database", took.Round(time.Millisecond))
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	// It may also never come.
	server.Kill(t)
	d := serve(t, data, s.short()...)
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// companyEndpoint is the company's record behind an endpoint of its own.
type companyEndpoint struct {
	key []byte

	mu     sync.Mutex
	holds  map[string]map[string]bool
	fault  func(http.ResponseWriter, *http.Request) // nil: it is well
	asked  int
	faults []error
}

func (c *companyEndpoint) change(user, feature string, holds bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds[user] == nil {
		c.holds[user] = map[string]bool{}
	}
	if delete(c.holds[user], feature); holds {
		c.holds[user][feature] = true
	}
}

func (c *companyEndpoint) grant(_ *testing.T, user, feature string) { c.change(user, feature, true) }
func (c *companyEndpoint) take(_ *testing.T, user, feature string)  { c.change(user, feature, false) }

func (c *companyEndpoint) fail(fault func(http.ResponseWriter, *http.Request)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = fault
}

// answer does what docs/features.md tells the company to do.
func (c *companyEndpoint) answer(r *http.Request, body []byte) (user string, features []string, known bool, err error) {
	if err := signature.Verify(c.key, r.Header.Get(signature.Header), body, time.Now(), 0); err != nil {
		return "", nil, false, err
	}
	var question struct{ User string }
	if err := json.Unmarshal(body, &question); err != nil {
		return "", nil, false, err
	}
	if dump := fmt.Sprint(
		r.Header,
		r.URL,
		string(body),
	); secrets.MatchString(
		strings.ReplaceAll(dump, r.Header.Get(signature.Header), ""),
	) {
		return "", nil, false, fmt.Errorf("a secret was sent to the endpoint")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	features, known = []string{}, c.holds[question.User] != nil
	for f := range c.holds[question.User] {
		features = append(features, f)
	}
	return question.User, features, known, nil
}

func (c *companyEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	c.mu.Lock()
	c.asked++
	fault := c.fault
	c.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	var user string
	var features []string
	known := false
	if err == nil {
		user, features, known, err = c.answer(r, body)
	}
	switch {
	case err != nil:
		c.mu.Lock()
		c.faults = append(c.faults, err)
		c.mu.Unlock()
		w.WriteHeader(http.StatusUnauthorized)
	case !known:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]any{"user": "unknown"})
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"user": user, "features": features})
	}
}

func TestFeaturesFromCallback(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	const key = "a key of at least thirty-two bytes, for tests"
	c := &companyEndpoint{key: []byte(key), holds: map[string]map[string]bool{}}
	endpoint := httptest.NewServer(c)
	t.Cleanup(endpoint.Close)
	well := func() { c.fail(nil) }
	testSource(t, companySource{
		flags: []string{
			"--features-source",
			"callback",
			"--features-callback-url",
			endpoint.URL + "/features",
			"--features-callback-key-file",
			written(t, "key", key+"\n"),
		},
		record: c,
		outages: []outage{
			{"failing", func() {
				c.fail(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
			}, well},
			{"hanging", func() { c.fail(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) }, well},
			{"redirecting", func() { c.fail(http.RedirectHandler("/elsewhere", http.StatusFound).ServeHTTP) }, well},
			{"babbling", func() {
				c.fail(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(w, `{"features": ["reports.read", "not a name"]}`)
				})
			}, well},
		},
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) > 0 || c.asked == 0 {
		t.Errorf("asked %d times; the endpoint refused %v", c.asked, c.faults)
	}
}
