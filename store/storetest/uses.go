package storetest

import (
	"net/netip"
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
