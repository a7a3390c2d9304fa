package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"patd/tokens"
)

// provision adds what a provider knows of a user, and returns it as it is read.
func (f *fixture) provision(u tokens.User, name string, change ...func(*tokens.Provisioned)) tokens.Provisioned {
	f.t.Helper()
	p := tokens.Provisioned{
		ID: "id-" + name, UserKey: u.Key, User: u.ID, State: tokens.UserActive, UserName: name,
		CreateTime: f.now, UpdateTime: f.now,
	}
	for _, c := range change {
		c(&p)
	}
	f.changeUser(u.ID, func(tx tokens.Tx) error { return tx.InsertProvisioned(p) })
	return p
}

// changeUser changes something of a user.
func (f *fixture) changeUser(user string, change func(tokens.Tx) error) {
	f.t.Helper()
	f.update(change, tokens.Event{User: user, Action: tokens.ActionUserProvision})
}

// provisioned lists the users that a query selects.
func (f *fixture) provisioned(q tokens.ProvisionedQuery) (list []tokens.Provisioned) {
	f.t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	f.view(func(tx tokens.ReadTx) (err error) {
		list, err = tx.ProvisionedUsers(q)
		if err != nil {
			return err
		}
		n, err := tx.CountProvisioned(q)
		if q.Offset == 0 && n != int64(len(list)) {
			f.t.Errorf("%+v: %d are counted, and %d listed", q, n, len(list))
		}
		return err
	})
	return list
}

func testProvisioned(t *testing.T, f *fixture) {
	alice, bob := f.user("alice"), f.user("bob")
	full := f.provision(alice, "Alice@Example.com", func(p *tokens.Provisioned) {
		p.ExternalID, p.DisplayName, p.Inactive, p.UpdateTime = "00u1", "Alice Ångström", true, f.now.Add(time.Second)
	})
	bare := f.provision(bob, "bob")
	for name, c := range map[string]struct {
		q    tokens.ProvisionedQuery
		want []tokens.Provisioned
	}{
		"all":            {tokens.ProvisionedQuery{}, []tokens.Provisioned{full, bare}},
		"by name":        {tokens.ProvisionedQuery{UserNameKey: tokens.UserNameKey("ALICE@EXAMPLE.COM")}, []tokens.Provisioned{full}},
		"by external id": {tokens.ProvisionedQuery{ExternalID: "00u1"}, []tokens.Provisioned{full}},
		"in its case":    {tokens.ProvisionedQuery{ExternalID: "00U1"}, []tokens.Provisioned{}},
		"by id":          {tokens.ProvisionedQuery{ID: bare.ID}, []tokens.Provisioned{bare}},
		"by all":         {tokens.ProvisionedQuery{ID: full.ID, UserNameKey: "bob"}, []tokens.Provisioned{}},
	} {
		f.equal(name, f.provisioned(c.q), c.want)
	}
	taken := map[string]tokens.Provisioned{
		"the same user": {ID: "x", UserKey: bob.Key, UserName: "x"},
		"the same name": {ID: "x", UserKey: f.user("carol").Key, UserName: "BOB"},
		"the same id":   {ID: bare.ID, UserKey: f.user("dave").Key, UserName: "x"},
	}
	f.changeUser("bob", func(tx tokens.Tx) error {
		for name, p := range taken {
			if err := tx.InsertProvisioned(p); !errors.Is(err, tokens.ErrTaken) {
				t.Errorf("%s: %v", name, err)
			}
		}
		bare.UserName = "alice@example.COM"
		if err := tx.UpdateProvisioned(bare); !errors.Is(err, tokens.ErrTaken) {
			t.Errorf("another's name: %v", err)
		}
		if err := tx.UpdateProvisioned(tokens.Provisioned{UserKey: 1 << 40}); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("no such record: %v", err)
		}
		bare.UserName, bare.ExternalID, bare.DisplayName, bare.Inactive = "Bob", "e", "d", true
		bare.UpdateTime = f.now.Add(time.Hour)
		return tx.UpdateProvisioned(bare)
	})
	f.equal("after a change", f.provisioned(tokens.ProvisionedQuery{}), []tokens.Provisioned{full, bare})

	// The state is the user's; a deleted one, whose record an earlier program leaves, is none, and its name is free.
	alice.State = tokens.UserSuspended
	f.changeUser("alice", func(tx tokens.Tx) error { return tx.UpdateUser(alice) })
	full.State = tokens.UserSuspended
	bob.DeleteTime = f.now
	f.changeUser("bob", func(tx tokens.Tx) error { return tx.UpdateUser(bob) })
	f.equal("after a deletion", f.provisioned(tokens.ProvisionedQuery{}), []tokens.Provisioned{full})
	again := f.provision(f.user("bob"), "bob")
	f.equal("a user again", f.provisioned(tokens.ProvisionedQuery{UserNameKey: "bob"}), []tokens.Provisioned{again})
	f.changeUser("bob", func(tx tokens.Tx) error { return tx.DeleteProvisioned(again.UserKey) })
	f.view(func(tx tokens.ReadTx) error {
		if _, err := tx.Provisioned(again.ID); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("a record that was removed: %v", err)
		}
		return nil
	})
}

func testProvisionedPages(_ *testing.T, f *fixture) {
	var all []string
	for i := range 5 {
		name := fmt.Sprintf("u%d", 4-i) // in the order in which they became known, not that of their names
		f.provision(f.user(name), name)
		all = append(all, name)
	}
	for offset := range 6 {
		var got []string
		for _, p := range f.provisioned(tokens.ProvisionedQuery{Offset: offset, Limit: 5}) {
			got = append(got, p.UserName)
		}
		f.equal(fmt.Sprint("from ", offset), append([]string{}, got...), append([]string{}, all[offset:]...))
	}
}

func testSecurityEvents(t *testing.T, f *fixture) {
	f.changeUser("u", func(tx tokens.Tx) error {
		if err := tx.RememberSecurityEvent([32]byte{1}, f.now); err != nil {
			return err
		}
		if err := tx.RememberSecurityEvent([32]byte{1}, f.now); !errors.Is(err, tokens.ErrTaken) {
			t.Errorf("the same event in one transaction: %v", err)
		}
		return tx.RememberSecurityEvent([32]byte{2}, f.now)
	})
	f.changeUser("u", func(tx tokens.Tx) error {
		if err := tx.RememberSecurityEvent([32]byte{2}, f.now); !errors.Is(err, tokens.ErrTaken) {
			t.Errorf("the same event in another transaction: %v", err)
		}
		return tx.RememberSecurityEvent([32]byte{3}, f.now)
	})
}
