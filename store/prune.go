package store

import (
	"context"
	"errors"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// Bounds of one pruning: transactions, and rows that a statement deletes. What ends in a burst is not left to pile up.
const (
	pruneRounds = 16
	pruneLimit  = 1000
)

// pruning says what is deleted of one kind of rows that are no longer needed.
type pruning struct {
	op         string
	keep       time.Duration // for so long after the time that the statements compare
	due        string        // whether there are any; ?1: the time
	statements []string      // in one transaction; ?1: the time, ?2: the most rows
}

func prunings() []pruning {
	return []pruning{
		{"prune the change feed", keepChanges, hasPrunableChanges, []string{pruneChanges}},
		{"prune expired requests", 0, hasPrunableRequests, []string{pruneRequests}},
		// A family goes when nothing of it is left.
		{
			"prune expired access and refresh tokens",
			keepGrants,
			hasPrunableGrants,
			[]string{pruneAccess, pruneRefresh, pruneFamilies},
		},
		{"prune expired sessions and hand-offs", keepGrants, hasPrunablePages, []string{pruneSessions, pruneHandoffs}},
		{"prune revocations of many tokens that have ended", keepBulk, hasPrunableBulk, []string{pruneBulk}},
		{"prune narrowings of many tokens that have ended", keepBulk, hasPrunableNarrowings, []string{pruneNarrowings}},
		// Events of that time are not accepted any more; a day more is for a clock that is set back.
		{
			"prune the digests of old security events",
			tokens.Day,
			hasPrunableSecurityEvents,
			[]string{pruneSecurityEvents},
		},
	}
}

// prune drops what is no longer needed, a bounded number, and touches the writer only when there is any.
func (s *Store) prune(ctx context.Context) error {
	err := errors.Join(s.pruneEvents(ctx), s.pruneOldRates(ctx), s.pruneDeliveries(ctx))
	for _, p := range prunings() {
		err = errors.Join(err, s.pruneRows(ctx, p))
	}
	return err
}

func (s *Store) pruneRows(ctx context.Context, p pruning) error {
	before := db.Micros(s.options.Now().Add(-p.keep))
	more, err := s.due(ctx, p.op, p.due, before)
	for round := 0; round < pruneRounds && more && err == nil; round++ {
		err = s.transact(ctx, p.op, func(t *tx) error {
			more = false
			for _, statement := range p.statements {
				n, err := t.exec(p.op, statement, before, pruneLimit)
				if err != nil {
					return err
				}
				more = more || n == pruneLimit
			}
			return nil
		})
	}
	return err
}

// due reports whether there is something to drop, by a query that returns it.
func (s *Store) due(ctx context.Context, op, query string, args ...any) (due bool, err error) {
	err = s.lookup(
		ctx,
		op,
		func(ctx context.Context, c *db.Conn) error { return c.One(ctx, query, []any{&due}, args...) },
	)
	return due, err
}
