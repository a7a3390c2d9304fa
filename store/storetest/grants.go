package storetest

import (
	"testing"
	"time"

	"patd/tokens"
	"patd/tokens/secret"
)

// access inserts an access token; with may change it before.
func (f *fixture) access(of tokens.Token, with ...func(*tokens.AccessToken)) tokens.AccessToken {
	f.t.Helper()
	a := tokens.AccessToken{ID: f.nextID(), TokenID: of.ID, Scopes: []string{"a.read"}, IssueTime: f.now,
		ExpireTime: f.now.Add(time.Minute)}
	for _, w := range with {
		w(&a)
	}
	n := f.n
	f.update(func(tx tokens.Tx) error { return tx.InsertAccess(a, hash("k1", n)) }, tokens.Event{TokenID: of.ID,
		Action: tokens.ActionTokenExchange})
	return a
}

// family inserts a family with one refresh token; with may change it before.
func (f *fixture) family(of tokens.Token, with ...func(*tokens.Family)) (tokens.Family, tokens.RefreshToken) {
	f.t.Helper()
	fam := tokens.Family{
		ID: f.nextID(), TokenID: of.ID, Client: tokens.Client{ID: "app", Authenticated: true},
		Scopes:    []string{"a.read", "b.write"},
		Audiences: []string{"api", "other"}, IssueTime: f.now, ExpireTime: f.now.Add(time.Hour),
	}
	for _, w := range with {
		w(&fam)
	}
	f.update(func(tx tokens.Tx) error { return tx.InsertFamily(fam) }, tokens.Event{TokenID: of.ID,
		Action: tokens.ActionTokenExchange})
	return fam, f.refresh(fam)
}

func (f *fixture) refresh(fam tokens.Family) tokens.RefreshToken {
	f.t.Helper()
	r := tokens.RefreshToken{ID: f.nextID(), Family: fam, Hash: hash("k1", f.n), IssueTime: f.now}
	f.update(func(tx tokens.Tx) error { return tx.InsertRefresh(r, r.Hash) }, tokens.Event{TokenID: fam.TokenID,
		Action: tokens.ActionTokenExchange})
	return r
}

func (f *fixture) readAccess(id tokens.ID) (a tokens.AccessToken) {
	f.t.Helper()
	f.view(func(tx tokens.ReadTx) (err error) {
		a, err = tx.AccessToken(id)
		return err
	})
	return a
}

func (f *fixture) readRefresh(id tokens.ID) (r tokens.RefreshToken) {
	f.t.Helper()
	f.view(func(tx tokens.ReadTx) (err error) {
		r, err = tx.RefreshToken(id)
		return err
	})
	return r
}

func testAccess(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	plain := f.access(tok)
	n := f.n
	fam, _ := f.family(tok)
	full := f.access(tok, func(a *tokens.AccessToken) {
		a.Serial, a.Family, a.ClientID = 3, fam.ID, "an app"
		a.Scopes, a.Audiences = []string{"a.read", "b.write"}, []string{"api", "other"}
	})
	for _, want := range []tokens.AccessToken{plain, full} {
		got, err := f.st.LookupAccess(f.ctx, want.ID)
		if err != nil {
			t.Fatal(err)
		}
		f.equal("an access token", got.Access, want)
		f.equal("the same, read", f.readAccess(want.ID), want)
		if got.Sequence == 0 {
			t.Error("no position in the change feed")
		}
	}
	got, err := f.st.LookupAccess(f.ctx, plain.ID)
	f.equal("its digest", got.Hash, hash("k1", n))
	if err != nil {
		t.Error(err)
	}
	_, err = f.st.LookupAccess(f.ctx, tok.ID)
	f.isNotFound("an unknown access token", err)
	f.view(func(tx tokens.ReadTx) error {
		_, err := tx.AccessToken(tok.ID)
		f.isNotFound("an unknown access token, read", err)
		_, err = tx.RefreshToken(tok.ID)
		f.isNotFound("an unknown refresh token", err)
		return nil
	})
	f.update(func(tx tokens.Tx) error {
		f.isTaken("an access token's id", tx.InsertAccess(plain, hash("k1", 80)))
		f.isTaken("a family's id", tx.InsertFamily(fam))
		return nil
	})
}

