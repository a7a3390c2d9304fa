package server_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"patd/tokens"
)

func TestWebhookSchemasAreOpenToAll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	resp, err := r.client.Get(r.srv.Issuer() + "/v1/webhooks/schemas")
	must(t, err)
	defer resp.Body.Close()
	var got struct {
		Schemas map[string]struct{ Title string } `json:"schemas"`
	}
	must(t, json.NewDecoder(resp.Body).Decode(&got))
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	for _, name := range append(tokens.WebhookTypes(), tokens.WebhookTest) {
		if got.Schemas[name].Title != name {
			t.Errorf("there is no schema of %s", name)
		}
	}
}
