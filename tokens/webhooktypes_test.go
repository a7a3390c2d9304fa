package tokens_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patd/tokens"
)

// TestEveryTypeOfWebhooksIsOfSomeAction, and no action is sent as a type that nobody can ask for. A refused attempt is
// sent only as the use of a secret that was rotated away.
func TestEveryTypeOfWebhooksIsOfSomeAction(t *testing.T) {
	t.Parallel()
	sent := map[string]bool{}
	for _, a := range tokens.Actions() {
		name, ok := tokens.WebhookType(tokens.Event{Action: a, Outcome: tokens.OutcomeSuccess})
		if ok {
			sent[name] = true
		}
		if _, refused := tokens.WebhookType(
			tokens.Event{Action: a, Outcome: tokens.OutcomeRefused},
		); refused != (a == tokens.ActionTokenSupersededUse) {
			t.Errorf("a refused %s is sent: %t", a, refused)
		}
	}
	if d := cmp.Diff(slices.Sorted(slices.Values(tokens.WebhookTypes())), slices.Sorted(maps.Keys(sent))); d != "" {
		t.Errorf("the types that a webhook may ask for, and those that actions are sent as:\n%s", d)
	}
}
