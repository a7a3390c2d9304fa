package store_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/store"
	"patd/tokens"
)

// columnsOfVersion1 are the tables of the first schema, in an order that follows their references.
var columnsOfVersion1 = []struct{ table, columns string }{
	{"keys", "num, name, check_value, create_us, retire_us"},
	{"prefixes", "prefix"},
	{"users", "key, user, state, features, create_us, delete_us"},
	{
		"tokens",
		"id, user, key, digest, rotations, name, name_key, scopes, issue_us, expire_us, audiences, cidrs, labels, description, " +
			"revoke_us, revoked_by, revoke_reason, last_used_us, last_used_ip",
	},
	{"old_secrets", "token_id, serial, key, digest, until_us"},
	{"requests", "key, fingerprint, token_id, sealed, expire_us"},
	{
		"services",
		"id, name, permissions, audience, key, digest, issue_us, expire_us, revoke_us, revoked_by, revoke_reason",
	},
	{"events", "seq, time_us, actor, action, outcome, user, token_id, service, peer_ip, reason, detail"},
	{"changes", "seq, time_us, token_id, user, service"},
	{"sqlite_sequence", "name, seq"},
}

func TestAStoreOfTheFirstSchemaKeepsEveryRow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from := filepath.Join(dir, "new.db")
	st := open(t, from, store.Options{})
	ids := fill(t, st, 300)
	live := everyKindOfRow(t, st, ids)
	want := dump(t, st)

	path := filepath.Join(dir, "old.db")
	db, err := store.MakeOld(t.Context(), path, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `ATTACH ? AS new`, from); err != nil {
		t.Fatal(err)
	}
	for _, c := range columnsOfVersion1 {
		if c.table == "sqlite_sequence" {
			continue // it follows from the rows
		}
		if _, err := db.ExecContext(
			t.Context(),
			`INSERT INTO main.`+c.table+` (`+c.columns+`) SELECT `+c.columns+` FROM new.`+c.table,
		); err != nil {
			t.Fatal(c.table, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	old := open(t, path, store.Options{})
	got := dump(t, old)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rows after the upgrade (-want +got):\n%s", d)
	}
	for _, id := range ids {
		a, b := lookup(t, st, id), lookup(t, old, id)
		a.Sequence, b.Sequence = 0, 0
		if !cmp.Equal(a, b, cmp.Comparer(func(x, y tokens.Use) bool { return x == y })) {
			t.Fatalf("token %s reads differently after the upgrade", id)
		}
	}
	if found, err := old.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check after the upgrade: %v, %v", found, err)
	}
	q := tokens.ExceedQuery{Audience: "api", Now: time.Now(), Never: true, Limit: 10}
	err = old.View(t.Context(), func(tx tokens.ReadTx) error {
		found, err := tx.Exceeding(q)
		if len(found) != 1 || found[0].ID != live {
			t.Errorf("live tokens of an audience after the upgrade: %v", found)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := old.Exec(
		t.Context(),
		`UPDATE tokens SET revoke_us = NULL, revoked_by = NULL WHERE revoke_us IS NOT NULL`,
	); err == nil {
		t.Error("a revocation was undone after the upgrade")
	}
}

// everyKindOfRow adds what fill does not: it answers a live token of an audience.
func everyKindOfRow(t *testing.T, st *store.Store, ids []tokens.ID) (live tokens.ID) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	err := st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		tok, err := tx.Token(ids[0])
		if err != nil {
			return nil, err
		}
		gone := tok
		gone.Revocation = &tokens.Revocation{Time: now, By: "operator", Reason: "lost"}
		gone.Labels, gone.Description = map[string]string{"team": "a"}, "text"
		live = ids[len(ids)-1] ^ 1
		of := tok
		of.ID, of.Name, of.Audiences, of.ExpireTime = live, "of an audience", []string{"api", "other"}, time.Time{}
		h := tokens.Hash{Key: "fill", Sum: [32]byte{5}}
		err = errors.Join(
			tx.UpdateToken(
				gone,
			),
			tx.InsertToken(of, h),
			tx.ReplaceSecret(ids[1], h, tokens.Rotation{Time: now, PreviousUntil: now.Add(time.Hour)}),
			tx.PutRequest(tokens.Request{TokenID: live, Sealed: []byte("sealed"), ExpireTime: now.Add(time.Hour)}, now),
			tx.InsertService(
				tokens.ServiceAccount{ID: 9, Name: "gateway", Permissions: tokens.PermIntrospect, IssueTime: now},
				h,
			),
			tx.PutPrefix("acme"),
		)
		done := func(action tokens.Action, id tokens.ID, service string) tokens.Event {
			return tokens.Event{
				Time:    now,
				Actor:   "operator",
				Action:  action,
				TokenID: id,
				Service: service,
				Outcome: tokens.OutcomeSuccess,
			}
		}
		return []tokens.Event{
			done(tokens.ActionTokenRevoke, gone.ID, ""), done(tokens.ActionTokenCreate, live, ""),
			done(tokens.ActionTokenRotate, ids[1], ""), done(tokens.ActionServiceCreate, 0, "gateway"),
		}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return live
}

// dump returns the rows of the tables of the first schema, as text.
func dump(t *testing.T, st *store.Store) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, c := range columnsOfVersion1 {
		list, err := st.Texts(
			t.Context(),
			0,
			`SELECT concat_ws('|', `+quoted(c.columns)+`) AS row FROM `+c.table+` ORDER BY row`,
		)
		if err != nil || len(list) == 0 {
			t.Fatalf("rows of %s: %d, %v", c.table, len(list), err)
		}
		all[c.table] = list
	}
	return all
}

// quoted shows a NULL and a text of that name as different.
func quoted(columns string) string {
	return "quote(" + strings.ReplaceAll(columns, ", ", "), quote(") + ")"
}

func TestExceedingTokensAreSortedInTheIndex(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	plan, err := st.Texts(t.Context(), 3, "EXPLAIN QUERY PLAN "+store.ExceedingQuery, slices.Repeat([]any{1}, 6)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{
		"SEARCH tokens USING COVERING INDEX tokens_exceeding (expire_us>? AND expire_us<?)",
		"SEARCH t USING INTEGER PRIMARY KEY", "SEARCH u USING INTEGER PRIMARY KEY",
	} {
		if !slices.ContainsFunc(plan, func(s string) bool { return strings.Contains(s, step) }) {
			t.Errorf("plan\n%s\nwant %s", strings.Join(plan, "\n"), step)
		}
	}
	if slices.ContainsFunc(plan, func(s string) bool { return strings.HasPrefix(s, "SCAN") && s != "SCAN x" }) {
		t.Errorf("plan\n%s\nscans a table", strings.Join(plan, "\n"))
	}
}

func TestTokensWithoutAudiencesAreInNoFurtherIndex(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	fill(t, st, 50)
	wantEntries := func(want string) {
		t.Helper()
		for _, index := range []string{"tokens_exceeding", "tokens_blocked"} {
			got, err := st.Texts(t.Context(), 0, `SELECT sum(ncell) FROM dbstat WHERE name = ?`, index)
			if err != nil || got[0] != want {
				t.Errorf("entries of %s: %v, %v; want %s", index, got, err, want)
			}
		}
	}
	wantEntries("0")
	exec1(t, st, `UPDATE tokens SET audiences = 'api', blocked_by = 'api' WHERE id = (SELECT max(id) FROM tokens)`)
	wantEntries("1")
}
