package storetest

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"patd/tokens"
)

func testLookup(t *testing.T, f *fixture) {
	u := f.user("u/1:?#% ü")
	plain := f.token(u, "plain", func(t *tokens.Token) { t.ExpireTime = time.Time{} })
	full := f.token(u, "Ünïcode", func(t *tokens.Token) {
		t.Description = "two\nlines"
		t.Labels = map[string]string{"team": "a b", "ü": ""}
		t.Scopes = []string{"a.read", "b.write"}
		t.Audiences = []string{"https://api.example", "other"}
		t.CIDRs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	})
	for i, want := range []tokens.Token{plain, full} {
		got := f.lookup(want.ID)
		f.equal("token", got.Token, want)
		f.equal("user", got.User, u)
		f.equal("secrets", got.Secrets, []tokens.StoredSecret{{Hash: hash("k1", uint64(i+1))}})
		f.equal("the token in a view", f.read(want.ID), want)
	}
}

func testUpdate(t *testing.T, f *fixture) {
	u := f.user("u")
	tok := f.token(u, "one", func(t *tokens.Token) { t.Audiences, t.Scopes = []string{"x"}, []string{"a", "b"} })
	want := tok
	want.Name, want.Description = "two", "text"
	want.Labels = map[string]string{"k": "v"}
	want.Scopes = []string{"a"}
	want.CIDRs = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	want.ExpireTime = f.now.Add(time.Minute)
	want.BlockedBy = "x"
	given := want
	given.UserKey, given.User, given.Audiences, given.IssueTime = 9, "other", nil, f.now.Add(time.Hour)
	given.LastUsed = tokens.Use{Time: f.now}
	f.update(func(tx tokens.Tx) error { return tx.UpdateToken(given) })
	f.equal("after an update", f.read(tok.ID), want)
	want.Description, want.Labels, want.CIDRs, want.BlockedBy = "", nil, nil, ""
	f.update(func(tx tokens.Tx) error { return tx.UpdateToken(want) })
	f.equal("after emptying fields", f.read(tok.ID), want)
}

func testPaging(t *testing.T, f *fixture) {
	u, other := f.user("u"), f.user("v")
	var want []string
	for i := range 7 {
		f.token(u, name(i))
		f.token(other, "foreign")
		want = append([]string{name(i)}, want...)
	}
	var got []string
	q := tokens.TokenQuery{UserKey: u.Key, Now: f.now, Limit: 3}
	for {
		var page []tokens.Token
		f.view(func(tx tokens.ReadTx) (err error) {
			page, err = tx.Tokens(q)
			return err
		})
		if len(page) == 0 {
			break
		}
		for _, tok := range page {
			got = append(got, tok.Name)
		}
		q.Before = page[len(page)-1].ID
	}
	f.equal("names over all pages", got, want)
}

func testFilters(t *testing.T, f *fixture) {
	u := f.user("u")
	f.token(u, "Deploy ÄB", func(t *tokens.Token) { t.Audiences = []string{"api", "b.example"} })
	f.token(u, "old", func(t *tokens.Token) { t.ExpireTime = f.now })
	f.token(u, "gone", func(t *tokens.Token) { t.Audiences = []string{"example"} }, revoked(f.now))
	f.token(u, "gone and old", func(t *tokens.Token) { t.ExpireTime = f.now.Add(-1) }, revoked(f.now))
	f.token(u, "for ever", func(t *tokens.Token) { t.ExpireTime = time.Time{} })
	for _, c := range []struct {
		what string
		q    tokens.TokenQuery
		want []string
	}{
		{"any", tokens.TokenQuery{}, []string{"for ever", "gone and old", "gone", "old", "Deploy ÄB"}},
		{"active", tokens.TokenQuery{State: tokens.StateActive}, []string{"for ever", "Deploy ÄB"}},
		{"expired", tokens.TokenQuery{State: tokens.StateExpired}, []string{"old"}},
		{"revoked", tokens.TokenQuery{State: tokens.StateRevoked}, []string{"gone and old", "gone"}},
		{"name", tokens.TokenQuery{NameHas: tokens.NameKey("Y äb")}, []string{"Deploy ÄB"}},
		{"a name's wildcard is a character", tokens.TokenQuery{NameHas: "%"}, nil},
		{"audience", tokens.TokenQuery{Audience: "example"}, []string{"gone"}},
		{"second audience", tokens.TokenQuery{Audience: "b.example"}, []string{"Deploy ÄB"}},
		{"both", tokens.TokenQuery{Audience: "api", State: tokens.StateRevoked}, nil},
	} {
		c.q.UserKey = u.Key
		f.equal(c.what, f.tokens(c.q), c.want)
	}
}

