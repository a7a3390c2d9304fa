package tokens_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/internal/servicetest"
	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// house is a service on a real store, with a clock that the test moves.
type house struct {
	*tokens.Service
	t     tb
	store *store.Store
	path  string
	ring  *tokens.Keyring
	mu    sync.Mutex
	at    time.Time
	known map[tokens.ID]tokens.Hash // the stored digests of services that serviceOf made
}

var (
	ctx   = context.Background()
	admin = tokens.Actor{Kind: tokens.ServiceActor, Name: "admin", TokenID: 1, Permissions: tokens.PermAdmin}
	gw    = tokens.Actor{Kind: tokens.ServiceActor, Name: "gw", TokenID: 2, Permissions: tokens.PermIntrospect}
)

// tb is what testing.T and rapid.T have in common.
type tb interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newHouse(t testing.TB, change ...func(*tokens.Config)) *house {
	t.Helper()
	return newHouseIn(t, t.TempDir(), change...)
}

func newHouseIn(t tb, dir string, change ...func(*tokens.Config)) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(dir, "patd.db"), at: noon, ring: secret.NewKeyring(parseKeys(t, lineA))}
	h.open(change...)
	return h
}

func (h *house) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *house) wait(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.at.Add(d)
}

func (h *house) open(change ...func(*tokens.Config)) {
	h.t.Helper()
	made := servicetest.New(h.t, servicetest.Options{
		File: h.path, Keys: h.ring, Now: h.now,
		Change: func(c *tokens.Config) {
			for _, f := range change {
				f(c)
			}
		},
	})
	h.t.Cleanup(func() { wholeRows(h.t, made.Store) })
	h.Service, h.store = made.Service, made.Store
	h.serviceOf(admin)
	h.serviceOf(gw)
}

// wholeRows checks that no change of a test has left a row without its checksum, or with a wrong one.
func wholeRows(t tb, st *store.Store) {
	t.Helper()
	found, err := st.Check(ctx)
	if err != nil && !strings.Contains(err.Error(), "closed") {
		t.Errorf("check: %v", err)
	}
	for _, problem := range found {
		if strings.Contains(problem, store.RefusedRemedy) &&
			!strings.Contains(problem, secret.ErrRowKeyMissing.Error()) {
			t.Errorf("%s", problem)
		}
	}
}

// serviceOf stores the service that an actor says that it is. After a change of keys its digest moves to the new one.
func (h *house) serviceOf(a tokens.Actor) {
	h.t.Helper()
	digest := h.ring.Get().Digest(secret.NewSecret("pats_of_a_test"))
	if h.known == nil {
		h.known = map[tokens.ID]tokens.Hash{}
	}
	old, known := h.known[a.TokenID]
	h.known[a.TokenID] = digest
	if known {
		if old != digest {
			h.store.RecordUse(
				tokens.Usage{ID: a.TokenID, Kind: secret.KindService, Rekey: &tokens.Rekey{Old: old, New: digest}},
			)
		}
		return
	}
	err := h.store.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		v := tokens.ServiceAccount{
			ID:          a.TokenID,
			Name:        a.Name,
			Permissions: a.Permissions,
			Audience:    a.Audience,
			IssueTime:   noon,
		}
		e := tokens.Event{
			Time:    noon,
			Actor:   "operator",
			Action:  tokens.ActionServiceCreate,
			Service: a.Name,
			TokenID: a.TokenID,
			Outcome: tokens.OutcomeSuccess,
		}
		return []tokens.Event{e}, tx.InsertService(v, digest)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// bound is a service that may introspect and is bound to an audience.
func (h *house) bound(audience string) tokens.Actor {
	h.t.Helper()
	found, _, err := h.Services(ctx, admin, tokens.Page{})
	if err != nil {
		h.t.Fatal(err)
	}
	a := tokens.Actor{
		Kind:        tokens.ServiceActor,
		Name:        "bound-to-" + audience,
		Permissions: tokens.PermIntrospect,
		Audience:    audience,
	}
	for _, s := range found {
		if a.TokenID = s.ID; s.Name == a.Name {
			return a
		}
	}
	a.TokenID = tokens.ID(100 + len(found))
	h.serviceOf(a)
	return a
}

// reopen stops the store cleanly, which writes what is behind, and starts it again.
func (h *house) reopen(change ...func(*tokens.Config)) {
	h.t.Helper()
	if err := h.store.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open(change...)
}

func (h *house) give(user string, features ...string) {
	h.t.Helper()
	if _, err := h.SetUserFeatures(ctx, admin, user, features); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) mint(user, name string, scopes ...string) tokens.Minted {
	h.t.Helper()
	m, err := h.Mint(ctx, admin, tokens.MintRequest{User: user, Name: name, Scopes: scopes})
	if err != nil {
		h.t.Fatalf("mint %s: %v", name, err)
	}
	return m
}

func (h *house) ask(s tokens.Secret, required ...string) tokens.Introspection {
	h.t.Helper()
	in, err := h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: s, Required: required})
	if err != nil {
		h.t.Fatalf("introspect: %v", err)
	}
	return in
}

