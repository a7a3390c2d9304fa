package storetest

import (
	"net/netip"
	"testing"
	"time"

	"patd/tokens"
)

// full makes a token have something in each of its fields.
func full(t *tokens.Token) {
	t.Description = "text"
	t.Labels = map[string]string{"team": "ops", "env": "test"}
	t.Scopes = []string{"a", "b", "c", "d", "e", "f", "g.read"}
	t.Audiences = []string{"https://api.example", "other"}
	t.CIDRs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	t.BlockedBy = "https://api.example\nother"
	t.Revocation = &tokens.Revocation{Time: t.IssueTime.Add(time.Minute), By: "operator", Reason: "lost"}
}

// testRepeatedLookup is for a store that remembers: the second lookup returns what the first one read.
func testRepeatedLookup(t *testing.T, f *fixture) {
	u := f.user("u")
	for what, tok := range map[string]tokens.Token{
		"plain":   f.token(u, "plain"),
		"full":    f.token(u, "full", full),
		"no end":  f.token(u, "no end", func(t *tokens.Token) { t.ExpireTime = time.Time{} }),
		"rotated": f.token(u, "rotated", full),
	} {
		if what == "rotated" {
			for i := range 3 {
				f.update(func(tx tokens.Tx) error {
					return tx.ReplaceSecret(
						tok.ID,
						hash("k1", uint64(500+i)),
						f.rotation(f.now.Add(time.Duration(i)*time.Hour)),
					)
				})
			}
		}
		f.st.RecordUse(tokens.Usage{ID: tok.ID, Use: tokens.Use{Time: f.now, IP: netip.MustParseAddr("2001:db8::7")}})
		f.flush()
		first := f.lookup(tok.ID)
		tok.LastUsed = first.Token.LastUsed
		f.equal(what, first.Token, tok)
		for range 3 {
			again := f.lookup(tok.ID)
			f.equal(what+", again", again, first)
			_ = append(again.Token.Scopes, "more") // must not reach what others are answered
			_ = append(again.Secrets, tokens.StoredSecret{})
		}
	}
	service := f.service("gateway")
	for range 3 {
		c, err := f.st.LookupService(f.ctx, service.ID)
		if err != nil {
			t.Fatal(err)
		}
		f.equal("a service", c.Service, service)
		_, err = f.st.LookupService(f.ctx, service.ID+1)
		f.isNotFound("a service", err)
		_, err = f.st.Lookup(f.ctx, service.ID)
		f.isNotFound("a token", err)
	}
}

// testEveryChangeIsSeen changes everything that an answer about a token rests on, after it was looked up.
func testEveryChangeIsSeen(t *testing.T, f *fixture) {
	u := f.user("u")
	tok, other, svc := f.token(u, "one"), f.token(u, "two"), f.service("gateway")
	want := f.lookup(tok.ID)
	f.lookup(other.ID)
	look := func(what string) {
		t.Helper()
		for range 2 {
			got := f.lookup(tok.ID)
			if got.Sequence < want.Sequence {
				t.Errorf("%s: the sequence went from %d to %d", what, want.Sequence, got.Sequence)
			}
			want.Sequence = got.Sequence
			f.equal(what, got, want)
		}
	}
	look("unchanged")
	user := func(what string, change func()) {
		t.Helper()
		change()
		f.update(func(tx tokens.Tx) error { return tx.UpdateUser(want.User) }, tokens.Event{User: u.ID,
			Action: tokens.ActionUserFeatures})
		look(what)
		f.equal("the user of another token, "+what, f.lookup(other.ID).User, want.User)
	}
	token := func(what string, change func()) {
		t.Helper()
		change()
		f.update(func(tx tokens.Tx) error { return tx.UpdateToken(want.Token) }, tokens.Event{User: u.ID,
			TokenID: tok.ID})
		look(what)
	}
	user("a feature is lost", func() { want.User.Features = []string{"a.read"} })
	user("suspended", func() { want.User.State = tokens.UserSuspended })
	user("resumed", func() { want.User.State = tokens.UserActive })
	token("narrowed", func() { want.Token.Scopes = []string{"a"} })
	token("blocked", func() { want.Token.BlockedBy = "x" })
	f.update(func(tx tokens.Tx) error {
		return tx.ReplaceSecret(tok.ID, hash("k1", 900), f.rotation(f.now.Add(time.Hour)))
	},
		tokens.Event{User: u.ID, TokenID: tok.ID, Action: tokens.ActionTokenRotate})
	old := want.Secrets[0]
	old.ExpireTime = f.now.Add(time.Hour)
	want.Secrets = []tokens.StoredSecret{{Hash: hash("k1", 900), Serial: old.Serial + 1}, old}
	look("rotated")
	token("revoked", func() { want.Token.Revocation = &tokens.Revocation{Time: f.now, By: "x"} })
	user("deleted", func() { want.User.DeleteTime, want.User.Features = f.now, nil })
	again := f.user("u")
	later := f.token(again, "one")
	f.equal("the user that came back", f.lookup(later.ID).User, again)
	look("its user came back")
	again.Features = []string{"z"}
	f.update(func(tx tokens.Tx) error { return tx.UpdateUser(again) }, tokens.Event{User: u.ID,
		Action: tokens.ActionUserFeatures})
	f.equal("the user that came back, changed", f.lookup(later.ID).User, again)
	look("its user's successor changed")

	for what, e := range map[string]tokens.Event{
		"by its name": {Service: svc.Name}, "by its id": {Service: svc.Name, TokenID: svc.ID},
	} {
		svc := f.service("gateway " + what)
		if _, err := f.st.LookupService(f.ctx, svc.ID); err != nil {
			t.Fatal(err)
		}
		if e.TokenID != 0 {
			e.TokenID = svc.ID
		}
		svc.Revocation = &tokens.Revocation{Time: f.now, By: "x"}
		f.update(func(tx tokens.Tx) error { return tx.RevokeService(svc.ID, *svc.Revocation) }, e)
		c, err := f.st.LookupService(f.ctx, svc.ID)
		if err != nil {
			t.Fatal(err)
		}
		f.equal("a service revoked "+what, c.Service, svc)
	}
}
