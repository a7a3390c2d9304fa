package tokens_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/internal/longtest"
	"patd/tokens"
)

// backedUp is a store in which things are given and taken away, and of which there is a backup.
type backedUp struct {
	*house
	minted   []tokens.Minted
	secrets  []tokens.Secret // of tokens and access tokens, whatever became of them
	refresh  []tokens.Secret
	services []tokens.Secret
	backup   string
	n        int
}

func (w *backedUp) serial() string { w.n++; return fmt.Sprint(w.n) }

func (w *backedUp) user(t *rapid.T) string {
	return rapid.SampledFrom([]string{"u1", "u2"}).Draw(t, "user")
}

func (w *backedUp) pick(t *rapid.T) tokens.Minted {
	if len(w.minted) == 0 {
		t.Skip("no token yet")
	}
	return rapid.SampledFrom(w.minted).Draw(t, "token")
}

func (w *backedUp) mintOne(t *rapid.T) {
	m, err := w.Mint(ctx, admin, tokens.MintRequest{
		User: w.user(
			t,
		),
		Name:       "n" + w.serial(),
		Scopes:     []string{"a", "b", "c"},
		Audiences:  []string{"api"},
		SelfRotate: true,
	})
	if err == nil {
		w.minted, w.secrets = append(w.minted, m), append(w.secrets, m.Secret)
	}
}

func (w *backedUp) rotateOne(t *rapid.T) {
	m := w.pick(t)
	grace := rapid.SampledFrom([]time.Duration{0, time.Hour, 30 * tokens.Day}).Draw(t, "grace")
	r, err := w.Rotate(ctx, admin, tokens.RotateRequest{
		User:    m.Token.User,
		TokenID: m.Token.ID.String(),
		Grace:   &grace,
		Force:   rapid.Bool().Draw(t, "force"),
		DropUnheld: rapid.Bool().
			Draw(t, "drop"),
		Retire: rapid.SampledFrom([]tokens.RetirePrevious{tokens.AfterGrace, tokens.OnFirstUse}).Draw(t, "retire"),
	})
	if err == nil {
		w.secrets = append(w.secrets, r.Secret)
	}
}

func (w *backedUp) updateOne(t *rapid.T) {
	m := w.pick(t)
	var c tokens.TokenChange
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		c.Scopes = &[]string{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "scope")}
	case 1:
		until := w.now().Add(rapid.SampledFrom([]time.Duration{time.Minute, 50 * tokens.Day}).Draw(t, "life"))
		c.ExpireTime = &until
	case 2:
		c.CIDRs = &[]string{
			rapid.SampledFrom([]string{"192.0.2.0/24", "192.0.2.7/32", "198.51.100.0/24"}).Draw(t, "network"),
		}
	default:
		c.CIDRs = &[]string{}
	}
	_, _ = w.UpdateToken(ctx, admin, m.Token.User, m.Token.ID.String(), c)
}

func (w *backedUp) narrowOne(t *rapid.T) {
	m := w.pick(t)
	scopes := []string{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "scope")}
	if rapid.Bool().Draw(t, "resume") {
		_, _ = w.ResumeScopes(ctx, admin, m.Token.User, m.Token.ID.String(), scopes)
		return
	}
	_, _ = w.Narrow(ctx, admin, tokens.NarrowRequest{User: m.Token.User, TokenID: m.Token.ID.String(), Scopes: scopes})
}

func (w *backedUp) endOne(t *rapid.T) {
	m := w.pick(t)
	id := m.Token.ID.String()
	switch rapid.IntRange(0, 7).Draw(t, "how") {
	case 0, 1:
		_, _ = w.Revoke(ctx, admin, m.Token.User, id, "lost, or so: audience x")
	case 2:
		_, _ = w.RevokeAll(ctx, admin, m.Token.User, "")
	case 3, 4:
		_, _ = w.SuspendUser(ctx, admin, m.Token.User, "")
	case 5:
		_, _ = w.ResumeUser(ctx, admin, m.Token.User, "")
	case 6:
		_, _ = w.CancelRotation(ctx, admin, m.Token.User, id)
	default:
		_, _ = w.DeleteUser(ctx, admin, m.Token.User, "left")
		w.give(m.Token.User, "a", "b", "c")
	}
}

func (w *backedUp) blockOne(t *rapid.T) {
	if rapid.Bool().Draw(t, "block") {
		_, _, _ = w.BlockTokens(ctx, admin, "api", "too long")
	} else {
		_, _, _ = w.UnblockTokens(ctx, admin, "api", "")
	}
}

func (w *backedUp) giveOne(t *rapid.T) {
	w.give(w.user(t), rapid.SampledFrom([][]string{{}, {"a"}, {"a", "b", "c"}, {"b", "c", "d"}}).Draw(t, "features")...)
}

