package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	rowKeyA = "k1:" + "abababababababababababababababababababababababababababababababab"
	rowKeyB = "k2:" + "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
	sealed  = "\n# rows sealed 23\n"
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

// probe presents a credential in one way, and reports whether it is active.
type probe struct {
	name string
	is   func(d *desk) (active bool, err error)
}

func introspects(what func(d *desk) tokens.Secret) func(d *desk) (bool, error) {
	return func(d *desk) (bool, error) {
		in, err := d.Introspect(
			context.Background(),
			d.gateway,
			tokens.IntrospectRequest{Secret: what(d), ClientIP: fromHome.IP},
		)
		return in.Decision.Active(), err
	}
}

func ofToken(d *desk) tokens.Secret  { return d.token }
func ofOld(d *desk) tokens.Secret    { return d.old }
func ofAccess(d *desk) tokens.Secret { return d.access }

func tokenProbes() []probe {
	ctx := context.Background()
	return []probe{
		{"Introspect", introspects(ofToken)},
		{"Introspect with the access token", introspects(ofAccess)},
		{"IntrospectEach", func(d *desk) (active bool, err error) {
			err = d.IntrospectEach(
				ctx,
				&d.gateway,
				[]tokens.IntrospectRequest{{}, {Secret: d.token, ClientIP: fromHome.IP}},
				func(in *tokens.Introspection) int { active = in.Decision.Active(); return 0 },
			)
			return err == nil && active, err
		}},
		{"Authenticate", func(d *desk) (bool, error) {
			_, err := d.Authenticate(ctx, d.token, fromHome)
			return err == nil, err
		}},
		{"Self", func(d *desk) (bool, error) {
			_, err := d.Self(ctx, d.mine)
			return err == nil, err
		}},
		{"Exchange", func(d *desk) (bool, error) {
			_, err := d.Exchange(ctx, tokens.ExchangeRequest{Subject: d.token, Peer: fromHome})
			return err == nil, err
		}},
		{"Rotate", func(d *desk) (bool, error) {
			at := d.clock.now().Add(time.Minute)
			_, err := d.Rotate(
				ctx,
				d.admin,
				tokens.RotateRequest{User: d.user, TokenID: d.id, IdempotencyKey: "0123456789abcdef" + at.String(),
					Lifetime: tokens.Lifetime{ExpireTime: &at}},
			)
			if err == nil {
				d.t.Error("it was rotated")
			}
			return err == nil, err
		}},
	}
}

func refreshes(d *desk) (bool, error) {
	_, err := d.Refresh(
		context.Background(),
		tokens.RefreshRequest{Token: d.refresh, Peer: fromHome, Scopes: []string{"nothing"}},
	)
	var e *tokens.Error
	return errors.As(err, &e) && e.Reason == "SCOPE_INVALID", err // it got that far, and is not used up
}

func authenticates(what func(d *desk) tokens.Secret) func(d *desk) (bool, error) {
	return func(d *desk) (bool, error) {
		_, err := d.Authenticate(context.Background(), what(d), tokens.Peer{})
		return err == nil, err
	}
}

// edit is a hand in the database.
type edit struct {
	table, where, set string
	probes            []probe
}

