package tokens_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/internal/longtest"
	"patd/tokens"
)

func (h *house) newService(name string, ttl time.Duration) tokens.MintedService {
	h.t.Helper()
	m, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: name, Permissions: []string{"tokens"}, TTL: &ttl})
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func (h *house) accepted(s tokens.Secret) bool {
	h.t.Helper()
	_, err := h.Authenticate(ctx, s, tokens.Peer{})
	switch reason(err) {
	case "", "CREDENTIAL_INVALID", "TOKEN_SUPERSEDED", "TOKEN_EXPIRED", "TOKEN_REVOKED":
	default:
		h.t.Fatal(err)
	}
	return err == nil
}

func TestAServiceRotatesUnderItsName(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.newService("gate", 30*tokens.Day)
	h.wait(25 * tokens.Day)
	second, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate"})
	if err != nil {
		t.Fatal(err)
	}
	if second.Service.ID != first.Service.ID || second.Service.Name != "gate" ||
		second.Service.Permissions != first.Service.Permissions {
		t.Errorf("another service: %+v", second.Service)
	}
	// The new secret has the same lifetime again; the old one its own end, which comes before the grace of 7 days.
	if got := second.Service.ExpireTime; !got.Equal(h.now().Add(30 * tokens.Day)) {
		t.Errorf("it expires at %v, %v from now", got, got.Sub(h.now()))
	}
	if !second.PreviousUntil.Equal(first.Service.ExpireTime) {
		t.Errorf("the previous secret until %v, want %v", second.PreviousUntil, first.Service.ExpireTime)
	}
	for i, c := range []struct {
		secret tokens.Secret
		end    time.Time
	}{{first.Secret, first.Service.ExpireTime}, {second.Secret, second.Service.ExpireTime}} {
		a, err := h.Authenticate(ctx, c.secret, tokens.Peer{})
		if err != nil || a.Name != "gate" || a.TokenID != first.Service.ID || !a.ExpireTime.Equal(c.end) {
			t.Errorf("%+v, %v; want the end %v", a, err, c.end)
		}
		if _, err := h.SetUserFeatures(ctx, admin, "u1", []string{"a"}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Mint(
			ctx,
			a,
			tokens.MintRequest{User: "u1", Name: []string{"one", "two"}[i], Scopes: []string{"a"}},
		); err != nil {
			t.Errorf("a change in the grace: %v", err)
		}
		if _, err := h.Recheck(ctx, a); err != nil {
			t.Errorf("a stream in the grace: %v", err)
		}
	}
	old, err := h.Authenticate(ctx, first.Secret, tokens.Peer{})
	if err != nil {
		t.Fatal(err)
	}
	h.wait(5 * tokens.Day)
	if h.accepted(first.Secret) || !h.accepted(second.Secret) {
		t.Errorf("after the grace: %v %v", h.accepted(first.Secret), h.accepted(second.Secret))
	}
	if _, err := h.Authenticate(ctx, first.Secret, tokens.Peer{}); reason(err) != "TOKEN_SUPERSEDED" ||
		!strings.Contains(err.Error(), first.Service.ExpireTime.Format(time.RFC3339)) {
		t.Errorf("the bearer of the old secret is told %v", err)
	}
	if _, err := h.Recheck(ctx, old); reason(err) != "CREDENTIAL_INVALID" {
		t.Errorf("a stream of the old secret goes on: %v", err)
	}
	_, err = h.Mint(ctx, old, tokens.MintRequest{User: "u1", Name: "late", Scopes: []string{"a"}})
	wantReason(t, err, "CREDENTIAL_INVALID", "a change with the old secret")

	// Once renewed, the lifetime is that of the last secret, and a TTL sets another.
	ttl, none := 60*tokens.Day, time.Duration(0)
	third, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate", TTL: &ttl, Grace: &none})
	if err != nil {
		t.Fatal(err)
	}
	if !third.Service.ExpireTime.Equal(h.now().Add(ttl)) || h.accepted(second.Secret) || !h.accepted(third.Secret) {
		t.Errorf("%+v; the second secret is accepted: %v", third.Service, h.accepted(second.Secret))
	}
	if _, err := h.Authenticate(
		ctx,
		second.Secret,
		tokens.Peer{},
	); !strings.Contains(
		err.Error(),
		h.now().Format(time.RFC3339),
	) {
		t.Errorf("the bearer of a secret without a grace is told %v", err)
	}
	h.wait(-tokens.Day)
	if h.accepted(second.Secret) {
		t.Error("a secret rotated away without a grace comes back when the clock is set back")
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "service.rotate"}, tokens.Page{})
	if err != nil || len(events) != 2 || events[1].Service != "gate" || events[1].TokenID != first.Service.ID ||
		!strings.HasPrefix(events[1].Detail, "previous secret until ") {
		t.Errorf("events: %+v, %v", events, err)
	}
	if _, err := h.RevokeService(ctx, admin, "gate", ""); err != nil || h.accepted(third.Secret) {
		t.Errorf("revoked: %v", err)
	}
	_, err = h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate"})
	wantReason(t, err, "TOKEN_NOT_ACTIVE", "rotate a revoked service")
	_, err = h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "nobody"})
	wantReason(t, err, "NOT_FOUND", "rotate no service")
}

