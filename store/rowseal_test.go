package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// sealSchema is the migration that programs must know to use sealed rows.
const sealSchema = "14"

// fileSchema is the migration that programs must know to use any store in a file.
const fileSchema = "26"

// unsealedRows counts the rows that have not ended and have no checksum.
func unsealedRows(t testing.TB, st *store.Store) (n int) {
	t.Helper()
	for _, live := range []string{
		`users WHERE delete_us IS NULL`, `tokens WHERE revoke_us IS NULL`, `old_secrets WHERE until_us > 0`,
		`services WHERE revoke_us IS NULL`, `families WHERE revoke_us IS NULL`, `refresh_tokens WHERE use_us IS NULL`,
		`access_tokens WHERE revoke_us IS NULL`, `webhooks WHERE num = num`, `provisioned_users WHERE user_key = user_key`,
	} {
		var some int
		if _, err := fmt.Sscan(count(t, st, live+` AND row_mac IS NULL`), &some); err != nil {
			t.Fatal(err)
		}
		n += some
	}
	return n
}

// sound checks that every row has its checksum.
func (d *desk) sound(when string) {
	d.t.Helper()
	d.must(d.st.Flush(context.Background()))
	if n := unsealedRows(d.t, d.st); n != 0 {
		d.t.Errorf("%s: %d rows have no checksum", when, n)
	}
	if found, err := d.st.Check(context.Background()); err != nil || len(found) != 0 {
		d.t.Errorf("%s: check finds %q, %v", when, found, err)
	}
}

