// Command conformance finds out whether a verifier, in any language, follows docs/verifier-protocol.md. It drives a
// small test program around the library against a real patd, through a proxy that cuts, delays, stalls and falsifies.
// README.md describes the protocol of such programs.
//
//	go run ./sdk/conformance [flags] -- CMD ARGS…
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"
)

func main() {
	err := command(context.Background(), os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are the settings of a run.
type options struct {
	binary  string // of patd; empty: it is built
	only    string // a regular expression of the names of scenarios
	lanes   int
	slack   int // multiplies the times within which something must come
	again   int // how often a scenario that fails is played again
	short   bool
	strict  bool
	measure int // how many revocations are measured; 0: scenarios are played
	command []string
}

func command(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.StringVar(&o.binary, "patd", "", "the patd to run; it is built from the tree if not given")
	flags.StringVar(&o.only, "run", "", "play the scenarios whose names match this regular expression")
	flags.IntVar(&o.lanes, "lanes", 4, "play so many scenarios at a time, each with a patd and a driver")
	flags.IntVar(
		&o.slack,
		"slack",
		1,
		"wait so many times as long for what must come, on a busy machine; what must stop gets no more time",
	)
	flags.IntVar(
		&o.again,
		"again",
		0,
		"play a scenario that fails so many times again, on a busy machine, where 3 seconds pass in a moment",
	)
	flags.BoolVar(&o.short, "short", false, "play the short ones only")
	flags.BoolVar(&o.strict, "strict", false, "fail if a scenario is skipped for want of what the driver can do")
	flags.IntVar(
		&o.measure,
		"measure",
		0,
		"play no scenario, but measure so many revocations while the driver is under load, and what follows a cut of the feed",
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.slack = max(1, o.slack)
	if o.command = flags.Args(); len(o.command) == 0 {
		return errors.New("conformance: name the command that starts the driver, after --")
	}
	return play(ctx, o, out)
}

// play plays all chosen scenarios, and writes a line for each. An error says how many failed.
func play(ctx context.Context, o options, out io.Writer) error {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("conformance: -run: %w", err)
	}
	all, err := scenarios()
	if err != nil {
		return fmt.Errorf("conformance: %w", err)
	}
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		if o.binary, err = build(ctx, dir); err != nil {
			return err
		}
	}
	if o.measure > 0 {
		return measure(o, o.binary, dir, out)
	}
	chosen := make(chan scenario, len(all))
	for _, s := range all {
		if only.MatchString(s.Name) && (s.Short || !o.short) {
			chosen <- s
		}
	}
	close(chosen)
	if len(chosen) == 0 {
		return errors.New("conformance: no scenario has such a name")
	}
	t := &tally{out: out, strict: o.strict}
	var lanes sync.WaitGroup
	for i := range max(1, min(o.lanes, len(chosen))) {
		l := &lane{tally: t, options: o, dir: filepath.Join(dir, strconv.Itoa(i))}
		lanes.Go(func() { l.run(i == 0, chosen) })
	}
	lanes.Wait()
	return t.end()
}

// lane plays scenarios, one after the other, on one stage. If one fails, the next gets a new stage.
type lane struct {
	*tally
	options
	dir    string
	stage  *stage // nil: the next scenario makes one
	stages int
}

// run plays scenarios until there are none left. The first lane plays the vectors too.
func (l *lane) run(first bool, chosen <-chan scenario) {
	for next := range chosen {
		if err := l.setUp(); err != nil {
			l.add(next.Name, time.Now(), err)
			return
		}
		if first {
			first = false
			l.hello(l.stage.driver.hello)
			began := time.Now()
			n, err := playVectors(l.stage.driver)
			l.add(fmt.Sprintf("%d vectors", n), began, err)
		}
		if why := l.stage.cannot(next); why != "" {
			l.skip(next.Name, why)
			continue
		}
		began := time.Now()
		err := l.play(next)
		for range l.again {
			if err != nil {
				l.line("     %s is played again: %v", next.Name, err)
				err = l.play(next)
			}
		}
		l.add(next.Name, began, err)
	}
	if l.stage != nil {
		l.add("the driver ends", time.Now(), l.stage.close())
	}
}

// setUp makes a stage if there is none.
func (l *lane) setUp() (err error) {
	if l.stage != nil {
		return nil
	}
	l.stages++
	where := filepath.Join(l.dir, strconv.Itoa(l.stages))
	if err := os.MkdirAll(where, 0o700); err != nil {
		return err
	}
	s, err := newStage(l.binary, where, l.command)
	if err != nil {
		return err
	}
	s.slack = l.slack
	l.stage = s
	return nil
}

// play plays a scenario once. If it fails, the stage is in any state, and is closed.
func (l *lane) play(next scenario) error {
	if err := l.setUp(); err != nil {
		return err
	}
	err := l.stage.play(next)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w\n     %s", err, next.Why)
	if text := l.stage.driver.errors.text(); text != "" {
		err = fmt.Errorf("%w\n     the driver wrote:\n%s", err, text)
	}
	_ = l.stage.close()
	l.stage = nil
	return err
}

// tally counts results and writes them.
type tally struct {
	mu                      sync.Mutex
	out                     io.Writer
	strict                  bool
	passed, failed, skipped int
}

func (t *tally) hello(h hello) { t.line("%s, over %s", h.Library, h.Speaks) }

func (t *tally) line(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.out, format+"\n", args...)
}

func (t *tally) add(name string, began time.Time, err error) {
	count, word, text := &t.passed, "ok  ", ""
	if err != nil {
		count, word, text = &t.failed, "FAIL", ": "+err.Error()
	}
	t.line("%s %s (%.1fs)%s", word, name, time.Since(began).Seconds(), text)
	t.mu.Lock()
	defer t.mu.Unlock()
	*count++
}

func (t *tally) skip(name, why string) {
	t.line("skip %s: %s", name, why)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.skipped++
}

// end writes the sums.
func (t *tally) end() error {
	t.line("%d passed, %d failed, %d skipped", t.passed, t.failed, t.skipped)
	switch {
	case t.failed > 0:
		return fmt.Errorf("conformance: %d failed", t.failed)
	case t.skipped > 0 && t.strict:
		return fmt.Errorf("conformance: %d were skipped", t.skipped)
	}
	return nil
}
