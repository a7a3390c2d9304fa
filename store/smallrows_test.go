package store_test

import (
	"slices"
	"strings"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/tokens"
)

// longChecksums counts the checksums of tokens and users that are of the long form: after three bytes for k1 and its length
// come 28, and 12 in the short form.
func longChecksums(t testing.TB, st *store.Store) string {
	t.Helper()
	return count(t, st, `(SELECT row_mac FROM tokens UNION ALL SELECT row_mac FROM users) m WHERE length(row_mac) = 31`)
}

// working checks that all that the desk has is good, however it is presented.
func (d *desk) working(when string) {
	d.t.Helper()
	for _, p := range tokenProbes() {
		if p.name == "Rotate" {
			continue // it would be another token afterwards
		}
		if active, err := p.is(d); !active {
			d.t.Errorf("%s, %s: not active, %v", when, p.name, err)
		}
	}
	if active, err := introspects(ofOld)(d); !active {
		d.t.Errorf("%s, the rotated secret: not active, %v", when, err)
	}
	if found, err := d.st.Check(d.t.Context()); err != nil || len(found) != 0 {
		d.t.Errorf("%s: check finds %q, %v", when, found, err)
	}
}

// TestRowsFromBeforeStayGood in a file that this program goes on with: checksums of either form beside one another, those
// of tokens changed first or those of users, until their key is retired.
func TestRowsFromBeforeStayGood(t *testing.T) {
	t.Parallel()
	rename := func(d *desk) error {
		name := "renamed"
		_, err := d.UpdateToken(t.Context(), d.admin, d.user, d.id, tokens.TokenChange{Name: &name})
		return err
	}
	widen := func(d *desk) error {
		_, err := d.SetUserFeatures(t.Context(), d.admin, d.user, []string{"a", "b", "c"})
		return err
	}
	for first, changes := range map[string][]func(*desk) error{"a token": {rename, widen}, "a user": {widen, rename}} {
		d := newDesk(t, "sqlite:"+newPath(t), rowKeyA, true)
		d.st.AsBefore26(true)
		d.furnish()
		exec1(t, d.st, `UPDATE tokens SET name_key = lower(name)`)
		d.st.AsBefore26(false)
		d.working("as before")
		for i, change := range changes {
			d.must(change(d))
			d.working(first + " was changed first")
			if left, want := longChecksums(t, d.st), []string{"1", "0"}[i]; left != want {
				t.Errorf("after change %d, %s first: %s long checksums, want %s", i, first, left, want)
			}
		}
		ctx := t.Context()
		d.bind(parseRowKeys(t, rowKeyB+"\n"+rowKeyA))
		rows := func() (n int64) {
			d.must(d.st.View(ctx, func(tx tokens.ReadTx) (err error) {
				n, err = tx.RowsUnder("k1")
				return err
			}))
			return n
		}
		under := rows()
		if moved, err := d.st.MoveChecksums(ctx, "k1"); err != nil || moved != under || moved < 8 || rows() != 0 {
			t.Errorf("of %d rows under the old key %d moved, %v, and %d are left", under, moved, err, rows())
		}
		d.working("under a new key")
	}
}

// TestAnEarlierProgramThatStillRunsChangesNothing: it would take rows for edited ones, and keep them so. All that changes
// a row writes an event with the number of its last migration.
func TestAnEarlierProgramThatStillRunsChangesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "sqlite:"+newPath(t), rowKeyA, true)
	const event = `INSERT INTO events (time_us, actor, action, outcome, writer) VALUES (1, 'x', 'user.suspend', 1, ?)`
	if err := d.st.Exec(t.Context(), event, 25); err == nil || !strings.Contains(err.Error(), "too old to write") {
		t.Errorf("a change by the version before: %v", err)
	}
	if err := d.st.Exec(t.Context(), event, store.NewestSchema); err != nil {
		t.Errorf("a change by this version: %v", err)
	}
	// A copy has the events of earlier programs, and is closed to them when it is whole.
	d.must(d.st.Exec(t.Context(), `DELETE FROM sealed`))
	d.must(d.st.Exec(t.Context(), event, 25))
	d.must(d.st.Exec(t.Context(), `INSERT INTO sealed (one, begin_us, finish_us) VALUES (1, 1, 1)`))
	to := "sqlite:" + newPath(t)
	copyInto(t, d.st, to, "with an event of an earlier program")
	if err := openURL(t, to, store.Options{}).Exec(t.Context(), event, 25); err == nil {
		t.Error("a copy takes changes by the version before")
	}
}