// TestEveryChangeLeavesRowsWithTheirChecksums makes every change that there is of a row with a checksum.
func TestEveryChangeLeavesRowsWithTheirChecksums(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		d.sound("furnished")
		ctx := t.Context()
		text, labels, none, fewer := "x", map[string]string{"a": "b"}, []string{}, []string{"a"}
		sooner := d.clock.now().Add(time.Hour)
		update := func(c tokens.TokenChange) func() error {
			return func() error {
				_, err := d.UpdateToken(ctx, d.admin, d.user, d.id, c)
				return err
			}
		}
		var minted, endless tokens.Minted
		var made tokens.MintedService
		var gateway tokens.Secret
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"a mint for a new user", func() (err error) {
				_, err = d.SetUserFeatures(ctx, d.admin, "u2", []string{"a"})
				if err == nil {
					minted, err = d.Mint(ctx, d.admin, tokens.MintRequest{User: "u2", Name: "n", Scopes: fewer, Audiences: []string{"api"}})
				}
				if err == nil {
					endless, err = d.Mint(ctx, d.admin, tokens.MintRequest{User: "u2", Name: "for ever", Scopes: fewer,
						Lifetime: tokens.Lifetime{Never: true}})
				}
				return err
			}},
			{"name", update(tokens.TokenChange{Name: &text})},
			{"description", update(tokens.TokenChange{Description: &text})},
			{"labels", update(tokens.TokenChange{Labels: &labels})},
			{"networks", update(tokens.TokenChange{CIDRs: &none})},
			{"scopes", update(tokens.TokenChange{Scopes: &fewer})},
			{"expiry", update(tokens.TokenChange{ExpireTime: &sooner})},
			{"rotation", func() error {
				_, err := d.Rotate(ctx, d.admin, tokens.RotateRequest{User: d.user, TokenID: d.id, Force: true})
				return err
			}},
			{"a canceled rotation", func() error {
				_, err := d.CancelRotation(ctx, d.admin, d.user, d.id)
				return err
			}},
			{"rotation with a later expiry", func() error {
				ttl := 24 * time.Hour
				r, err := d.Rotate(ctx, d.admin, tokens.RotateRequest{User: d.user, TokenID: d.id, Force: true,
					Lifetime: tokens.Lifetime{TTL: &ttl}})
				d.token = r.Secret
				return err
			}},
			{"a policy", func() error {
				_, err := d.ReplaceAudience(ctx, d.admin, tokens.AudienceEntry{ID: "api", MaxTTL: time.Hour, AllowOffline: true,
					AccessTTL: time.Hour, AccessFormat: tokens.AccessOpaque})
				return err
			}},
			{"blocks", func() error {
				n, _, err := d.BlockTokens(ctx, d.admin, "api", "")
				if n != 2 {
					t.Errorf("blocked %d", n)
				}
				return err
			}},
			{"no blocks", func() error {
				_, _, err := d.UnblockTokens(ctx, d.admin, "api", "")
				return err
			}},
			{"an exchange", func() error {
				g, err := d.Exchange(ctx, tokens.ExchangeRequest{Subject: d.token, Peer: fromHome, Offline: true,
					Client: tokens.Client{ID: "app"}})
				d.access, d.refresh = g.Access, g.Refresh
				return err
			}},
			{"a refresh", func() error {
				g, err := d.Refresh(ctx, tokens.RefreshRequest{Token: d.refresh, Peer: fromHome, Client: tokens.Client{ID: "app"}})
				if err == nil {
					d.refresh = g.Refresh
				}
				return err
			}},
			{"the end of an access token", func() error { return d.RevokeSecret(ctx, tokens.Actor{}, d.access) }},
			{"a suspension", func() error {
				_, err := d.SuspendUser(ctx, d.admin, d.user, "")
				return err
			}},
			{"features of a suspended user", func() error {
				_, err := d.UpdateUserFeatures(ctx, d.admin, d.user, []string{"c"}, nil)
				return err
			}},
			{"a resumption", func() error {
				_, err := d.ResumeUser(ctx, d.admin, d.user, "")
				return err
			}},
			{"a suspension of nobody yet", func() error {
				_, err := d.SuspendUser(ctx, d.admin, "u3", "")
				return err
			}},
			{"the end of a family", func() error { return d.RevokeSecret(ctx, tokens.Actor{}, d.refresh) }},
			{"a service", func() (err error) {
				made, err = d.CreateService(ctx, d.admin, tokens.ServiceRequest{Name: "other", Permissions: []string{"tokens", "users"},
					Audience: "api"})
				return err
			}},
			{"rotation of a service", func() error {
				r, err := d.RotateService(ctx, d.admin, tokens.RotateServiceRequest{Name: "gateway"})
				gateway = r.Secret
				return err
			}},
			{"a fresh key", func() error {
				d.bind(parseRowKeys(t, rowKeyB+"\n"+rowKeyA))
				return nil
			}},
			{"digests that move", func() error {
				for _, s := range []tokens.Secret{d.token, minted.Secret, endless.Secret} {
					if _, err := d.Introspect(ctx, d.admin, tokens.IntrospectRequest{Secret: s}); err != nil {
						return err
					}
				}
				for _, s := range []tokens.Secret{made.Secret, d.adminSecret, d.gatewaySecret, gateway} {
					if _, err := d.Authenticate(ctx, s, tokens.Peer{}); err != nil {
						return err
					}
				}
				return d.st.Flush(ctx)
			}},
			{"a webhook", func() error {
				_, err := d.ReplaceWebhook(ctx, d.admin, tokens.WebhookRequest{ID: "hook", URL: "https://hooks.example.com/b",
					Filter: tokens.WebhookFilter{Types: []string{"token.created"}, Users: []string{"ü", "v"}, Audiences: []string{"api"},
						Labels: map[string]string{"b": "c", "a": "b"}}, Enabled: true})
				return err
			}},
			{"the secret of a webhook", func() error {
				_, err := d.RotateWebhookSecret(ctx, d.admin, tokens.RotateWebhookRequest{ID: "hook"})
				return err
			}},
			{"another webhook that ends", func() error {
				if _, err := d.CreateWebhook(ctx, d.admin, tokens.WebhookRequest{ID: "other", URL: "https://hooks.example.com/a"}); err != nil {
					return err
				}
				return d.DeleteWebhook(ctx, d.admin, "other")
			}},
			{"a user who is inactive", func() error {
				no := false
				_, err := d.UpdateProvisionedUser(ctx, d.admin, "p1", tokens.ProvisionUpdate{ExternalID: &text, Active: &no})
				return err
			}},
			{"and active", func() error {
				yes := true
				_, err := d.UpdateProvisionedUser(ctx, d.admin, "p1", tokens.ProvisionUpdate{UserName: &text, Active: &yes})
				return err
			}},
			{"the end of a service", func() error {
				_, err := d.RevokeService(ctx, d.admin, "other", "")
				return err
			}},
			{"the end of a token", func() error {
				_, err := d.Revoke(ctx, d.admin, d.user, d.id, "")
				return err
			}},
			{"a key that is retired", func() error {
				d.clock.move(2 * time.Minute)
				return tokens.RetireKey(ctx, d.st, parseRowKeys(t, rowKeyB+"\n"+rowKeyA), "k1", d.clock.now())
			}},
			{"without the old key", func() error {
				d.bind(parseRowKeys(t, rowKeyB))
				return nil
			}},
			{"the end of all tokens", func() error {
				_, err := d.RevokeAll(ctx, d.admin, "u2", "")
				return err
			}},
			{"the end of a user", func() error {
				_, err := d.DeleteUser(ctx, d.admin, "u2", "")
				return err
			}},
			{"the user again", func() error {
				_, err := d.SetUserFeatures(ctx, d.admin, "u2", []string{"a"})
				return err
			}},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			d.sound(step.name)
		}
	})
}

