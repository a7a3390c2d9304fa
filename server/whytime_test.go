package server_test

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/store"
	"patd/store/cache"
	"patd/tokens"
	"patd/tokens/secret"
)

// How much the time of a wrong secret may tell, by docs/guarantees.md: about the state of a token, and about whether
// there is one.
const (
	stateMayTell = 10 * time.Microsecond
	idMayTell    = 35 * time.Microsecond
)

// TestAWrongSecretTakesAsLongWhateverBecameOfItsToken measures wrong secrets of tokens in every state, and of ids that
// were never given out, in turns, on a server that answers from memory. The fastest tenth of each is compared, since
// other programs only ever make a call slower; a machine that is too busy is measured again.
func TestAWrongSecretTakesAsLongWhateverBecameOfItsToken(t *testing.T) {
	t.Parallel()
	if longtest.Race {
		t.Skip("the race detector takes more time than what is looked for")
	}
	r := newRigOn(t, nil, func(st *store.Store, behind tokens.Store) tokens.Store {
		return cache.New(st, cache.Options{Behind: behind})
	})
	ctx, op := context.Background(), tokens.Operator()
	forged := func(id tokens.ID) tokens.Secret {
		wrong, err := secret.Mint("pat", id, rand.Reader)
		must(t, err)
		return wrong
	}
	ids := map[string]string{}
	mint := func(name string, q tokens.MintRequest) string {
		q.User, q.Name = name, name
		tok, _ := r.pat(q, "reports.read")
		ids[name] = tok.ID.String()
		return ids[name]
	}
	mint("active", tokens.MintRequest{})
	ttl := time.Hour
	mint("expired", tokens.MintRequest{Lifetime: tokens.Lifetime{TTL: &ttl}})
	must(t, r.revoke("revoked", mint("revoked", tokens.MintRequest{})))
	none := time.Duration(0)
	_, err := r.svc.Rotate(
		ctx,
		op,
		tokens.RotateRequest{User: "rotated", TokenID: mint("rotated", tokens.MintRequest{}), Grace: &none},
	)
	must(t, err)
	mint("suspended", tokens.MintRequest{})
	_, err = r.svc.SuspendUser(ctx, op, "suspended", "")
	must(t, err)
	mint("bound", tokens.MintRequest{CIDRs: []string{"203.0.113.0/24"}})
	mint("elsewhere", tokens.MintRequest{Audiences: []string{"other"}})
	r.wait(2 * time.Hour)

	secrets := map[string][]tokens.Secret{}
	const rounds = 400
	for name, text := range ids {
		id, err := secret.ParseID(text)
		must(t, err)
		for range rounds {
			secrets[name] = append(secrets[name], forged(id))
		}
	}
	for range rounds {
		id, err := secret.NewID(r.now(), rand.Reader)
		must(t, err)
		secrets["unknown"] = append(secrets["unknown"], forged(id))
	}
	var worst string
	for range 10 {
		took := measure(t, r, secrets)
		worst = ""
		for name, d := range took {
			may := stateMayTell
			if name == "unknown" {
				may = idMayTell
			}
			if (d - took["active"]).Abs() > may {
				worst += name + " takes " + d.String() + ", active " + took["active"].String() + "; "
			}
		}
		if worst == "" {
			t.Log(took)
			return
		}
	}
	t.Error(worst)
}

// measure returns the fastest tenth of the time that a wrong secret of each kind takes.
func measure(t *testing.T, r *rig, secrets map[string][]tokens.Secret) map[string]time.Duration {
	t.Helper()
	names, times := []string{}, map[string][]time.Duration{}
	for name := range secrets {
		names = append(names, name)
	}
	for i := range secrets["active"] {
		mathrand.Shuffle(len(names), func(a, b int) { names[a], names[b] = names[b], names[a] })
		for _, name := range names {
			q := tokens.IntrospectRequest{
				Secret:   secrets[name][i],
				Audience: "reports",
				ClientIP: netip.MustParseAddr("192.0.2.1"),
			}
			start := time.Now()
			in, err := r.svc.Introspect(context.Background(), tokens.Operator(), q)
			times[name] = append(times[name], time.Since(start))
			if err != nil || in.Decision != tokens.NotFound || in.Ended != nil {
				t.Fatalf("%s: %v, %v", name, in.Decision, err)
			}
		}
	}
	out := map[string]time.Duration{}
	for name, list := range times {
		slices.Sort(list)
		out[name] = list[len(list)/10]
	}
	return out
}
