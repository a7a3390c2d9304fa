package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"patd/tokens"
)

// TestTheIdlePauseIsPreviewed over REST, with a time that the server does not have itself.
func TestTheIdlePauseIsPreviewed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tok, secret := r.pat(tokens.MintRequest{User: "u1", Name: "laptop"}, "a")
	r.wait(time.Minute)
	r.pat(tokens.MintRequest{User: "u2", Name: "used"}, "a")
	got := r.rest("POST", "/v1/tokens:previewIdle", r.admin, `{"idle_ttl":"90d"}`)
	if got.code != http.StatusOK || !strings.Contains(got.body, `"active_token_count":"2"`) ||
		!strings.Contains(got.body, `"tokens":[]`) {
		t.Errorf("of tokens that were just made: %d %s", got.code, got.body)
	}
	r.wait(100 * tokens.Day)
	got = r.rest("POST", "/v1/tokens:previewIdle", r.admin, `{"idle_ttl":"90d","limit":1}`)
	var found struct {
		IdleTTL  string `json:"idle_ttl"`
		Announce string `json:"announce_token_count"`
		Users    string `json:"user_count"`
		Tokens   []struct {
			TokenID   string    `json:"token_id"`
			PauseTime time.Time `json:"pause_time"`
		}
	}
	if err := json.Unmarshal(
		[]byte(got.body),
		&found,
	); err != nil || found.IdleTTL != "7776000s" || found.Announce != "2" || found.Users != "2" ||
		len(found.Tokens) != 1 || found.Tokens[0].TokenID != tok.ID.String() ||
		found.Tokens[0].PauseTime.IsZero() {
		t.Errorf("%v: %s", err, got.body)
	}
	if d := r.introspect(secret).String(); d != "ALLOW" {
		t.Errorf("the preview has changed something: %s", d)
	}
	for body, reason := range map[string]string{`{}`: "IDLE_TTL_REQUIRED", `{"idle_ttl":"0s"}`: "DURATION_OUT_OF_RANGE", `{"idle_ttl":"90d","limit":-1}`: "PAGE_SIZE_INVALID"} {
		got := r.rest("POST", "/v1/tokens:previewIdle", r.admin, body)
		if is, _ := got.reason(); got.code != http.StatusBadRequest || is != reason {
			t.Errorf("%s: %d %s, want %s", body, got.code, got.body, reason)
		}
	}
}
