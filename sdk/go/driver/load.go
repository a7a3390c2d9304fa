package main

import (
	"context"
	"sync"
	"sync/atomic"

	"patd/client"
)

// load is loops of checks without a pause.
type load struct {
	over            atomic.Bool
	checks, refused atomic.Int64
	running         sync.WaitGroup
}

// loads ends the load that there is, returns what it was, and begins another one if a command has loops.
func (d *driver) loads(c command) answer {
	d.mu.Lock()
	before, v := d.load, d.verifier
	d.load = nil
	d.mu.Unlock()
	out := answer{OK: true}
	if before != nil {
		before.over.Store(true)
		before.running.Wait()
		out.Checks, out.Refused = before.checks.Load(), before.refused.Load()
	}
	if c.Loops == 0 || v == nil || len(c.Tokens) == 0 {
		return out
	}
	l := &load{}
	for i := range c.Loops {
		l.running.Go(func() { l.loop(v, c, i) })
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load = l
	return out
}

func (l *load) loop(v *client.Verifier, c command, i int) {
	var checks, refused int64
	for ; !l.over.Load(); i++ {
		r, err := v.Verify(context.Background(), c.Tokens[i%len(c.Tokens)], client.Call{Scopes: c.Scopes})
		checks++
		if err == nil && !r.Allowed() {
			refused++
		}
	}
	l.checks.Add(checks)
	l.refused.Add(refused)
}
