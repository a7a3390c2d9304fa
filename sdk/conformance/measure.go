package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a measurement does.
const (
	loops    = 2               // check without a pause in the driver, all the time
	loadedBy = 20              // the tokens that they check
	warmUp   = 3 * time.Second // for compilers that compile while a program runs
	window   = 5 * time.Second // in which checks are counted
	cuts     = 10              // of the feed at most, and as many stalls
	between  = time.Millisecond
)

var loadScopes = []string{"read"}

// measure finds out how long a revoked token passes while a driver is under load, and writes the figures.
func measure(o options, binary, dir string, out io.Writer) (err error) {
	s, err := newStage(binary, dir, o.command)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if !slices.Contains(s.driver.hello.Can, "load") {
		return errors.New("conformance: the driver cannot: load")
	}
	s.slack = o.slack
	p := &playing{stage: s, tokens: map[string]token{}, name: "measure"}
	m := &measuring{playing: p, out: out}
	if err := p.configure(map[string]any{"report_every_ms": 1000}); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	m.line("%s, over %s; load average %s", s.driver.hello.Library, s.driver.hello.Speaks, loadAverage())
	for _, f := range []func() error{m.prepareLoad, m.checks, func() error { return m.revocations(o.measure) },
		func() error { return m.outages(min(o.measure/5, cuts)) }} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// measuring is a measurement under way.
type measuring struct {
	*playing
	out    io.Writer
	load   []string // secrets
	minted int
}

func (m *measuring) line(format string, args ...any) { _, _ = fmt.Fprintf(m.out, format+"\n", args...) }

// remembered mints a token and returns it when memory decides about it.
func (m *measuring) remembered() (token, error) {
	m.minted++
	name := strconv.Itoa(m.minted)
	if _, err := m.prepare(step{Mint: name, User: "user" + name, Scopes: loadScopes}); err != nil {
		return token{}, err
	}
	return m.tokens[name], m.remember(step{Remember: name, Scopes: loadScopes})
}

func (m *measuring) prepareLoad() error {
	if err := m.watching(true); err != nil {
		return err
	}
	for range loadedBy {
		t, err := m.remembered()
		if err != nil {
			return err
		}
		m.load = append(m.load, t.secret)
	}
	return nil
}

// begin begins the load.
func (m *measuring) begin() error {
	_, err := m.driver.do(order{"do": "load", "tokens": m.load, "scopes": loadScopes, "loops": loops})
	return err
}

// end ends the load and returns how many checks it was.
func (m *measuring) end() (float64, error) {
	r, err := m.driver.do(order{"do": "load"})
	switch {
	case err != nil:
		return 0, err
	case r.Refused > 0:
		return 0, fmt.Errorf("%d checks of tokens that are active were refused", r.Refused)
	case r.Checks == 0:
		return 0, fmt.Errorf("there was no load: %s", r.raw)
	}
	return float64(r.Checks), nil
}

// checks measures checks from memory.
func (m *measuring) checks() error {
	if err := m.begin(); err != nil {
		return err
	}
	wait(warmUp)
	if _, err := m.end(); err != nil {
		return err
	}
	pid, asked := m.driver.cmd.Process.Pid, m.proxy.asks()
	cpu, begun := cpuOf(pid), time.Now()
	if err := m.begin(); err != nil {
		return err
	}
	wait(window)
	n, err := m.end()
	if err != nil {
		return err
	}
	took, cpu := time.Since(begun), cpuOf(pid)-cpu
	m.line("%d loops: %.0f checks a second, %.2f µs of CPU each, %d of them asked",
		loops, n/took.Seconds(), float64(cpu.Microseconds())/n, m.proxy.asks()-asked)
	return nil
}

// revocations revokes tokens under load, one after another.
func (m *measuring) revocations(times int) error {
	var sent, answered []time.Duration
	begun := time.Now()
	if err := m.begin(); err != nil {
		return err
	}
	for range times {
		t, err := m.remembered()
		if err != nil {
			return err
		}
		asked := time.Now()
		var done time.Time
		revoked := make(chan error, 1)
		go func() {
			err := m.patd.call("POST", t.path(":revoke"), map[string]any{}, nil)
			done = time.Now()
			revoked <- err
		}()
		_, refused, err := m.untilRefused(t)
		if err := errors.Join(<-revoked, err); err != nil {
			return err
		}
		sent, answered = append(sent, refused.Sub(asked)), append(answered, max(0, refused.Sub(done)))
	}
	n, err := m.end()
	if err != nil {
		return err
	}
	m.line(
		"revoked %d times, beside %.0f checks a second; load average %s",
		times,
		n/time.Since(begun).Seconds(),
		loadAverage(),
	)
	m.summary("from the revocation's request until refused", sent)
	m.summary("from its response until refused", answered)
	return nil
}

// untilRefused checks a token until it is revoked for the driver, and returns when that check began and ended.
func (m *measuring) untilRefused(t token) (began, ended time.Time, err error) {
	for end := time.Now().Add(patience); ; wait(between) {
		began := time.Now()
		r, err := m.driver.do(order{"do": "check", "token": t.secret, "scopes": loadScopes})
		switch now := time.Now(); {
		case err != nil:
			return began, now, err
		case r.Decision == "REVOKED":
			return began, now, nil
		case r.Decision != "ALLOW" && r.Error == "", now.After(end):
			return began, now, fmt.Errorf("a revoked token: %s", r.raw)
		}
	}
}

// outages revokes tokens while the feed is cut or stalled, so many times each.
func (m *measuring) outages(times int) error {
	for _, do := range []string{"cut", "stall"} {
		var all []time.Duration
		if err := m.begin(); err != nil {
			return err
		}
		for range max(1, times) {
			if err := m.watching(true); err != nil {
				return err
			}
			t, err := m.remembered()
			if err != nil {
				return err
			}
			begun := time.Now()
			m.proxy.set(map[string]fault{kindFeed: {Do: do}})
			if err := m.patd.call("POST", t.path(":revoke"), map[string]any{}, nil); err != nil {
				return err
			}
			// The refused check asks patd: how long that takes is no part of what memory lets pass.
			refused, _, err := m.untilRefused(t)
			if err != nil {
				return err
			}
			all = append(all, refused.Sub(begun))
			m.proxy.reset()
		}
		if _, err := m.end(); err != nil {
			return err
		}
		m.summary("from a "+do+" of the feed, then a revocation, until checks are refused", all)
	}
	return nil
}

func (m *measuring) summary(what string, all []time.Duration) {
	slices.Sort(all)
	at := func(part float64) float64 {
		i := int(math.Ceil(part*float64(len(all)))) - 1
		return float64(all[max(0, i)].Microseconds()) / 1000
	}
	m.line("  %s: median %.1f ms, p99 %.1f ms, at most %.1f ms", what, at(0.5), at(0.99), at(1))
}

// cpuOf returns the CPU time of a process, and 0 where there is no /proc.
func cpuOf(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if errors.Join(err, err2) != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond // a tick of Linux, for programs
}

// loadAverage returns that of the last minute.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return cmp.Or(first, "unknown")
}
