package tokens

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// named caches the audiences that tokens must name (RequireNamed), for introspection. They are read again after every
// change of the catalogue, and on every use while the change feed is silent.
type named struct {
	known   atomic.Pointer[[]string] // nil: not read yet
	changes atomic.Uint64            // how often a reading differed from the one before
	reading sync.Mutex
	last    []string // the last reading; guarded by reading
	began   bool
}

// mustName reports whether tokens are good for an audience only if they name it.
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

// forgetNamed makes the next call of mustName read the store. It is called once a change is on disk.
func (s *Service) forgetNamed() {
	s.named.reading.Lock() // so that a reader under way does not put the old list back
	defer s.named.reading.Unlock()
	s.named.known.Store(nil)
}

// learnNamed reads the audiences that must be named from the store.
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

// goodFor reports whether a token is good for an audience: granted names it, or names none and the audience allows
// that. An empty audience is always good. token has the audiences of the personal access token, granted those of the
// presented token, which may be derived from it.
func (s *Service) goodFor(ctx context.Context, token, granted []string, audience string) (bool, error) {
	good, unnamed := names(token, granted, audience)
	if !good || !unnamed {
		return good, nil
	}
	must, err := s.mustName(ctx, audience)
	return !must, err
}

// names reports whether a token is good for an audience that need not be named, and whether only because it names none.
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

// GoodFor is the rule of goodFor without a store. must reports whether tokens must name the audience.
func GoodFor(token, granted []string, audience string, must bool) bool {
	good, unnamed := names(token, granted, audience)
	return good && !(unnamed && must)
}
