package webhook_test

import (
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"patd/server/webhook"
	"patd/tokens"
)

// TestNoticesAreMessages of the end that they are about, whatever the end is now.
func TestNoticesAreMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		compiled := schemas(t)
		r.hold("alice", "a")
		tok := r.mint("alice", "nightly")
		paused := tok
		paused.Pause(time.Date(2027, 1, 5, 10, 0, 0, 0, time.UTC))
		const end = "2027-01-05T10:00:00Z"
		for _, one := range []struct {
			action       tokens.Action
			detail, kind string
			data         []string
		}{
			{tokens.ActionTokenExpiring, "threshold 7d, expire_time " + end, "token.expiring", []string{`"expire_time":"` + end + `"`, `"threshold":"7d"`}},
			{tokens.ActionTokenExpired, "expire_time " + end, "token.expired", []string{`"expire_time":"` + end + `"`}},
			{tokens.ActionServiceExpiring, "threshold 1d, expire_time " + end, "service.expiring", []string{`"expire_time":"` + end + `"`, `"threshold":"1d"`}},
			{tokens.ActionTokenUnused, "threshold 90d", "token.unused", []string{`"last_used_time":null`, `"pause_time":null`}},
			{tokens.ActionTokenIdle, "threshold 60d, last_used_time " + end + ", pause_time " + end, "token.unused", []string{`"last_used_time":"` + end + `"`, `"pause_time":"` + end + `"`}},
			{tokens.ActionTokenPause, "threshold 60d, pause_time " + end, "token.blocked", []string{`"blocked_by":[]`, `"idle_time":"` + end + `"`}},
			{tokens.ActionTokenIdleEnd, "paused since " + end, "token.unblocked", []string{`"blocked_by":[]`, `"idle_time":null`}},
		} {
			e := tokens.Event{
				Time:    r.now(),
				Actor:   "nobody",
				Action:  one.action,
				User:    "alice",
				TokenID: tok.ID,
				Service: "gate",
				Detail:  one.detail,
				Outcome: tokens.OutcomeSuccess,
			}
			if one.action == tokens.ActionTokenPause || one.action == tokens.ActionTokenIdleEnd {
				by := paused.BlockedBy
				if one.action == tokens.ActionTokenIdleEnd {
					by = ""
				}
				must(
					t,
					r.st.Update(
						t.Context(),
						func(tx tokens.Tx) ([]tokens.Event, error) { return []tokens.Event{e}, tx.SetBlocked(tok.ID, by) },
					),
				)
			}
			must(t, r.st.View(t.Context(), func(tx tokens.ReadTx) error {
				m, ok, err := webhook.Describe(tx, e)
				if err != nil || !ok || m.Facts.Type != one.kind {
					t.Errorf("%s is described as %q, %t, %v", one.action, m.Facts.Type, ok, err)
					return err
				}
				doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(m.Body)))
				must(t, err)
				if err := compiled[one.kind].Validate(doc); err != nil {
					t.Errorf("%s: %v", one.action, err)
				}
				for _, want := range one.data {
					if !strings.Contains(string(m.Body), want) {
						t.Errorf("%s lacks %s: %s", one.action, want, m.Body)
					}
				}
				return nil
			}))
		}
	})
}
