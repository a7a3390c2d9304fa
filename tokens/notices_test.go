package tokens_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/store/storetest"
	"patd/tokens"
)

// thresholds are the usual ones.
var thresholds = []time.Duration{30 * tokens.Day, 7 * tokens.Day, tokens.Day}

func withNotices(n tokens.Notices) func(*tokens.Config) {
	return func(c *tokens.Config) { c.Notices = n }
}

// notices lists the notices that the audit log has, oldest first, as the action and the threshold.
func (h *house) notices() (list []string) {
	h.t.Helper()
	for _, e := range h.noticeEvents() {
		n, _ := tokens.NoticeOf(e)
		list = append(list, fmt.Sprintf("%s %s", e.Action, tokens.FormatDuration(n.Threshold)))
	}
	return list
}

func (h *house) noticeEvents() (list []tokens.Event) {
	h.t.Helper()
	err := h.store.View(ctx, func(tx tokens.ReadTx) error {
		for after := uint64(0); ; {
			page, err := tx.OldestEvents(after, 1000)
			if err != nil || len(page) == 0 {
				return err
			}
			for _, e := range page {
				after = e.Seq
				if _, ok := tokens.NoticeOf(e); ok {
					list = append(list, e)
				}
			}
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// pass writes the notices that are due, and returns those that are new.
func (h *house) pass() []string {
	h.t.Helper()
	before := len(h.notices())
	if _, err := h.WriteNotices(ctx); err != nil {
		h.t.Fatal(err)
	}
	return h.notices()[before:]
}

func (h *house) wantPass(what string, want ...string) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.pass(), cmp.Transformer("sorted", func(l []string) []string {
		return append([]string{}, slices.Sorted(slices.Values(l))...)
	})); diff != "" {
		h.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (h *house) made(name string, ttl time.Duration) tokens.Minted {
	h.t.Helper()
	h.give("alice", "a", "b")
	m, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{User: "alice", Name: name, Scopes: []string{"a"}, Lifetime: tokens.Lifetime{TTL: &ttl}},
	)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func TestEachThresholdOfAnEndIsWrittenOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withNotices(tokens.Notices{Expiry: thresholds}))
	m := h.made("a", 60*tokens.Day)
	h.wantPass("when it is made")
	for _, step := range []struct {
		wait time.Duration
		want []string
	}{
		{29 * tokens.Day, nil},
		{tokens.Day, []string{"token.expiring 30d"}},
		{time.Minute, nil},
		{23*tokens.Day - 2*time.Minute, nil},
		{time.Minute, []string{"token.expiring 7d"}},
		{6 * tokens.Day, []string{"token.expiring 1d"}},
		{tokens.Day, []string{"token.expired 0s"}},
		{30 * tokens.Day, nil},
	} {
		h.wait(step.wait)
		h.wantPass(h.now().Sub(noon).String(), step.want...)
		h.wantPass("again")
	}
	e := h.noticeEvents()[0]
	n, _ := tokens.NoticeOf(e)
	want := tokens.Notice{Threshold: 30 * tokens.Day, ExpireTime: m.Token.ExpireTime}
	if e.TokenID != m.Token.ID || e.User != "alice" || e.Actor != "nobody" || n != want {
		t.Errorf("the event is %+v, want the token, its user and %+v", e, want)
	}
	if e.Detail != "threshold 30d, expire_time "+m.Token.ExpireTime.Format(time.RFC3339Nano) {
		t.Errorf("the detail is %q", e.Detail)
	}
}

func TestANoticeThatWasMissedIsWrittenLaterUnlessANearerOneIsPast(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withNotices(tokens.Notices{Expiry: thresholds}))
	h.made("ends in 60 days", 60*tokens.Day)
	h.made("ends in 40 days", 40*tokens.Day)
	h.made("ends in 20 days", 20*tokens.Day)
	h.wantPass("at first")
	h.wait(36 * tokens.Day) // the server is down
	h.wantPass("after 36 days", "token.expiring 30d", "token.expiring 7d", "token.expired 0s")
	h.wait(10 * time.Minute)
	h.wantPass("ten minutes later")
	h.wait(100 * tokens.Day)
	h.wantPass("after all ends", "token.expired 0s", "token.expired 0s")
}

// A clock that was ahead has had the nearer notice written. When it is right again the one that is due was never
// written.
func TestANoticeThatANearerOneReplacedIsWrittenWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withNotices(tokens.Notices{Expiry: thresholds}))
	h.made("a", 60*tokens.Day)
	h.wantPass("at first")
	h.wait(60*tokens.Day + time.Minute)
	h.wantPass("the clock is 60 days ahead", "token.expired 0s")
	h.wait(-time.Hour)
	h.wantPass("an hour before the end", "token.expiring 1d")
	h.wantPass("again")
	h.wait(-tokens.Day)
	h.wantPass("a day and an hour before it", "token.expiring 7d")
	h.wait(60 * tokens.Day)
	h.wantPass("past the end")
}

