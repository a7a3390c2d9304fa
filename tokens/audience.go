package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"patd/tokens/secret"
)

// AccessFormat is the form of the short-lived access tokens for an audience.
type AccessFormat int

// The forms. The zero value is AccessOpaque in a request.
const (
	AccessOpaque AccessFormat = iota + 1
	AccessJWT
)

// Lifetimes of short-lived access tokens: Auth0's numbers.
const (
	DefaultAccessTTL = 24 * time.Hour
	MaxAccessTTL     = 30 * Day
)

// AudienceEntry is an API that accepts tokens, with the lifetime policy of the tokens that name it.
type AudienceEntry struct {
	ID           string
	DisplayName  string
	Resource     string        // RFC 8707; empty: none
	DefaultTTL   time.Duration // 0: the server's
	MaxTTL       time.Duration // 0: the server's
	AllowNever   bool
	AllowOffline bool
	AccessTTL    time.Duration
	AccessFormat AccessFormat
	// RequireNamed refuses tokens that name no audience: they are AUDIENCE_MISMATCH here.
	RequireNamed bool
}

// policy returns the audience's policy, with the server's values for what it leaves open. An audience can only be
// stricter: if its entry is looser, as after the server's policy became stricter, the server's limits apply.
func (e AudienceEntry) policy(server Policy) Policy {
	p := Policy{DefaultTTL: e.DefaultTTL, MaxTTL: e.MaxTTL, AllowNever: e.AllowNever}
	server = server.withDefaults()
	if p.MaxTTL <= 0 || p.MaxTTL > server.MaxTTL {
		p.MaxTTL = server.MaxTTL
	}
	if p.DefaultTTL <= 0 {
		p.DefaultTTL = server.DefaultTTL
	}
	p.AllowNever = p.AllowNever && server.AllowNever
	return p.withDefaults()
}

// withinServer refuses an entry whose lifetimes are looser than the server's, which bounds every audience.
func (e AudienceEntry) withinServer(server Policy) error {
	for _, d := range []struct {
		field string
		ttl   time.Duration
	}{{"max_ttl", e.MaxTTL}, {"default_ttl", e.DefaultTTL}} {
		if d.ttl > server.MaxTTL {
			return Invalid(
				"TTL_ABOVE_MAXIMUM",
				d.field,
				"over the server's maximum lifetime of "+FormatDuration(server.MaxTTL)+", its --max-ttl",
			)
		}
	}
	if e.AllowNever && !server.AllowNever {
		return Invalid(
			"NEVER_NOT_ALLOWED",
			"allow_never",
			"the server's --allow-never is false: no audience can allow tokens that never expire",
		)
	}
	return nil
}

// strictest joins policies: the shortest of each limit, and never only if all allow it. Without policies it returns
// server.
func strictest(server Policy, of ...Policy) Policy {
	if len(of) == 0 {
		return server.withDefaults()
	}
	p := of[0].withDefaults()
	for _, o := range of[1:] {
		o = o.withDefaults()
		p.MaxTTL = min(p.MaxTTL, o.MaxTTL)
		p.DefaultTTL = min(p.DefaultTTL, o.DefaultTTL)
		p.AllowNever = p.AllowNever && o.AllowNever
	}
	return p.withDefaults()
}

// policyFor returns the policy of a token that names these audiences. An audience without an entry has the server's.
func (s *Service) policyFor(tx ReadTx, audiences []string) (Policy, error) {
	var of []Policy
	for _, id := range audiences {
		e, err := tx.Audience(id)
		switch {
		case errors.Is(err, ErrNotFound):
			of = append(of, s.policy)
		case err != nil:
			return Policy{}, fmt.Errorf("read audience: %w", err)
		default:
			of = append(of, e.policy(s.policy))
		}
	}
	return strictest(s.policy, of...), nil
}

// CreateAudience adds an audience. It fails with AUDIENCE_EXISTS if the id is taken.
func (s *Service) CreateAudience(ctx context.Context, a Actor, e AudienceEntry) (AudienceEntry, error) {
	return s.writeAudience(ctx, a, ActionAudienceCreate, e, func(tx Tx, e AudienceEntry) error {
		if err := resourceFree(tx, e); err != nil {
			return err
		}
		err := tx.InsertAudience(e)
		if errors.Is(err, ErrTaken) {
			return Fail(CodeExists, "AUDIENCE_EXISTS", "there is an audience of this id; replace it instead")
		}
		return err
	})
}

// ReplaceAudience overwrites an existing audience. Tokens that exceed its new policy keep working until BlockTokens.
func (s *Service) ReplaceAudience(ctx context.Context, a Actor, e AudienceEntry) (AudienceEntry, error) {
	if err := s.expectUnnamed(ctx, e); err != nil {
		return AudienceEntry{}, s.refused(ctx, a, Refusal{Action: ActionAudienceReplace}, err)
	}
	return s.writeAudience(ctx, a, ActionAudienceReplace, e, func(tx Tx, e AudienceEntry) error {
		if err := expectAudience(ctx, tx, e.ID); err != nil {
			return err
		}
		if err := resourceFree(tx, e); err != nil {
			return err
		}
		return missing("audience", tx.UpdateAudience(e))
	})
}