func (h *house) wants(s tokens.Secret, want tokens.Decision, why string) {
	h.t.Helper()
	in := h.ask(s)
	if in.Decision != want {
		h.t.Errorf("%s: decision %v, want %v", why, in.Decision, want)
	}
	if (in.Ended != nil) != (!want.Active() && want != tokens.NotFound) {
		h.t.Errorf("%s: the decision %v tells why as %v", why, want, in.Ended)
	}
	if in.Ended = nil; !want.Active() {
		if d := cmp.Diff(
			tokens.Introspection{Decision: want},
			in,
			cmp.Comparer(func(a, b tokens.Token) bool { return a.ID == b.ID && a.User == b.User }),
		); d != "" {
			h.t.Errorf("%s: an inactive answer tells more:\n%s", why, d)
		}
	}
}

func wantReason(t tb, err error, want, what string) {
	t.Helper()
	if got := reason(err); got != want {
		t.Errorf("%s: %q (%v), want %q", what, got, err, want)
	}
}

func domainError(t tb, err error) *tokens.Error {
	t.Helper()
	var e *tokens.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an error of the domain: %v", err)
	}
	return e
}

func TestMintedTokenIntrospects(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b", "c")
	m := h.mint("u1", "  ci  ", "b", "a", "b")
	in := h.ask(m.Secret, "a")
	if in.Decision != tokens.Allow || in.Token.Name != "ci" || in.Token.User != "u1" {
		t.Errorf("%+v", in)
	}
	if d := cmp.Diff([]string{"a", "b"}, in.Effective); d != "" {
		t.Error(d)
	}
	if want := noon.Add(
		tokens.DefaultTTL,
	); !in.ExpireTime.Equal(want) || in.ExpiresIn != tokens.DefaultTTL ||
		!m.Token.ExpireTime.Equal(want) {
		t.Errorf("expires %s in %s, told %s; want %s", in.ExpireTime, in.ExpiresIn, m.Token.ExpireTime, want)
	}
	if in.Sequence == 0 {
		t.Error("no position in the change feed")
	}
	in = h.ask(m.Secret, "c", "a", "x", "c")
	if d := cmp.Diff([]string{"c", "x"}, in.Missing); in.Decision != tokens.InsufficientScope || d != "" {
		t.Errorf("%v %s", in.Decision, d)
	}
}

func TestScopesNotHeldAreRefusedTogether(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	_, err := h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"z", "a", "y"}})
	wantReason(t, err, "SCOPE_NOT_HELD", "two not held")
	e := domainError(t, err)
	if len(e.Violations) != 2 || !strings.Contains(e.Violations[0].Description, "y") ||
		!strings.Contains(e.Violations[1].Description, "z") {
		t.Errorf("violations: %+v", e.Violations)
	}
	for name, scopes := range map[string][]string{"nil": nil, "empty": {}} {
		_, err = h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n", Scopes: scopes})
		wantReason(t, err, "SCOPES_REQUIRED", name)
	}
	_, err = h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"*"}})
	wantReason(t, err, "SCOPE_NOT_HELD", "wildcard")
	_, err = h.Mint(ctx, admin, tokens.MintRequest{User: "stranger", Name: "n", Scopes: []string{"a"}})
	wantReason(t, err, "SCOPE_NOT_HELD", "unknown user")
	if _, err := h.User(ctx, admin, "stranger"); reason(err) != "NOT_FOUND" {
		t.Errorf("the refused mint made a user: %v", err)
	}
}

