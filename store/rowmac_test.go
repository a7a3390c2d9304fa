package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"patd/store"
	"patd/tokens"
)

const (
	rowKeyA = "k1:" + "abababababababababababababababababababababababababababababababab"
	rowKeyB = "k2:" + "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
	sealed  = "\n# rows sealed 23\n"
)

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
