package store_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
)

func TestTheSizeOfAFileIsThatOfTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "patd.db")
	st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	size, err := st.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil { // its log of writes goes into the file
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || size == 0 || info.Size() != size {
		t.Errorf("%d bytes, and the file has %v, %v", size, info, err)
	}
}

func TestTheSizeOnPostgresIsThatOfTheDatabase(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	size, err := st.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var files int64 // the tables and indexes of this schema are a part of it
	const relations = `SELECT coalesce(sum(pg_relation_size(oid)), 0) FROM pg_class WHERE relkind IN ('r', 'i')`
	if err := server.Admin().QueryRowContext(context.Background(), relations).Scan(&files); err != nil {
		t.Fatal(err)
	}
	if files == 0 || size < files/2 || size > 100*files+1<<30 {
		t.Errorf("%d bytes, and its relations take %d", size, files)
	}
}
