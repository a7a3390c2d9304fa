package replicatest

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/dbtest"
	"patd/internal/waittest"
)

// sides are a program of this version and one from before pauses on one store.
type sides struct {
	now, before func() *api
	db          *sql.DB
	schema      string
}

// pausesHoldInTheVersionBefore holds that a version which knows no pauses denies what is paused, and leaves it paused
// when it changes the token.
func pausesHoldInTheVersionBefore(t *testing.T, db *dbtest.Server) {
	before, err := programBefore()
	must(t, err)
	t.Run("PostgreSQL", func(t *testing.T) {
		c := newStore(t, db, "paused")
		unseal(t, db.Admin(), c.schema, c.key)
		c.add(0, db.Addr())
		c.add(1, db.Addr())
		c.replicas[1].path = before
		c.startAll()
		pausesHold(t, sides{c.replicas[0].now, c.replicas[1].now, db.Admin(), c.schema})
	})
	t.Run("SQLite", func(t *testing.T) {
		path, err := program()
		must(t, err)
		data := filepath.Join(t.TempDir(), "data")
		admin, err := run(path, nil, "service", "create", "test", "--permission", "admin", "--data-dir", data)
		must(t, err)
		file, err := sql.Open("sqlite", "file:"+filepath.Join(data, "patd.db")+"?_pragma=busy_timeout(10000)")
		must(t, err)
		defer file.Close()
		unseal(t, file, "main", filepath.Join(data, "hash.key"))
		var running *daemon
		var runs string
		t.Cleanup(func() {
			if running != nil {
				running.Kill()
			}
		})
		side := func(path string) func() *api { // one program at a time has the file
			var a *api
			return func() *api {
				t.Helper()
				if runs == path {
					return a
				}
				if running != nil {
					must(t, running.Stop())
				}
				running, err = start(path, nil, "--data-dir", data, "--log-level", "warn")
				must(t, err)
				runs = path
				a, err = connect(running, admin)
				must(t, err)
				t.Cleanup(func() { _ = a.conn.Close() })
				return a
			}
		}
		pausesHold(t, sides{side(path), side(before), file, "main"})
	})
}

func pausesHold(t *testing.T, s sides) {
	const user = "paused"
	must(t, s.now().hold(t.Context(), user, "a", "b"))
	mint := func(name string) token {
		t.Helper()
		m, err := s.now().tokens.CreateToken(
			t.Context(),
			&patdv1.CreateTokenRequest{User: user, Name: name, Scopes: []string{"a", "b"}},
		)
		must(t, err)
		return token{user, name, m.GetToken().GetTokenId(), m.GetSecret()}
	}
	pause := func(tok token, scopes ...string) {
		t.Helper()
		_, err := s.now().tokens.NarrowToken(
			t.Context(),
			&patdv1.NarrowTokenRequest{User: user, TokenId: tok.id, Scopes: scopes},
		)
		must(t, err)
	}
	says := func(of func() *api, tok token, scope string, want decision) {
		t.Helper()
		a := of()
		waittest.Within(
			t,
			patience,
			want.String()+" for "+tok.name+", scope "+scope,
			func() bool { // as the others hear of a change
				got, err := a.decideFor(t.Context(), tok.secret, scope)
				must(t, err)
				return got == want
			},
		)
	}
	one, all, idle := mint("one scope"), mint("all scopes"), mint("idle")
	pause(one, "a")
	pause(all, "a", "b")
	_, err := s.db.ExecContext(
		t.Context(),
		"UPDATE "+s.schema+".tokens SET blocked_by = 'idle since 2026-01-02T03:04:05Z' WHERE name = 'idle'",
	)
	must(t, err)

	deny := patdv1.IntrospectResponse_INSUFFICIENT_SCOPE
	hold := func(of func() *api) {
		t.Helper()
		says(of, one, "a", deny)
		says(of, one, "b", allow)
		says(of, all, "a", deny)
		says(of, all, "b", deny)
	}
	hold(s.before)
	says(s.before, idle, "a", patdv1.IntrospectResponse_POLICY_BLOCKED)
	for _, tok := range []token{one, all, idle} {
		_, err := s.before().tokens.UpdateToken(t.Context(), &patdv1.UpdateTokenRequest{
			User:       user,
			TokenId:    tok.id,
			Token:      &patdv1.Token{Description: "changed by the version before"},
			UpdateMask: "description",
		})
		must(t, err)
	}
	hold(s.before)
	says(s.before, idle, "a", patdv1.IntrospectResponse_POLICY_BLOCKED)
	hold(s.now)
	says(s.now, idle, "a", patdv1.IntrospectResponse_TOKEN_IDLE)
	for _, tok := range []token{one, all} {
		_, err := s.now().tokens.ResumeScopes(t.Context(), &patdv1.ResumeScopesRequest{User: user, TokenId: tok.id})
		must(t, err)
		says(s.now, tok, "a", allow)
		says(s.before, tok, "a", allow)
	}
}

// decideFor is decide for a call that needs a scope.
func (a *api) decideFor(ctx context.Context, secret, scope string) (decision, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	got, err := a.introspect.Introspect(ctx, &patdv1.IntrospectRequest{Token: secret, RequiredScopes: []string{scope}})
	return got.GetDecision(), err
}