func (w *backedUp) useOne(t *rapid.T) {
	if len(w.secrets) == 0 {
		t.Skip("no secret yet")
	}
	s := rapid.SampledFrom(w.secrets).Draw(t, "secret")
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0:
		_ = w.ask(s)
		return
	case 1:
		_ = w.RevokeSecret(ctx, tokens.Actor{}, s)
		return
	}
	g, err := w.Exchange(ctx, tokens.ExchangeRequest{Subject: s, Peer: home, Offline: true})
	if err == nil {
		w.secrets, w.refresh = append(w.secrets, g.Access), append(w.refresh, g.Refresh)
	}
}

func (w *backedUp) refreshOne(t *rapid.T) {
	if len(w.refresh) == 0 {
		t.Skip("no refresh token yet")
	}
	g, err := w.Refresh(
		ctx,
		tokens.RefreshRequest{Token: rapid.SampledFrom(w.refresh).Draw(t, "refresh token"), Peer: home},
	)
	if err == nil {
		w.secrets, w.refresh = append(w.secrets, g.Access), append(w.refresh, g.Refresh)
	}
}

func (w *backedUp) serviceOne(t *rapid.T) {
	name := rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "service")
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0, 1:
		if m, err := w.CreateService(
			ctx,
			admin,
			tokens.ServiceRequest{Name: name, Permissions: []string{"tokens"}},
		); err == nil {
			w.services = append(w.services, m.Secret)
		}
	case 2:
		grace := rapid.SampledFrom([]time.Duration{0, 20 * tokens.Day}).Draw(t, "grace")
		if m, err := w.RotateService(
			ctx,
			admin,
			tokens.RotateServiceRequest{Name: name, Grace: &grace, Force: true},
		); err == nil {
			w.services = append(w.services, m.Secret)
		}
	default:
		_, _ = w.RevokeService(ctx, admin, name, "")
	}
}

func (w *backedUp) waitOne(t *rapid.T) {
	w.wait(rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 3 * tokens.Day}).Draw(t, "time"))
}

func (w *backedUp) backUp(t *rapid.T) {
	if w.backup != "" {
		t.Skip("there is one")
	}
	w.backup = filepath.Join(filepath.Dir(w.path), "backup.db")
	if err := w.store.Backup(ctx, w.backup); err != nil {
		t.Fatal(err)
	}
}

