package tokens

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"patd/tokens/secret"
)

// CreateService makes a service with its token. Names are unique among live services (NAME_TAKEN).
func (s *Service) CreateService(ctx context.Context, a Actor, r ServiceRequest) (MintedService, error) {
	m, err := s.createService(ctx, a, r)
	if err != nil {
		return MintedService{}, s.refused(ctx, a, Refusal{Action: ActionServiceCreate, Service: r.Name}, err)
	}
	return m, nil
}

func (s *Service) createService(ctx context.Context, a Actor, r ServiceRequest) (MintedService, error) {
	if err := s.manager(a); err != nil {
		return MintedService{}, err
	}
	keys := s.keys.Get()
	v, err := draftService(r)
	if err != nil {
		return MintedService{}, err
	}
	policy := Policy{DefaultTTL: serviceDefaultTTL, MaxTTL: ServiceMaxTTL}
	seal, err := sealerFor(keys, a, r.IdempotencyKey, []any{"service", v, r.TTL})
	if err != nil {
		return MintedService{}, err
	}
	var m MintedService
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if m, err = replayService(tx, seal, now); err != nil || m.Replayed {
			return nil, err
		}
		v.IssueTime, v.AsOf = now, now
		if v.ExpireTime, err = policy.Expiry(Lifetime{TTL: r.TTL}, now); err != nil {
			return nil, err
		}
		old, err := tx.Service(v.Name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("read service: %w", err)
		}
		if err == nil && old.Status(now) == StateActive {
			return nil, &Error{
				Code: CodeExists, Reason: "NAME_TAKEN", Metadata: map[string]string{"token_id": old.ID.String()},
				Message: "a live service has this name; revoke it first, or choose another",
			}
		}
		if v.ID, err = secret.NewID(now, s.rand); err != nil {
			return nil, err
		}
		if m.Secret, err = secret.Mint(secret.PrefixService, v.ID, s.rand); err != nil {
			return nil, err
		}
		if err := tx.InsertService(v, keys.Digest(m.Secret)); err != nil {
			return nil, fmt.Errorf("add service: %w", err)
		}
		m.Service = v
		if err := seal.keep(tx, v.ID, m.Secret, now, s.rand); err != nil {
			return nil, err
		}
		e := a.event(now, ActionServiceCreate)
		e.Service, e.TokenID, e.Detail = v.Name, v.ID, strings.Join(v.Permissions.Names(), " ")
		if v.Audience != "" {
			e.Detail += ", bound to " + v.Audience
		}
		return []Event{e}, nil
	})
	return m, err
}

// readService reads a service by the id of its token.
func readService(tx ReadTx, id ID) (ServiceAccount, error) {
	at, err := tx.Services(id+1, 1) // ids below, newest first: the service itself, which is never deleted
	if err == nil && (len(at) == 0 || at[0].ID != id) {
		err = ErrNotFound
	}
	if err != nil {
		return ServiceAccount{}, fmt.Errorf("read service %s of a request: %w", id, err)
	}
	return at[0], nil
}

// replayService returns the stored result of an idempotent request. A zero MintedService means that there is none.
func replayService(tx ReadTx, seal *sealer, now time.Time) (MintedService, error) {
	r, found, err := seal.find(tx, now)
	if err != nil || !found {
		return MintedService{}, err
	}
	v, err := readService(tx, r.TokenID)
	if err != nil {
		return MintedService{}, err
	}
	v.AsOf = now
	m := MintedService{Service: v, Replayed: true}
	if r.Sealed != nil && m.Service.Revocation == nil {
		m.Secret, err = seal.open(r)
	}
	return m, err
}

func draftService(r ServiceRequest) (ServiceAccount, error) {
	var c checker
	if !validServiceName(r.Name) || LostInPath(r.Name) {
		c.add(
			"name",
			"SERVICE_NAME_INVALID",
			"a service's name must match [A-Za-z0-9._-]{1,64}, and is not `.` or `..`",
		)
	}
	if r.Audience != "" {
		c.newAudience("audience", r.Audience)
	}
	c.idempotencyKey(r.IdempotencyKey)
	p, err := ParsePermissions(r.Permissions)
	var e *Error
	if errors.As(err, &e) {
		c.found = append(c.found, e.Violations...)
	}
	return ServiceAccount{Name: r.Name, Permissions: p, Audience: r.Audience}, c.err()
}

