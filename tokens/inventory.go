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

// Order is the order of the inventory. Within one instant tokens are in the order of their ids.
type Order int

// The orders. Tokens that never expire are after all others by expiry.
const (
	OrderNewest         Order = iota // issued last
	OrderOldest                      // issued first
	OrderSoonestExpiry               // ending first
	OrderFurthestExpiry              // ending last
)

var orderNames = [...]string{
	OrderNewest:         "-issue_time",
	OrderOldest:         "issue_time",
	OrderSoonestExpiry:  "expire_time",
	OrderFurthestExpiry: "-expire_time",
}

// ByExpiry reports whether tokens are ordered by their expiry, and not by their issue.
func (o Order) ByExpiry() bool { return o == OrderSoonestExpiry || o == OrderFurthestExpiry }

// Descending reports whether the latest comes first.
func (o Order) Descending() bool { return o == OrderNewest || o == OrderFurthestExpiry }

// ParseOrder reads an order: issue_time or expire_time, after a minus for the latest first. Empty is the order that
// finds a filter's tokens soonest: the newest first, or the furthest expiry where the filter bounds the expiry.
func ParseOrder(text string, f Filter) (Order, error) {
	if text == "" {
		if f.State == StateExpired || !f.ExpiresBefore.IsZero() {
			return OrderFurthestExpiry, nil
		}
		return OrderNewest, nil
	}
	for o, name := range orderNames {
		if name == text {
			return Order(o), nil
		}
	}
	return 0, Invalid("ORDER_UNKNOWN", "order", "the orders are -issue_time, issue_time, expire_time and -expire_time")
}

// InventoryQuery selects tokens of all users.
type InventoryQuery struct {
	Filter

	Now   time.Time
	Order Order
	After InventoryPosition // zero: from the start
	Limit int
	// Within bounds how long a store looks for matching tokens, beyond the first few thousand; 0: some milliseconds.
	Within time.Duration
}

// InventoryPosition is a place in the inventory, as the store says: the instant of the order, and an id.
type InventoryPosition struct {
	Time time.Time // zero: never
	ID   ID
}

// InventoryPage is a part of the inventory.
type InventoryPage struct {
	// Tokens are at most as many as the limit. A store that finds few of many bounds its work: then they are fewer,
	// even none, and more follow.
	Tokens []Token
	// More reports that tokens after Next may match.
	More bool
	Next InventoryPosition
}

// Inventory lists tokens of all users, and returns the token of the next page, empty after the last. A page may hold
// fewer tokens than its size, even none, where the filter matches few of many.
func (s *Service) Inventory(ctx context.Context, a Actor, f Filter, order string, p Page) ([]Token, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	var c checker
	f = c.filter("", f)
	if err := c.err(); err != nil {
		return nil, "", err
	}
	o, err := ParseOrder(order, f)
	if err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("inventory", f.key(), orderNames[o])}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	q := InventoryQuery{Filter: f, Now: s.Now(), Order: o, Limit: limit}
	if q.After, err = parsePosition(after); err != nil {
		return nil, "", err
	}
	var page InventoryPage
	err = s.store.View(ctx, func(tx ReadTx) error {
		if q.Filter, err = resolved(tx, f); err != nil {
			return err
		}
		page, err = tx.Inventory(q)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	next := ""
	if page.More {
		next = list.next(page.Next.String())
	}
	asOf(page.Tokens, q.Now)
	s.effects(ctx, page.Tokens)
	return page.Tokens, next, nil
}

// resolved looks for a token whose id is the text that names are searched for.
func resolved(tx ReadTx, f Filter) (Filter, error) {
	if id, err := secret.ParseID(f.NameHas); err == nil {
		switch _, err := tx.Token(id); {
		case err == nil:
			f.NameHas, f.ID = "", id
		case errors.Is(err, ErrRecordInvalid):
			f.NameHas, f.ID = "", id // lists show what is stored
		case !errors.Is(err, ErrNotFound):
			return f, fmt.Errorf("read token %s: %w", id, err)
		}
	}
	return f, nil
}

// String writes a position for a page token.
func (p InventoryPosition) String() string {
	return strconv.FormatUint(uint64(p.ID), 10) + "." + instant(p.Time)
}

func parsePosition(s string) (InventoryPosition, error) {
	if s == "" {
		return InventoryPosition{}, nil
	}
	var p InventoryPosition
	id, at, ok := strings.Cut(s, ".")
	n, err := strconv.ParseUint(id, 10, 64)
	if !ok || err != nil {
		return InventoryPosition{}, errPageToken
	}
	p.ID = ID(n)
	if at != "" {
		us, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return InventoryPosition{}, errPageToken
		}
		p.Time = time.UnixMicro(us).UTC()
	}
	return p, nil
}