func TestASecondRotationOfAServiceInTheGraceIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.newService("gate", 100*tokens.Day)
	second, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate"})
	if err != nil {
		t.Fatal(err)
	}
	if !second.PreviousUntil.Equal(h.now().Add(7 * tokens.Day)) {
		t.Errorf("the grace ends at %v", second.PreviousUntil)
	}
	_, err = h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate"})
	if e := domainError(t, err); e.Reason != "ROTATION_IN_PROGRESS" || e.Code != tokens.CodePrecondition ||
		e.Metadata["previous_secret_expire_time"] != second.PreviousUntil.Format(time.RFC3339) {
		t.Errorf("%+v", e)
	}
	if !h.accepted(first.Secret) || !h.accepted(second.Secret) {
		t.Error("a refused rotation ended a secret")
	}
	third, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate", Force: true})
	if err != nil || h.accepted(first.Secret) || !h.accepted(second.Secret) || !h.accepted(third.Secret) {
		t.Errorf(
			"forced: %v; %v %v %v",
			err,
			h.accepted(first.Secret),
			h.accepted(second.Secret),
			h.accepted(third.Secret),
		)
	}
}

func TestARepeatedRotationOfAServiceAnswersTheSameSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	create := tokens.ServiceRequest{Name: "gate", Permissions: []string{"tokens"}, IdempotencyKey: idem + "-create"}
	if _, err := h.CreateService(ctx, admin, create); err != nil {
		t.Fatal(err)
	}
	r := tokens.RotateServiceRequest{Name: "gate", IdempotencyKey: idem}
	first, err := h.RotateService(ctx, admin, r)
	if err != nil {
		t.Fatal(err)
	}
	h.wait(time.Hour)
	again, err := h.RotateService(ctx, admin, r)
	if err != nil || !again.Replayed || again.Secret.Reveal() != first.Secret.Reveal() ||
		!again.PreviousUntil.Equal(first.PreviousUntil) {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	if m, err := h.CreateService(ctx, admin, create); err != nil || !m.Replayed || !m.Secret.IsEmpty() {
		t.Errorf("the request that made the service still answers its first secret: %+v, %v", m, err)
	}
	other := r
	other.Force = true
	_, err = h.RotateService(ctx, admin, other)
	wantReason(t, err, "IDEMPOTENCY_KEY_REUSED", "the key of another request")
	if _, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate", Force: true}); err != nil {
		t.Fatal(err)
	}
	if again, err = h.RotateService(ctx, admin, r); err != nil || !again.Replayed || !again.Secret.IsEmpty() {
		t.Errorf("repeated after another rotation: %+v, %v", again, err)
	}
}