// revoked makes a token be inserted revoked.
func revoked(at time.Time) func(*tokens.Token) {
	return func(t *tokens.Token) { t.Revocation = &tokens.Revocation{Time: at, By: "x", Reason: "why"} }
}

func testLive(t *testing.T, f *fixture) {
	u := f.user("u")
	first := f.token(u, "Straße")
	f.token(u, "expired", func(t *tokens.Token) { t.ExpireTime = f.now })
	f.token(u, "revoked", revoked(f.now))
	last := f.token(u, "never", func(t *tokens.Token) { t.ExpireTime = time.Time{} })
	f.token(f.user("v"), "foreign")
	f.view(func(tx tokens.ReadTx) error {
		live, err := tx.LiveTokens(u.Key, f.now)
		slices.SortFunc(live, func(a, b tokens.LiveToken) int { return int(a.ID) - int(b.ID) })
		f.equal("live tokens", live, []tokens.LiveToken{{ID: first.ID, NameKey: tokens.NameKey("STRASSE")},
			{ID: last.ID, NameKey: "never"}})
		return err
	})
}

func testRevocation(t *testing.T, f *fixture) {
	u := f.user("u")
	tok := f.token(u, "one")
	alive := tok
	first := tokens.Revocation{Time: f.now, By: "user:u", Reason: "lost"}
	later := tokens.Revocation{Time: f.now.Add(time.Hour), By: "x", Reason: "again"}
	write := func(t tokens.Token, r *tokens.Revocation) {
		t.Revocation = r
		f.update(func(tx tokens.Tx) error { return tx.UpdateToken(t) })
	}
	write(tok, &first)
	tok.Revocation = &first
	f.equal("revoked", f.read(tok.ID), tok)
	write(tok, &later)
	f.equal("revoked again", f.read(tok.ID), tok)
	write(alive, nil) // a record read before the revocation
	f.equal("written without a revocation", f.read(tok.ID), tok)
	f.update(func(tx tokens.Tx) error {
		n, err := tx.RevokeTokens(u.Key, later)
		f.equal("revoked with the others", len(n), 0)
		return err
	})
	f.update(func(tx tokens.Tx) error { return tx.ReplaceSecret(tok.ID, hash("k1", 50), f.rotation(f.now)) })
	f.equal("after all of that", f.lookup(tok.ID).Token, tok)
}

func testRevokeAll(t *testing.T, f *fixture) {
	u, v := f.user("u"), f.user("v")
	one := f.token(u, "one")
	old := f.token(u, "expired", func(t *tokens.Token) { t.ExpireTime = f.now })
	gone := f.token(u, "gone", revoked(f.now.Add(-time.Hour)))
	foreign := f.token(v, "foreign")
	r := tokens.Revocation{Time: f.now, By: "operator"}
	f.update(func(tx tokens.Tx) error {
		n, err := tx.RevokeTokens(u.Key, r)
		f.equal("revoked", len(n), 2)
		return err
	})
	one.Revocation, old.Revocation = &r, &r
	for _, want := range []tokens.Token{one, old, gone, foreign} {
		f.equal(want.Name, f.read(want.ID), want)
	}
}

func testRotation(t *testing.T, f *fixture) {
	u := f.user("u")
	tok, other := f.token(u, "one"), f.token(u, "two")
	var all []tokens.Hash
	all = append(all, hash("k1", 1))
	for i := range 40 {
		h := hash("k1", uint64(100+i))
		f.update(func(tx tokens.Tx) error {
			return tx.ReplaceSecret(tok.ID, h,
				f.rotation(f.now.Add(time.Duration(i)*time.Minute)))
		})
		all = append(all, h)
	}
	got := f.lookup(tok.ID).Secrets
	if len(got) < 33 {
		t.Fatalf("%d secrets are remembered, want the current one and at least 32", len(got))
	}
	epoch := time.UnixMicro(0).UTC()
	for i, s := range got {
		want := tokens.StoredSecret{
			Hash:       all[len(all)-1-i],
			ExpireTime: epoch,
			EndTime:    f.now,
			Serial:     int64(len(all) - 1 - i),
		}
		switch i {
		case 0:
			want.ExpireTime, want.EndTime = time.Time{}, time.Time{}
		case 1:
			want.ExpireTime, want.EndTime = f.now.Add(39*time.Minute), time.Time{}
		}
		f.equal("a secret", s, want)
	}
	f.equal("the other token's secrets", len(f.lookup(other.ID).Secrets), 1)
	f.update(func(tx tokens.Tx) error { return tx.ReplaceSecret(other.ID, hash("k1", 200), f.rotation(time.Time{})) })
	if s := f.lookup(other.ID).Secrets; len(s) != 2 || s[1].ExpireTime.IsZero() {
		t.Error("a secret that was replaced at the zero time reads as current")
	}
}

