package storetest

import (
	"testing"
	"time"

	"patd/tokens"
)

// exceeding returns the names of what a query selects, and checks that the count agrees.
func (f *fixture) exceeding(q tokens.ExceedQuery) (names []string) {
	f.t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	if q.Now.IsZero() {
		q.Now = f.now
	}
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.Exceeding(q)
		if err != nil {
			return err
		}
		for _, t := range list {
			names = append(names, t.Name)
		}
		q.After, q.Limit = 1<<62, 1 // neither counts
		n, err := tx.CountExceeding(q)
		f.equal("the count of what is listed", n, int64(len(list)))
		return err
	})
	return names
}

func (f *fixture) setBlocked(t *tokens.Token, by string) {
	f.t.Helper()
	t.BlockedBy = by
	f.update(func(tx tokens.Tx) error { return tx.SetBlocked(t.ID, by) }, tokens.Event{TokenID: t.ID,
		Action: tokens.ActionTokenBlock})
}

// of makes a token be for audiences and end after a time; 0: never.
func (f *fixture) of(ttl time.Duration, audiences ...string) func(*tokens.Token) {
	return func(t *tokens.Token) {
		t.Audiences, t.ExpireTime = audiences, f.now.Add(ttl)
		if ttl == 0 {
			t.ExpireTime = time.Time{}
		}
	}
}

func testBlocks(_ *testing.T, f *fixture) {
	u := f.user("u")
	tok, other := f.token(u, "one", f.of(time.Hour, "api")), f.token(u, "two")
	f.setBlocked(&tok, "https://api.example/v1")
	f.equal("a blocked token in a lookup", f.lookup(tok.ID).Token, tok)
	f.equal("a blocked token in a view", f.read(tok.ID), tok)
	f.equal("another token", f.lookup(other.ID).Token, other)
	f.setBlocked(&tok, "other")
	f.equal("blocked by another audience", f.read(tok.ID), tok)
	f.setBlocked(&tok, "")
	f.equal("not blocked any more", f.lookup(tok.ID).Token, tok)
	born := f.token(u, "born blocked", func(t *tokens.Token) { t.BlockedBy = "api" })
	f.equal("inserted blocked", f.read(born.ID), born)

	gone := f.token(u, "gone", revoked(f.now))
	f.setBlocked(&gone, "api")
	f.equal("a block keeps the revocation", f.read(gone.ID), gone)
}

