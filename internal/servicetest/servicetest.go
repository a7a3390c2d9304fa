// Package servicetest makes the domain of patd for tests: a tokens.Service on a real store in a file of SQLite, on a
// clock that the test has.
package servicetest

import (
	"context"
	"time"

	"patd/internal/dbtest"
	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// KeyLine is the key of services that are given none, as a line of a key file.
const KeyLine = "k1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// TB is what it needs of testing.TB, and rapid.T has too.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Options are the choices of a test.
type Options struct {
	// File is the path of the store. A store that is there already is opened again.
	File string
	// Keys are the key ring; nil: one of KeyLine.
	Keys *tokens.Keyring
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Feed has the service follow the store's changes.
	Feed bool
	// Between returns what stands between the service and its store; nil: nothing does.
	Between func(*store.Store) tokens.Store
	// Change changes the service's configuration; nil: nothing does.
	Change func(*tokens.Config)
}

// Made is a service and what it stands on.
type Made struct {
	*tokens.Service
	Store *store.Store
	Keys  *tokens.Keyring
	File  string // of the store
}

// New makes a service. Its store is closed with the test, and does not sync: what a test commits need not outlive the
// machine.
func New(tb TB, o Options) *Made {
	tb.Helper()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Keys == nil {
		keys, err := secret.ParseKeys(KeyLine)
		if err != nil {
			tb.Fatalf("keys for a test: %v", err)
		}
		o.Keys = secret.NewKeyring(keys)
	}
	ctx := context.Background()
	m := &Made{Keys: o.Keys, File: o.File}
	url, err := dbtest.SQLite(o.File)
	if err != nil {
		tb.Fatalf("make a store: %v", err)
	}
	if m.Store, err = store.Open(ctx, url, store.Options{Now: o.Now, NoSync: true}); err != nil {
		tb.Fatalf("open the store: %v", err)
	}
	tb.Cleanup(func() {
		if err := m.Store.Close(); err != nil {
			tb.Errorf("close the store: %v", err)
		}
	})
	prefixes, err := tokens.BindKeys(ctx, m.Store, m.Keys.Get(), "", o.Now())
	if err != nil {
		tb.Fatalf("bind the keys to the store: %v", err)
	}
	c := tokens.Config{Store: m.Store, Keys: m.Keys, Prefixes: prefixes, Now: o.Now}
	if o.Feed {
		c.Changes = m.Store.Feed()
	}
	if o.Between != nil {
		c.Store = o.Between(m.Store)
	}
	if o.Change != nil {
		o.Change(&c)
	}
	if m.Service, err = tokens.NewService(c); err != nil {
		tb.Fatalf("make a service: %v", err)
	}
	return m
}

// ServiceAccount makes a service account and returns its secret.
func (m *Made) ServiceAccount(tb TB, name string, permissions ...string) string {
	tb.Helper()
	made, err := m.CreateService(
		context.Background(), tokens.Operator(), tokens.ServiceRequest{Name: name, Permissions: permissions})
	if err != nil {
		tb.Fatalf("make the service account %s: %v", name, err)
	}
	return made.Secret.Reveal()
}
