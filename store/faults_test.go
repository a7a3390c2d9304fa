package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"patd/internal/waittest"
	"patd/store"
	"patd/tokens"
)

func TestAFullDiskRefusesChangesAndKeepsAnswering(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := fill(t, st, 50)[0]
	pages, err := st.Texts(t.Context(), 0, `PRAGMA page_count`)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	st = open(t, path, store.Options{FlushInterval: time.Hour}.WithPragmas("max_page_count("+pages[0]+")"))
	kept := 0
	for err = nil; err == nil && kept < 10_000; kept++ {
		err = tryPut(t.Context(), st, fmt.Sprintf("prefix-%05d", kept))
	}
	kept--
	if reason(err) != "DISK_FULL" {
		t.Fatalf("after %d changes: %v, want DISK_FULL", kept, err)
	}
	events := count(t, st, "events")
	for range 3 {
		err := st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
			// The first statement may find room; that a later one finds none must undo it, answered or not.
			_ = tx.PutPrefix("half")
			_ = tx.PutPrefix(strings.Repeat("x", 100_000))
			return []tokens.Event{
					{Time: time.Now(), Actor: "a", Action: "b", Outcome: tokens.OutcomeSuccess},
				}, tx.PutPrefix(
					"after",
				)
		})
		if reason(err) != "DISK_FULL" {
			t.Errorf("a change that does not fit: %v", err)
		}
	}
	if got := len(prefixes(t, st)); got != kept {
		t.Errorf("%d prefixes, want the %d of the changes that were answered", got, kept)
	}
	if got := count(t, st, "events"); got != events {
		t.Errorf("%s events after refused changes, want %s", got, events)
	}
	lookup(t, st, id)
	if err := st.Ready(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
	if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check: %v, %v", found, err)
	}
	exec1(t, st, `PRAGMA max_page_count = 1000000`)
	put(t, st, "room")
}

func TestCloseWritesRecordedUses(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{FlushInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ids := fill(t, st, 1200) // more than one transaction of uses
	use := tokens.Use{Time: time.Now().UTC().Truncate(time.Microsecond)}
	for _, id := range ids {
		st.RecordUse(tokens.Usage{ID: id, Use: use})
	}
	if got := lastUse(t, st, ids[0]); got != (tokens.Use{}) {
		t.Errorf("a use was not written behind: %v", got)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	st = open(t, path, store.Options{})
	for _, id := range ids {
		if got := lastUse(t, st, id); got != use {
			t.Fatalf("last use of %s after Close: %v, want %v", id, got, use)
		}
	}
}

func TestAUseIsWrittenWithinTheInterval(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{FlushInterval: 10 * time.Millisecond})
	id := fill(t, st, 1)[0]
	st.RecordUse(tokens.Usage{ID: id, Use: tokens.Use{Time: time.Now()}})
	waittest.Until(t, "the last use", func() bool { return !lastUse(t, st, id).Time.IsZero() })
}

func TestARekeyIsWrittenSoon(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	id := fill(t, st, 1)[0]
	old := lookup(t, st, id).Secrets[0].Hash
	next := tokens.Hash{Key: old.Key, Sum: [32]byte{7}}
	st.RecordUse(tokens.Usage{ID: id, Rekey: &tokens.Rekey{Old: old, New: next}})
	waittest.Until(t, "the new digest", func() bool { return lookup(t, st, id).Secrets[0].Hash == next })
}

func TestRecordedUsesAreBoundedAndDropsCounted(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	const room = 50_000
	st := open(t, path, store.Options{FlushInterval: time.Hour, BusyTimeout: time.Millisecond}.BoundUses(room))
	other := open(t, path, store.Options{})
	exec1(t, other, `BEGIN IMMEDIATE`) // nothing can be written meanwhile
	use := tokens.Use{Time: time.Now()}
	for i := range 3 * room {
		st.RecordUse(tokens.Usage{ID: tokens.ID(i + 1), Use: use})
	}
	// As many as there is room for may be on their way to the disk, and come back.
	if n := st.UsesDropped(); n < room {
		t.Errorf("%d were dropped, want at least %d", n, room)
	}
	exec1(t, other, `ROLLBACK`)
}

func TestAClosedStoreIsUnavailable(t *testing.T) {
	t.Parallel()
	st, err := store.Open(t.Context(), "sqlite:"+newPath(t), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	st.RecordUse(tokens.Usage{ID: 1, Use: tokens.Use{Time: time.Now()}})
	_, lookupErr := st.Lookup(t.Context(), 1)
	_, serviceErr := st.LookupService(t.Context(), 1)
	_, checkErr := st.Check(t.Context())
	for what, err := range map[string]error{
		"Lookup": lookupErr, "LookupService": serviceErr, "Check": checkErr,
		"View":   st.View(t.Context(), func(tokens.ReadTx) error { return nil }),
		"Update": tryPut(t.Context(), st, "acme"),
		"Ready":  st.Ready(t.Context()),
		"Backup": st.Backup(t.Context(), newPath(t)),
	} {
		if reason(err) != "STORE_UNAVAILABLE" || errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("%s of a closed store: %v", what, err)
		}
	}
}

func TestDamageIsAnOutageNotAnAnswer(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	id := fill(t, st, 1)[0]
	for _, damage := range []string{
		`UPDATE tokens SET cidrs = 'nonsense'`,
		`UPDATE tokens SET cidrs = NULL, labels = '{'`,
		`DROP TABLE old_secrets`,
	} {
		exec1(t, st, damage)
		if _, err := st.Lookup(t.Context(), id); reason(err) != "STORE_UNAVAILABLE" {
			t.Errorf("after %s: %v", damage, err)
		}
	}
}

func TestTheAuditLogIsAppendOnlyAndRevocationsAreFinal(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	fill(t, st, 2)
	exec1(t, st, `UPDATE tokens SET revoke_us = 1, revoked_by = 'x'`)
	for _, statement := range []string{
		`DELETE FROM events`,
		`UPDATE events SET actor = 'somebody else'`,
		`UPDATE tokens SET revoke_us = NULL, revoked_by = NULL`,
		`UPDATE tokens SET revoke_us = 2`,
	} {
		if err := st.Exec(t.Context(), statement); err == nil {
			t.Errorf("%s was done", statement)
		}
	}
}