// TestACancellationPutsNothingBackThatWasEdited: what it puts back has a checksum of its own.
func TestACancellationPutsNothingBackThatWasEdited(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "sqlite:"+newPath(t), rowKeyA, true)
	d.furnish()
	m, err := d.Mint(t.Context(), d.admin, tokens.MintRequest{User: d.user, Name: "rotated", Scopes: []string{"a"}})
	d.must(err)
	id := m.Token.ID.String()
	_, err = d.Rotate(t.Context(), d.admin, tokens.RotateRequest{User: d.user, TokenID: id})
	d.must(err)
	of := ` WHERE token_id = (SELECT id FROM tokens WHERE name = 'rotated')`
	for _, set := range []string{`expire_before_us = expire_before_us + 1`, `dropped = 'b'`, `blocked_before = 'api'`, `before_mac = NULL`} {
		exec1(t, d.st, `CREATE TEMPORARY TABLE was AS SELECT * FROM old_secrets`+of)
		exec1(t, d.st, `UPDATE old_secrets SET `+set+of)
		if _, err := d.CancelRotation(t.Context(), d.admin, d.user, id); reason(err) != "RECORD_INVALID" {
			t.Errorf("after %s: %v", set, err)
		}
		exec1(t, d.st, `UPDATE old_secrets SET (expire_before_us, dropped, blocked_before, before_mac) =
			(SELECT expire_before_us, dropped, blocked_before, before_mac FROM was)`+of)
		exec1(t, d.st, `DROP TABLE was`)
	}
	if _, err := d.CancelRotation(t.Context(), d.admin, d.user, id); err != nil {
		t.Errorf("as it was: %v", err)
	}
	d.sound("canceled")
}

// TestAnEditedTokenDoesNotRotateItself: whether and until when it may has a checksum of its own.
func TestAnEditedTokenDoesNotRotateItself(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		mint := func(name string, self bool) tokens.Actor {
			m, err := d.Mint(
				t.Context(),
				d.admin,
				tokens.MintRequest{User: d.user, Name: name, Scopes: []string{"a"}, SelfRotate: self},
			)
			d.must(err)
			a, err := d.Authenticate(t.Context(), m.Secret, fromHome)
			d.must(err)
			return a
		}
		self, plain := mint("self", true), mint("plain", false)
		for _, c := range []struct {
			who  tokens.Actor
			name string
			set  string
		}{
			{plain, "plain", `self_rotate_until_us = 0`},
			{plain, "plain", `self_rotate_until_us = 0, self_mac = (SELECT o.self_mac FROM tokens o WHERE o.name = 'self')`},
			{self, "self", `self_rotate_until_us = 9000000000000000`},
			{self, "self", `self_mac = NULL`},
		} {
			of := ` WHERE name = '` + c.name + `'`
			exec1(
				t,
				d.st,
				`CREATE TEMPORARY TABLE was AS SELECT self_rotate_until_us AS until, self_mac AS mac FROM tokens`+of,
			)
			exec1(t, d.st, `UPDATE tokens SET `+c.set+of)
			if _, err := d.RotateSelf(
				t.Context(),
				c.who,
				tokens.RotateSelfRequest{Renew: true},
			); reason(
				err,
			) != "RECORD_INVALID" {
				t.Errorf("after %s: %v", c.set, err)
			}
			exec1(t, d.st, `UPDATE tokens SET (self_rotate_until_us, self_mac) = (SELECT until, mac FROM was)`+of)
			exec1(t, d.st, `DROP TABLE was`)
		}
		if _, err := d.RotateSelf(
			t.Context(),
			plain,
			tokens.RotateSelfRequest{},
		); reason(
			err,
		) != "SELF_ROTATE_NOT_ALLOWED" {
			t.Errorf("as it was: %v", err)
		}
		if _, err := d.RotateSelf(t.Context(), self, tokens.RotateSelfRequest{}); err != nil {
			t.Errorf("as it was: %v", err)
		}
		d.sound("rotated")
	})
}

