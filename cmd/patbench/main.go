package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "patbench:", err)
		os.Exit(1)
	}
}

// settings say what to measure and how long.
type settings struct {
	tokens, working    int
	rounds, conns      int
	inFlight           counts
	period             time.Duration
	dir, patd, rows    string
	earlier            string
	database           string
	revocations, flood int
	evenFor, window    time.Duration
	settle             time.Duration

	openbao, hydra, unkey, redis string // binaries of rivals
	rivalTokens                  int
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "generate":
			return runGenerate(ctx, args[1:], out)
		case "echo": // what startEcho runs
			return serveEcho(ctx, out)
		}
	}
	s := settings{inFlight: counts{64, 1, 16}}
	f := flag.NewFlagSet("patbench", flag.ContinueOnError)
	f.IntVar(&s.tokens, "tokens", 1_000_000, "tokens in the store; of each user ten")
	f.IntVar(
		&s.working,
		"working",
		0,
		"about how many of them are presented: all those of a tenth as many users (default: all tokens)",
	)
	f.IntVar(&s.rounds, "rounds", 5, "rounds of each comparison")
	f.DurationVar(&s.period, "period", 3*time.Second, "how long one measurement of a round lasts")
	f.IntVar(&s.conns, "conns", 4, "connections")
	f.Var(&s.inFlight, "inflight", "calls in flight, each in turn; the first is what other rows use")
	f.StringVar(&s.dir, "dir", "", "directory that keeps the generated stores (default: a temporary one)")
	f.StringVar(&s.patd, "patd", "", "the patd binary (default: built from this module)")
	f.StringVar(
		&s.earlier,
		"before",
		"",
		"an earlier patd binary, for the row before, which compares the two; where it is missing, so is the row",
	)
	f.StringVar(&s.rows, "rows", "", "comma-separated rows to measure (default: all): "+strings.Join(rowNames(), ", "))
	f.StringVar(
		&s.database,
		"database-url",
		"",
		"an empty database in PostgreSQL for the row postgres; where it is missing, so is the row",
	)
	f.IntVar(&s.revocations, "revocations", 1000, "tokens to revoke in the row revoke")
	f.IntVar(&s.flood, "flood", 10_000_000, "made-up tokens to present in the row memory")
	f.DurationVar(
		&s.settle,
		"settle",
		0,
		"how long at most the rows wait before and after for last uses that are still to be written, so that each counts its own; 0: not at all",
	)
	f.DurationVar(&s.evenFor, "windows", 0, "how long the row windows measures each of its lines; 0: not at all")
	f.DurationVar(&s.window, "window", 100*time.Millisecond, "how long each of its windows is")
	f.StringVar(
		&s.openbao,
		"openbao",
		"",
		"the bao binary, for the row rivals; where it is missing, so are its figures",
	)
	f.StringVar(&s.hydra, "hydra", "", "the hydra binary, likewise")
	f.StringVar(
		&s.unkey,
		"unkey",
		"",
		"the binary of Unkey's API server, likewise; UNKEY_DATABASE, UNKEY_REDIS and UNKEY_ROOT_KEY are what it needs",
	)
	f.StringVar(
		&s.redis,
		"redis",
		redisOnPath(),
		"the redis-server binary, likewise (default: that of the search path)",
	)
	f.IntVar(&s.rivalTokens, "rival-tokens", 10_000, "tokens that each rival gets, as many as -tokens at most")
	if err := f.Parse(args); err != nil {
		return err
	}
	if s.working == 0 {
		s.working = s.tokens
	}
	if f.NArg() > 0 || s.tokens < 100 || s.working < tokensOfUser || s.working > s.tokens || s.rounds < 1 ||
		s.conns < 1 ||
		s.period <= 0 ||
		s.window <= 0 ||
		s.rivalTokens < 1 {
		return errors.New(
			"no arguments; -tokens from 100, -working from 10 up to that, -rounds, -conns and -rival-tokens from 1, -period and -window above 0",
		)
	}
	return measure(ctx, s, out)
}

// measure prepares what all rows share and measures row by row.
func measure(ctx context.Context, s settings, out io.Writer) (err error) {
	chosen, err := chooseRows(s.rows)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "patbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if s.dir == "" {
		s.dir = work
	}
	if s.patd == "" {
		s.patd = filepath.Join(work, "patd")
		//nolint:gosec // our own command
		build := exec.CommandContext(
			ctx,
			"go",
			"build",
			"-o",
			s.patd,
			"patd/cmd/patd",
		)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build patd: %w", err)
		}
	}
	b, err := newBench(ctx, s, work, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	b.heading()
	for _, r := range chosen {
		if err := r.run(b, ctx); err != nil {
			return fmt.Errorf("row %s: %w", r.name, err)
		}
	}
	return nil
}

// row is one part of the table.
type row struct {
	name string
	run  func(*bench, context.Context) error
}

func allRows() []row {
	return []row{
		{"unary", (*bench).unary},
		{"stream", (*bench).stream},
		{"batch", (*bench).batch},
		{"rest", (*bench).rest},
		{"oauth", (*bench).oauth},
		{"revoke", (*bench).revoke},
		{"client", (*bench).watched},
		{"memory", (*bench).memory},
		{"start", (*bench).start},
		{"postgres", (*bench).postgres},
		{"before", (*bench).before},
		{"windows", (*bench).windows},
		{"rivals", (*bench).rivals},
		{"local", (*bench).local},
	}
}

func rowNames() []string {
	var names []string
	for _, r := range allRows() {
		names = append(names, r.name)
	}
	return names
}

func chooseRows(list string) ([]row, error) {
	all := allRows()
	if list == "" {
		return all, nil
	}
	var chosen []row
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(r row) bool { return r.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("-rows: there is no row %q; there are %s", name, strings.Join(rowNames(), ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// counts is a flag of several numbers.
type counts []int

// String implements flag.Value.
func (c *counts) String() string { return strings.Trim(fmt.Sprint([]int(*c)), "[]") }

// Set implements flag.Value.
func (c *counts) Set(text string) error {
	*c = nil
	for part := range strings.SplitSeq(text, ",") {
		var n int
		if _, err := fmt.Sscan(part, &n); err != nil || n < 1 {
			return errors.New("numbers from 1, separated by commas")
		}
		*c = append(*c, n)
	}
	return nil
}