func edits() []edit {
	var list []edit
	all := func(table, where string, probes []probe, sets ...string) {
		for _, set := range sets {
			list = append(list, edit{table: table, where: where, set: set, probes: probes})
		}
	}
	live := tokenProbes()
	all(
		"tokens",
		"name = 'n'",
		live,
		`expire_us = expire_us + 1`,
		`expire_us = 9223372036854775807`,
		`scopes = 'a b'`,
		`audiences = NULL`,
		`audiences = 'other'`,
		`cidrs = NULL`,
		`labels = '{"team":"y"}'`,
		`issue_us = issue_us - 1`,
		`name = 'm'`,
		`digest = (SELECT digest FROM services LIMIT 1)`,
		`rotations = rotations + 1`,
		`"user" = (SELECT max(key) FROM users)`,
		`blocked_by = 'api'`,
		`row_mac = NULL`,
		`row_mac = (SELECT row_mac FROM services LIMIT 1)`,
	)
	all("users", `"user" = 'u1'`, live, `features = 'a b c'`, `create_us = create_us + 1`, `"user" = 'u3'`)
	all("old_secrets", "serial = 1", []probe{{"Introspect", introspects(ofOld)}}, `until_us = until_us + 1`,
		`digest = (SELECT digest FROM services LIMIT 1)`)
	all(
		"services",
		"name = 'gateway'",
		[]probe{{"Authenticate", authenticates(func(d *desk) tokens.Secret { return d.gatewaySecret })},
			{"Introspect", introspects(ofToken)}},
		`permissions = 'admin'`,
		`old_until_us = 9000000000000000`,
		`old_digest = digest, old_key = key`,
		`audience = 'api'`,
		`expire_us = expire_us + 1`,
		`issue_us = issue_us + 1`,
		`digest = (SELECT digest FROM tokens LIMIT 1)`,
		`name = 'other'`,
	)
	all(
		"access_tokens",
		"family IS NOT NULL",
		[]probe{{"Introspect", introspects(ofAccess)}},
		`expire_us = expire_us + 1`,
		`scopes = 'a b'`,
		`audiences = NULL`,
		`client_id = 'x'`,
		`serial = 0`,
		`token_id = (SELECT min(id) FROM tokens WHERE name = 'other')`,
	)
	all(
		"families",
		"1 = 1",
		[]probe{{"Refresh", refreshes}},
		`expire_us = expire_us + 1`,
		`scopes = 'a b'`,
		`audiences = 'api other'`,
		`client_id = 'x'`,
		`serial = 0`,
		`token_id = (SELECT min(id) FROM tokens WHERE name = 'other')`,
	)
	all("refresh_tokens", "use_us IS NULL", []probe{{"Refresh", refreshes}}, `issue_us = issue_us + 1`,
		`digest = (SELECT digest FROM tokens LIMIT 1)`)
	return list
}

// TestAnEditedRowIsNeverActive: whatever of a row that a decision rests on is edited in the database, with the checksum
// left as it was or taken away, no way to present what it belongs to is answered as active, and all work again once the
// row is as it was.
func TestAnEditedRowIsNeverActive(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		_, err := d.SetUserFeatures(t.Context(), d.admin, "u2", []string{"a"})
		d.must(err)
		_, err = d.Mint(
			t.Context(),
			d.admin,
			tokens.MintRequest{User: "u2", Name: "other", Scopes: []string{"a"}, Audiences: []string{"api"}},
		)
		d.must(err)
		for _, e := range edits() {
			e.active(d, true, "before "+e.set)
			d.edit(e)
			e.active(d, false, "after "+e.table+" "+e.set)
			if found, err := d.st.Check(
				t.Context(),
			); err != nil ||
				!strings.Contains(strings.Join(found, "\n"), store.RefusedRemedy) {
				t.Errorf("after %s %s: check finds %q, %v", e.table, e.set, found, err)
			}
			d.undo(e)
		}
		if d.st.RowsRefused() == 0 {
			t.Error("nothing was counted")
		}
		if n := strings.Count(d.logs.String(), "table=tokens id="+d.id); n != 1 {
			t.Errorf("a refused token was logged %d times, want once:\n%s", n, d.logs)
		}
		if found, err := d.st.Check(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("check at the end: %q, %v", found, err)
		}
	})
}

// active checks every way to present what the edit is about.
func (e edit) active(d *desk, want bool, when string) {
	d.t.Helper()
	for _, p := range e.probes {
		if want && p.name == "Rotate" {
			continue // it would be another token afterwards
		}
		active, err := p.is(d)
		var fault *tokens.Error
		if want && errors.As(err, &fault) && fault.Reason == "SCOPE_INVALID" {
			err = nil
		}
		switch {
		case active != want, want && err != nil:
			d.t.Errorf("%s, %s: active %v, %v", when, p.name, active, err)
		case !want && !(errors.As(err, &fault) && fault.Reason == "RECORD_INVALID") && !strings.Contains(when, `"user" =`):
			d.t.Errorf("%s, %s: %v; want RECORD_INVALID", when, p.name, err)
		}
	}
}

// rowKeys are the columns that name a row, where it is not the id.
var rowKeys = map[string]string{"users": "key", "old_secrets": "serial"}

func (e edit) was() string {
	key := rowKeys[e.table]
	if key == "" {
		key = "id"
	}
	return ` WHERE ` + key + ` = (SELECT ` + key + ` FROM was)`
}