// Services lists services in any state, newest first, and returns the token of the next page.
func (s *Service) Services(ctx context.Context, a Actor, p Page) ([]ServiceAccount, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("services")}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	var before ID
	if after != "" {
		if before, err = secret.ParseID(after); err != nil {
			return nil, "", errPageToken
		}
	}
	var found []ServiceAccount
	err = s.view(ctx, func(tx ReadTx, now time.Time) error {
		found, err = tx.Services(before, limit+1)
		for i := range found {
			found[i].AsOf = now
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	found, next := cut(list, found, limit, func(v ServiceAccount) string { return v.ID.String() })
	return found, next, nil
}

// RevokeService revokes the newest service of that name for good. Idempotent.
func (s *Service) RevokeService(ctx context.Context, a Actor, name, reason string) (ServiceAccount, error) {
	v, err := s.revokeService(ctx, a, name, reason)
	if err != nil {
		return ServiceAccount{}, s.refused(ctx, a, Refusal{Action: ActionServiceRevoke, Service: name}, err)
	}
	return v, nil
}

func (s *Service) revokeService(ctx context.Context, a Actor, name, reason string) (ServiceAccount, error) {
	if err := s.manager(a); err != nil {
		return ServiceAccount{}, err
	}
	var c checker
	if c.reason(reason); c.err() != nil {
		return ServiceAccount{}, c.err()
	}
	if !validServiceName(name) {
		return ServiceAccount{}, notFound("service")
	}
	var v ServiceAccount
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		var err error
		v, err = tx.Service(name)
		v.AsOf = now
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, notFound("service")
		case toEnd(err) != nil:
			return nil, fmt.Errorf("read service: %w", err)
		case v.Revocation != nil:
			return nil, nil
		}
		if err := expectCount(ctx, v.Secrets(now)); err != nil {
			return nil, err
		}
		var events []Event
		v, events, err = revokeAccount(tx, a, v, now, reason)
		return events, err
	})
	return v, err
}

// revokeAccount revokes a service that is not revoked yet, inside a transaction.
func revokeAccount(tx Tx, a Actor, v ServiceAccount, now time.Time, reason string) (ServiceAccount, []Event, error) {
	v.Revocation = &Revocation{Time: now, By: a.String(), Reason: reason}
	if err := tx.RevokeService(v.ID, *v.Revocation); err != nil {
		return v, nil, fmt.Errorf("revoke service: %w", err)
	}
	if err := tx.ForgetSealed(v.ID); err != nil {
		return v, nil, fmt.Errorf("forget the requests of service %s: %w", v.ID, err)
	}
	e := a.event(now, ActionServiceRevoke)
	e.Service, e.TokenID, e.Detail = v.Name, v.ID, reason
	return v, []Event{e}, nil
}

// Events lists the audit log, newest first, and returns the token of the next page.
func (s *Service) Events(ctx context.Context, a Actor, f EventFilter, p Page) ([]Event, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("events", f.User, f.TokenID, f.Actor, f.Action)}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	q := EventQuery{User: f.User, Actor: f.Actor, Action: Action(f.Action), Limit: limit + 1}
	if after != "" {
		if q.Before, err = strconv.ParseUint(after, 10, 64); err != nil {
			return nil, "", errPageToken
		}
	}
	if f.TokenID != "" {
		if q.TokenID, err = secret.ParseID(f.TokenID); err != nil {
			return nil, "", Invalid("TOKEN_ID_INVALID", "token_id", "a token id is 11 base62 characters")
		}
	}
	if err := f.check(); err != nil {
		return nil, "", err
	}
	var found []Event
	err = s.store.View(ctx, func(tx ReadTx) error {
		found, err = tx.Events(q)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	found, next := cut(list, found, limit, func(e Event) string { return strconv.FormatUint(e.Seq, 10) })
	return found, next, nil
}
