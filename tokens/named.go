package tokens

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// named is the audiences that tokens must name (RequireNamed). Introspection asks about them from memory: they are read
// again after every change of the catalogue, and from the store while the change feed is silent.
type named struct {
	known   atomic.Pointer[[]string] // nil: not read yet
	changes atomic.Uint64            // how often what was known turned out to be another
	reading sync.Mutex
	last    []string // what was known last; guarded by reading
	began   bool
}

// mustName reports whether tokens must name an audience to be good there.
func (s *Service) mustName(ctx context.Context, audience string) (bool, error) {
	known := s.named.known.Load()
	if known == nil || s.changes == nil || !s.changes.Live() {
		list, err := s.learnNamed(ctx)
		if err != nil {
			return false, err
		}
		known = &list
	}
	return len(*known) > 0 && holds(*known, audience), nil
}

// forgetNamed has the next question about named audiences read the store. It is called once a change is on disk.
func (s *Service) forgetNamed() {
	s.named.reading.Lock() // so that who reads now does not put back what was before
	defer s.named.reading.Unlock()
	s.named.known.Store(nil)
}

// learnNamed reads the audiences that must be named.
func (s *Service) learnNamed(ctx context.Context) ([]string, error) {
	n := &s.named
	n.reading.Lock()
	defer n.reading.Unlock()
	var list []string
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		list, err = tx.NamedAudiences()
		return err
	})
	if err != nil {
		n.known.Store(nil)
		return nil, fmt.Errorf("read the audiences that must be named: %w", err)
	}
	if n.began && !slices.Equal(list, n.last) {
		n.changes.Add(1)
	}
	n.last, n.began = list, true
	n.known.Store(&list)
	return list, nil
}

// goodFor reports whether a token is good for an audience: what was granted names it, or names none in particular where
// the audience allows that. An empty audience asks for nothing. token is the audiences of the personal access token, and
// granted those of what was presented, which may have come of it.
func (s *Service) goodFor(ctx context.Context, token, granted []string, audience string) (bool, error) {
	good, unnamed := names(token, granted, audience)
	if !good || !unnamed {
		return good, nil
	}
	must, err := s.mustName(ctx, audience)
	return !must, err
}

// names reports whether a token is good for an audience that need not be named, and whether that rests on it naming none.
func names(token, granted []string, audience string) (good, unnamed bool) {
	switch {
	case audience == "":
		return true, false
	case len(granted) > 0 && !slices.Contains(granted, audience):
		return false, false
	default:
		return true, len(token) == 0
	}
}

// GoodFor is the rule of audiences by itself: see goodFor. must says whether tokens must name the audience.
func GoodFor(token, granted []string, audience string, must bool) bool {
	good, unnamed := names(token, granted, audience)
	return good && !(unnamed && must)
}
