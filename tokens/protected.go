package tokens

import (
	"context"
	"errors"
	"sync"
	"time"
)

// resources caches the resources of audiences, for challenges: callers without a credential get them.
type resources struct {
	mu    sync.Mutex
	known map[string]knownResource // by audience
}

type knownResource struct {
	resource string
	read     time.Time
}

const (
	resourceAge  = 10 * time.Second // as long as another server may take to hear of a change
	maxResources = 1000
)

// ResourceOf returns the resource (RFC 8707) of an audience; empty: it has none, or does not exist. The result may be
// 10 s old. It decides nothing.
func (s *Service) ResourceOf(ctx context.Context, audience string) (string, error) {
	if audience == "" {
		return "", nil
	}
	now, r := s.Now(), &s.resources
	r.mu.Lock()
	known, ok := r.known[audience]
	r.mu.Unlock()
	if age := now.Sub(known.read); ok && 0 <= age && age < resourceAge {
		return known.resource, nil
	}
	var e AudienceEntry
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		if e, err = tx.Audience(audience); errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= maxResources {
		r.known = map[string]knownResource{}
	}
	r.known[audience] = knownResource{e.Resource, now}
	return e.Resource, nil
}

// ProtectedResource is what the metadata of a protected resource says (RFC 9728 section 2).
type ProtectedResource struct {
	Resource string // as the audience has it, byte for byte
	Name     string // for people; may be empty
	Scopes   []string
}

// ProtectedResource returns the resource that an address is of, with http or https, or else an error of CodeNotFound.
// address has neither scheme nor fragment: it begins with the host.
func (s *Service) ProtectedResource(ctx context.Context, address string) (ProtectedResource, error) {
	var out ProtectedResource
	err := s.store.View(ctx, func(tx ReadTx) error {
		for _, scheme := range [...]string{"https://", "http://"} {
			found, err := tx.Audiences(AudienceQuery{Resource: scheme + address, Limit: 1})
			if err != nil {
				return err
			}
			if len(found) > 0 {
				out.Resource, out.Name = found[0].Resource, found[0].DisplayName
				return nil
			}
		}
		return notFound("protected resource")
	})
	if err != nil {
		return ProtectedResource{}, err
	}
	out.Scopes, err = s.PublishedFeatures(ctx)
	return out, err
}