// expectUnnamed compares the tokens that RequireNamed would keep out with the number that the caller expects. It is
// done before the change, since it reads every row.
func (s *Service) expectUnnamed(ctx context.Context, e AudienceEntry) error {
	if !e.RequireNamed || !counts(ctx) {
		return nil
	}
	now := s.Now()
	return s.store.View(ctx, func(tx ReadTx) error {
		old, err := tx.Audience(e.ID)
		if err != nil || old.RequireNamed {
			return missing("audience", err)
		}
		n, err := tx.CountUnnamed(now)
		if err != nil {
			return fmt.Errorf("count tokens that name no audience: %w", err)
		}
		return expectCount(ctx, n)
	})
}

// DeleteAudience removes an audience's entry; tokens that name it keep working.
func (s *Service) DeleteAudience(ctx context.Context, a Actor, id string) error {
	_, err := s.changeCatalog(ctx, a, ActionAudienceDelete, id, func(tx Tx) error {
		if err := expectAudience(ctx, tx, id); err != nil {
			return err
		}
		return missing("audience", tx.DeleteAudience(id))
	})
	s.forgetNamed()
	return err
}

// expectAudience checks the precondition of a change of an audience.
func expectAudience(ctx context.Context, tx ReadTx, id string) error {
	e, err := tx.Audience(id)
	if err != nil {
		return missing("audience", err)
	}
	return expectTag(ctx, e)
}

// missing turns ErrNotFound into the caller's error.
func missing(what string, err error) error {
	if errors.Is(err, ErrNotFound) {
		return notFound(what)
	}
	return err
}

func (s *Service) writeAudience(
	ctx context.Context,
	a Actor,
	action Action,
	e AudienceEntry,
	write func(Tx, AudienceEntry) error,
) (AudienceEntry, error) {
	var c checker
	c.newAudience("id", e.ID)
	e.DisplayName = c.title("display_name", e.DisplayName)
	if e.Resource != "" {
		u, err := url.Parse(e.Resource)
		if err != nil || !u.IsAbs() || u.Fragment != "" || len(e.Resource) > 2000 || secret.ContainsSecret(e.Resource) {
			c.add("resource", "RESOURCE_INVALID", "must be an absolute URI without fragment (RFC 8707 section 2)")
		}
	}
	const longest = 100 * 366 * Day
	for _, d := range []struct {
		field string
		ttl   time.Duration
		limit time.Duration
	}{{"default_ttl", e.DefaultTTL, longest}, {"max_ttl", e.MaxTTL, longest}, {"access_token_ttl", e.AccessTTL, MaxAccessTTL}} {
		if d.ttl != 0 && (d.ttl < time.Second || d.ttl > d.limit) {
			c.add(d.field, "TTL_OUT_OF_RANGE", "must be from 1s to "+FormatDuration(d.limit))
		}
	}
	if e.MaxTTL > 0 && e.DefaultTTL > e.MaxTTL {
		c.add("default_ttl", "TTL_OUT_OF_RANGE", "must not be over max_ttl")
	}
	if e.AccessTTL == 0 {
		e.AccessTTL = DefaultAccessTTL
	}
	if e.AccessFormat == 0 {
		e.AccessFormat = AccessOpaque
	}
	if err := c.err(); err != nil {
		return AudienceEntry{}, err
	}
	if err := e.withinServer(s.policy); err != nil {
		return AudienceEntry{}, s.refused(ctx, a, Refusal{Action: action}, err)
	}
	_, err := s.changeCatalog(ctx, a, action, e.ID, func(tx Tx) error { return write(tx, e) })
	s.forgetNamed()
	return e, err
}

// Audience reads an audience.
func (s *Service) Audience(ctx context.Context, a Actor, id string) (AudienceEntry, error) {
	if err := s.manager(a); err != nil {
		return AudienceEntry{}, err
	}
	var e AudienceEntry
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		e, err = tx.Audience(id)
		return missing("audience", err)
	})
	return e, err
}

// Audiences lists audiences by id, and returns the cursor of the next page.
func (s *Service) Audiences(ctx context.Context, a Actor, q string, p Page) ([]AudienceEntry, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("audiences", q)}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	var found []AudienceEntry
	err = s.store.View(ctx, func(tx ReadTx) error {
		found, err = tx.Audiences(AudienceQuery{Has: q, After: after, Limit: limit + 1})
		return err
	})
	if err != nil {
		return nil, "", err
	}
	found, next := cut(list, found, limit, func(e AudienceEntry) string { return e.ID })
	return found, next, nil
}
