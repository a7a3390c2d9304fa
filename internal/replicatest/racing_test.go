package replicatest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
)

// racers is how many mint at once, over all replicas.
const racers = 64

// minted is how one of several racing mints ended.
type minted struct {
	token    token
	replayed bool
	err      error
}

// race has racers mint at the same moment, on the replicas in turn. Each says its name and idempotency key.
func race(t *testing.T, c *cluster, user string, times int, what func(n int) (name, key string)) []minted {
	t.Helper()
	must(t, c.replicas[0].now().hold(t.Context(), user, "a"))
	results := make([]minted, racers*times)
	begin := make(chan struct{})
	var g sync.WaitGroup
	for racer := range racers {
		g.Go(func() {
			<-begin
			for n := racer; n < len(results); n += racers {
				name, key := what(n)
				r := &results[n]
				r.token, r.replayed, r.err = c.replicas[n%len(c.replicas)].now().mint(t.Context(), user, name, key)
			}
		})
	}
	close(begin)
	g.Wait()
	return results
}

// tally counts the mints that made a token, and fails the test when another failed for some other reason than the one
// given.
func tally(t *testing.T, results []minted, code codes.Code, why string) (made int) {
	t.Helper()
	for _, r := range results {
		switch {
		case r.err == nil && !r.replayed:
			made++
		case r.err != nil && (status.Code(r.err) != code || reason(r.err) != why):
			t.Errorf("a mint fails with %v (%s), want %s", r.err, reason(r.err), why)
		}
	}
	return made
}

// active lists a user's active tokens, as a replica sees them.
func active(t *testing.T, r *replica, user string) []*patdv1.Token {
	t.Helper()
	list, err := r.now().tokens.ListTokens(
		t.Context(),
		&patdv1.ListTokensRequest{User: user, PageSize: 200, State: patdv1.Token_ACTIVE},
	)
	must(t, err)
	return list.GetTokens()
}

// oneOfManyGetsAName holds whatever the case of its letters.
func oneOfManyGetsAName(t *testing.T, c *cluster) {
	results := race(t, c, "racing-name", 1, func(n int) (string, string) { return []string{"Name", "nAME"}[n%2], "" })
	if made := tally(t, results, codes.AlreadyExists, "NAME_TAKEN"); made != 1 {
		t.Errorf("%d tokens of one name were made", made)
	}
	for _, r := range c.replicas {
		if n := len(active(t, r, "racing-name")); n != 1 {
			t.Errorf("%s lists %d tokens of one name", r.name, n)
		}
	}
}

func nobodyGetsOverTheLimit(t *testing.T, c *cluster) {
	const limit = 100 // the default
	results := race(t, c, "racing-limit", 2, func(n int) (string, string) { return fmt.Sprint(n), "" })
	if made := tally(t, results, codes.ResourceExhausted, "TOKEN_LIMIT_REACHED"); made != limit {
		t.Errorf("%d tokens were made, the limit is %d", made, limit)
	}
	for _, r := range c.replicas {
		if n := len(active(t, r, "racing-limit")); n != limit {
			t.Errorf("%s lists %d tokens, the limit is %d", r.name, n, limit)
		}
	}
}

func anIdempotencyKeyMakesOneToken(t *testing.T, c *cluster) {
	results := race(t, c, "racing-key", 1, func(int) (string, string) { return "one", "the key of many racing" })
	if made := tally(t, results, codes.OK, ""); made != 1 {
		t.Errorf("%d answers say that they made the token, want one", made)
	}
	for _, r := range results {
		if r.token.secret == "" || r.token != results[0].token {
			t.Errorf(
				"one key got the tokens %s and %s, the same secret: %t",
				results[0].token.id,
				r.token.id,
				r.token.secret == results[0].token.secret,
			)
		}
	}
	for _, r := range c.replicas {
		if got, err := r.now().decide(t.Context(), results[0].token.secret); err != nil || got != allow {
			t.Errorf("%s says %s, %v of the token", r.name, got, err)
		}
		if n := len(active(t, r, "racing-key")); n != 1 {
			t.Errorf("%s lists %d tokens of one key", r.name, n)
		}
	}
}

// anIdempotencyKeyIsOfOneRequest races two requests with one key: all of one get its token, and all of the other
// nothing.
func anIdempotencyKeyIsOfOneRequest(t *testing.T, c *cluster) {
	names := []string{"this", "that"}
	results := race(
		t,
		c,
		"racing-body",
		1,
		func(n int) (string, string) { return names[n/len(c.replicas)%2], "the key of two requests" },
	)
	if made := tally(t, results, codes.Aborted, "IDEMPOTENCY_KEY_REUSED"); made != 1 {
		t.Errorf("%d answers say that they made the token, want one", made)
	}
	won := map[string]int{}
	for _, r := range results {
		if r.err == nil {
			won[r.token.name]++
		}
	}
	if len(won) != 1 {
		t.Errorf("one key was good for two requests: %v", won)
	}
}

// theLastUseIsTheLatest uses a token on one replica after the other, and stops them in the other order: so what was
// noted first is written last. Connections that were cut are in the way of neither the writing nor the stop.
func theLastUseIsTheLatest(t *testing.T, c *cluster) {
	must(t, c.replicas[0].now().hold(t.Context(), "user", "a"))
	tok, _, err := c.replicas[0].now().mint(t.Context(), "user", "used", "")
	must(t, err)
	var before time.Time
	want := ""
	for n, r := range c.replicas {
		want = fmt.Sprintf("192.0.2.%d", n+1)
		before = time.Now()
		_, err := r.now().introspect.Introspect(
			t.Context(),
			&patdv1.IntrospectRequest{Token: tok.secret, ClientIp: want},
		)
		must(t, err)
	}
	var cut int
	must(t, c.db.Admin().QueryRowContext(t.Context(), terminateWorkers).Scan(&cut))
	for n := len(c.replicas) - 1; n >= 0; n-- {
		c.replicas[n].stop()
	}
	must(t, c.replicas[0].start())
	got, err := c.replicas[0].now().tokens.GetToken(
		t.Context(),
		&patdv1.GetTokenRequest{User: tok.user, TokenId: tok.id},
	)
	must(t, err)
	if at := got.GetToken().
		GetLastUsedTime().
		AsTime(); got.GetToken().GetLastUsedIp() != want ||
		at.Before(before.Truncate(time.Microsecond)) {
		t.Errorf("the last use is from %s at %s, want %s after %s", got.GetToken().GetLastUsedIp(), at, want, before)
	}
}