// named returns the tokens of a list whose names hold a text, by name.
func (d *desk) named(user, text string) []string {
	d.t.Helper()
	var lists [2][]tokens.Token
	var err error
	lists[0], _, err = d.Tokens(d.t.Context(), d.admin, tokens.TokenFilter{User: user, NameHas: text}, tokens.Page{})
	d.must(err)
	lists[1], _, err = d.Inventory(d.t.Context(), d.admin, tokens.Filter{NameHas: text}, "", tokens.Page{})
	d.must(err)
	var names [2][]string
	for i, list := range lists {
		for _, tok := range list {
			names[i] = append(names[i], tok.Name)
		}
		slices.Sort(names[i])
	}
	if !slices.Equal(names[0], names[1]) {
		d.t.Errorf("%q: the user's list has %q, the inventory %q", text, names[0], names[1])
	}
	return names[0]
}

// checkNames mints tokens, and checks that their names are found and taken, whatever is stored of them.
func (d *desk) checkNames(when string) {
	d.t.Helper()
	for text, want := range map[string][]string{
		"ci": {"CI Deploy", "ＣＩ  job"}, "DEPLOY": {"CI Deploy"}, "i d": {"CI Deploy"}, "GRÖSSE": {"Größe"}, "ci j": {"ＣＩ  job"},
		"plain": {"plain"}, "日": {"日本"}, "nothing": nil,
	} {
		if got := d.named("names", text); !slices.Equal(got, want) {
			d.t.Errorf("%s: %q is found in %q, want %q", when, text, got, want)
		}
	}
	for _, taken := range []string{"ci deploy", "CI  DEPLOY", "GRÖSSE", "CI job", "Plain", "日本"} {
		_, err := d.Mint(d.t.Context(), d.admin, tokens.MintRequest{User: "names", Name: taken, Scopes: []string{"a"}})
		if reason(err) != "NAME_TAKEN" {
			d.t.Errorf("%s: another token named %q: %v", when, taken, err)
		}
	}
	if found, err := d.st.Check(d.t.Context()); err != nil || len(found) != 0 {
		d.t.Errorf("%s: check finds %q, %v", when, found, err)
	}
}

func (d *desk) mintNames() {
	d.t.Helper()
	ctx := d.t.Context()
	_, err := d.SetUserFeatures(ctx, d.admin, "names", []string{"a"})
	d.must(err)
	for _, name := range []string{"CI Deploy", "Größe", "ＣＩ  job", "plain", "was another"} {
		m, err := d.Mint(ctx, d.admin, tokens.MintRequest{User: "names", Name: name, Scopes: []string{"a"}})
		d.must(err)
		if name == "was another" {
			name = "日本"
			_, err = d.UpdateToken(ctx, d.admin, "names", m.Token.ID.String(), tokens.TokenChange{Name: &name})
			d.must(err)
		}
	}
}

// TestNamesAreFoundWhateverIsStoredOfThem: in a file their folded form is stored only where it is not the name in lower
// case.
func TestNamesAreFoundWhateverIsStoredOfThem(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		d.mintNames()
		d.checkNames("minted")
		list, err := d.st.Texts(t.Context(), 0, `SELECT name || ': ' || name_key FROM tokens WHERE name <> 'n'`)
		d.must(err)
		slices.Sort(list)
		folded := tokens.NameKey("Größe")
		want := []string{"CI Deploy: ", "Größe: " + folded, "plain: ", "日本: ", "ＣＩ  job: ci job"}
		if store.IsPostgres(url) { // for servers of the version before
			want = []string{"CI Deploy: ci deploy", "Größe: " + folded, "plain: plain", "日本: 日本", "ＣＩ  job: ci job"}
		}
		if !slices.Equal(list, want) {
			t.Errorf("stored is %q, want %q", list, want)
		}
	})
}

// TestACopyOfAFileKeepsItsRows in PostgreSQL, and programs away that do not know them.
func TestACopyOfAFileKeepsItsRows(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	d := newDesk(t, "sqlite:"+newPath(t), rowKeyA, true)
	d.furnish()
	d.mintNames()
	ring := d.ring.Get()
	for _, to := range []string{emptyDatabase(server), emptyDatabase(server), "sqlite:" + newPath(t)} { // each of the one before
		copyInto(t, d.st, to, to)
		d.st = openURL(t, to, store.Options{Now: d.clock.now})
		d.bind(ring)
		d.working("copied")
		d.checkNames("copied")
		if oldest := texts(t, d.st, `SELECT oldest FROM compatibility`); oldest != fileSchema {
			t.Errorf("programs that know migration %s may use the copy", oldest)
		}
	}
	// A store that was never in a file stays open to the version before.
	plain := newDesk(t, newSchema(t, server), rowKeyA, true)
	plain.furnish()
	to := emptyDatabase(server)
	copyInto(t, plain.st, to, to)
	st := openURL(t, to, store.Options{})
	if oldest := texts(t, st, `SELECT oldest FROM compatibility`); oldest != sealSchema {
		t.Errorf("only programs that know migration %s may use the copy", oldest)
	}
	const live = `(SELECT row_mac FROM tokens UNION ALL SELECT row_mac FROM users) m`
	if long, all := longChecksums(t, st), count(t, st, live); long != all {
		t.Errorf("%s of %s checksums are long", long, all)
	}
}
