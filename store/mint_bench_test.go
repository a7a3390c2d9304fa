package store_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

const mintUsers = 20_000 // each has few tokens, as in life

// mintTurns returns how long each program mints in a round, and how many rounds there are. With -short, it is only seen
// that they mint.
func mintTurns() (round time.Duration, rounds int) {
	if testing.Short() {
		return 50 * time.Millisecond, 1
	}
	return 400 * time.Millisecond, 7
}

// BenchmarkMint compares minting by the store with the same statements on the same tables by the driver alone, each
// durable: in turn, a round of each. The ratios are medians over the rounds, with their range.
//
//   - lone-x: the latency of one at a time, over that of the driver with one transaction a mint (reach: at most 1.3)
//   - each-x: mints a second with 64 in flight, over the driver's with one transaction a mint (reach: at least 3)
//   - many-x: the same with 1000 in flight, over the driver's with one transaction a mint (reach: at least 3)
//   - by64-x: mints a second with 64 in flight, over the driver's with transactions of 64 (reach: at least 0.7)
//   - rows64-x: the same, over the driver's with transactions of 64 that insert the rows and read nothing
func BenchmarkMint(b *testing.B) {
	first := mintStore(b)
	st := open(b, first, store.Options{})
	raw := openRaw(b, copied(b, first))
	programs := []struct {
		name string
		run  func(time.Duration) float64 // mints a second
	}{
		{"store-1", func(d time.Duration) float64 { return mintFor(b, st, 1, d) }},
		{"driver-1", func(d time.Duration) float64 { return raw.mintFor(b, 1, true, d) }},
		{"store-64", func(d time.Duration) float64 { return mintFor(b, st, 64, d) }},
		{"store-1000", func(d time.Duration) float64 { return mintFor(b, st, 1000, d) }},
		{"driver-64", func(d time.Duration) float64 { return raw.mintFor(b, 64, true, d) }},
		{"rows-64", func(d time.Duration) float64 { return raw.mintFor(b, 64, false, d) }},
	}
	round, rounds := mintTurns()
	for _, p := range programs {
		p.run(round) // warm up
	}
	rates := make(map[string][]float64)
	ratios := make(map[string][]float64)
	for range rounds {
		now := make(map[string]float64)
		for _, p := range programs {
			now[p.name] = p.run(round)
			rates[p.name] = append(rates[p.name], now[p.name])
		}
		for ratio, of := range map[string][2]string{
			"lone-x": {"driver-1", "store-1"}, "each-x": {"store-64", "driver-1"}, "many-x": {"store-1000", "driver-1"},
			"by64-x": {"store-64", "driver-64"}, "rows64-x": {"store-64", "rows-64"},
		} {
			ratios[ratio] = append(ratios[ratio], now[of[0]]/now[of[1]])
		}
	}
	reportMints(b, ratios, rates)
}

// reportMints reports the medians of ratios, with their range, and the mints a second of each program.
func reportMints(b *testing.B, ratios, rates map[string][]float64) {
	b.Helper()
	for b.Loop() { // nothing is timed by the framework; it would forget figures reported before
		continue
	}
	b.ReportMetric(0, "ns/op")
	for ratio, list := range ratios {
		b.ReportMetric(median(list), ratio)
		b.Logf("%-8s %.2f (%.2f to %.2f)", ratio, median(list), slices.Min(list), slices.Max(list))
	}
	for name, list := range rates {
		b.Logf("%-10s %.0f mints/s", name, median(list))
	}
}

// mintStore makes a store with users to mint for, and returns its path.
func mintStore(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "mint.db")
	st, err := store.Open(b.Context(), "sqlite:"+path, store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	_, err = storefill.Load(b.Context(), st, storefill.Config{Tokens: mintUsers, Users: mintUsers})
	if err := errors.Join(err, st.Close()); err != nil {
		b.Fatal(err)
	}
	return path
}

func copied(b *testing.B, path string) string {
	b.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	other := filepath.Join(b.TempDir(), "driver.db")
	if err := os.WriteFile(other, data, 0o600); err != nil {
		b.Fatal(err)
	}
	return other
}

