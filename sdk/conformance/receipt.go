package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
)

// receipt is what a call that revokes says if it waits.
type receipt struct {
	Everywhere bool     `json:"refused_everywhere"`
	Silent     []string `json:"silent"`
}

// takeAway makes a call that revokes or suspends, and compares its receipt with what a step wants.
func (p *playing) takeAway(s step, path string) error {
	in := map[string]any{}
	if s.Wait != "" {
		in["wait"] = s.Wait
	}
	var got struct{ Receipt *receipt }
	if err := p.patd.call(http.MethodPost, path, in, &got); err != nil {
		return err
	}
	switch r := got.Receipt; {
	case s.Silent == nil && s.Everywhere == nil:
		return nil
	case r == nil:
		return fmt.Errorf("%s: there is no receipt", path)
	case s.Silent != nil && *s.Silent != slices.Contains(r.Silent, "service:"+p.name):
		return fmt.Errorf("silent are %q: service:%s among them, want %v", r.Silent, p.name, *s.Silent)
	case s.Everywhere != nil && *s.Everywhere != r.Everywhere:
		return fmt.Errorf("refused everywhere: %v, silent are %q", r.Everywhere, r.Silent)
	}
	return nil
}

// changes makes so many changes of users, a few at a time.
func (p *playing) changes(n int) error {
	const together = 16
	var group sync.WaitGroup
	errs := make([]error, together)
	for i := range together {
		group.Go(func() {
			for j := i; j < n && errs[i] == nil; j += together {
				path := "/v1/users/" + p.user("other"+strconv.Itoa(j)) + "/features"
				errs[i] = p.patd.call(http.MethodPatch, path, map[string]any{"add": []string{"read"}}, nil)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// acknowledged waits until the driver has sent so many acknowledgements.
func (p *playing) acknowledged(s step) error {
	return until(patience, func() error {
		n := p.proxy.acknowledgements() - p.acked
		switch {
		case s.MostAcked != nil && n > *s.MostAcked:
			return fmt.Errorf("the driver has sent %d acknowledgements, want %d at most", n, *s.MostAcked)
		case n < *s.Acked:
			return fmt.Errorf("the driver has sent %d acknowledgements, want %d", n, *s.Acked)
		}
		return nil
	})
}
