package server_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/waittest"
	"patd/tokens"
)

// selfAnswer is the response to POST /v1/self:rotate.
type selfAnswer struct {
	Token struct {
		TokenID        string    `json:"token_id"`
		SelfRotate     bool      `json:"self_rotate"`
		ExpireTime     time.Time `json:"expire_time"`
		RenewableUntil time.Time `json:"renewable_until"`
		Rotation       any       `json:"rotation"`
	} `json:"token"`
	Secret           string    `json:"secret"`
	PreviousUntil    time.Time `json:"previous_secret_expire_time"`
	ExpireTimeChange string    `json:"expire_time_change"`
	RetirePrevious   string    `json:"retire_previous"`
}

func (r *rig) self(t *testing.T, a answerOf) (got selfAnswer) {
	t.Helper()
	if a.code != 200 {
		t.Fatalf("%d %s", a.code, a.body)
	}
	must(t, json.Unmarshal([]byte(a.body), &got))
	return got
}

// TestATokenRotatesItselfOverREST from its minting on, and repeats the call with the old secret.
func TestATokenRotatesItselfOverREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	until := r.now().Truncate(time.Microsecond).Add(100 * tokens.Day)
	body := `{"name":"n","scopes":["a"],"ttl":"30d","self_rotate":true,"renewable_until":"` + until.Format(
		time.RFC3339Nano,
	) + `"}`
	minted := r.self(t, r.rest("POST", "/v1/users/u1/tokens", r.admin, body))
	old := minted.Secret
	if !minted.Token.SelfRotate || !minted.Token.RenewableUntil.Equal(until) {
		t.Errorf("minted %+v", minted.Token)
	}
	const key = "0123456789abcdef-key"
	r.wait(20 * tokens.Day)
	ask := `{"grace":"60s","renew":true,"retire_previous":"ON_FIRST_USE"}`
	first := r.rest("POST", "/v1/self:rotate", old, ask, "Idempotency-Key", key)
	got := r.self(t, first)
	if got.Secret == "" || got.Secret == old || got.Token.TokenID != minted.Token.TokenID ||
		got.ExpireTimeChange != "RENEWED" ||
		got.RetirePrevious != "ON_FIRST_USE" ||
		!got.PreviousUntil.Equal(until.Add(time.Minute-80*tokens.Day)) ||
		!got.Token.ExpireTime.Equal(until.Add(-50*tokens.Day)) ||
		first.header.Get("Patd-Token-Expires-At") == "" {
		t.Errorf("rotated: %v %s", first.header, first.body)
	}
	again := r.rest("POST", "/v1/self:rotate", old, ask, "Idempotency-Key", key)
	if again.header.Get("Idempotency-Replayed") != "true" || r.self(t, again).Secret != got.Secret {
		t.Errorf("repeated: %d %v", again.code, again.header)
	}
	busy := r.rest("POST", "/v1/self:rotate", got.Secret, `{}`)
	if reason, _ := busy.reason(); busy.code != 400 || reason != "ROTATION_IN_PROGRESS" {
		t.Errorf("in the grace: %d %s", busy.code, busy.body)
	}
	if self := r.self(t, r.rest("GET", "/v1/self", old, "")); !self.Token.SelfRotate || self.Token.Rotation == nil {
		t.Errorf("the bearer is told %+v", self.Token)
	}
	if d := r.introspect(got.Secret); d != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("the new secret: %s", d)
	}
	gone := r.rest("POST", "/v1/self:rotate", old, ask, "Idempotency-Key", key)
	if reason, _ := gone.reason(); gone.code != 401 || reason != "TOKEN_SUPERSEDED" {
		t.Errorf("after the first use: %d %s", gone.code, gone.body)
	}
	off := r.rest(
		"PATCH",
		"/v1/users/u1/tokens/"+got.Token.TokenID,
		r.admin,
		`{"token":{},"update_mask":"self_rotate"}`,
	)
	if self := r.self(t, off); self.Token.SelfRotate || !self.Token.RenewableUntil.IsZero() {
		t.Errorf("switched off: %+v", self.Token)
	}
	no := r.rest("POST", "/v1/self:rotate", got.Secret, `{}`)
	if reason, _ := no.reason(); no.code != 403 || reason != "SELF_ROTATE_NOT_ALLOWED" {
		t.Errorf("switched off: %d %s", no.code, no.body)
	}
	far := &patdv1.UpdateTokenRequest{
		User: "u1", TokenId: got.Token.TokenID, UpdateMask: "self_rotate,renewable_until",
		Token: &patdv1.Token{SelfRotate: true, RenewableUntil: timestamppb.New(until.AddDate(9000, 0, 0))},
	}
	if _, err := patdv1.NewTokenServiceClient(r.conn).UpdateToken(as(r.admin), far); err == nil {
		t.Error("a time after the year 9999 was taken")
	}
	events, _, err := r.svc.Events(
		context.Background(),
		tokens.Operator(),
		tokens.EventFilter{Action: "token.rotate", Actor: "token:" + got.Token.TokenID},
		tokens.Page{},
	)
	if must(t, err); len(events) != 3 || events[2].Outcome != tokens.OutcomeSuccess {
		t.Errorf("events %+v", events)
	}
}

