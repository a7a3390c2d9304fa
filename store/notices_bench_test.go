package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

// BenchmarkNotices makes the look-ups of one minute of notices in a store of PATD_BENCH_TOKENS tokens (100,000
// otherwise), each with a check of whether it is used: those of the ends of three thresholds, and that of the checks
// that are due.
func BenchmarkNotices(b *testing.B) {
	n := 100_000
	if s := os.Getenv("PATD_BENCH_TOKENS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatalf("PATD_BENCH_TOKENS: %v", err)
		}
	}
	st := open(b, filepath.Join(b.TempDir(), "notices.db"), store.Options{})
	start := time.Now()
	now := start.UTC().Truncate(time.Microsecond)
	base := min(n, rareOf)
	must(b, st.Exec(b.Context(), `PRAGMA cache_size = -1000000`))
	_, err := storefill.Load(b.Context(), st, storefill.Config{Tokens: base, Now: now})
	must(b, err)
	must(b, multiply(b, st, `SELECT name FROM pragma_table_info('tokens')`, base, n))
	must(
		b,
		st.Exec(
			b.Context(),
			fmt.Sprintf(
				`INSERT INTO idle_checks (token_id, due_us) SELECT id, %d + id %% 1000000 FROM tokens`,
				now.Add(tokens.Day).UnixMicro(),
			),
		),
	)
	must(b, st.Exec(b.Context(), `ANALYZE`))
	b.Logf("filled with %d tokens in %s", n, time.Since(start).Round(time.Second))
	found := 0
	for b.Loop() {
		err := st.View(b.Context(), func(tx tokens.ReadTx) error {
			for _, before := range []time.Duration{30 * tokens.Day, 7 * tokens.Day, tokens.Day} {
				at := now.Add(before)
				list, err := tx.EndingTokens(
					tokens.EndQuery{From: at.Add(-6 * time.Minute), UpTo: at, Before: before, Limit: 1000},
				)
				if found += len(list); err != nil {
					return err
				}
			}
			due, err := tx.DueIdleChecks(now, 100)
			if len(due) > 0 {
				return fmt.Errorf("%d checks are due", len(due))
			}
			return err
		})
		must(b, err)
	}
	b.ReportMetric(float64(found)/float64(b.N), "tokens/op")
}
