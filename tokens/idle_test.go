package tokens_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/tokens"
	"patd/tokens/refusal"
	"patd/tokens/secret"
)

// idleHouse has no notices of ends.
func idleHouse(t *testing.T, n tokens.Notices) *house {
	t.Helper()
	h := newHouse(t, func(c *tokens.Config) {
		c.Notices = n
		c.Policy.AllowNever = true
	})
	return h
}

// past waits for longer than a use may take to be known.
func (h *house) past(d time.Duration) { h.wait(d + d/10 + time.Second) }

func TestATokenThatIsNotUsedIsNoticedOnceForEachTime(t *testing.T) {
	t.Parallel()
	h := idleHouse(t, tokens.Notices{Unused: 90 * tokens.Day})
	m := h.made("a", 360*tokens.Day)
	used := h.made("used", 360*tokens.Day)
	h.wait(89 * tokens.Day)
	h.wantPass("89 days after its issue")
	h.wants(used.Secret, tokens.Allow, "it is used")
	h.wait(2 * tokens.Day)
	h.wantPass("91 days after its issue", "token.unused 90d")
	if e := h.noticeEvents()[0]; e.TokenID != m.Token.ID {
		t.Errorf("the event is about %s", e.TokenID)
	} else if n, _ := tokens.NoticeOf(e); !n.LastUsedTime.IsZero() || !n.ExpireTime.Equal(m.Token.ExpireTime) {
		t.Errorf("the notice is %+v", n)
	}
	h.wantPass("again")
	h.wait(89 * tokens.Day)
	h.wantPass("91 days after the use of the other", "token.unused 90d")
	h.wants(m.Secret, tokens.Allow, "it is used at last")
	use := h.now()
	h.wait(89 * tokens.Day)
	h.wantPass("89 days after its use")
	h.wait(3 * tokens.Day)
	h.wantPass("92 days after its use", "token.unused 90d")
	last := h.noticeEvents()[2]
	if n, _ := tokens.NoticeOf(last); last.TokenID != m.Token.ID || !n.LastUsedTime.Equal(use) {
		t.Errorf("the last event is %+v, want the token and its use at %v", last, use)
	}
}

func TestAnIdleTokenIsPausedAfterItWasAnnouncedAndItsOwnerResumesIt(t *testing.T) {
	t.Parallel()
	h := idleHouse(t, tokens.Notices{Idle: 60 * tokens.Day})
	m := h.made("a", 360*tokens.Day)
	id := m.Token.ID.String()
	h.wait(46*tokens.Day + time.Hour)
	h.wantPass("14 days before", "token.idle 60d")
	n, _ := tokens.NoticeOf(h.noticeEvents()[0])
	if left := n.PauseTime.Sub(h.now()); left < 14*tokens.Day || left > 15*tokens.Day {
		t.Errorf("the pause is announced %s before", left)
	}
	h.wait(13 * tokens.Day)
	h.wantPass("a day before")
	h.wants(m.Secret, tokens.Allow, "it is not paused yet")
	h.wait(13 * tokens.Day)
	h.wantPass("its use has kept it active")
	h.wait(34 * tokens.Day)
	h.wantPass("unused again", "token.idle 60d")
	h.wait(15 * tokens.Day)
	h.wantPass("60 days after its use", "token.pause 60d")
	if e := h.noticeEvents()[2]; e.Reason != refusal.Idle || e.TokenID != m.Token.ID || e.User != "alice" {
		t.Errorf("the pause is the event %+v", e)
	}
	h.wants(m.Secret, tokens.TokenIdle, "it is paused")
	if _, err := h.Authenticate(ctx, m.Secret, tokens.Peer{}); reason(err) != refusal.Idle {
		t.Errorf("its bearer gets %v", err)
	}
	if at := h.row(m).IdleTime(); !at.Equal(h.now()) {
		t.Errorf("it is paused since %v", at)
	}
	h.wait(100 * tokens.Day)
	h.wantPass("100 days later")
	// What else is done with the token leaves the pause.
	if _, err := h.Rotate(ctx, admin, tokens.RotateRequest{User: "alice", TokenID: id}); err != nil {
		t.Fatal(err)
	}
	if h.row(m).IdleTime().IsZero() {
		t.Error("a rotation has ended the pause")
	}
	name := "another name"
	if _, err := h.UpdateToken(
		ctx,
		admin,
		"alice",
		id,
		tokens.TokenChange{Name: &name},
	); err != nil ||
		h.row(m).IdleTime().IsZero() {
		t.Errorf("an update has ended the pause, or failed: %v", err)
	}
	alice := tokens.Actor{Kind: tokens.UserActor, User: "alice"}
	if _, err := h.ResumeToken(ctx, tokens.Actor{Kind: tokens.UserActor, User: "bob"}, "alice", id); err == nil {
		t.Error("another user has resumed it")
	}
	got, err := h.ResumeToken(ctx, alice, "me", id)
	if err != nil || !got.IdleTime().IsZero() {
		t.Fatalf("resume: %+v, %v", got, err)
	}
	if _, err := h.ResumeToken(ctx, alice, "me", id); err != nil {
		t.Errorf("resume again: %v", err)
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.resume"}, tokens.Page{})
	if err != nil || len(events) != 2 { // and the attempt of the other
		t.Errorf("%d events of resuming: %v", len(events), err)
	}
	h.wait(45 * tokens.Day)
	h.wantPass("resuming counts as a use")
	h.wait(2 * tokens.Day)
	h.wantPass("and nothing after it", "token.idle 60d")
}

func TestAPauseAndABlockAreKeptApart(t *testing.T) {
	t.Parallel()
	h := idleHouse(t, tokens.Notices{Idle: tokens.Day})
	h.give("alice", "a")
	h.audience(tokens.AudienceEntry{ID: "api", MaxTTL: 90 * tokens.Day})
	ttl := 80 * tokens.Day
	m, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{
			User:      "alice",
			Name:      "a",
			Scopes:    []string{"a"},
			Audiences: []string{"api"},
			Lifetime:  tokens.Lifetime{TTL: &ttl},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.past(12 * time.Hour)
		h.pass()
	}
	h.wants(m.Secret, tokens.TokenIdle, "paused")
	h.strict(tokens.Day)
	if n, _, err := h.BlockTokens(ctx, admin, "api", ""); err != nil || n != 1 {
		t.Fatalf("block: %d, %v", n, err)
	}
	h.wants(m.Secret, tokens.PolicyBlocked, "blocked and paused")
	id := m.Token.ID.String()
	if _, err := h.ResumeToken(ctx, admin, "alice", id); err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.PolicyBlocked, "resuming lifts no block")
	for range 2 {
		h.past(12 * time.Hour)
		h.pass()
	}
	if _, _, err := h.UnblockTokens(ctx, admin, "api", ""); err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.TokenIdle, "unblocking ends no pause")
	if found, err := h.store.Check(ctx); err != nil || len(found) > 0 {
		t.Errorf("check: %v, %v", found, err)
	}
}