var minted atomic.Uint64

func mintID(now time.Time, n uint64) tokens.ID {
	epoch := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	return tokens.ID(uint64(now.Sub(epoch).Milliseconds())<<22 | n&(1<<22-1))
}

// mintUser spreads the mints over the users.
func mintUser(n uint64) string { return fmt.Sprintf("user-%07d", n*7919%mintUsers) }

func mintFor(b *testing.B, st *store.Store, inFlight int, d time.Duration) float64 {
	var done atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			for time.Since(start) < d {
				if err := mintOne(b.Context(), st, minted.Add(1)); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}

// mintOne does in the store what a mint does.
func mintOne(ctx context.Context, st tokens.Store, n uint64) error {
	now := time.Now()
	id := mintID(now, n)
	return st.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		u, err := tx.User(mintUser(n))
		if err != nil {
			return nil, err
		}
		if _, err := tx.LiveTokens(u.Key, now); err != nil {
			return nil, err
		}
		t := tokens.Token{
			ID: id, UserKey: u.Key, User: u.ID, Name: fmt.Sprintf("CI deploy %06x", n), Scopes: u.Features[:4],
			IssueTime: now, ExpireTime: now.Add(tokens.DefaultTTL),
		}
		h := tokens.Hash{Key: "fill", Sum: [32]byte{byte(n)}}
		e := tokens.Event{
			Time:    now,
			Actor:   "service:portal",
			Action:  tokens.ActionTokenCreate,
			User:    u.ID,
			TokenID: id,
			Outcome: tokens.OutcomeSuccess,
		}
		return []tokens.Event{e}, tx.InsertToken(t, h)
	})
}

// rawMint mints through database/sql and the driver.
type rawMint struct {
	db                               *sql.DB
	begin, commit                    *sql.Stmt
	user, live, token, event, change *sql.Stmt
	key, state, createUS             int64
	features, nameKey, owner         string
	checksum                         []byte
}

func openRaw(b *testing.B, path string) *rawMint {
	b.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, pragma := range store.Pragmas() {
		if _, err := db.ExecContext(b.Context(), `PRAGMA `+pragma); err != nil {
			b.Fatal(err)
		}
	}
	r := &rawMint{db: db}
	statements := store.MintStatements()
	for i, st := range []**sql.Stmt{&r.begin, &r.user, &r.live, &r.token, &r.event, &r.change, &r.commit} {
		if *st, err = db.PrepareContext(b.Context(), statements[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}

func (r *rawMint) mintFor(b *testing.B, each int, reads bool, d time.Duration) float64 {
	done := 0
	start := time.Now()
	for time.Since(start) < d {
		errs := make([]error, 0, 2)
		_, err := r.begin.Exec()
		for i := 0; i < each && err == nil; i++ {
			err = r.mint(minted.Add(1), reads)
			done++
		}
		errs = append(errs, err)
		_, err = r.commit.Exec()
		if err := errors.Join(append(errs, err)...); err != nil {
			b.Fatal(err)
		}
	}
	return float64(done) / time.Since(start).Seconds()
}

func (r *rawMint) mint(n uint64, reads bool) error {
	now := time.Now()
	user, rows := mintUser(n), mintRows(n)
	r.key = int64(n*7919%mintUsers) + 1
	if reads {
		if err := r.user.QueryRow(user).
			Scan(&r.key, &r.owner, &r.state, &r.features, &r.createUS, &r.checksum); err != nil {
			return err
		}
		if err := r.count(now); err != nil {
			return err
		}
	}
	for i, insert := range [...]*sql.Stmt{r.token, r.event, r.change} {
		if _, err := insert.Exec(rows[i]...); err != nil {
			return err
		}
	}
	return nil
}

func (r *rawMint) count(now time.Time) error {
	rows, err := r.live.Query(r.key, now.UnixMicro())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id, &r.nameKey); err != nil {
			return err
		}
	}
	return cmp.Or(rows.Err(), rows.Close())
}
