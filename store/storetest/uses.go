package storetest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"patd/tokens"
	"patd/tokens/secret"
)

func testUse(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	first := tokens.Use{Time: f.now, IP: netip.MustParseAddr("192.0.2.1")}
	later := tokens.Use{Time: f.now.Add(time.Second), IP: netip.MustParseAddr("2001:db8::1")}
	touch := func(id tokens.ID, uses ...tokens.Use) {
		for _, u := range uses {
			f.st.RecordUse(tokens.Usage{ID: id, Use: u})
		}
		f.flush()
	}
	touch(tok.ID, first)
	f.equal("after a use", f.read(tok.ID).LastUsed, first)
	touch(tok.ID, later, first)
	f.equal("after uses out of order", f.read(tok.ID).LastUsed, later)
	touch(tok.ID, first)
	f.equal("after an older use", f.read(tok.ID).LastUsed, later)
	noIP := tokens.Use{Time: f.now.Add(2 * time.Second)}
	touch(tok.ID, noIP)
	f.equal("after a use from somewhere", f.read(tok.ID).LastUsed, noIP)
	touch(4711, first) // an unknown id is no harm
	svc := f.service("gateway")
	f.st.RecordUse(tokens.Usage{ID: svc.ID, Kind: secret.KindService, Use: later})
	f.st.RecordUse(tokens.Usage{ID: tok.ID})
	f.flush()
	before := f.lookup(tok.ID)
	f.update(func(tx tokens.Tx) error {
		revoked := before.Token
		revoked.Revocation = &tokens.Revocation{Time: f.now, By: "x"}
		return tx.UpdateToken(revoked)
	})
	last := tokens.Use{Time: f.now.Add(time.Minute)}
	touch(tok.ID, last) // its use came before the revocation did
	f.equal("after a use of a revoked token", f.read(tok.ID).LastUsed, last)
}

// testUseDetails has more tokens than one statement writes, and some that have details already.
func testUseDetails(t *testing.T, f *fixture) {
	u := f.user("u")
	ids := make([]tokens.ID, 53)
	for i := range ids {
		ids[i] = f.token(u, fmt.Sprint("token ", i)).ID
	}
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	use := func(id tokens.ID, at time.Time, from netip.Addr, service string, scopes ...string) {
		f.st.RecordUse(tokens.Usage{ID: id, Use: tokens.Use{Time: at, IP: from}, Service: service, Scopes: scopes})
	}
	later := f.now.Add(24 * time.Hour)
	for i, id := range ids {
		use(id, f.now, v4, "gateway", "a", "b")
		use(id, f.now, netip.Addr{}, "gateway")
		if i%2 == 0 {
			f.flush()
		}
		use(id, later, v6, "reports", "b")
	}
	f.flush()
	var got map[tokens.ID]tokens.ScopeUses
	f.view(func(tx tokens.ReadTx) (err error) {
		got, err = tx.ScopeUses(append(slices.Clone(ids), 4711))
		return err
	})
	first, second := f.now.Truncate(24*time.Hour), later.Truncate(24*time.Hour)
	want := tokens.ScopeUses{
		Scopes:   []tokens.ScopeUse{{Scope: "a", Day: first, Count: 1}, {Scope: "b", Day: second, Count: 2}},
		Unscoped: tokens.ScopeUse{Day: first, Count: 1},
		Sources: []tokens.UseSource{
			{IP: v6, Service: "reports", Time: later},
			{IP: v4, Service: "gateway", Time: f.now},
			{Service: "gateway", Time: f.now},
		},
	}
	for i, id := range ids {
		one := got[id]
		slices.SortFunc(one.Sources, func(a, b tokens.UseSource) int {
			return cmp.Or(b.Time.Compare(a.Time), b.IP.Compare(a.IP))
		})
		f.equal(fmt.Sprint("details of token ", i), one, want)
	}
	f.equal("how many have details", len(got), len(ids))
}

func testRekey(t *testing.T, f *fixture) {
	secondKey(f)
	u := f.user("u")
	tok, other, svc := f.token(u, "one"), f.token(u, "two"), f.service("gateway")
	f.update(func(tx tokens.Tx) error {
		return tx.ReplaceSecret(tok.ID, hash("k1", 50), f.rotation(f.now.Add(time.Hour)))
	})
	rekey := func(id tokens.ID, kind tokens.Kind, from, to tokens.Hash) {
		f.st.RecordUse(tokens.Usage{ID: id, Kind: kind, Rekey: &tokens.Rekey{Old: from, New: to}})
	}
	hashes := func(id tokens.ID) (list []tokens.Hash) {
		for _, s := range f.lookup(id).Secrets {
			list = append(list, s.Hash)
		}
		return list
	}
	rekey(tok.ID, secret.KindPersonal, hash("k1", 50), hash("k2", 150)) // the current secret
	rekey(tok.ID, secret.KindPersonal, hash("k1", 1), hash("k2", 101))  // the one in its grace
	rekey(other.ID, secret.KindPersonal, hash("k1", 77), hash("k2", 177))
	rekey(other.ID, secret.KindPersonal, hash("k2", 2), hash("k2", 102))
	rekey(other.ID, secret.KindPersonal, hash("k1", 2), hash("unknown", 102))
	rekey(svc.ID, secret.KindService, hash("k1", 3), hash("k2", 103))
	rekey(svc.ID, secret.KindPersonal, hash("k1", 3), hash("k2", 203))
	f.flush()
	f.equal("a token's digests", hashes(tok.ID), []tokens.Hash{hash("k2", 150), hash("k2", 101)})
	f.equal("a digest that is another", hashes(other.ID), []tokens.Hash{hash("k1", 2)})
	got, err := f.st.LookupService(f.ctx, svc.ID)
	if err != nil {
		t.Fatal(err)
	}
	f.equal("a service's digest", got.Secret.Hash, hash("k2", 103))
}
