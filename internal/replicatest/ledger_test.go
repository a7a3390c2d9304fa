package replicatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
)

// entry is what was answered about one token. Every call of its client was repeated until it was, so nothing is in
// doubt.
type entry struct {
	token
	old     []string // secrets that were rotated away
	revoked bool
	since   time.Time // the last of these answers
}

// want is what the token's newest secret must be.
func (e *entry) want() decision {
	if e.revoked {
		return revoked
	}
	return allow
}

// ledger is what one client was answered, and nobody but the client writes.
type ledger struct {
	client   int
	entries  []*entry
	features map[string]string // the last of each user's that was answered
	counts   *counts
}

// counts are what happened to all clients.
type counts struct {
	answered, lost, unknown, refused, replayed atomic.Int64
}

func (n *counts) String() string {
	return fmt.Sprintf(
		"%d changes answered; of other calls %d lost their connection, %d were OUTCOME_UNKNOWN, "+
			"%d STORE_UNAVAILABLE or DISK_FULL; %d answers replayed",
		n.answered.Load(),
		n.lost.Load(),
		n.unknown.Load(),
		n.refused.Load(),
		n.replayed.Load(),
	)
}

// perUser keeps a user's tokens under the limit.
const perUser = 90

// work mints, rotates, revokes and sets features, each until it is answered, until ctx ends.
func (l *ledger) work(ctx context.Context, c *cluster) error {
	for n := 0; ctx.Err() == nil; n++ {
		e := &entry{token: token{user: fmt.Sprintf("client-%d-%d", l.client, n/perUser), name: fmt.Sprint(n)}}
		feature := fmt.Sprint("feature-", n)
		if err := l.insist(
			c,
			func(a *api) error { return a.hold(context.Background(), e.user, "a", feature) },
		); err != nil {
			return fmt.Errorf("set features: %w", err)
		}
		l.features[e.user] = feature
		if err := l.mint(c, e); err != nil {
			return fmt.Errorf("mint: %w", err)
		}
		l.entries = append(l.entries, e)
		if err := l.use(c, e, rand.IntN(3), n%3 != 0); err != nil {
			return err
		}
		if err := l.lookBack(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// use rotates and revokes a token.
func (l *ledger) use(c *cluster, e *entry, rotations int, revoke bool) error {
	for range rotations {
		before := e.secret
		err := l.insist(
			c,
			func(a *api) (err error) { e.secret, err = a.rotate(context.Background(), e.token); return err },
		)
		if err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
		e.old, e.since = append(e.old, before), time.Now()
	}
	if !revoke {
		return nil
	}
	var at *api
	if err := l.insist(c, func(a *api) error { at = a; return a.revoke(context.Background(), e.token) }); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	e.revoked, e.since = true, time.Now()
	// Who has revoked it knows that at once, if it still runs.
	if got, err := at.decide(context.Background(), e.secret); err == nil && got != revoked {
		return fmt.Errorf("the replica that revoked a token says %s", got)
	}
	return nil
}

// mint mints a token with an idempotency key. The answer may be that of an earlier call only if that was not told that
// nothing had happened.
func (l *ledger) mint(c *cluster, e *entry) error {
	doubt := false
	return l.insist(c, func(a *api) error {
		tok, replayed, err := a.mint(
			context.Background(),
			e.user,
			e.name,
			fmt.Sprintf("client %d, token %s", l.client, e.name),
		)
		switch {
		case err != nil:
			doubt = doubt || isUnknown(err)
			return err
		case replayed && !doubt:
			return errors.New("a token was made by a call that was told that it was not")
		case tok.secret == "":
			return errors.New("the answer holds no secret")
		case replayed:
			l.counts.replayed.Add(1)
		}
		e.token, e.since = tok, time.Now()
		return nil
	})
}

// insist repeats a change, each time on some replica, until it is answered. Only the want of a replica or of its
// database is a reason to.
func (l *ledger) insist(c *cluster, change func(*api) error) error {
	pause := time.NewTicker(pace)
	defer pause.Stop()
	for deadline := time.Now().Add(2 * patience); ; {
		err := change(c.replicas[rand.IntN(len(c.replicas))].now())
		switch {
		case err == nil:
			l.counts.answered.Add(1)
			return nil
		case !isOutage(err) || time.Now().After(deadline):
			return err
		case reason(err) == "OUTCOME_UNKNOWN":
			l.counts.unknown.Add(1)
		case reason(err) == "STORE_UNAVAILABLE", reason(err) == "DISK_FULL":
			l.counts.refused.Add(1)
		default:
			l.counts.lost.Add(1)
		}
		<-pause.C
	}
}

// lookBack asks some replica about a token that nobody has changed for longer than a replica may not know it.
func (l *ledger) lookBack(ctx context.Context, c *cluster) error {
	e := l.entries
	for range 3 {
		if len(e) == 0 {
			break
		}
		one := e[rand.IntN(len(e))]
		if time.Since(one.since) < bound {
			continue
		}
		got, err := c.replicas[rand.IntN(len(c.replicas))].now().decide(ctx, one.secret)
		if err == nil && got != one.want() || err != nil && !isOutage(err) {
			return fmt.Errorf(
				"%s after the last change of token %s it is %s, %w; want %s",
				time.Since(one.since),
				one.id,
				got,
				err,
				one.want(),
			)
		}
	}
	return nil
}

// verify compares what a replica says now with the ledger.
func (l *ledger) verify(t *testing.T, r *replica) {
	t.Helper()
	type question struct {
		e      *entry
		secret string
	}
	var all []question
	for _, e := range l.entries {
		for _, secret := range append([]string{e.secret}, e.old...) {
			all = append(all, question{e, secret})
		}
	}
	for part := range slices.Chunk(all, 500) {
		batch := &patdv1.BatchIntrospectRequest{}
		for _, q := range part {
			batch.Requests = append(batch.Requests, &patdv1.IntrospectRequest{Token: q.secret})
		}
		answer, err := r.now().introspect.BatchIntrospect(t.Context(), batch)
		must(t, err)
		for i, q := range part {
			want := q.e.want()
			if q.secret != q.e.secret && !q.e.revoked {
				want = superseded
			}
			if got := answer.GetResponses()[i].GetDecision(); got != want {
				t.Errorf(
					"%s says of token %s of %s, with %d older secrets, that it is %s, want %s",
					r.name,
					q.e.id,
					q.e.user,
					len(q.e.old),
					got,
					want,
				)
			}
		}
	}
}

// verifyUsers makes sure that the users of the ledger have the tokens that were answered and no others, and the
// features.
func (l *ledger) verifyUsers(t *testing.T, r *replica) {
	t.Helper()
	want := map[string][]string{}
	for _, e := range l.entries {
		want[e.user] = append(want[e.user], e.id)
	}
	for user, feature := range l.features {
		list, err := r.now().tokens.ListTokens(t.Context(), &patdv1.ListTokensRequest{User: user, PageSize: 200})
		must(t, err)
		var ids []string
		for _, tok := range list.GetTokens() {
			ids = append(ids, tok.GetTokenId())
		}
		slices.Sort(ids)
		slices.Sort(want[user])
		if !slices.Equal(ids, want[user]) {
			t.Errorf("%s has %d tokens, %d were answered", user, len(ids), len(want[user]))
		}
		held, err := r.now().users.GetUserFeatures(t.Context(), &patdv1.GetUserFeaturesRequest{User: user})
		must(t, err)
		var names []string
		for _, f := range held.GetFeatures() {
			names = append(names, f.GetName())
		}
		if !slices.Equal(names, []string{"a", feature}) {
			t.Errorf("%s holds %v, want a and %s", user, names, feature)
		}
	}
}