func TestNamesAreUniqueAmongLiveTokens(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	h.give("u2", "a")
	first := h.mint("u1", "Stra\u00dfe", "a")
	again := tokens.MintRequest{User: "u1", Name: "STRASSE ", Scopes: []string{"a"}}
	_, err := h.Mint(ctx, admin, again)
	wantReason(t, err, "NAME_TAKEN", "the same name in capitals")
	if id := domainError(t, err).Metadata["token_id"]; id != first.Token.ID.String() {
		t.Errorf("the error names %q", id)
	}
	h.mint("u2", "strasse", "a")
	if _, err := h.Revoke(ctx, admin, "u1", first.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err = h.Mint(ctx, admin, again); err != nil {
		t.Errorf("free again after the revocation: %v", err)
	}
	h.wait(tokens.DefaultTTL)
	if _, err = h.Mint(ctx, admin, again); err != nil {
		t.Errorf("free again after the expiry: %v", err)
	}
	other := h.mint("u1", "other", "a")
	taken, own := "strasse", "OTHER"
	_, err = h.UpdateToken(ctx, admin, "u1", other.Token.ID.String(), tokens.TokenChange{Name: &taken})
	wantReason(t, err, "NAME_TAKEN", "update to a taken name")
	if _, err = h.UpdateToken(ctx, admin, "u1", other.Token.ID.String(), tokens.TokenChange{Name: &own}); err != nil {
		t.Errorf("update to the own name in capitals: %v", err)
	}
}

func TestActiveTokensAreLimited(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Limits.ActiveTokens = 2 })
	h.give("u1", "a")
	first := h.mint("u1", "1", "a")
	h.mint("u1", "2", "a")
	_, err := h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "3", Scopes: []string{"a"}})
	wantReason(t, err, "TOKEN_LIMIT_REACHED", "third")
	if _, err := h.Revoke(ctx, admin, "u1", first.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	h.mint("u1", "3", "a")
	h.wait(tokens.DefaultTTL)
	h.mint("u1", "4", "a")
}

func TestEffectiveScopesFollowTheUser(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.mint("u1", "n", "a", "b")
	h.give("u1", "b", "c")
	in := h.ask(m.Secret)
	if d := cmp.Diff([][]string{{"b"}, {"a"}}, [][]string{in.Effective, in.Suspended}); d != "" {
		t.Error(d)
	}
	if in := h.ask(m.Secret, "a"); in.Decision != tokens.InsufficientScope {
		t.Errorf("a lost feature: %v", in.Decision)
	}
	if _, err := h.UpdateUserFeatures(ctx, admin, "u1", []string{"a"}, []string{"b"}); err != nil {
		t.Fatal(err)
	}
	in = h.ask(m.Secret, "a")
	if d := cmp.Diff(
		[][]string{{"a"}, {"b"}},
		[][]string{in.Effective, in.Suspended},
	); d != "" ||
		in.Decision != tokens.Allow {
		t.Errorf("%v %s", in.Decision, d)
	}
	h.give("u1")
	in = h.ask(m.Secret)
	if len(in.Effective) != 0 || in.Decision != tokens.Allow {
		t.Errorf("no features: %v %v", in.Effective, in.Decision)
	}
}

