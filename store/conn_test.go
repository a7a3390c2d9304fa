package store_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"patd/store"
	"patd/tokens"
)

// TestDamageOfTheFileIsNotToBeTriedAgain breaks pages under a store: at work, and at the next start.
func TestDamageOfTheFileIsNotToBeTriedAgain(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st := open(t, path, store.Options{})
	id := fill(t, st, 500)[0]
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	st = open(t, path, store.Options{})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Page 1 keeps its header of 100 bytes, so that the file is still one of patd's.
	if _, err := f.WriteAt([]byte(strings.Repeat("damaged!", int(info.Size()-100)/8)), 100); err != nil {
		t.Fatal(err)
	}
	_, lookupErr := st.Lookup(t.Context(), id)
	_, openErr := store.Open(t.Context(), "sqlite:"+path, store.Options{})
	for what, err := range map[string]error{
		"Lookup": lookupErr, "Open": openErr,
		"View": st.View(t.Context(), func(tx tokens.ReadTx) error {
			_, err := tx.Users(tokens.UserQuery{Limit: 200})
			return err
		}),
	} {
		if text := fmt.Sprint(
			err,
		); reason(err) != "STORE_UNAVAILABLE" || strings.Contains(text, "try again") ||
			!strings.Contains(text, "run patd check and restore a backup") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
