package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
)

// TestABackupUnderMintersIsWhole makes a backup while 64 programs mint and revoke, restores it elsewhere with an export
// of events, and looks at every token that there was: one that was answered before the backup is there, and none that
// was revoked is active.
func TestABackupUnderMintersIsWhole(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	data, admin := administer(t)
	d := serve(t, data)
	a := connect(t, d, admin)
	const minters = 64
	type made struct {
		secret  string
		revoked bool
	}
	var mu sync.Mutex
	all := map[string]*made{}
	mint := func(ctx context.Context, user string, n int) error {
		answer, err := a.tokens.CreateToken(
			ctx,
			&patdv1.CreateTokenRequest{User: user, Name: fmt.Sprint(n), Scopes: []string{"a"}},
		)
		if err != nil {
			return err
		}
		one := &made{secret: answer.GetSecret()}
		if n%3 == 0 {
			if _, err := a.tokens.RevokeToken(
				ctx,
				&patdv1.RevokeTokenRequest{User: user, TokenId: answer.GetToken().GetTokenId()},
			); err != nil {
				return err
			}
			one.revoked = true
		}
		mu.Lock()
		defer mu.Unlock()
		all[answer.GetToken().GetTokenId()] = one
		return nil
	}
	var running sync.WaitGroup
	stop := make(chan struct{})
	warm := make(chan struct{}, minters)
	for i := range minters {
		user := fmt.Sprintf("u%d", i)
		if _, err := a.users.SetUserFeatures(
			t.Context(),
			&patdv1.SetUserFeaturesRequest{User: user, Features: []string{"a"}},
		); err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for n := 1; n < 60; n++ {
				if err := mint(t.Context(), user, n); err != nil {
					t.Errorf("mint: %v", err)
					break
				}
				if n == 2 {
					warm <- struct{}{}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for range minters {
		<-warm
	}
	mu.Lock()
	before := make([]string, 0, len(all))
	for id := range all {
		before = append(before, id)
	}
	mu.Unlock()
	backup, events := filepath.Join(t.TempDir(), "backup.db"), filepath.Join(t.TempDir(), "events.jsonl")
	patd(t, "backup", backup, "--data-dir", data)
	close(stop)
	running.Wait()
	// Revoked after the backup: half of those that were there before it.
	for i, id := range before {
		if one := all[id]; i%2 == 0 && !one.revoked {
			token, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: one.secret})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.tokens.RevokeToken(
				t.Context(),
				&patdv1.RevokeTokenRequest{User: token.GetUser(), TokenId: id},
			); err != nil {
				t.Fatal(err)
			}
			one.revoked = true
		}
	}
	patd(t, "events", "export", events, "--data-dir", data)
	d.Kill()

	elsewhere := t.TempDir()
	key, err := os.ReadFile(filepath.Join(data, "hash.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(elsewhere, "hash.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	patd(t, "restore", backup, "--replay", events, "--data-dir", elsewhere)
	patd(t, "check", "--data-dir", elsewhere)
	b := connect(t, serve(t, elsewhere), admin)
	ask := func(id string) *patdv1.IntrospectResponse {
		answer, err := b.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: all[id].secret})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	for id, one := range all {
		if one.revoked && ask(id).GetActive() {
			t.Errorf("token %s was revoked, and is active after the restore", id)
		}
	}
	for _, id := range before {
		if got := ask(id); got.GetActive() == all[id].revoked {
			t.Errorf(
				"token %s was answered before the backup, revoked %v, and is %v",
				id,
				all[id].revoked,
				got.GetDecision(),
			)
		}
	}
	t.Logf("%d tokens, %d of them before the backup", len(all), len(before))
}
