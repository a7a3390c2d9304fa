package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"patd/tokens"
)

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

func ofToken(d *desk) tokens.Secret { return d.token }

func ofOld(d *desk) tokens.Secret { return d.old }

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