func TestRotation(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	id := m.Token.ID.String()
	rotate := func(grace time.Duration) tokens.Rotated {
		t.Helper()
		r, err := h.Rotate(ctx, admin, tokens.RotateRequest{User: "u1", TokenID: id, Grace: &grace, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r1 := rotate(time.Hour)
	if r1.Token.ID != m.Token.ID || !r1.PreviousUntil.Equal(noon.Add(time.Hour)) ||
		!r1.Token.ExpireTime.Equal(m.Token.ExpireTime) {
		t.Errorf("%+v", r1)
	}
	if in := h.ask(m.Secret); in.Decision != tokens.Allow || in.ExpiresIn != time.Hour {
		t.Errorf("the previous secret in its grace: %v, %s", in.Decision, in.ExpiresIn)
	}
	h.wants(r1.Secret, tokens.Allow, "the new secret")
	h.wait(time.Hour)
	h.wants(m.Secret, tokens.Superseded, "the previous secret after its grace")
	r2 := rotate(time.Hour)
	r3 := rotate(time.Hour)
	h.wants(r1.Secret, tokens.Superseded, "a third secret")
	h.wants(r2.Secret, tokens.Allow, "the second")
	h.wants(r3.Secret, tokens.Allow, "the first")
	r4 := rotate(0)
	h.wants(r3.Secret, tokens.Superseded, "no grace")
	h.wants(m.Secret, tokens.Superseded, "four rotations ago")
	h.wants(r4.Secret, tokens.Allow, "the newest")
	if _, err := h.Revoke(ctx, admin, "u1", id, ""); err != nil {
		t.Fatal(err)
	}
	for _, s := range []tokens.Secret{m.Secret, r3.Secret, r4.Secret} {
		h.wants(s, tokens.Revoked, "revoked wins over superseded")
	}
	_, err := h.Rotate(ctx, admin, tokens.RotateRequest{User: "u1", TokenID: id})
	wantReason(t, err, "TOKEN_NOT_ACTIVE", "rotate a revoked token")
}

func TestRotationKeepsToThePolicy(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	rotate := func(r tokens.RotateRequest) (tokens.Rotated, error) {
		r.User, r.TokenID, r.Force = "u1", m.Token.ID.String(), true
		return h.Rotate(ctx, admin, r)
	}
	for d, want := range map[time.Duration]string{-1: "GRACE_OUT_OF_RANGE", tokens.MaxGrace + 1: "GRACE_OUT_OF_RANGE", tokens.MaxGrace: ""} {
		_, err := rotate(tokens.RotateRequest{Grace: &d})
		wantReason(t, err, want, "grace "+d.String())
	}
	long := 367 * tokens.Day
	_, err := rotate(tokens.RotateRequest{Lifetime: tokens.Lifetime{TTL: &long}})
	wantReason(t, err, "TTL_ABOVE_MAXIMUM", "a long lifetime")
	_, err = rotate(tokens.RotateRequest{Lifetime: tokens.Lifetime{Never: true}})
	wantReason(t, err, "NEVER_NOT_ALLOWED", "never")
	h.wait(tokens.DefaultTTL - time.Hour)
	year := 366 * tokens.Day
	r, err := rotate(tokens.RotateRequest{Lifetime: tokens.Lifetime{TTL: &year}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.PreviousUntil.Equal(m.Token.ExpireTime) || !r.Token.ExpireTime.Equal(h.now().Add(year)) {
		t.Errorf(
			"previous until %s (its own expiry %s), new %s",
			r.PreviousUntil,
			m.Token.ExpireTime,
			r.Token.ExpireTime,
		)
	}
	h.wait(time.Hour)
	h.wants(m.Secret, tokens.Superseded, "a secret past its own expiry, in its grace")
	h.wants(r.Secret, tokens.Allow, "the extended one")
	h.wait(year)
	h.wants(r.Secret, tokens.Expired, "expired")
	_, err = rotate(tokens.RotateRequest{})
	wantReason(t, err, "TOKEN_NOT_ACTIVE", "rotate an expired token")
}

func TestUpdateOnlyNarrows(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b", "c")
	m := h.mint("u1", "n", "a", "b")
	update := func(c tokens.TokenChange) (tokens.Token, error) {
		return h.UpdateToken(ctx, admin, "u1", m.Token.ID.String(), c)
	}
	later, earlier, past, never := m.Token.ExpireTime.Add(time.Microsecond), noon.Add(time.Hour), noon, time.Time{}
	for name, c := range map[string]struct {
		c    tokens.TokenChange
		want string
	}{
		"a scope held but not granted": {tokens.TokenChange{Scopes: &[]string{"a", "c"}}, "SCOPES_WIDENED"},
		"no scopes":                    {tokens.TokenChange{Scopes: &[]string{}}, "SCOPES_REQUIRED"},
		"later":                        {tokens.TokenChange{ExpireTime: &later}, "EXPIRE_TIME_LATER"},
		"never":                        {tokens.TokenChange{ExpireTime: &never}, "EXPIRE_TIME_LATER"},
		"past":                         {tokens.TokenChange{ExpireTime: &past}, "EXPIRE_TIME_PAST"},
	} {
		_, err := update(c.c)
		wantReason(t, err, c.want, name)
	}
	got, err := update(tokens.TokenChange{Scopes: &[]string{"b"}, ExpireTime: &earlier, CIDRs: &[]string{"10.1.2.3/8"}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(
		[]string{"b"},
		got.Scopes,
	); d != "" || !got.ExpireTime.Equal(earlier) ||
		got.CIDRs[0].String() != "10.0.0.0/8" {
		t.Errorf("%s %+v", d, got)
	}
	_, err = update(tokens.TokenChange{Scopes: &[]string{"a", "b"}})
	wantReason(t, err, "SCOPES_WIDENED", "back to what it was")
	h.wants(m.Secret, tokens.IPNotAllowed, "bound to networks, no address")
	h.wait(time.Hour)
	h.wants(m.Secret, tokens.Expired, "expired")
	_, err = update(tokens.TokenChange{Scopes: &[]string{"b"}})
	wantReason(t, err, "TOKEN_NOT_ACTIVE", "update an expired token")
}