func TestALeakedSecretInItsGraceEndsItsService(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.newService("gate", 100*tokens.Day)
	second, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate"})
	if err != nil {
		t.Fatal(err)
	}
	h.wait(8 * tokens.Day)
	if err := h.ReportLeaks(
		ctx,
		tokens.Actor{},
		[]tokens.Secret{first.Secret},
	); err != nil ||
		!h.accepted(second.Secret) {
		t.Errorf("the leak of a secret that has ended ended its service: %v", err)
	}
	third, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.ReportLeaks(
		ctx,
		tokens.Actor{},
		[]tokens.Secret{second.Secret},
	); err != nil || h.accepted(second.Secret) ||
		h.accepted(third.Secret) {
		t.Errorf("the leak of a secret in its grace: %v", err)
	}
}

func TestRotatedServiceSecretsMoveToALaterKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.newService("gate", 100*tokens.Day)
	second, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate"})
	if err != nil {
		t.Fatal(err)
	}
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	h.wait(time.Hour)
	if err := tokens.RetireKey(ctx, h.store, h.ring.Get(), "a", h.now()); reason(err) != "KEY_IN_USE" {
		t.Errorf("retire a key with both secrets' digests: %v", err)
	}
	if !h.accepted(second.Secret) {
		t.Error("the current secret under the older key")
	}
	h.reopen()
	if err := tokens.RetireKey(
		ctx,
		h.store,
		h.ring.Get(),
		"a",
		h.now(),
	); reason(err) != "KEY_IN_USE" ||
		!strings.Contains(err.Error(), "key a: 1;") {
		t.Errorf("retire a key with the previous secret's digest: %v", err)
	}
	if !h.accepted(first.Secret) {
		t.Error("the previous secret under the older key")
	}
	h.reopen()
	if err := tokens.RetireKey(ctx, h.store, h.ring.Get(), "a", h.now()); err != nil {
		t.Fatal(err)
	}
	h.ring.Set(parseKeys(t, lineB))
	h.reopen()
	if !h.accepted(first.Secret) || !h.accepted(second.Secret) {
		t.Errorf("digested anew: %v %v", h.accepted(first.Secret), h.accepted(second.Secret))
	}
}

// TestNoRotationOfAServiceEndsASecretEarly compares rotations in any order with what each of their callers was told.
func TestNoRotationOfAServiceEndsASecretEarly(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouseIn(rt, tempDir(rt))
		m := h.newService("gate", 90*tokens.Day)
		type promise struct {
			secret tokens.Secret
			until  time.Time
		}
		told := []promise{{m.Secret, m.Service.ExpireTime}}
		rt.Repeat(map[string]func(*rapid.T){
			"rotate": func(rt *rapid.T) {
				grace := time.Duration(rapid.IntRange(0, 30*24).Draw(rt, "grace")) * time.Hour
				r := tokens.RotateServiceRequest{Name: "gate", Grace: &grace, Force: rapid.Bool().Draw(rt, "force")}
				out, err := h.RotateService(ctx, admin, r)
				last := &told[len(told)-1]
				switch {
				case !h.now().Before(last.until):
					wantReason(rt, err, "TOKEN_NOT_ACTIVE", "rotate what has expired")
					return
				case reason(err) == "ROTATION_IN_PROGRESS" && !r.Force && len(told) > 1 && h.now().Before(told[len(told)-2].until):
					return
				case err != nil:
					rt.Fatal(err)
				}
				for i := range told[:len(told)-1] { // the caller said so, by force
					if told[i].until.After(h.now()) && !r.Force {
						rt.Fatalf("secret %d was ended without force", i)
					}
					told[i].until = h.now()
				}
				if out.PreviousUntil.After(last.until) {
					rt.Fatalf("the previous secret outlives its own expiry")
				}
				last.until = out.PreviousUntil
				told = append(told, promise{out.Secret, out.Service.ExpireTime})
			},
			"wait": func(rt *rapid.T) { h.wait(time.Duration(rapid.IntRange(1, 20*24).Draw(rt, "hours")) * time.Hour) },
			"": func(rt *rapid.T) {
				live := 0
				for i, p := range told {
					want := h.now().Before(p.until)
					if got := h.accepted(p.secret); got != want {
						rt.Fatalf("secret %d of %d is accepted: %v, want %v", i+1, len(told), got, want)
					}
					if want {
						live++
					}
				}
				if live > 2 {
					rt.Fatalf("%d live secrets", live)
				}
			},
		})
	})
}
