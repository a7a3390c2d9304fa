package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestCopiesAndBackupsCarryChecksumsAndTheSeal, from either database into either.
func TestCopiesAndBackupsCarryChecksumsAndTheSeal(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		ctx := t.Context()
		backup := filepath.Join(t.TempDir(), "backup.db")
		d.must(d.st.Backup(ctx, backup))
		copied := "sqlite:" + newPath(t)
		_, err := d.st.Copy(ctx, copied, store.Options{})
		d.must(err)
		for _, place := range []string{"sqlite:" + backup, copied} {
			st := openURL(t, place, store.Options{Now: d.clock.now})
			if !st.RowsSealed() {
				t.Errorf("%s is not sealed", place)
			}
			_, err := tokens.BindKeys(ctx, st, d.ring.Get(), "", d.clock.now())
			d.must(err)
			if n := unsealedRows(t, st); n != 0 {
				t.Errorf("%s: %d rows have no checksum", place, n)
			}
			if found, err := st.Check(ctx); err != nil || len(found) != 0 {
				t.Errorf("%s: %q, %v", place, found, err)
			}
			oldest := texts(t, st, `SELECT oldest FROM compatibility`)
			if oldest != sealSchema && oldest != fileSchema {
				t.Errorf("%s: programs that know migration %s may use it", place, oldest)
			}
		}
		if _, err := os.Stat(backup); err != nil {
			t.Error(err)
		}
	})
}

// TestMovedChecksumsKeepARefusedRowRefused: neither sealing nor a key that is retired makes good what was edited.
func TestMovedChecksumsKeepARefusedRowRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "sqlite:"+newPath(t), rowKeyA, false)
	d.furnish()
	ctx := t.Context()
	was := texts(t, d.st, `SELECT hex(row_mac) FROM tokens`)
	exec1(t, d.st, `UPDATE tokens SET scopes = 'a b'`)
	exec1(t, d.st, `UPDATE tokens SET row_mac = x'`+was+`'`)
	if _, err := d.st.FillChecksums(ctx); err != nil {
		t.Fatal(err)
	}
	d.bind(parseRowKeys(t, rowKeyB+"\n"+rowKeyA))
	if n, err := d.st.MoveChecksums(ctx, "k1"); err != nil || n == 0 {
		t.Errorf("moved %d, %v", n, err)
	}
	for _, p := range tokenProbes() {
		if active, err := p.is(d); active || reason(err) != "RECORD_INVALID" {
			t.Errorf("%s: active %v, %v", p.name, active, err)
		}
	}
	err := d.st.View(ctx, func(tx tokens.ReadTx) error {
		if n, err := tx.RowsUnder("k1"); err != nil || n != 0 {
			t.Errorf("%d checksums are left under the old key, %v", n, err)
		}
		return nil
	})
	d.must(err)
}

// TestAStoreWithoutItsKeysWritesNoRowThatIsSealed: a program that forgot to bind the keys fails, and says why.
func TestAStoreWithoutItsKeysWritesNoRowThatIsSealed(t *testing.T) {
	t.Parallel()
	url := "sqlite:" + newPath(t)
	d := newDesk(t, url, rowKeyA, true)
	d.furnish()
	other := openURL(t, url, store.Options{})
	err := other.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		_, err := tx.InsertUser(tokens.User{ID: "x", State: tokens.UserActive})
		return nil, err
	})
	if err == nil || !strings.Contains(err.Error(), "without its keys") {
		t.Errorf("a user without a checksum: %v", err)
	}
	id, err := secret.ParseID(d.id)
	d.must(err)
	if _, err := other.Lookup(t.Context(), id); reason(err) != "RECORD_INVALID" {
		t.Errorf("a lookup without keys: %v", err)
	}
}
