package store_test

import (
	"context"
	"strings"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/tracecontext"
	"patd/store"
	"patd/tokens"
)

const (
	sampledParent   = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	unsampledParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

func traced(ctx context.Context, parent string) context.Context {
	return tracecontext.With(ctx, tracecontext.Parse(parent))
}

// TestPostgresSeesTheTraceOfASampledCall looks at what the server shows of the connections. Statements of other calls
// stay as they were prepared, without a comment.
func TestPostgresSeesTheTraceOfASampledCall(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	url := newSchema(t, server)
	schema := url[strings.LastIndex(url, "=")+1:]
	st := openURL(t, url, store.Options{})
	const comment = `/*traceparent='` + sampledParent + `'*/`
	// The last statement of each connection that had one with the comment, of this store: it is the only one that looks
	// for this token.
	seen := func() (n int) {
		t.Helper()
		err := server.Admin().QueryRowContext(t.Context(),
			`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'patd' AND query LIKE '%FROM tokens t%' AND query LIKE '%' || $1 || '%'`, comment).
			Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	look := func(ctx context.Context) {
		t.Helper()
		if _, err := st.Lookup(ctx, 4711); err == nil {
			t.Fatal("there is such a token")
		}
	}
	look(t.Context())
	look(traced(t.Context(), unsampledParent))
	if n := seen(); n != 0 {
		t.Errorf("%s: %d statements of calls that are not sampled have a comment", schema, n)
	}
	for range 3 {
		look(traced(t.Context(), sampledParent))
	}
	if n := seen(); n != 1 {
		t.Errorf("%s: %d connections show the comment of a call that is sampled, want 1", schema, n)
	}
	look(t.Context())
	if n := seen(); n != 0 {
		t.Errorf("%s: the comment stays for calls after it", schema)
	}
	// What comes with every kind of argument and result works with the comment as without.
	if err := tryPut(traced(t.Context(), sampledParent), st, "traced"); err != nil {
		t.Fatal(err)
	}
	if err := st.View(traced(t.Context(), sampledParent), func(tx tokens.ReadTx) error {
		_, err := tx.Events(tokens.EventQuery{Limit: 10})
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestEventsKnowTheTraceOfASampledCall holds on both databases.
func TestEventsKnowTheTraceOfASampledCall(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + newPath(t) },
		"postgres": func(t *testing.T) string { return newSchema(t, dbtest.SharedPostgres(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := openURL(t, url(t), store.Options{})
			for prefix, parent := range map[string]string{"one": sampledParent, "two": unsampledParent, "three": ""} {
				if err := tryPut(traced(t.Context(), parent), st, prefix); err != nil {
					t.Fatal(err)
				}
			}
			var parents []string
			err := st.View(t.Context(), func(tx tokens.ReadTx) error {
				events, err := tx.OldestEvents(0, 10)
				for _, e := range events {
					if e.Action == tokens.ActionPrefixAdd && e.TraceParent != "" {
						parents = append(parents, e.TraceParent)
					}
				}
				return err
			})
			if err != nil || len(parents) != 1 || parents[0] != sampledParent {
				t.Errorf("the events know the traces %q, %v", parents, err)
			}
		})
	}
}
