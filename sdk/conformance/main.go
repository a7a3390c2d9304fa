// Command conformance finds out whether a verifier, in any language, follows docs/verifier-protocol.md. It drives a small
// test program around the library against a real patd, through a proxy that cuts, delays, stalls and falsifies. README.md
// describes the protocol of such programs.
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

// options are what a run is told.
type options struct {
	binary  string // of patd; empty: it is built
	only    string // a regular expression of the names of scenarios
	lanes   int
	short   bool
	strict  bool
	command []string
}

func command(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.StringVar(&o.binary, "patd", "", "the patd to run; it is built from the tree if not given")
	flags.StringVar(&o.only, "run", "", "play the scenarios whose names match this regular expression")
	flags.IntVar(&o.lanes, "lanes", 4, "play so many scenarios at a time, each with a patd and a driver")
	flags.BoolVar(&o.short, "short", false, "play the short ones only")
	flags.BoolVar(&o.strict, "strict", false, "fail if a scenario is skipped for want of what the driver can do")
	if err := flags.Parse(args); err != nil {
		return err
	}
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
		lanes.Go(func() { lane(t, o, filepath.Join(dir, strconv.Itoa(i)), i == 0, chosen) })
	}
	lanes.Wait()
	return t.end()
}

// lane plays scenarios, one after the other, on one stage. If one fails, the next gets a new stage.
func lane(t *tally, o options, dir string, first bool, chosen <-chan scenario) {
	var s *stage
	stages := 0
	defer func() {
		if s != nil {
			t.add("the driver ends", time.Now(), s.close())
		}
	}()
	for next := range chosen {
		if s == nil {
			var err error
			stages++
			where := filepath.Join(dir, strconv.Itoa(stages))
			if err = os.MkdirAll(where, 0o700); err == nil {
				s, err = newStage(o.binary, where, o.command)
			}
			if err != nil {
				s = nil
				t.add(next.Name, time.Now(), err)
				return
			}
			if first && stages == 1 {
				t.hello(s.driver.hello)
				began := time.Now()
				n, err := playVectors(s.driver)
				t.add(fmt.Sprintf("%d vectors", n), began, err)
			}
		}
		if why := s.cannot(next); why != "" {
			t.skip(next.Name, why)
			continue
		}
		began := time.Now()
		err := s.play(next)
		if err != nil {
			err = fmt.Errorf("%w\n     %s", err, next.Why)
			if text := s.driver.errors.text(); text != "" {
				err = fmt.Errorf("%w\n     the driver wrote:\n%s", err, text)
			}
			_ = s.close() // it is in any state
			s = nil
		}
		t.add(next.Name, began, err)
	}
}

// tally counts results and writes them.
type tally struct {
	mu                      sync.Mutex
	out                     io.Writer
	strict                  bool
	passed, failed, skipped int
}

func (t *tally) hello(h hello) { t.line("%s, over %s", h.Library, h.Speaks) }

func (t *tally) line(format string, args ...any) { _, _ = fmt.Fprintf(t.out, format+"\n", args...) }

func (t *tally) add(name string, began time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.failed++
		t.line("FAIL %s (%.1fs): %v", name, time.Since(began).Seconds(), err)
		return
	}
	t.passed++
	t.line("ok   %s (%.1fs)", name, time.Since(began).Seconds())
}

func (t *tally) skip(name, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.skipped++
	t.line("skip %s: %s", name, why)
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