func testExceeding(_ *testing.T, f *fixture) {
	u := f.user("u")
	minute := time.Minute
	f.token(u, "expired", f.of(0, "api"), func(t *tokens.Token) { t.ExpireTime = f.now })
	f.token(u, "soon", f.of(minute, "api"))
	f.token(u, "late", f.of(minute+time.Microsecond, "api"))
	f.token(u, "never", f.of(0, "api", "other"))
	f.token(u, "of none", f.of(time.Hour))
	f.token(u, "revoked", f.of(time.Hour, "api"), revoked(f.now))
	blocked := f.token(u, "blocked", f.of(time.Hour, "api"))
	f.setBlocked(&blocked, "api")
	elsewhere := f.token(u, "blocked by another", f.of(time.Hour, "api"))
	f.setBlocked(&elsewhere, "other")
	f.token(f.user("v"), "of another user", f.of(time.Hour, "api"))
	unnamed := f.token(u, "blocked and of none", f.of(minute))
	f.setBlocked(&unnamed, "api")
	for _, block := range []struct{ old func(*tokens.Token) }{{revoked(f.now)},
		{func(t *tokens.Token) { t.ExpireTime = f.now }}} {
		dead := f.token(u, "blocked and dead", f.of(time.Hour, "api"), block.old)
		f.setBlocked(&dead, "api")
	}
	at := f.now.Add(minute)
	for _, c := range []struct {
		what string
		q    tokens.ExceedQuery
		want []string
	}{
		{"limited", tokens.ExceedQuery{Audience: "api", Limited: at}, []string{"late", "blocked", "blocked by another",
			"of another user"}},
		{"limited, or never", tokens.ExceedQuery{Audience: "api", Limited: at, Never: true}, []string{"late", "never",
			"blocked", "blocked by another", "of another user"}},
		{"not blocked", tokens.ExceedQuery{Audience: "api", Limited: at, Never: true, Blocked: tokens.BlockedNot},
			[]string{"late", "never", "blocked by another", "of another user"}},
		{"a limit in the past selects live ones", tokens.ExceedQuery{Audience: "api", Limited: f.now.Add(-minute),
			Blocked: tokens.BlockedNot}, []string{"soon", "late", "blocked by another", "of another user"}},
		{"never alone", tokens.ExceedQuery{Audience: "api", Limited: f.now.Add(100 * 366 * tokens.Day), Never: true},
			[]string{"never"}},
		{"another audience", tokens.ExceedQuery{Audience: "other", Limited: at, Never: true}, []string{"never"}},
		{"no such audience", tokens.ExceedQuery{Audience: "none", Limited: at, Never: true}, nil},
		{"later", tokens.ExceedQuery{Audience: "api", Now: f.now.Add(time.Hour), Never: true}, []string{"never"}},
		{"blocked by the audience", tokens.ExceedQuery{Audience: "api", Limited: f.now.Add(tokens.Day),
			Blocked: tokens.BlockedByAudience}, []string{"blocked", "blocked and of none"}},
		{"blocked by another", tokens.ExceedQuery{Audience: "other", Blocked: tokens.BlockedByAudience},
			[]string{"blocked by another"}},
		{"blocked by it, later", tokens.ExceedQuery{Audience: "api", Now: at, Blocked: tokens.BlockedByAudience},
			[]string{"blocked"}},
		{"blocked by none", tokens.ExceedQuery{Blocked: tokens.BlockedByAudience}, nil},
	} {
		f.equal(c.what, f.exceeding(c.q), c.want)
	}
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.Exceeding(tokens.ExceedQuery{Audience: "other", Now: f.now, Blocked: tokens.BlockedByAudience,
			Limit: 1})
		f.equal("the record", list, []tokens.Token{elsewhere})
		return err
	})
}

func testExceedingPages(_ *testing.T, f *fixture) {
	u := f.user("u")
	var want []string
	for i := range 7 {
		// The sooner a token ends the younger it is: the order is not that of the expiry.
		tok := f.token(u, name(i), f.of(time.Duration(100-i)*time.Minute, "api"))
		f.token(u, "foreign "+name(i), f.of(time.Hour, "other"))
		if i%2 == 0 {
			f.setBlocked(&tok, "api")
		}
		want = append(want, name(i))
	}
	for blocked, want := range map[tokens.BlockedState][]string{
		tokens.BlockedAny: want, tokens.BlockedNot: {want[1], want[3], want[5]}, tokens.BlockedByAudience: {want[0],
			want[2], want[4], want[6]},
	} {
		var got []string
		q := tokens.ExceedQuery{Audience: "api", Now: f.now, Blocked: blocked, Limit: 2}
		for {
			var page []tokens.Token
			f.view(func(tx tokens.ReadTx) (err error) {
				page, err = tx.Exceeding(q)
				return err
			})
			if len(page) == 0 {
				break
			}
			for _, tok := range page {
				got = append(got, tok.Name)
			}
			q.After = page[len(page)-1].ID
		}
		f.equal("names over all pages", got, want)
	}
}

func testExactAudience(_ *testing.T, f *fixture) {
	u := f.user("u")
	for _, audience := range []string{"api", "xapi", "api2", "xapi2", "API", "a%i", "https://api"} {
		f.token(u, "of "+audience, f.of(time.Hour, audience))
		f.token(u, "among "+audience, f.of(time.Hour, "0", audience, "~"))
	}
	both := []string{"of api", "among api"}
	f.equal("api exceeding", f.exceeding(tokens.ExceedQuery{Audience: "api"}), both)
	f.equal("a pattern is an audience like others", f.exceeding(tokens.ExceedQuery{Audience: "a%i"}),
		[]string{"of a%i", "among a%i"})
	f.equal("api listed", f.tokens(tokens.TokenQuery{UserKey: u.Key, Audience: "api"}), []string{both[1], both[0]})
}
