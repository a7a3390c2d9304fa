package storetest

import (
	"maps"
	"testing"
	"time"

	"patd/tokens"
)

func testKeys(t *testing.T, f *fixture) {
	k1 := tokens.KeyRecord{Name: "k1", Check: [32]byte{1}, CreateTime: f.now}
	k0 := tokens.KeyRecord{Name: "k0", Check: [32]byte{2}, CreateTime: f.now}
	f.update(func(tx tokens.Tx) error { return tx.PutKey(k0) })
	k1.RetireTime = f.now.Add(time.Minute)
	f.update(func(tx tokens.Tx) error { return tx.PutKey(k1) })
	f.update(func(tx tokens.Tx) error {
		if err := tx.PutKey(tokens.KeyRecord{Name: "k0", Check: [32]byte{9}, CreateTime: f.now}); err == nil {
			t.Error("another key passed under a known name")
		}
		return nil
	})
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.Keys()
		f.equal("keys", list, []tokens.KeyRecord{k1, k0})
		return err
	})
	f.update(func(tx tokens.Tx) error { return tx.PutPrefix("acme") })
	f.update(func(tx tokens.Tx) error { return tx.PutPrefix("acme") })
	f.equal("prefixes", f.prefixes(), []string{"acme"})
}

// testRetiredKey is what a server does that does not know of a key's end: it is refused, for nobody could check the
// secret later.
func testRetiredKey(t *testing.T, f *fixture) {
	u := f.user("u")
	tok := f.token(u, "kept")
	f.update(func(tx tokens.Tx) error {
		return tx.PutKey(tokens.KeyRecord{Name: "k9", Check: [32]byte{9}, CreateTime: f.now, RetireTime: f.now})
	})
	other := tok
	other.ID, other.Name = tok.ID+1, "late"
	for what, write := range map[string]func(tokens.Tx) error{
		"a mint":     func(tx tokens.Tx) error { return tx.InsertToken(other, hash("k9", 1)) },
		"a rotation": func(tx tokens.Tx) error { return tx.ReplaceSecret(tok.ID, hash("k9", 1), f.rotation(f.now)) },
		"a service": func(tx tokens.Tx) error {
			return tx.InsertService(tokens.ServiceAccount{ID: 5, Name: "s", Permissions: tokens.PermIntrospect,
				IssueTime: f.now}, hash("k9", 1))
		},
		"an access token": func(tx tokens.Tx) error {
			return tx.InsertAccess(tokens.AccessToken{ID: 6, TokenID: tok.ID, Scopes: tok.Scopes, IssueTime: f.now,
				ExpireTime: f.now.Add(time.Hour)}, hash("k9", 1))
		},
	} {
		err := f.st.Update(f.ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
			return f.events(tokens.Event{TokenID: tok.ID}), write(tx)
		})
		if err == nil {
			t.Errorf("%s under a retired key was written", what)
		}
	}
	f.equal("the token", f.read(tok.ID), tok)
}

// secondKey makes the store know k2.
func secondKey(f *fixture) {
	f.update(func(tx tokens.Tx) error {
		return tx.PutKey(tokens.KeyRecord{Name: "k2", Check: [32]byte{2}, CreateTime: f.now})
	})
}

func keyUse(f *fixture) (use map[string]int64) {
	f.view(func(tx tokens.ReadTx) (err error) {
		use, err = tx.KeyUse(f.now)
		maps.DeleteFunc(use, func(_ string, n int64) bool { return n == 0 })
		return err
	})
	return use
}

func testKeyUse(t *testing.T, f *fixture) {
	secondKey(f)
	u := f.user("u")
	rotated, ended := f.token(u, "rotated"), f.token(u, "ended")
	f.token(u, "revoked", revoked(f.now))
	f.token(u, "expired", func(t *tokens.Token) { t.ExpireTime = f.now })
	f.service("gateway")
	f.equal("live digests", keyUse(f), map[string]int64{"k1": 3})
	f.update(func(tx tokens.Tx) error {
		if err := tx.ReplaceSecret(ended.ID, hash("k2", 90), f.rotation(f.now)); err != nil {
			return err
		}
		return tx.ReplaceSecret(rotated.ID, hash("k2", 91), f.rotation(f.now.Add(time.Hour)))
	})
	f.equal("live digests after rotations", keyUse(f), map[string]int64{"k1": 2, "k2": 2})
}
