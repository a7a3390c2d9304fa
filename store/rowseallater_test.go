package store_test

import (
	"errors"
	"strings"
	"testing"

	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// webhookOf reads the webhook of a furnished desk as who sends to it does.
func (d *desk) webhookOf() (w tokens.Webhook, err error) {
	err = d.st.View(d.t.Context(), func(tx tokens.ReadTx) (err error) {
		if w, err = tx.Webhook("hook"); err != nil {
			return err
		}
		w, err = tx.WebhookByNum(w.Num)
		return err
	})
	return w, err
}

// TestAnEditedWebhookIsNotUsedAndCanBeDeleted, and nothing else: no change gives it a checksum.
func TestAnEditedWebhookIsNotUsedAndCanBeDeleted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		ctx := t.Context()
		_, err := d.CreateWebhook(
			ctx,
			d.admin,
			tokens.WebhookRequest{ID: "other", URL: "https://hooks.example.com/b", Enabled: true},
		)
		d.must(err)
		for _, set := range []string{
			`url = 'https://elsewhere.example.com'`, `enabled = 0`, `event_types = 'token.created'`, `users = 'v'`, `audiences = 'api'`,
			`labels = '{"a":"b"}'`, `id = 'hook', num = num + 1`, `row_mac = NULL`,
			`row_mac = (SELECT o.row_mac FROM webhooks o WHERE o.id = 'other')`,
		} {
			exec1(
				t,
				d.st,
				`CREATE TEMPORARY TABLE was AS SELECT num, url, event_types, users, audiences, labels, enabled, row_mac
				FROM webhooks WHERE id = 'hook'`,
			)
			exec1(t, d.st, `UPDATE webhooks SET `+set+` WHERE id = 'hook'`)
			if _, err := d.webhookOf(); !errors.Is(err, tokens.ErrRecordInvalid) {
				t.Errorf("used after %s: %v", set, err)
			}
			exec1(t, d.st, `UPDATE webhooks SET (num, url, event_types, users, audiences, labels, enabled) =
				(SELECT num, url, event_types, users, audiences, labels, enabled FROM was) WHERE id = 'hook'`)
			exec1(t, d.st, `UPDATE webhooks SET row_mac = (SELECT row_mac FROM was) WHERE id = 'hook'`)
			exec1(t, d.st, `DROP TABLE was`)
		}
		if _, err := d.webhookOf(); err != nil {
			t.Errorf("as it was: %v", err)
		}
		exec1(
			t,
			d.st,
			`UPDATE webhooks SET cursor_seq = cursor_seq + 1, description = 'd', lease_holder = 'x', disable_us = 1`,
		)
		d.sound("edited in what no checksum is of")

		exec1(t, d.st, `UPDATE webhooks SET url = 'https://elsewhere.example.com' WHERE id = 'hook'`)
		for what, change := range map[string]func() error{
			"replace": func() error {
				_, err := d.ReplaceWebhook(ctx, d.admin, tokens.WebhookRequest{ID: "hook", URL: "https://hooks.example.com/c"})
				return err
			},
			"rotate": func() error {
				_, err := d.RotateWebhookSecret(ctx, d.admin, tokens.RotateWebhookRequest{ID: "hook"})
				return err
			},
			"test": func() error { _, err := d.TestWebhook(ctx, d.admin, "hook"); return err },
			"read": func() error { _, err := d.Webhook(ctx, d.admin, "hook"); return err },
		} {
			if err := change(); reason(err) != "RECORD_INVALID" {
				t.Errorf("%s: %v", what, err)
			}
		}
		found, err := d.st.Check(ctx)
		if want := `webhook "hook" is refused`; err != nil || !strings.Contains(strings.Join(found, "\n"), want) {
			t.Errorf("check finds %q, %v", found, err)
		}
		if list, _, err := d.Webhooks(ctx, d.admin, tokens.Page{}); err != nil || len(list) != 2 {
			t.Errorf("the list shows %v, %v", list, err)
		}
		// Its secret moves to another key, and it stays refused.
		d.bind(parseRowKeys(t, rowKeyB+"\n"+rowKeyA))
		if _, err := d.st.MoveChecksums(ctx, "k1"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.webhookOf(); !errors.Is(err, tokens.ErrRecordInvalid) {
			t.Errorf("after its checksum was moved: %v", err)
		}
		d.must(d.DeleteWebhook(ctx, d.admin, "hook"))
		d.sound("deleted")
	})
}

