package store_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// desk is a token service on a store, without a cache, and a credential of each kind.
type desk struct {
	*tokens.Service
	t     testing.TB
	st    *store.Store
	clock *clock
	ring  *tokens.Keyring
	logs  *bytes.Buffer

	admin, gateway, mine tokens.Actor
	adminSecret          tokens.Secret
	gatewaySecret        tokens.Secret
	token, old           tokens.Secret // old was rotated away, and is in its grace
	access, refresh      tokens.Secret
	id, user             string
}

func parseRowKeys(t testing.TB, text string) *tokens.Keys {
	t.Helper()
	keys, err := secret.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// onBoth runs a test on a store in a file, and on one in PostgreSQL.
func onBoth(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, "sqlite:"+newPath(t))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		longtest.Slow(t)
		t.Parallel()
		test(t, newSchema(t, dbtest.SharedPostgres(t)))
	})
}

// newDesk opens a store with a key, and binds the two. Unless it is new its rows are not sealed.
func newDesk(t testing.TB, url, keys string, isNew bool) *desk {
	t.Helper()
	d := &desk{
		t:     t,
		clock: newClock(),
		ring:  secret.NewKeyring(parseRowKeys(t, keys)),
		logs:  &bytes.Buffer{},
		user:  "u1",
	}
	d.st = openURL(t, url, store.Options{
		Connections: 2, FlushInterval: time.Hour, Now: d.clock.now, Logger: slog.New(slog.NewTextHandler(d.logs, nil)),
	})
	if !isNew {
		ks := d.ring.Get()
		check, _ := ks.Check("k1")
		err := d.st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
			err := tx.PutKey(tokens.KeyRecord{Name: "k1", Check: check, CreateTime: d.clock.now()})
			return []tokens.Event{
				{Time: d.clock.now(), Actor: "operator", Action: tokens.ActionKeyAdd, Outcome: tokens.OutcomeSuccess},
			}, err
		})
		d.must(err)
	}
	d.bind(d.ring.Get())
	return d
}

// RevokeSecret revokes what a live secret belongs to.
func (d *desk) RevokeSecret(ctx context.Context, a tokens.Actor, text tokens.Secret) error {
	found, err := d.FindSecret(ctx, text)
	if err != nil {
		return err
	}
	return found.Revoke(ctx, a)
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) bind(ks *tokens.Keys) {
	d.t.Helper()
	ctx := context.Background()
	prefixes, err := tokens.BindKeys(ctx, d.st, ks, "", d.clock.now())
	d.must(err)
	d.ring.Set(ks)
	d.Service, err = tokens.NewService(tokens.Config{Store: d.st, Keys: d.ring, Prefixes: prefixes, Now: d.clock.now,
		Policy: tokens.Policy{AllowNever: true}})
	d.must(err)
}

// furnish makes a credential of each kind.
func (d *desk) furnish() {
	d.t.Helper()
	ctx := context.Background()
	made, err := d.CreateService(
		ctx,
		tokens.Operator(),
		tokens.ServiceRequest{Name: "admin", Permissions: []string{"admin"}},
	)
	d.must(err)
	d.adminSecret = made.Secret
	d.admin, err = d.Authenticate(ctx, made.Secret, tokens.Peer{})
	d.must(err)
	if made, err = d.CreateService(
		ctx,
		d.admin,
		tokens.ServiceRequest{Name: "gateway", Permissions: []string{"introspect"}},
	); err != nil {
		d.t.Fatal(err)
	}
	d.gatewaySecret = made.Secret
	d.gateway, err = d.Authenticate(ctx, made.Secret, tokens.Peer{})
	d.must(err)
	_, err = d.SetUserFeatures(ctx, d.admin, d.user, []string{"a", "b"})
	d.must(err)
	_, err = d.CreateAudience(ctx, d.admin, tokens.AudienceEntry{ID: "api", AllowOffline: true, AccessTTL: time.Hour,
		AccessFormat: tokens.AccessOpaque})
	d.must(err)
	m, err := d.Mint(
		ctx,
		d.admin,
		tokens.MintRequest{User: d.user, Name: "n", Scopes: []string{"a"}, Audiences: []string{"api"},
			CIDRs: []string{"192.0.2.0/24"}, Labels: map[string]string{"team": "x"}},
	)
	d.must(err)
	d.id, d.old = m.Token.ID.String(), m.Secret
	grace := time.Hour
	r, err := d.Rotate(ctx, d.admin, tokens.RotateRequest{User: d.user, TokenID: d.id, Grace: &grace})
	d.must(err)
	d.token = r.Secret
	g, err := d.Exchange(ctx, tokens.ExchangeRequest{Subject: d.token, Peer: fromHome, Offline: true})
	d.must(err)
	d.access, d.refresh = g.Access, g.Refresh
	_, err = d.CreateWebhook(
		ctx,
		d.admin,
		tokens.WebhookRequest{ID: "hook", URL: "https://hooks.example.com/a", Enabled: true},
	)
	d.must(err)
	_, err = d.ProvisionUser(ctx, d.admin, tokens.Provision{ID: "p1", User: d.user, UserName: "u@example.com"})
	d.must(err)
	if d.mine, err = d.Authenticate(ctx, d.token, fromHome); err != nil {
		d.t.Fatal(err)
	}
}

var fromHome = tokens.Peer{IP: netip.MustParseAddr("192.0.2.7")}

// own returns the URL of another new store of the same kind.
func own(t testing.TB, url string) string {
	if store.IsPostgres(url) {
		return newSchema(t, dbtest.SharedPostgres(t))
	}
	return "sqlite:" + newPath(t)
}