// TestTheOwnerIsToldOfASupersededSecret that somebody goes on presenting to a service: in the audit log, written in the
// background.
func TestTheOwnerIsToldOfASupersededSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, old := r.mint("u1", "n")
	grace := time.Duration(0)
	_, err := r.svc.Rotate(
		context.Background(),
		tokens.Operator(),
		tokens.RotateRequest{User: "u1", TokenID: id, Grace: &grace},
	)
	must(t, err)
	for range 3 {
		if d := r.introspect(old); d != patdv1.IntrospectResponse_SUPERSEDED {
			t.Fatalf("an old secret: %s", d)
		}
		if got := r.rest("GET", "/v1/self", old, ""); got.code != 401 {
			t.Fatalf("an old secret: %d", got.code)
		}
	}
	var told struct {
		Events []struct{ Actor, User, Reason, Outcome string }
	}
	path := "/v1/events?action=token.superseded_use&token_id=" + id
	waittest.Until(t, "the event", func() bool {
		got := r.rest("GET", path, r.admin, "")
		must(t, json.Unmarshal([]byte(got.body), &told))
		return len(told.Events) > 0
	})
	if e := told.Events[0]; len(told.Events) != 1 || e.Actor != "token:"+id || e.User != "u1" ||
		e.Reason != "TOKEN_SUPERSEDED" ||
		e.Outcome != "REFUSED" {
		t.Errorf("events %+v", told.Events)
	}
	wantMetric(t, r, "patd_superseded_uses_unrecorded_total 0")
}

// TestBothRotationsRefuseTheSame holds that the bearer of a token and its owner are refused alike, with nothing changed.
func TestBothRotationsRefuseTheSame(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	minted := r.self(t, r.rest("POST", "/v1/users/u1/tokens", r.admin,
		`{"name":"n","scopes":["a"],"ttl":"30d","self_rotate":true}`))
	for _, c := range []struct{ ask, key, reason, field string }{
		{`{"retire_previous":7}`, "", "RETIRE_PREVIOUS_UNKNOWN", "retire_previous"},
		{
			`{"retire_previous":7,"request_id":"0123456789abcdef-one"}`, "0123456789abcdef-two",
			"IDEMPOTENCY_KEY_INVALID", "request_id",
		},
	} {
		for path, secret := range map[string]string{
			"/v1/self:rotate": minted.Secret, "/v1/users/u1/tokens/" + minted.Token.TokenID + ":rotate": r.admin,
		} {
			var header []string
			if c.key != "" {
				header = []string{"Idempotency-Key", c.key}
			}
			got := r.rest("POST", path, secret, c.ask, header...)
			if reason, field := got.reason(); got.code != 400 || reason != c.reason || field != c.field {
				t.Errorf("%s %s: %d %s", path, c.ask, got.code, got.body)
			}
		}
	}
	if got := r.self(t, r.rest("GET", "/v1/self", minted.Secret, "")); got.Token.Rotation != nil {
		t.Errorf("a refused rotation left %v", got.Token.Rotation)
	}
}
