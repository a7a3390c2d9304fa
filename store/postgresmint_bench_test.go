package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"patd/internal/dbtest"
	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

// BenchmarkPostgresMint compares minting by the store with pgx alone, which inserts the same rows in the same schema
// and reads nothing, each durable (fsync on): in turn, a round of each, 64 in flight. The ratios are medians over the
// rounds, with their range.
//
//   - each-x: mints a second, over those of pgx with 64 connections, a transaction a mint, a statement at a time
//   - piped-x: the same, where pgx sends the statements of a transaction in one go
//   - two-x: mints a second of two stores that share the database, over those of one
//   - cpu-x: CPU time of the store and the server a mint, over that of pgx, in one go, and the server
func BenchmarkPostgresMint(b *testing.B) {
	server := dbtest.Postgres(b, "fsync=on", "full_page_writes=on", "shared_buffers=128MB", "max_connections=150")
	one, two := postgresMintStores(b, server)
	raw := openRawPostgres(b, server)
	programs := []struct {
		name string
		run  func(time.Duration) float64
	}{
		{"store", func(d time.Duration) float64 { return mintFor(b, one, 64, d) }},
		{"stores", func(d time.Duration) float64 {
			var wg sync.WaitGroup
			var rates [2]float64
			for i, st := range []*store.Store{one, two} {
				wg.Go(func() { rates[i] = mintFor(b, st, 32, d) })
			}
			wg.Wait()
			return rates[0] + rates[1]
		}},
		{"each", func(d time.Duration) float64 { return raw.mintFor(b, rawStatements, d) }},
		{"piped", func(d time.Duration) float64 { return raw.mintFor(b, rawPipeline, d) }},
	}
	round, rounds := mintTurns()
	for _, p := range programs {
		p.run(round)
	}
	rates, ratios := map[string][]float64{}, map[string][]float64{}
	taken := cpuTimes(b, one)
	for range rounds {
		now, cpu := map[string]float64{}, map[string]float64{}
		for _, p := range programs {
			before, started := taken(), time.Now()
			now[p.name] = p.run(2 * round)
			cpu[p.name] = (taken() - before) / (now[p.name] * time.Since(started).Seconds())
			rates[p.name] = append(rates[p.name], now[p.name])
		}
		ratios["each-x"] = append(ratios["each-x"], now["store"]/now["each"])
		ratios["piped-x"] = append(ratios["piped-x"], now["store"]/now["piped"])
		if cpu["piped"] > 0 {
			ratios["cpu-x"] = append(ratios["cpu-x"], cpu["store"]/cpu["piped"])
		}
		ratios["two-x"] = append(ratios["two-x"], now["stores"]/now["store"])
	}
	reportMints(b, ratios, rates)
}

func postgresMintStores(b *testing.B, server *dbtest.Server) (one, two *store.Store) {
	b.Helper()
	url := newSchema(b, server)
	one = openURL(b, url, store.Options{BusyTimeout: time.Minute})
	if _, err := storefill.Load(b.Context(), one, storefill.Config{Tokens: mintUsers, Users: mintUsers}); err != nil {
		b.Fatal(err)
	}
	return one, openURL(b, url, store.Options{BusyTimeout: time.Minute})
}

// rawPostgres inserts the rows of a mint through pgx, on as many connections as there are callers.
type rawPostgres struct {
	conns      []*pgx.Conn
	statements [3]string // token, event, change
}

func openRawPostgres(b *testing.B, server *dbtest.Server) *rawPostgres {
	b.Helper()
	url := newSchema(b, server)
	st := openURL(b, url, store.Options{Connections: 2})
	if _, err := storefill.Load(b.Context(), st, storefill.Config{Tokens: mintUsers, Users: mintUsers}); err != nil {
		b.Fatal(err)
	}
	r := &rawPostgres{}
	for i, statement := range store.MintStatements()[3:6] {
		r.statements[i] = store.PostgresForm(statement)
	}
	for range 64 {
		c, err := pgx.Connect(b.Context(), url)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close(context.Background()) })
		r.conns = append(r.conns, c)
	}
	return r
}

func (r *rawPostgres) mintFor(
	b *testing.B,
	mint func(context.Context, *pgx.Conn, [3]string, [3][]any) error,
	d time.Duration,
) float64 {
	var done atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	for _, c := range r.conns {
		wg.Go(func() {
			for time.Since(start) < d {
				if err := mint(b.Context(), c, r.statements, mintRows(minted.Add(1))); err != nil {
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

// mintRows are the parameters of the three inserts.
func mintRows(n uint64) [3][]any {
	now := time.Now()
	user, name, id := mintUser(n), fmt.Sprintf("CI deploy %06x", n), int64(mintID(now, n))
	sum := [32]byte{byte(n)}
	rows := [3][]any{
		{
			id,
			int64(n*7919%mintUsers) + 1,
			"fill",
			sum[:],
			name,
			strings.ToLower(name),
			"billing.read billing.edit reports.read reports.edit",
			now.UnixMicro(),
			now.Add(tokens.DefaultTTL).UnixMicro(),
		},
		{now.UnixMicro(), "service:portal", "token.create", 1, user, id},
		{now.UnixMicro(), id},
	}
	for i := range rows { // NULL is what a plain token has in the rest, whatever columns there come to be
		for len(rows[i]) < mintParameters[i] {
			rows[i] = append(rows[i], nil)
		}
	}
	return rows
}

// mintParameters are how many parameters the three inserts have.
var mintParameters = func() (n [3]int) {
	for i, statement := range store.MintStatements()[3:6] {
		n[i] = strings.Count(statement, "?")
	}
	return n
}()

func rawStatements(ctx context.Context, c *pgx.Conn, statements [3]string, rows [3][]any) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	for i, statement := range statements {
		if _, err := tx.Exec(ctx, statement, rows[i]...); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

func rawPipeline(ctx context.Context, c *pgx.Conn, statements [3]string, rows [3][]any) error {
	var batch pgx.Batch
	for i, statement := range statements {
		batch.Queue(statement, rows[i]...)
	}
	return c.SendBatch(ctx, &batch).Close()
}