// earlier are the statements by which the program before checksums changed rows.
var earlier = []struct{ name, table, statement string }{
	{
		"update",
		"tokens",
		`UPDATE tokens SET name = 'renamed', name_key = 'renamed', expire_us = expire_us - 1 WHERE name = 'n'`,
	},
	{"rotation", "tokens", `UPDATE tokens SET rotations = rotations + 1 WHERE name = 'renamed'`},
	{"block", "tokens", `UPDATE tokens SET blocked_by = 'api' WHERE name = 'renamed'`},
	{
		"a digest that moves",
		"services",
		`UPDATE services SET digest = (SELECT digest FROM tokens LIMIT 1) WHERE name = 'gateway'`,
	},
	{"suspension", "users", `UPDATE users SET state = 2, features = NULL`},
	{"grace that ends", "old_secrets", `UPDATE old_secrets SET until_us = 0`},
	{"use", "refresh_tokens", `UPDATE refresh_tokens SET use_us = 5`},
	{"family", "families", `UPDATE families SET revoke_us = 5, revoked_by = 'x'`},
	{"access token", "access_tokens", `UPDATE access_tokens SET revoke_us = 5, revoked_by = 'x'`},
	{"a webhook that is disabled", "webhooks", `UPDATE webhooks SET enabled = 0, disable_reason = 'GONE'`},
	{"a user who left", "provisioned_users", `UPDATE provisioned_users SET inactive = 1`},
}

// TestAnEarlierProgramsChangeLeavesNoStaleChecksum: while an upgrade goes round both versions write, and each reads
// what the other has written.
func TestAnEarlierProgramsChangeLeavesNoStaleChecksum(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, false)
		d.furnish()
		d.sound("furnished, not sealed")
		if d.st.RowsSealed() {
			t.Fatal("a store from before checksums is sealed")
		}
		for _, e := range earlier {
			exec1(t, d.st, e.statement)
			if n := count(t, d.st, e.table+` WHERE row_mac IS NULL`); n == "0" {
				t.Errorf("%s: a stale checksum is left", e.name)
			}
		}
		if found, err := d.st.Check(
			t.Context(),
		); err != nil ||
			strings.Contains(strings.Join(found, "\n"), store.RefusedRemedy) {
			t.Errorf("check while both versions write: %q, %v", found, err)
		}
		// What patd writes next has a checksum again.
		exec1(t, d.st, `UPDATE tokens SET rotations = rotations - 1, blocked_by = NULL`)
		exec1(t, d.st, `UPDATE users SET state = 1, features = 'a b'`)
		text := "again"
		if _, err := d.UpdateToken(t.Context(), d.admin, d.user, d.id, tokens.TokenChange{Name: &text}); err != nil {
			t.Errorf("a change of a row without a checksum: %v", err)
		}
		if n := count(t, d.st, `tokens WHERE row_mac IS NOT NULL`); n != "1" {
			t.Errorf("%s tokens have a checksum, want the one that was just written", n)
		}
		// The use and the description are not what a decision rests on.
		exec1(t, d.st, `UPDATE tokens SET last_used_us = 5, description = 'd'`)
		if n := count(t, d.st, `tokens WHERE row_mac IS NULL`); n != "0" {
			t.Error("a checksum was taken away for what it is not about")
		}
	})
}