func TestAPauseIsAnnouncedForAsLongAlsoWhereItIsTurnedOnLate(t *testing.T) {
	t.Parallel()
	h := idleHouse(t, tokens.Notices{Unused: 30 * tokens.Day})
	h.made("a", 360*tokens.Day)
	h.wait(200 * tokens.Day)
	h.wantPass("unused", "token.unused 30d")
	h.reopen(func(c *tokens.Config) { c.Notices = tokens.Notices{Unused: 30 * tokens.Day, Idle: 60 * tokens.Day} })
	h.wait(time.Hour)
	h.wantPass("turned on", "token.idle 60d")
	h.wait(14*tokens.Day - time.Hour)
	h.wantPass("nearly 14 days later")
	h.wait(2 * time.Hour)
	h.wantPass("14 days later", "token.pause 60d")
}

// TestAMarkOfAnEarlierVersionMissesNoToken: that went by the microsecond of issue and then by the id, so that tokens of the
// same millisecond which it had not come to may have smaller ids than its last one.
func TestAMarkOfAnEarlierVersionMissesNoToken(t *testing.T) {
	t.Parallel()
	h := idleHouse(t, tokens.Notices{Unused: 90 * tokens.Day})
	h.wantPass("before any token")
	h.wait(time.Millisecond - time.Duration(h.now().Nanosecond())%time.Millisecond)
	var made []tokens.Token
	for i := range 8 {
		made = append(made, h.made(fmt.Sprint("token ", i), 360*tokens.Day).Token)
		h.wait(time.Microsecond)
	}
	last := slices.IndexFunc(made, func(a tokens.Token) bool {
		return !slices.ContainsFunc(made[:7], func(b tokens.Token) bool { return b.ID > a.ID })
	}) // it has the largest id of all but the newest
	const mark = "idle"
	h.wait(91 * tokens.Day)
	for _, newer := range []bool{false, true} {
		err := h.store.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
			m, err := tx.NoticeMark(mark)
			if err != nil {
				return nil, err
			}
			settings, at, _ := strings.Cut(m.Note, "/")
			if newer {
				if _, err := secret.ParseID(at); err == nil || !m.Time.Equal(made[7].ID.Time()) {
					t.Errorf("an earlier version goes on after %v, %s", m.Time, at)
				}
				return nil, nil
			}
			m.Time, m.Note = made[last].IssueTime, settings+"/"+made[last].ID.String()
			return nil, tx.PutNoticeMark(m)
		})
		if err != nil {
			t.Fatal(err)
		}
		h.pass()
	}
	noticed := map[tokens.ID]int{}
	for _, e := range h.noticeEvents() {
		noticed[e.TokenID]++
	}
	for _, tok := range made[last+1:] {
		if noticed[tok.ID] != 1 {
			t.Errorf("%s has %d notices", tok.Name, noticed[tok.ID])
		}
	}
}