// TestAnEditedRecordOfAProviderOnlySuspends: a provider whose records were edited would resume or delete whom it does
// not mean.
func TestAnEditedRecordOfAProviderOnlySuspends(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		ctx := t.Context()
		yes, no, name := true, false, "other"
		_, err := d.ProvisionUser(
			ctx,
			d.admin,
			tokens.Provision{ID: "p2", User: "u2", UserName: "u2@example.com", Active: &no},
		)
		d.must(err)
		for _, set := range []string{`inactive = 1`, `user_key = (SELECT max(key) + 1 FROM users)`, `external_id = 'x'`, `user_name = 'x'`} {
			if strings.HasPrefix(set, "user_key") {
				_, err := d.SetUserFeatures(ctx, d.admin, "u3", nil)
				d.must(err)
				set = `user_key = (SELECT key FROM users WHERE "user" = 'u3')`
			}
			exec1(t, d.st, `CREATE TEMPORARY TABLE was AS SELECT user_key, inactive, external_id, user_name, row_mac
				FROM provisioned_users WHERE id = 'p1'`)
			exec1(t, d.st, `UPDATE provisioned_users SET `+set+` WHERE id = 'p1'`)
			if _, err := d.ProvisionedUser(ctx, d.admin, "p1"); reason(err) != "RECORD_INVALID" {
				t.Errorf("after %s: %v", set, err)
			}
			exec1(t, d.st, `UPDATE provisioned_users SET (user_key, inactive, external_id, user_name) =
				(SELECT user_key, inactive, external_id, user_name FROM was) WHERE id = 'p1'`)
			exec1(t, d.st, `UPDATE provisioned_users SET row_mac = (SELECT row_mac FROM was) WHERE id = 'p1'`)
			exec1(t, d.st, `DROP TABLE was`)
		}
		d.sound("as it was")

		exec1(t, d.st, `UPDATE provisioned_users SET inactive = 1 WHERE id = 'p1'`)
		for what, change := range map[string]tokens.ProvisionUpdate{
			"resume": {Active: &yes}, "rename": {UserName: &name}, "all": {UserName: &name, Active: &yes, Whole: true},
		} {
			if _, err := d.UpdateProvisionedUser(ctx, d.admin, "p1", change); reason(err) != "RECORD_INVALID" {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := d.DeleteProvisionedUser(ctx, d.admin, "p1"); reason(err) != "RECORD_INVALID" {
			t.Errorf("delete: %v", err)
		}
		if _, err := d.UpdateProvisionedUser(ctx, d.admin, "p1", tokens.ProvisionUpdate{Active: &no}); err != nil {
			t.Errorf("suspend: %v", err)
		}
		if u, err := d.User(ctx, d.admin, d.user); err != nil || u.State != tokens.UserSuspended {
			t.Errorf("the user is %v, %v", u.State, err)
		}
		if _, err := d.ProvisionedUser(ctx, d.admin, "p1"); reason(err) != "RECORD_INVALID" {
			t.Errorf("after it was suspended: %v", err)
		}
		if _, err := d.ProvisionedUser(ctx, d.admin, "p2"); err != nil {
			t.Errorf("another one: %v", err)
		}
		if n, err := d.st.FillLaterChecksums(ctx); err != nil || n != 1 {
			t.Errorf("%d rows got a checksum, %v", n, err)
		}
		if _, err := d.ProvisionedUser(ctx, d.admin, "p1"); err != nil {
			t.Errorf("once the operator has vouched for it: %v", err)
		}
	})
}

// TestRowsOfASealedStoreGetChecksumsWhileItIsUpgraded: from then on one without is refused, also by the word of the key
// file alone.
func TestRowsOfASealedStoreGetChecksumsWhileItIsUpgraded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := newDesk(t, url, rowKeyA, true)
		d.furnish()
		ctx := t.Context()
		migrated := func() { // as the migration leaves it
			exec1(t, d.st, `UPDATE sealed SET later_us = NULL`)
			exec1(t, d.st, `UPDATE webhooks SET row_mac = NULL`)
			exec1(t, d.st, `UPDATE provisioned_users SET row_mac = NULL`)
		}
		next := func() *desk {
			o := *d
			o.st = openURL(t, url, store.Options{Connections: 2, Now: d.clock.now})
			return &o
		}
		migrated()
		before := "\n# rows sealed\n"
		up := next()
		if up.st.RowsSealed() {
			t.Fatal("all rows are sealed before they have checksums")
		}
		up.bind(parseRowKeys(t, rowKeyA+before))
		if !up.st.RowsSealed() {
			t.Error("the rows of later tables are not sealed")
		}
		up.sound("upgraded")
		exec1(t, up.st, `UPDATE webhooks SET url = 'https://elsewhere.example.com'`)
		for name, o := range map[string]*desk{"the one that has upgraded it": up, "another server": next()} {
			o.bind(parseRowKeys(t, rowKeyA+before))
			if _, err := o.webhookOf(); !errors.Is(err, tokens.ErrRecordInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// The key file's word is not taken back in the database, and nothing there makes good what was edited.
		migrated()
		last := next()
		last.bind(parseRowKeys(t, rowKeyA+"\n"+secret.SealedLine()))
		if _, err := last.webhookOf(); !errors.Is(err, tokens.ErrRecordInvalid) {
			t.Errorf("once the database's word was taken away: %v", err)
		}
		if found, err := last.st.Check(
			ctx,
		); err != nil ||
			!strings.Contains(strings.Join(found, "\n"), store.SealRows) {
			t.Errorf("check finds %q, %v", found, err)
		}
		d.must(last.st.SealLater(ctx)) // the operator vouches for what is there
		if _, err := last.webhookOf(); err != nil {
			t.Errorf("once the operator has vouched for it: %v", err)
		}
	})
}