func TestThresholdsThatArePastWhenAnEndIsSetAreNotWritten(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withNotices(tokens.Notices{Expiry: thresholds}))
	h.wantPass("at first")
	h.made("exactly 30 days", 30*tokens.Day)
	m := h.made("week", 5*tokens.Day)
	h.wait(time.Minute)
	h.wantPass("made within the thresholds")
	h.wait(4 * tokens.Day)
	h.wantPass("4 days later", "token.expiring 1d")
	// Renewed to an end within the widest threshold, and brought forward within all of them.
	got, err := h.Rotate(ctx, admin, tokens.RotateRequest{User: "alice", TokenID: m.Token.ID.String(), Renew: true})
	if err != nil {
		t.Fatal(err)
	}
	h.wait(time.Minute)
	h.wantPass("renewed for 5 days")
	h.wait(4 * tokens.Day)
	h.wantPass("a new end begins anew", "token.expiring 1d")
	soon := got.Token.ExpireTime.Add(-time.Hour)
	if _, err := h.UpdateToken(
		ctx,
		admin,
		"alice",
		m.Token.ID.String(),
		tokens.TokenChange{ExpireTime: &soon},
	); err != nil {
		t.Fatal(err)
	}
	h.wait(time.Minute)
	h.wantPass("brought forward")
	h.wait(tokens.Day)
	h.wantPass("at the end", "token.expired 0s")
}

func TestWhatIsRevokedHasNoNotices(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withNotices(tokens.Notices{Expiry: thresholds}))
	h.wantPass("at first")
	m := h.made("a", 60*tokens.Day)
	h.wait(30 * tokens.Day)
	if _, err := h.Revoke(ctx, admin, "alice", m.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	h.wantPass("revoked at the threshold")
	h.wait(60 * tokens.Day)
	h.wantPass("past its end")
}

func TestServicesHaveNoticesOfTheirEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withNotices(tokens.Notices{Expiry: thresholds}))
	h.wantPass("at first")
	ttl := 60 * tokens.Day
	made, err := h.CreateService(
		ctx,
		admin,
		tokens.ServiceRequest{Name: "gate", Permissions: []string{"introspect"}, TTL: &ttl},
	)
	if err != nil {
		t.Fatal(err)
	}
	h.wait(30 * tokens.Day)
	h.wantPass("30 days before", "service.expiring 30d")
	if e := h.noticeEvents()[0]; e.Service != "gate" || e.TokenID != made.Service.ID {
		t.Errorf("the event is %+v", e)
	}
	if _, err := h.RotateService(ctx, admin, tokens.RotateServiceRequest{Name: "gate"}); err != nil {
		t.Fatal(err)
	}
	h.wait(23 * tokens.Day)
	h.wantPass("7 days before the end that it had")
	h.wait(7 * tokens.Day)
	h.wantPass("30 days before the new end", "service.expiring 30d")
	h.wait(100 * tokens.Day)
	h.wantPass("past its end")
}

func TestOfManyThatEndAtOnceEachHasItsNotice(t *testing.T) {
	t.Parallel()
	h := newHouse(
		t,
		withNotices(tokens.Notices{Expiry: thresholds}),
		func(c *tokens.Config) { c.Limits.ActiveTokens = 1000 },
	)
	h.wantPass("at first")
	const many = 230 // more than one transaction writes
	for i := range many {
		h.made(fmt.Sprint("token ", i), 60*tokens.Day)
	}
	h.wait(31 * tokens.Day)
	if got := h.pass(); len(got) != many {
		t.Errorf("%d notices, want %d", len(got), many)
	}
	h.wantPass("again")
}

func TestANoticeThatWasNotWrittenIsTriedAgain(t *testing.T) {
	t.Parallel()
	var faulty *storetest.Faulty
	h := newHouse(t, withNotices(tokens.Notices{Expiry: thresholds}), func(c *tokens.Config) {
		faulty = storetest.NewFaulty(c.Store)
		c.Store = faulty
	})
	h.wantPass("at first")
	h.made("a", 60*tokens.Day)
	h.wait(31 * tokens.Day)
	// The mark comes after the notice: it is what would say that it was written.
	for _, op := range []storetest.Op{"PutNotice", "PutNoticeMark", "EndingTokens"} {
		faulty.FailOp(op, storetest.Outage())
		if _, err := h.WriteNotices(ctx); err == nil {
			t.Errorf("%s fails: the pass succeeded", op)
		}
		faulty.FailOp(op, nil)
		if got := h.notices(); len(got) != 0 {
			t.Fatalf("%s fails: notices %q", op, got)
		}
	}
	h.wantPass("afterwards", "token.expiring 30d")
	h.wantPass("again")
}