// events are those of the audit log that a store has above a position.
func (h *house) events(after uint64) (list []tokens.Event) {
	h.t.Helper()
	err := h.store.View(ctx, func(tx tokens.ReadTx) (err error) {
		list, err = tx.OldestEvents(after, 1_000_000)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// restored is the backup with what was done since applied again.
func (w *backedUp) restored(t *rapid.T) *house {
	h := &house{t: w.t, path: w.backup, at: w.now(), ring: w.ring, known: w.known}
	h.open()
	w.replay(t, h)
	return h
}

func (w *backedUp) replay(t *rapid.T, h *house) tokens.Replayed {
	all, kept := w.events(0), h.events(0)
	var r tokens.Replay
	for _, e := range all[min(len(kept), len(all)):] {
		r.Add(e)
	}
	done, err := r.Apply(ctx, h.store, w.ring.Get(), h.now)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// refuseMore wants that what is refused in the world is refused in a restored store.
func (w *backedUp) refuseMore(t *rapid.T, h *house) {
	for i, s := range w.secrets {
		for _, ip := range []string{"192.0.2.7", "192.0.2.8", "198.51.100.1"} {
			at := netip.MustParseAddr(ip)
			r := tokens.IntrospectRequest{Secret: s, ClientIP: at}
			was, err := w.Introspect(ctx, gw, r)
			if err != nil {
				t.Fatal(err)
			}
			is, err := h.Introspect(ctx, gw, r)
			if err != nil {
				t.Fatal(err)
			}
			more := slices.DeleteFunc(
				slices.Clone(is.Effective),
				func(s string) bool { return slices.Contains(was.Effective, s) },
			)
			if is.Decision.Active() &&
				(!was.Decision.Active() || len(more) > 0 || is.ExpireTime.After(was.ExpireTime)) {
				t.Fatalf("secret %d from %s: %v %v until %s, and after the restore %v %v until %s",
					i, ip, was.Decision, was.Effective, was.ExpireTime, is.Decision, is.Effective, is.ExpireTime)
			}
		}
	}
	for i, s := range w.services {
		if !w.authenticates(s) && h.authenticates(s) {
			t.Fatalf("the secret %d of a service works again", i)
		}
	}
	for i, s := range w.refresh {
		r := tokens.RefreshRequest{Token: s, Peer: home}
		if _, err := h.Refresh(ctx, r); err == nil {
			if _, err := w.Refresh(ctx, r); err != nil {
				t.Fatalf("the refresh token %d works again: %v", i, err)
			}
		}
	}
}

// TestNothingThatWasTakenAwayWorksAgainAfterARestore does things at random before and after a backup, restores it, and
// compares every secret that there ever was.
func TestNothingThatWasTakenAwayWorksAgainAfterARestore(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &backedUp{house: newHouseIn(t, tempDir(t))}
		w.api("api")
		w.give("u1", "a", "b", "c")
		w.give("u2", "a", "b", "c")
		w.mintOne(t)
		w.mintOne(t)
		t.Repeat(map[string]func(*rapid.T){
			"mint": w.mintOne, "rotate": w.rotateOne, "update": w.updateOne, "narrow": w.narrowOne, "end": w.endOne,
			"block": w.blockOne, "give": w.giveOne, "use": w.useOne, "refresh": w.refreshOne, "service": w.serviceOne,
			"wait": w.waitOne, "back up": w.backUp,
		})
		if w.backup == "" {
			t.Skip("no backup")
		}
		h := w.restored(t)
		found, err := h.store.Check(ctx)
		if err != nil || len(found) > 0 {
			t.Fatalf("the restored store: %q, %v", found, err)
		}
		w.refuseMore(t, h)
	})
}

// TestAReplaySaysWhatItDid is one of each kind, with what is reported.
func TestAReplaySaysWhatItDid(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.api("api")
	h.give("u1", "a", "b")
	h.give("u2", "a", "b")
	revoked, rotated, narrowed, kept := h.mint(
		"u1",
		"revoked",
		"a",
	), h.mint(
		"u1",
		"rotated",
		"a",
	), h.mint(
		"u1",
		"narrowed",
		"a",
		"b",
	), h.mint(
		"u1",
		"kept",
		"a",
	)
	gate, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "gate", Permissions: []string{"tokens"}})
	if err != nil {
		t.Fatal(err)
	}
	other := h.mint("u2", "of a suspended user", "a")
	backup := filepath.Join(t.TempDir(), "backup.db")
	if err := h.store.Backup(ctx, backup); err != nil {
		t.Fatal(err)
	}
	before := len(h.events(0))
	h.wait(time.Hour)
	if _, err := h.Revoke(ctx, admin, "u1", revoked.Token.ID.String(), "lost"); err != nil {
		t.Fatal(err)
	}
	newest := h.rotate(rotated, 2*time.Hour)
	if _, err := h.UpdateToken(
		ctx,
		admin,
		"u1",
		narrowed.Token.ID.String(),
		tokens.TokenChange{Scopes: &[]string{"b"}},
	); err != nil {
		t.Fatal(err)
	}
	late := h.mint("u1", "after the backup", "a")
	if _, err := h.Revoke(ctx, admin, "u1", late.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SuspendUser(ctx, admin, "u2", "moved"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SuspendUser(ctx, admin, "nobody yet", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RevokeService(ctx, admin, "gate", ""); err != nil {
		t.Fatal(err)
	}
	h.strict(tokens.Day)
	var r tokens.Replay
	for _, e := range h.events(0)[before:] {
		r.Add(e)
	}
	to := &house{t: t, path: backup, at: h.now(), ring: h.ring, known: h.known}
	to.open()
	done, err := r.Apply(ctx, to.store, h.ring.Get(), to.now)
	if err != nil {
		t.Fatal(err)
	}
	to.wants(revoked.Secret, tokens.Revoked, "revoked after the backup")
	to.wants(other.Secret, tokens.UserIsSuspended, "a user who was suspended after it")
	to.wants(kept.Secret, tokens.Allow, "what nothing was taken from")
	to.wants(rotated.Secret, tokens.Allow, "a secret in its grace")
	to.wants(newest, tokens.NotFound, "the secret after it, which is lost")
	if in := to.ask(
		narrowed.Secret,
		"a",
	); in.Decision != tokens.InsufficientScope ||
		!slices.Equal(in.Effective, []string{"b"}) {
		t.Errorf("narrowed after the backup: %v %v", in.Decision, in.Effective)
	}
	if u, err := to.User(ctx, admin, "nobody yet"); err != nil || u.State != tokens.UserSuspended {
		t.Errorf("a user who was suspended before patd knew more: %v, %v", u.State, err)
	}
	if to.authenticates(gate.Secret) {
		t.Error("the service that was revoked works again")
	}
	if done.Tokens != 3 || done.Users != 2 || done.Services != 1 || len(done.Lost) != 1 ||
		!strings.Contains(done.Lost[0], rotated.Token.ID.String()) {
		t.Errorf("reported: %+v", done)
	}
	if len(done.Review) != 1 || !strings.Contains(done.Review[0], "audience api was replaced") {
		t.Errorf("to review: %q", done.Review)
	}
	to.wait(2 * time.Hour)
	to.wants(rotated.Secret, tokens.Superseded, "the grace is over")
	if tok, err := to.Token(
		ctx,
		admin,
		"u1",
		revoked.Token.ID.String(),
	); err != nil || tok.Revocation.By != "service:admin" ||
		!tok.Revocation.Time.Equal(noon.Add(time.Hour)) ||
		!strings.HasSuffix(tok.Revocation.Reason, ": lost") {
		t.Errorf("the revocation: %+v, %v", tok.Revocation, err)
	}
}
