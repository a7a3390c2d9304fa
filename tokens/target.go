package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// target is what the audiences decide about a new access token.
type target struct {
	audiences []string // sorted, without duplicates
	format    AccessFormat
	ttl       time.Duration // the shortest of the audiences'
	offline   bool          // there is an audience, and all allow refresh tokens
}

// asked names the requested audiences: by id, and by resource (RFC 8707).
type asked struct{ audiences, resources []string }

// bounds limits the choice of audiences. A personal access token that names none allows any that has an entry.
type bounds struct {
	named    []string
	networks bool // the personal access token is bound to networks
	unnamed  bool // the personal access token names no audience
}

// boundsOf returns the bounds of a personal access token.
func boundsOf(t Token) bounds { return bounds{t.Audiences, len(t.CIDRs) > 0, len(t.Audiences) == 0} }

// bounds returns the bounds of a family of a personal access token.
func (f Family) bounds(t Token) bounds {
	return bounds{f.Audiences, len(t.CIDRs) > 0, len(t.Audiences) == 0}
}

// scopes returns the scopes of a family that its personal access token still has.
func (f Family) scopes(t Token) []string {
	both, _ := Effective(f.Scopes, t.Scopes)
	return both
}

// none reports whether no audience is requested and none is named.
func (b bounds) none(ask asked) bool {
	return len(ask.audiences)+len(ask.resources)+len(b.named) == 0
}

func targetInvalid(text string) *Error { return Invalid("TARGET_INVALID", "audience", text) }

// target returns the audiences, format and lifetime of an access token.
func (s *Service) target(ctx context.Context, ask asked, b bounds) (target, error) {
	if b.none(ask) {
		return s.targetIn(nil, ask, b)
	}
	var out target
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		out, err = s.targetIn(tx, ask, b)
		return err
	})
	return out, err
}

// targetIn is target inside a transaction, which it does not use without audiences.
func (s *Service) targetIn(tx ReadTx, ask asked, b bounds) (target, error) {
	out := target{format: AccessOpaque, ttl: DefaultAccessTTL}
	if b.none(ask) {
		return out, nil
	}
	var c checker
	if c.audiences(ask.audiences, s.limits.Audiences); c.err() != nil || len(ask.resources) > s.limits.Audiences {
		return target{}, targetInvalid(
			fmt.Sprintf(
				"an audience is 1 to %d bytes without white space, and at most %d of them",
				maxAudience,
				s.limits.Audiences,
			),
		)
	}
	var err error
	if out.audiences, err = s.chosen(tx, ask, b); err != nil {
		return target{}, err
	}
	if err := out.measure(tx, b.unnamed); err != nil {
		return target{}, err
	}
	if out.format == AccessJWT && b.networks {
		return target{}, targetInvalid(
			"the audience takes JWTs, which cannot hold to the networks that the token is bound to",
		)
	}
	return out, nil
}

// chosen returns the requested audiences, or all named ones if none is requested.
func (s *Service) chosen(tx ReadTx, ask asked, b bounds) ([]string, error) {
	want := ask.audiences
	for _, r := range ask.resources {
		ids, err := s.ofResource(tx, r, b.named)
		if err != nil {
			return nil, err
		}
		want = append(slices.Clip(want), ids...)
	}
	if want = set(want); len(want) == 0 {
		return b.named, nil
	}
	if len(want) > s.limits.Audiences {
		return nil, targetInvalid(fmt.Sprintf("at most %d audiences", s.limits.Audiences))
	}
	for _, id := range want {
		if len(b.named) > 0 {
			if !slices.Contains(b.named, id) {
				return nil, targetInvalid("the token is not for " + id)
			}
			continue
		}
		_, err := tx.Audience(id)
		if errors.Is(err, ErrNotFound) {
			return nil, targetInvalid("no such audience: " + id)
		}
		if err != nil {
			return nil, fmt.Errorf("read audience: %w", err)
		}
	}
	return want, nil
}

// ofResource returns the audiences that have a resource, limited to the named ones if there are any.
func (s *Service) ofResource(tx ReadTx, resource string, named []string) ([]string, error) {
	if resource == "" {
		return nil, targetInvalid("the token is for no audience of that resource")
	}
	found, err := tx.Audiences(AudienceQuery{Resource: resource, Limit: s.limits.Audiences + 1})
	if err != nil {
		return nil, fmt.Errorf("read audiences of a resource: %w", err)
	}
	var ids []string
	for _, e := range found {
		if len(named) == 0 || slices.Contains(named, e.ID) {
			ids = append(ids, e.ID)
		}
	}
	if len(ids) == 0 {
		return nil, targetInvalid("the token is for no audience of that resource")
	}
	return ids, nil
}

// measure reads the settings of the audiences. The format is JWT, or refresh tokens are allowed, only if all agree. The
// shortest lifetime counts. An audience without an entry has the defaults: no JWT and no refresh tokens.
//
// A personal access token that names no audience is never good for an audience that must be named.
func (t *target) measure(tx ReadTx, unnamed bool) error {
	if len(t.audiences) == 0 {
		return nil
	}
	jwt := true
	t.offline, t.ttl = true, 0
	for _, id := range t.audiences {
		e, err := tx.Audience(id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("read audience: %w", err)
		}
		if unnamed && e.RequireNamed {
			return targetInvalid("the token names no audience, and " + id + " must be named")
		}
		if e.AccessTTL <= 0 {
			e.AccessTTL = DefaultAccessTTL
		}
		if t.ttl == 0 || e.AccessTTL < t.ttl {
			t.ttl = e.AccessTTL
		}
		jwt = jwt && e.AccessFormat == AccessJWT
		t.offline = t.offline && e.AllowOffline
	}
	if jwt {
		t.format = AccessJWT
	}
	return nil
}

func scopeInvalid(text string) *Error { return Invalid("SCOPE_INVALID", "scope", text) }

// narrowed returns the requested scopes, all of which must be in effect; nil requests all.
func (s *Service) narrowed(ask, effective []string) ([]string, error) {
	if ask != nil {
		var c checker
		if ask = c.storedScopes("scope", "SCOPE_INVALID", ask, s.limits.Scopes); c.err() != nil {
			return nil, scopeInvalid("a scope is " + scopeForm)
		}
		if lacking := Missing(ask, effective); len(lacking) > 0 {
			return nil, scopeInvalid("not in effect: " + strings.Join(lacking, " "))
		}
		effective = ask
	}
	if len(effective) == 0 {
		return nil, scopeInvalid("no scope is left")
	}
	return effective, nil
}
