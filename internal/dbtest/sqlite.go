package dbtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"patd/store"
)

// emptyStore is a store's file as the first start of patd leaves it. It is made once in a process: all migrations take
// several times as long as what most tests do with their store.
var emptyStore = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "dbtest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "patd.db")
	st, err := store.Open(context.Background(), "sqlite:"+path, store.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	if err := st.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// SQLite returns the URL of the store in the file at path, and makes an empty one where there is none yet. It is for
// tests that are not about the making of stores: their file is a copy of one that was made for all.
func SQLite(path string) (string, error) {
	content, err := emptyStore()
	if err != nil {
		return "", fmt.Errorf("make an empty store: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return "sqlite:" + path, nil
	case err != nil:
		return "", err
	}
	_, err = f.Write(content)
	return "sqlite:" + path, errors.Join(err, f.Close())
}