func testRequests(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	r := tokens.Request{Key: tokens.RequestKey{1}, Fingerprint: [32]byte{2}, TokenID: tok.ID, Sealed: []byte("sealed"),
		ExpireTime: f.now.Add(time.Hour)}
	f.update(func(tx tokens.Tx) error { return tx.PutRequest(r, f.now) })
	read := func(at time.Time) (got tokens.Request, err error) {
		f.view(func(tx tokens.ReadTx) error {
			got, err = tx.Request(r.Key, at)
			return nil
		})
		return got, err
	}
	got, err := read(r.ExpireTime.Add(-time.Microsecond))
	if err != nil {
		t.Error(err)
	}
	f.equal("the request", got, r)
	_, err = read(r.ExpireTime)
	f.isNotFound("an expired request", err)
	next := r
	next.Fingerprint, next.ExpireTime = [32]byte{3}, r.ExpireTime.Add(time.Hour)
	f.update(func(tx tokens.Tx) error { return tx.PutRequest(next, r.ExpireTime) })
	got, err = read(r.ExpireTime)
	if err != nil {
		t.Error(err)
	}
	f.equal("the request that replaced it", got, next)
}

func testSealed(t *testing.T, f *fixture) {
	u := f.user("u")
	var toks []tokens.Token
	made := func(id tokens.ID, i int) {
		r := tokens.Request{Key: tokens.RequestKey{byte(i)}, TokenID: id, Sealed: []byte("sealed"),
			ExpireTime: f.now.Add(time.Hour)}
		f.update(func(tx tokens.Tx) error { return tx.PutRequest(r, f.now) })
	}
	for i := range 5 {
		toks = append(toks, f.token(u, name(i)))
		made(toks[i].ID, i)
	}
	svc := f.service("s")
	made(svc.ID, len(toks))
	sealed := func() (kept []int) {
		f.view(func(tx tokens.ReadTx) error {
			for i := range len(toks) + 1 {
				r, err := tx.Request(tokens.RequestKey{byte(i)}, f.now)
				if err != nil {
					return err
				}
				if r.Sealed != nil {
					kept = append(kept, i)
				}
			}
			return nil
		})
		return kept
	}
	f.update(func(tx tokens.Tx) error { return tx.ForgetSealed(toks[0].ID) })
	f.equal("sealed after forgetting one", sealed(), []int{1, 2, 3, 4, 5})
	f.update(func(tx tokens.Tx) error {
		revoked(f.now)(&toks[2])
		_, err := tx.RevokeTokens(u.Key, tokens.Revocation{Time: f.now})
		return errors.Join(
			tx.ReplaceSecret(toks[1].ID, hash("k1", 70), f.rotation(f.now)),
			tx.UpdateToken(toks[2]),
			err,
			tx.RevokeService(svc.ID, tokens.Revocation{Time: f.now}),
		)
	})
	f.equal("sealed as long as nobody says that they are to be forgotten", sealed(), []int{1, 2, 3, 4, 5})
	f.update(func(tx tokens.Tx) error { return tx.ForgetSealedOf(u.Key) })
	f.equal("sealed after forgetting a user's", sealed(), []int{5})
	f.update(func(tx tokens.Tx) error { return tx.ForgetSealed(svc.ID) })
	f.equal("sealed after forgetting a service's", sealed(), []int{})
}

func testUserDelete(t *testing.T, f *fixture) {
	u := f.user("u")
	tok := f.token(u, "one")
	r := tokens.Revocation{Time: f.now, By: "operator"}
	f.update(func(tx tokens.Tx) error {
		if _, err := tx.RevokeTokens(u.Key, r); err != nil {
			return err
		}
		gone := u
		gone.Features, gone.DeleteTime = nil, f.now
		return tx.UpdateUser(gone)
	})
	f.view(func(tx tokens.ReadTx) error {
		_, err := tx.User("u")
		f.isNotFound("a deleted user", err)
		list, err := tx.Users(tokens.UserQuery{Limit: 10})
		f.equal("users", list, []tokens.User{})
		return err
	})
	err := f.st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		u.DeleteTime = time.Time{}
		return f.events(tokens.Event{}), tx.UpdateUser(u)
	})
	f.isNotFound("undeleting a user", err)
	again := f.user("u")
	if again.Key == u.Key {
		t.Error("a user that came back has its old key")
	}
	f.token(again, "one")
	f.equal("tokens of the new user", f.tokens(tokens.TokenQuery{UserKey: again.Key}), []string{"one"})
	got := f.lookup(tok.ID)
	tok.Revocation = &r
	f.equal("the old token", got.Token, tok)
	f.equal("when its user was deleted", got.User.DeleteTime, f.now)
}