func testAccessRevocation(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	a, other := f.access(tok), f.access(tok)
	first, second := tokens.Revocation{Time: f.now, By: "operator", Reason: "LEAKED"},
		tokens.Revocation{Time: f.now.Add(1), By: "nobody"}
	var done []bool
	f.update(func(tx tokens.Tx) error {
		for _, c := range []struct {
			id tokens.ID
			r  tokens.Revocation
		}{{a.ID, first}, {a.ID, second}, {tok.ID, first}} {
			ok, err := tx.RevokeAccess(c.id, c.r)
			if err != nil {
				return err
			}
			done = append(done, ok)
		}
		return nil
	})
	f.equal("what was revoked: the first, again, an unknown one", done, []bool{true, false, false})
	a.Revocation = &first
	f.equal("the revoked one", f.readAccess(a.ID), a)
	got, err := f.st.LookupAccess(f.ctx, a.ID)
	f.equal("the revoked one, looked up", got.Access, a)
	f.equal("the other", f.readAccess(other.ID), other)
	if err != nil {
		t.Error(err)
	}
}

func testFamilies(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	fam, first := f.family(tok)
	endless, r := f.family(tok, func(g *tokens.Family) {
		g.Client, g.ExpireTime, g.Serial, g.Audiences = tokens.Client{}, time.Time{}, 7, []string{"api"}
	})
	f.equal("a refresh token", f.readRefresh(first.ID), first)
	f.equal("one of a family without end", f.readRefresh(r.ID), r)
	use := func(id tokens.ID) error {
		return f.st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
			return f.events(tokens.Event{TokenID: tok.ID}), tx.UseRefresh(id, f.now)
		})
	}
	if err := use(first.ID); err != nil {
		t.Fatal(err)
	}
	f.isNotFound("using it again", use(first.ID))
	f.isNotFound("using an unknown one", use(tok.ID))
	first.UseTime = f.now
	second := f.refresh(fam)
	f.equal("the used one is remembered", f.readRefresh(first.ID), first)
	f.equal("the next one", f.readRefresh(second.ID), second)

	of := func(a *tokens.AccessToken) { a.Family = fam.ID }
	live, expired, alone := f.access(tok, of), f.access(tok, of, func(a *tokens.AccessToken) { a.ExpireTime = f.now }),
		f.access(tok)
	before := f.access(tok, of)
	earlier, why := tokens.Revocation{Time: f.now, By: "x"}, tokens.Revocation{Time: f.now.Add(time.Second), By: "y",
		Reason: "reused"}
	f.update(func(tx tokens.Tx) error {
		_, err := tx.RevokeAccess(before.ID, earlier)
		return err
	})
	var done []bool
	f.update(func(tx tokens.Tx) error {
		for _, id := range []tokens.ID{fam.ID, fam.ID, tok.ID} {
			ok, err := tx.RevokeFamily(id, why)
			if err != nil {
				return err
			}
			done = append(done, ok)
		}
		return nil
	})
	f.equal("what was revoked: the family, again, an unknown one", done, []bool{true, false, false})
	live.Revocation, expired.Revocation, before.Revocation = &why, &why, &earlier
	for _, want := range []tokens.AccessToken{live, expired, before, alone} {
		f.equal("an access token after the family's end", f.readAccess(want.ID), want)
	}
	f.equal("the family", f.readRefresh(second.ID).Family.Revocation, &why)
	f.equal("another family", f.readRefresh(r.ID).Family, endless)
}

func testCountGrants(_ *testing.T, f *fixture) {
	u := f.user("u")
	tok, other := f.token(u, "one"), f.token(u, "two")
	serial := func(n int64) func(*tokens.AccessToken) { return func(a *tokens.AccessToken) { a.Serial = n } }
	f.access(tok, serial(1))
	f.access(tok, serial(2))
	f.access(tok, serial(2), func(a *tokens.AccessToken) { a.ExpireTime = f.now })
	f.access(tok, serial(2), func(a *tokens.AccessToken) { a.Revocation = &tokens.Revocation{Time: f.now, By: "x"} })
	f.access(other)
	f.family(tok, func(g *tokens.Family) { g.Serial = 1 })
	f.family(tok, func(g *tokens.Family) { g.Serial, g.ExpireTime = 2, time.Time{} })
	f.family(tok, func(g *tokens.Family) { g.Serial, g.ExpireTime = 2, f.now })
	for from, want := range map[int64]tokens.GrantCount{0: {Access: 2, Families: 2}, 2: {Access: 1, Families: 1},
		3: {}} {
		f.view(func(tx tokens.ReadTx) error {
			got, err := tx.CountGrants(tok.ID, from, f.now)
			f.equal("what came of a token", got, want)
			return err
		})
	}
}