// edit edits a row, and puts the checksum back that a trigger takes away: so would somebody who knows of it.
func (d *desk) edit(e edit) {
	d.t.Helper()
	exec1(d.t, d.st, `CREATE TEMPORARY TABLE was AS SELECT * FROM `+e.table+` WHERE `+e.where)
	exec1(d.t, d.st, `UPDATE `+e.table+` SET `+e.set+` WHERE `+e.where)
	if !strings.HasPrefix(e.set, "row_mac") {
		exec1(d.t, d.st, `UPDATE `+e.table+` SET row_mac = (SELECT row_mac FROM was)`+e.was())
	}
}

// undo makes the row as it was.
func (d *desk) undo(e edit) {
	d.t.Helper()
	columns, err := d.st.Columns(d.t.Context(), e.table)
	d.must(err)
	var set []string
	for _, c := range columns {
		if c != "row_mac" {
			set = append(set, fmt.Sprintf(`"%s" = (SELECT "%s" FROM was)`, c, c))
		}
	}
	exec1(d.t, d.st, `UPDATE `+e.table+` SET `+strings.Join(set, ", ")+e.was())
	exec1(d.t, d.st, `UPDATE `+e.table+` SET row_mac = (SELECT row_mac FROM was)`+e.was())
	exec1(d.t, d.st, `DROP TABLE was`)
}

// TestWhatHasEndedDoesNotReviveByHand: a hand that also takes away the triggers that keep a revocation final.
func TestWhatHasEndedDoesNotReviveByHand(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		for _, c := range []struct {
			name string
			end  func(d *desk) error
			hand []string
			is   func(d *desk) (bool, error)
		}{
			{"a revoked token", func(d *desk) error {
				_, err := d.Revoke(t.Context(), d.admin, d.user, d.id, "")
				return err
			}, []string{`UPDATE tokens SET revoke_us = NULL, revoked_by = NULL`}, introspects(ofToken)},
			{"the tokens of a user", func(d *desk) error {
				_, err := d.RevokeAll(t.Context(), d.admin, d.user, "")
				return err
			}, []string{`UPDATE tokens SET revoke_us = NULL, revoked_by = NULL`}, introspects(ofToken)},
			{"a suspended user", func(d *desk) error {
				_, err := d.SuspendUser(t.Context(), d.admin, d.user, "")
				return err
			}, []string{`UPDATE users SET state = 1`}, introspects(ofToken)},
			{"a deleted user", func(d *desk) error {
				_, err := d.DeleteUser(t.Context(), d.admin, d.user, "")
				return err
			}, []string{`UPDATE users SET delete_us = NULL`, `UPDATE tokens SET revoke_us = NULL, revoked_by = NULL`}, introspects(ofToken)},
			{"an old secret", func(d *desk) error {
				grace := time.Duration(0)
				_, err := d.Rotate(t.Context(), d.admin, tokens.RotateRequest{User: d.user, TokenID: d.id, Grace: &grace, Force: true})
				return err
			}, []string{`UPDATE old_secrets SET until_us = 9000000000000000`}, introspects(ofOld)},
			{"an access token", func(d *desk) error { return d.RevokeSecret(t.Context(), tokens.Actor{}, d.access) },
				[]string{`UPDATE access_tokens SET revoke_us = NULL, revoked_by = NULL`}, introspects(ofAccess)},
			{"a family", func(d *desk) error { return d.RevokeSecret(t.Context(), tokens.Actor{}, d.refresh) },
				[]string{`UPDATE families SET revoke_us = NULL, revoked_by = NULL`}, refreshes},
			{"a used refresh token", func(d *desk) error {
				_, err := d.Refresh(t.Context(), tokens.RefreshRequest{Token: d.refresh, Peer: fromHome})
				return err
			}, []string{`UPDATE refresh_tokens SET use_us = NULL`}, refreshes},
			{"a service", func(d *desk) error {
				_, err := d.RevokeService(t.Context(), d.admin, "gateway", "")
				return err
			}, []string{`UPDATE services SET revoke_us = NULL, revoked_by = NULL`},
				authenticates(func(d *desk) tokens.Secret { return d.gatewaySecret })},
		} {
			d := newDesk(t, own(t, url), rowKeyA, true)
			d.furnish()
			if active, err := c.is(d); !active {
				t.Errorf("%s is not active before: %v", c.name, err)
			}
			d.must(c.end(d))
			if active, _ := c.is(d); active {
				t.Errorf("%s is active once it has ended", c.name)
			}
			for trigger, table := range map[string]string{
				"tokens_stay_revoked": "tokens", "services_stay_revoked": "services", "families_stay_revoked": "families",
				"access_tokens_stay_revoked": "access_tokens", "refresh_tokens_stay_used": "refresh_tokens",
			} {
				if store.IsPostgres(url) {
					trigger += " ON " + table
				}
				exec1(t, d.st, `DROP TRIGGER `+trigger)
			}
			for _, hand := range c.hand {
				exec1(t, d.st, hand)
			}
			if active, err := c.is(d); active {
				t.Errorf("%s is active again by a hand in the database: %v", c.name, err)
			}
		}
	})
}

