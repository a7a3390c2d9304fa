package store_test

import (
	"fmt"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/store"
)

// groupFaults has the database fail in the middle of what the mints of a group write together.
func groupFaults(t *testing.T, server *dbtest.Server) {
	const end = `PERFORM pg_terminate_backend(pg_backend_pid())`
	for i, fault := range []struct {
		name   string
		times  int    // at the commit
		commit string // PL/pgSQL
		table  string // of a trigger for each row
		row    string // PL/pgSQL
		fails  int    // which of the mints; 0: none
	}{
		{name: "one row is refused", table: "tokens", row: `IF NEW.name = 'of7' THEN RAISE EXCEPTION 'no'; END IF`, fails: 7},
		{name: "one row breaks a rule", table: "tokens", row: `IF NEW.name = 'of9' THEN NEW.scopes = NULL; END IF`, fails: 9},
		{name: "one row is dropped", table: "requests", row: `IF NEW.token_id = 1000012 THEN RETURN NULL; END IF`, fails: 12},
		{name: "one event is dropped", table: "events", row: `IF NEW.reason = '13' THEN RETURN NULL; END IF`, fails: 13},
		{name: "one entry of the feed is dropped", table: "changes", row: `IF NEW.token_id = 1000015 THEN RETURN NULL; END IF`, fails: 15},
		{name: "an event is in the way of another transaction", table: "events",
			row: `IF NEW.reason = '17' AND nextval('attempts') = 1 THEN RAISE EXCEPTION 'in the way' USING ERRCODE = '40001'; END IF`},
		{name: "the connection ends with a row", table: "events", row: `IF NEW.reason = '19' AND nextval('attempts') = 1 THEN ` + end + `; END IF`},
		{name: "the connection ends with the commit", times: 1, commit: end},
		{name: "the commit is in the way of another", times: 1, commit: `RAISE EXCEPTION 'in the way' USING ERRCODE = '40P01'`},
	} {
		t.Run(fault.name, func(t *testing.T) {
			st := openURL(t, newSchema(t, server), store.Options{Connections: 2, FlushInterval: time.Hour})
			fill(t, st, 2)
			group := manyMints(24, 1)
			withUsers(t, st, group)
			exec1(t, st, `CREATE SEQUENCE IF NOT EXISTS attempts`)
			if fault.commit != "" {
				atCommit(t, st, fault.times, fault.commit)
			} else {
				exec1(
					t,
					st,
					`CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN `+fault.row+`; RETURN NEW; END $$`,
				)
				exec1(
					t,
					st,
					`CREATE TRIGGER fault BEFORE INSERT ON `+fault.table+` FOR EACH ROW EXECUTE FUNCTION fault()`,
				)
			}
			mintTogether(t, st, group)
			for _, c := range group {
				if want := c.n == fault.fails; want != (c.err != nil) {
					t.Errorf("fault %d, mint %d: %v", i, c.n, c.err)
				}
			}
			checkMinted(t, st, group)
		})
	}
}

// failedReads has what all mints of a group read be gone for a while.
func failedReads(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2, FlushInterval: time.Hour})
	fill(t, st, 2)
	group := manyMints(20, 1)
	withUsers(t, st, group)
	exec1(t, st, `ALTER TABLE users RENAME COLUMN features TO gone`)
	mintTogether(t, st, group)
	for _, c := range group {
		if reason(c.err) != "STORE_UNAVAILABLE" {
			t.Errorf("mint %d of a store that cannot be read: %v, want an outage", c.n, c.err)
		}
	}
	exec1(t, st, `ALTER TABLE users RENAME COLUMN gone TO features`)
	mintTogether(t, st, group)
	for _, c := range group {
		if !c.made() {
			t.Errorf("mint %d after that: %v", c.n, c.err)
		}
	}
	checkMinted(t, st, group)
}

// TestPositionsOfAGroupAreAboveThoseOfTheTables has sequences that begin anew, and a role that may not use them.
func TestPositionsOfAGroupAreAboveThoseOfTheTables(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	url := newSchema(t, server)
	owner := openURL(t, url, store.Options{Connections: 2, FlushInterval: time.Hour})
	fill(t, owner, 5)
	group := manyMints(60, 1)
	withUsers(t, owner, group)
	for _, statement := range sequencesLost {
		exec1(t, owner, statement)
	}
	mintAbove := func(st *store.Store, group []*minting) {
		t.Helper()
		var before [2]string
		for i, table := range []string{"events", "changes"} {
			at, err := owner.Texts(t.Context(), 0, `SELECT max(seq) FROM `+table)
			must(t, err)
			before[i] = at[0]
		}
		mintTogether(t, st, group)
		for i, table := range []string{"events", "changes"} {
			if got, want := count(t, owner, table+` WHERE seq > `+before[i]), fmt.Sprint(len(group)); got != want {
				t.Errorf("%s of %s are above those before, want %s", got, table, want)
			}
		}
	}
	mintAbove(owner, group[:20])
	if found, err := owner.Check(t.Context()); err != nil || len(found) != 2 { // the users' and the keys' are left
		t.Errorf("check: %q, %v; want the sequences of the two tables to be taken along", found, err)
	}
	schema, err := owner.Texts(t.Context(), 0, `SELECT current_schema()`)
	must(t, err)
	for _, statement := range []string{
		`CREATE ROLE group_writes LOGIN PASSWORD 'only-for-this-test'`, `GRANT USAGE ON SCHEMA ` + schema[0] + ` TO group_writes`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ` + schema[0] + ` TO group_writes`,
	} {
		exec1(t, owner, statement)
	}
	st := openURL(
		t,
		"postgres://group_writes:only-for-this-test@"+server.Addr()+"/"+server.Database+"?sslmode=disable&search_path="+schema[0],
		store.Options{Connections: 2, FlushInterval: time.Hour},
	)
	mintAbove(st, group[20:40])
	mintAbove(owner, group[40:])
	checkMinted(t, owner, group)
}