// TestSealingGivesEveryRowAChecksumAndKeepsEarlierProgramsOut, also when it is interrupted and runs again.
func TestSealingGivesEveryRowAChecksumAndKeepsEarlierProgramsOut(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, false)
		d.furnish()
		err := d.st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
			for n := range 1200 { // more than get a checksum in one transaction
				if _, err := tx.InsertUser(
					tokens.User{ID: fmt.Sprint("extra", n), CreateTime: d.clock.now()},
				); err != nil {
					return nil, err
				}
			}
			return []tokens.Event{{Time: d.clock.now(), Actor: "x", Action: "x", Outcome: tokens.OutcomeSuccess}}, nil
		})
		d.must(err)
		for _, table := range []string{"users", "tokens", "old_secrets", "services", "families", "refresh_tokens", "access_tokens",
			"webhooks", "provisioned_users"} {
			exec1(t, d.st, `UPDATE `+table+` SET row_mac = NULL`)
		}
		before := unsealedRows(t, d.st)
		if active, err := introspects(ofToken)(d); !active {
			t.Errorf("before it is sealed: %v", err)
		}
		ctx := t.Context()
		d.must(d.st.BeginSeal(ctx))
		event := `INSERT INTO events (seq, time_us, actor, action, outcome) VALUES (999999, 1, 'x', 'user.suspend', 1)`
		if err := d.st.Exec(ctx, event); err == nil || !strings.Contains(err.Error(), "too old to write") {
			t.Errorf("a change of an earlier program while rows are being sealed: %v", err)
		}
		stop, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := d.st.FillChecksums(stop); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
		if d.st.RowsSealed() {
			t.Error("rows are sealed, and have no checksums")
		}
		if active, err := introspects(ofToken)(d); !active {
			t.Errorf("half way: %v", err)
		}
		n, err := d.st.FillChecksums(ctx)
		if err != nil || n != int64(before) {
			t.Errorf("%d rows got a checksum, %v; want %d", n, err, before)
		}
		if n, err = d.st.FillChecksums(ctx); err != nil || n != 0 {
			t.Errorf("again: %d, %v", n, err)
		}
		d.must(tokens.SealRows(ctx, d.st, d.clock.now()))
		d.bind(d.ring.Get())
		if !d.st.RowsSealed() {
			t.Error("the rows are not sealed")
		}
		d.sound("sealed")
		if oldest := texts(t, d.st, `SELECT oldest FROM compatibility`); oldest != sealSchema && oldest != fileSchema {
			t.Errorf("programs that know migration %s may use it", oldest)
		}
		for _, p := range tokenProbes()[:4] {
			if active, err := p.is(d); !active {
				t.Errorf("%s, sealed: %v", p.name, err)
			}
		}
		// The database's word is not taken back in a running server, nor where the key file has it.
		exec1(t, d.st, `DELETE FROM sealed`)
		exec1(t, d.st, `UPDATE tokens SET scopes = 'b'`)
		if active, _ := introspects(ofToken)(d); active {
			t.Error("a row that was edited is active once the seal was taken away in the database")
		}
		other := openURL(t, url, store.Options{Connections: 2})
		d.must(other.UseRowKeys(ctx, parseRowKeys(t, rowKeyA+sealed)))
		id, err := secret.ParseID(d.id)
		d.must(err)
		if _, err := other.Lookup(ctx, id); reason(err) != "RECORD_INVALID" {
			t.Errorf("a server whose key file says that rows are sealed: %v", err)
		}
		if found, err := other.Check(ctx); err != nil || !strings.Contains(strings.Join(found, "\n"), store.SealRows) {
			t.Errorf("check finds %q, %v", found, err)
		}
	})
}

func texts(t testing.TB, st *store.Store, query string) string {
	t.Helper()
	list, err := st.Texts(t.Context(), 0, query)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}
