package tokens_test

import (
	"testing"

	"patd/tokens"
)

// TestOnlyWhatTakesAwayMayUseTheReserve says of each kind of change whether a store with a full disk still does it.
func TestOnlyWhatTakesAwayMayUseTheReserve(t *testing.T) {
	t.Parallel()
	done := func(actions ...tokens.Action) (events []tokens.Event) {
		for _, a := range actions {
			events = append(events, tokens.Event{Action: a, Outcome: tokens.OutcomeSuccess})
		}
		return events
	}
	narrowed := []tokens.Event{{Action: tokens.ActionUserFeatures, Outcome: tokens.OutcomeSuccess, Narrows: true}}
	refused := []tokens.Event{{Action: tokens.ActionTokenRevoke, Outcome: tokens.OutcomeRefused}}
	for what, c := range map[string]struct {
		events []tokens.Event
		want   bool
	}{
		"revoke":                {done(tokens.ActionTokenRevoke), true},
		"revoke all":            {done(tokens.ActionTokenRevokeAll), true},
		"revoke what came":      {done(tokens.ActionAccessRevoke, tokens.ActionFamilyRevoke), true},
		"revoke a service":      {done(tokens.ActionServiceRevoke), true},
		"suspend and delete":    {done(tokens.ActionUserSuspend, tokens.ActionUserDelete), true},
		"narrow":                {narrowed, true},
		"prune":                 {done(tokens.ActionAuditPrune), true},
		"revoke, a refusal too": {append(done(tokens.ActionTokenRevoke), refused...), true},
		"mint":                  {done(tokens.ActionTokenCreate), false},
		"rotate":                {done(tokens.ActionTokenRotate), false},
		"exchange":              {done(tokens.ActionTokenExchange), false},
		"resume":                {done(tokens.ActionUserResume), false},
		"give features":         {done(tokens.ActionUserFeatures), false},
		"rename":                {done(tokens.ActionTokenUpdate), false},
		"revoke and mint":       {done(tokens.ActionTokenRevoke, tokens.ActionTokenCreate), false},
		"a refusal":             {refused, false},
		"nothing":               {nil, false},
	} {
		if got := tokens.OnlyEnds(c.events); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}