func testGrantKeyUse(t *testing.T, f *fixture) {
	secondKey(f)
	use := func() int64 {
		var n map[string]int64
		f.view(func(tx tokens.ReadTx) (err error) {
			n, err = tx.KeyUse(f.now)
			return err
		})
		return n["k1"]
	}
	tok := f.token(f.user("u"), "one")
	f.equal("of a token alone", use(), int64(1))
	a := f.access(tok)
	fam, first := f.family(tok)
	f.access(tok, func(a *tokens.AccessToken) { a.ExpireTime = f.now })
	f.equal("with an access token and a family", use(), int64(3))
	f.update(func(tx tokens.Tx) error { return tx.UseRefresh(first.ID, f.now) })
	f.equal("with a used refresh token", use(), int64(2))
	second := f.refresh(fam)
	rekey := func(id tokens.ID, kind tokens.Kind, from, to tokens.Hash) {
		f.st.RecordUse(tokens.Usage{ID: id, Kind: kind, Rekey: &tokens.Rekey{Old: from, New: to}})
	}
	got, err := f.st.LookupAccess(f.ctx, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	rekey(a.ID, secret.KindAccess, hash("k1", 4711), hash("k2", 1)) // another digest
	rekey(a.ID, secret.KindRefresh, got.Hash, hash("k2", 2))        // another kind
	f.flush()
	f.equal("after rekeyings of others", use(), int64(3))
	rekey(a.ID, secret.KindAccess, got.Hash, hash("k2", 3))
	rekey(second.ID, secret.KindRefresh, second.Hash, hash("k2", 4))
	f.flush()
	f.equal("after their rekeying", use(), int64(1))
	f.equal("a refresh token's digest", f.readRefresh(second.ID).Hash, hash("k2", 4))
	got, err = f.st.LookupAccess(f.ctx, a.ID)
	f.equal("an access token's digest", got.Hash, hash("k2", 3))
	if err != nil {
		t.Error(err)
	}
}

func testKeyUseFollowsTheSecret(_ *testing.T, f *fixture) {
	secondKey(f)
	use := func() int64 {
		var n map[string]int64
		f.view(func(tx tokens.ReadTx) (err error) {
			n, err = tx.KeyUse(f.now)
			return err
		})
		return n["k1"]
	}
	tok := f.token(f.user("u"), "one")
	f.access(tok)
	f.family(tok)
	f.update(func(tx tokens.Tx) error {
		return tx.ReplaceSecret(tok.ID, hash("k2", 50), f.rotation(f.now.Add(time.Hour)))
	})
	f.equal("in the secret's grace: it, an access token, a refresh token", use(), int64(3))
	f.update(func(tx tokens.Tx) error {
		return tx.ReplaceSecret(tok.ID, hash("k2", 51), f.rotation(f.now.Add(time.Hour)))
	})
	f.equal("after the secret's end", use(), int64(0))
}

func testAudienceResources(_ *testing.T, f *fixture) {
	f.update(func(tx tokens.Tx) error {
		for id, resource := range map[string]string{"a": "https://api", "b": "https://api", "c": "https://api/",
			"d": ""} {
			e := tokens.AudienceEntry{ID: id, Resource: resource, AccessTTL: time.Hour,
				AccessFormat: tokens.AccessOpaque}
			if err := tx.InsertAudience(e); err != nil {
				return err
			}
		}
		return nil
	})
	for resource, want := range map[string][]string{"https://api": {"a", "b", "c"}, "HTTPS://API:443/": {"a", "b",
		"c"}, "https://api/x": nil} {
		f.view(func(tx tokens.ReadTx) error {
			list, err := tx.Audiences(tokens.AudienceQuery{Resource: resource, Limit: 10})
			var ids []string
			for _, e := range list {
				ids = append(ids, e.ID)
			}
			f.equal("audiences of "+resource, ids, want)
			return err
		})
	}
}
