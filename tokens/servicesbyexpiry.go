package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// ServicesByExpiry lists services by the end of their tokens, the soonest first, and returns the token of the next
// page. Without all, only those that are neither revoked nor expired are listed. A page costs a read of all services.
func (s *Service) ServicesByExpiry(ctx context.Context, a Actor, all bool, p Page) ([]ServiceAccount, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("services by expiry", strconv.FormatBool(all))}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	from, err := parsePosition(after)
	if err != nil {
		return nil, "", err
	}
	var found []ServiceAccount
	now := s.Now()
	err = s.store.View(ctx, func(tx ReadTx) error {
		found, err = everyService(ctx, tx)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	place := func(v ServiceAccount) InventoryPosition { return InventoryPosition{Time: v.ExpireTime, ID: v.ID} }
	found = slices.DeleteFunc(found, func(v ServiceAccount) bool {
		return !all && v.Status(now) != StateActive || after != "" && place(v).compare(from) <= 0
	})
	slices.SortFunc(found, func(v, w ServiceAccount) int { return place(v).compare(place(w)) })
	found, next := cut(list, found, limit, func(v ServiceAccount) string { return place(v).String() })
	return found, next, nil
}

func (p InventoryPosition) compare(o InventoryPosition) int {
	return cmp.Or(p.Time.Compare(o.Time), cmp.Compare(p.ID, o.ID))
}

// everyService reads all services.
func everyService(ctx context.Context, tx ReadTx) ([]ServiceAccount, error) {
	const part = 1000
	var out []ServiceAccount
	for before := ID(0); ctx.Err() == nil; {
		some, err := tx.Services(before, part)
		if err != nil {
			return nil, fmt.Errorf("read services: %w", err)
		}
		if out = append(out, some...); len(some) < part {
			return out, nil
		}
		before = some[part-1].ID
	}
	return nil, ctx.Err()
}

// ServiceNamed returns the live service of a name, or else the newest that had it. CodeNotFound if none had.
func (s *Service) ServiceNamed(ctx context.Context, a Actor, name string) (ServiceAccount, error) {
	if err := s.manager(a); err != nil {
		return ServiceAccount{}, err
	}
	if !validServiceName(name) {
		return ServiceAccount{}, notFound("service")
	}
	var v ServiceAccount
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		v, err = tx.Service(name)
		switch {
		case errors.Is(err, ErrNotFound):
			return notFound("service")
		case toEnd(err) != nil: // it is shown, so that it can be revoked
			return fmt.Errorf("read service: %w", err)
		}
		return nil
	})
	return v, err
}

// Secrets counts the secrets of the service that are accepted at an instant: those that a revocation ends.
func (s *ServiceAccount) Secrets(now time.Time) int64 {
	switch {
	case s.Status(now) != StateActive:
		return 0
	case now.Before(s.PreviousUntil):
		return 2
	}
	return 1
}