func testUsers(t *testing.T, f *fixture) {
	want := []string{"A", "B", "a", "aa", "b", "ä", "€", "𝄞"}
	for _, id := range []string{"b", "𝄞", "a", "ä", "B", "€", "aa", "A"} {
		f.user(id)
	}
	f.update(func(tx tokens.Tx) error {
		u, err := tx.User("a")
		if err != nil {
			return err
		}
		u.State, u.Features = tokens.UserSuspended, []string{"z"}
		return tx.UpdateUser(u)
	})
	list := func(q tokens.UserQuery) (ids []string) {
		f.view(func(tx tokens.ReadTx) error {
			users, err := tx.Users(q)
			for _, u := range users {
				ids = append(ids, u.ID)
			}
			return err
		})
		return ids
	}
	f.equal("users", list(tokens.UserQuery{Limit: 100}), want)
	f.equal("a page", list(tokens.UserQuery{After: "a", Limit: 2}), []string{"aa", "b"})
	f.equal("users by their beginning", list(tokens.UserQuery{Begins: "a", Limit: 100}), []string{"a", "aa"})
	f.equal("a page of them", list(tokens.UserQuery{Begins: "a", After: "a", Limit: 100}), []string{"aa"})
	f.equal("users of a beginning above", list(tokens.UserQuery{Begins: "b", After: "a", Limit: 100}), []string{"b"})
	f.equal("suspended users", list(tokens.UserQuery{State: tokens.UserSuspended, Limit: 100}), []string{"a"})
	f.equal("active users", len(list(tokens.UserQuery{State: tokens.UserActive, Limit: 100})), 7)
	f.view(func(tx tokens.ReadTx) error {
		u, err := tx.User("a")
		f.equal("features", u.Features, []string{"z"})
		return err
	})
}

func testServices(t *testing.T, f *fixture) {
	first := f.service("gateway")
	other := f.service("other")
	r := tokens.Revocation{Time: f.now, By: "operator", Reason: "old"}
	f.update(func(tx tokens.Tx) error { return tx.RevokeService(first.ID, r) })
	f.update(func(tx tokens.Tx) error {
		return tx.RevokeService(first.ID, tokens.Revocation{Time: f.now.Add(time.Hour), By: "x"})
	})
	first.Revocation = &r
	second := f.service("gateway")
	for i, want := range []tokens.ServiceAccount{first, other, second} {
		c, err := f.st.LookupService(f.ctx, want.ID)
		if err != nil {
			t.Fatal(err)
		}
		f.equal("a service", c, tokens.ServiceCredential{Service: want, Secret: tokens.StoredSecret{Hash: hash("k1",
			uint64(i+1))}})
	}
	rotated := second
	for n := range uint64(2) { // the first secret is gone after the second rotation
		rotated.Rotations, rotated.RotateTime = int64(n)+1, f.now.Add(time.Duration(n)*time.Hour)
		rotated.ExpireTime, rotated.PreviousUntil = rotated.RotateTime.Add(
			48*time.Hour,
		), rotated.RotateTime.Add(
			2*time.Hour,
		)
		f.update(func(tx tokens.Tx) error { return tx.ReplaceServiceSecret(rotated, hash("k1", 50+n)) },
			tokens.Event{Action: tokens.ActionServiceRotate, Service: rotated.Name, TokenID: rotated.ID})
		c, err := f.st.LookupService(f.ctx, rotated.ID)
		if err != nil {
			t.Fatal(err)
		}
		previous := hash("k1", 3)
		if n == 1 {
			previous = hash("k1", 50)
		}
		f.equal("a rotated service", c, tokens.ServiceCredential{
			Service: rotated, Secret: tokens.StoredSecret{Hash: hash("k1", 50+n), Serial: int64(n) + 1},
			Previous: &tokens.StoredSecret{Hash: previous, Serial: int64(n), ExpireTime: rotated.PreviousUntil},
		})
	}
	second = rotated
	f.view(func(tx tokens.ReadTx) error {
		s, err := tx.Service("gateway")
		f.equal("the newest of a name", s, second)
		if err != nil {
			return err
		}
		list, err := tx.Services(0, 2)
		f.equal("services, newest first", list, []tokens.ServiceAccount{second, other})
		if err != nil {
			return err
		}
		list, err = tx.Services(other.ID, 2)
		f.equal("the next page", list, []tokens.ServiceAccount{first})
		return err
	})
}

func testLargeIDs(t *testing.T, f *fixture) {
	u := f.user("u")
	for _, id := range []tokens.ID{1<<63 - 1, 1 << 63, 1<<64 - 1} {
		tok := f.token(u, id.String(), func(t *tokens.Token) { t.ID = id })
		f.equal("a token", f.lookup(id).Token, tok)
		if err := f.rename(f.st, tok, "renamed "+id.String()); err != nil {
			t.Error(err)
		}
		f.equal("its events", len(f.eventsOf(tokens.EventQuery{TokenID: id})), 2)
	}
}