// own returns the URL of another new store of the same kind.
func own(t testing.TB, url string) string {
	if store.IsPostgres(url) {
		return newSchema(t, dbtest.SharedPostgres(t))
	}
	return "sqlite:" + newPath(t)
}

// TestARefusedRowCanBeRevoked, and nothing else: no change gives it a checksum.
func TestARefusedRowCanBeRevoked(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		ctx := t.Context()
		exec1(t, d.st, `UPDATE tokens SET scopes = 'a b', expire_us = expire_us + 1`)
		exec1(t, d.st, `UPDATE services SET permissions = 'admin' WHERE name = 'gateway'`)
		exec1(t, d.st, `UPDATE users SET features = 'a b c'`)
		name := "renamed"
		for what, change := range map[string]func() error{
			"update": func() error {
				_, err := d.UpdateToken(ctx, d.admin, d.user, d.id, tokens.TokenChange{Name: &name})
				return err
			},
			"rotate": func() error {
				_, err := d.Rotate(ctx, d.admin, tokens.RotateRequest{User: d.user, TokenID: d.id})
				return err
			},
			"features": func() error {
				_, err := d.UpdateUserFeatures(ctx, d.admin, d.user, []string{"d"}, nil)
				return err
			},
			"mint": func() error {
				_, err := d.Mint(ctx, d.admin, tokens.MintRequest{User: d.user, Name: "m", Scopes: []string{"c"}})
				return err
			},
			"the name of the service": func() error {
				_, err := d.CreateService(ctx, d.admin, tokens.ServiceRequest{Name: "gateway", Permissions: []string{"introspect"}})
				return err
			},
		} {
			if err := change(); reason(err) != "RECORD_INVALID" {
				t.Errorf("%s: %v", what, err)
			}
		}
		// What only takes away is done, and leaves the row refused.
		_, err := d.ReplaceAudience(
			ctx,
			d.admin,
			tokens.AudienceEntry{ID: "api", MaxTTL: time.Hour, AllowOffline: true, AccessTTL: time.Hour,
				AccessFormat: tokens.AccessOpaque},
		)
		d.must(err)
		if n, _, err := d.BlockTokens(ctx, d.admin, "api", ""); err != nil || n != 1 {
			t.Errorf("blocked %d, %v", n, err)
		}
		if n, _, err := d.UnblockTokens(ctx, d.admin, "api", ""); err != nil || n != 1 {
			t.Errorf("unblocked %d, %v", n, err)
		}
		for _, p := range tokenProbes() {
			if active, err := p.is(d); active {
				t.Errorf("%s after blocks: active, %v", p.name, err)
			}
		}
		if _, err := d.SuspendUser(ctx, d.admin, d.user, ""); err != nil {
			t.Errorf("suspend: %v", err)
		}
		if _, err := d.ResumeUser(ctx, d.admin, d.user, ""); reason(err) != "RECORD_INVALID" {
			t.Errorf("resume: %v", err)
		}
		if list, _, err := d.Tokens(
			ctx,
			d.admin,
			tokens.TokenFilter{User: d.user},
			tokens.Page{},
		); err != nil ||
			len(list) != 1 {
			t.Errorf("a list does not show it: %v, %v", list, err)
		}
		if got, err := d.Revoke(ctx, d.admin, d.user, d.id, "edited"); err != nil || got.Revocation == nil {
			t.Errorf("revoke: %+v, %v", got, err)
		}
		if _, err := d.RevokeService(ctx, d.admin, "gateway", "edited"); err != nil {
			t.Errorf("revoke the service: %v", err)
		}
		if _, err := d.DeleteUser(ctx, d.admin, d.user, ""); err != nil {
			t.Errorf("delete the user: %v", err)
		}
		if found, err := d.st.Check(ctx); err != nil || len(found) != 0 {
			t.Errorf("check, once all is revoked: %q, %v", found, err)
		}
	})
}
