package server_test

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
)

// goodWebhookRequest is goodRequest for webhooks.
func goodWebhookRequest(r *rig, name string) proto.Message {
	delivery := cmp.Or(r.delivery, strings.Repeat("0", 32))
	switch name {
	case "WebhookService/CreateWebhook":
		return &patdv1.CreateWebhookRequest{Webhook: &patdv1.Webhook{Url: "https://hooks.example.com/"}}
	case "WebhookService/GetWebhook":
		return &patdv1.GetWebhookRequest{WebhookId: "chat"}
	case "WebhookService/ReplaceWebhook":
		return &patdv1.ReplaceWebhookRequest{
			WebhookId: "chat",
			Webhook:   &patdv1.Webhook{Url: "https://hooks.example.com/other"},
		}
	case "WebhookService/DeleteWebhook":
		return &patdv1.DeleteWebhookRequest{WebhookId: "chat"}
	case "WebhookService/ListWebhooks":
		return &patdv1.ListWebhooksRequest{}
	case "WebhookService/RotateWebhookSecret":
		return &patdv1.RotateWebhookSecretRequest{WebhookId: "chat", Force: true}
	case "WebhookService/TestWebhook":
		return &patdv1.TestWebhookRequest{WebhookId: "chat"}
	case "WebhookService/ListWebhookDeliveries":
		return &patdv1.ListWebhookDeliveriesRequest{WebhookId: "chat"}
	case "WebhookService/GetWebhookDelivery":
		return &patdv1.GetWebhookDeliveryRequest{WebhookId: "chat", DeliveryId: delivery}
	case "WebhookService/RedeliverWebhook":
		return &patdv1.RedeliverWebhookRequest{WebhookId: "chat", DeliveryId: delivery}
	}
	return nil
}

// hook is a webhook or a delivery as REST shows it.
type hook struct {
	WebhookID  string   `json:"webhook_id"`
	URL        string   `json:"url"`
	Enabled    bool     `json:"enabled"`
	EventTypes []string `json:"event_types"`
	Secret     string   `json:"secret"`
	Previous   string   `json:"previous_secret_expire_time"`
	Etag       string   `json:"etag"`

	DeliveryID string `json:"delivery_id"`
	EventType  string `json:"event_type"`
	State      string `json:"state"`
}

// hookOf reads a webhook out of an answer.
func hookOf(t *testing.T, got answerOf, code int) (h hook) {
	t.Helper()
	if got.code != code {
		t.Fatalf("%d %s, want %d", got.code, got.body, code)
	}
	must(t, json.Unmarshal([]byte(got.body), &h))
	return h
}

func TestWebhooksSecretIsShownOnceOverREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const idem = "7e2c5a52-93a1-4f0e-a6b9-0d7b3f2f4d11"
	body := `{"webhook_id":"chat","url":"https://hooks.example.com/","event_types":["token.revoked"]}`
	created := r.rest("POST", "/v1/webhooks", r.admin, body, "Idempotency-Key", idem)
	w := hookOf(t, created, http.StatusCreated)
	if !strings.HasPrefix(w.Secret, "whsec_") || !w.Enabled || w.Etag == "" || w.Etag != created.header.Get("Etag") {
		t.Errorf("created %s, ETag %s", created.body, created.header.Get("Etag"))
	}
	again := r.rest("POST", "/v1/webhooks", r.admin, body, "Idempotency-Key", idem)
	if h := hookOf(
		t,
		again,
		http.StatusCreated,
	); h.Secret != w.Secret ||
		again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("repeated: %s", again.body)
	}
	for _, path := range []string{"/v1/webhooks/chat", "/v1/webhooks"} {
		if got := r.rest("GET", path, r.admin, ""); got.code != http.StatusOK || strings.Contains(got.body, "whsec_") {
			t.Errorf("GET %s: %d %s", path, got.code, got.body)
		}
	}
	replaced := hookOf(
		t,
		r.rest(
			"PUT",
			"/v1/webhooks/chat",
			r.admin,
			`{"url":"https://hooks.example.com/","enabled":false}`,
			"If-Match",
			w.Etag,
		),
		http.StatusOK,
	)
	if replaced.Secret != "" || replaced.Enabled || len(replaced.EventTypes) != 0 || replaced.Etag == w.Etag {
		t.Errorf("replaced: %+v", replaced)
	}
	if got := r.rest(
		"PUT",
		"/v1/webhooks/chat",
		r.admin,
		`{"url":"https://hooks.example.com/","etag":"\"old\""}`,
	); got.code != http.StatusPreconditionFailed {
		t.Errorf("with an old etag: %d %s", got.code, got.body)
	}
	rotated := hookOf(t, r.rest("POST", "/v1/webhooks/chat:rotateSecret", r.admin, `{}`), http.StatusOK)
	if rotated.Secret == w.Secret || !strings.HasPrefix(rotated.Secret, "whsec_") || rotated.Previous == "" {
		t.Errorf("rotated: previous until %q", rotated.Previous)
	}
	if got := r.rest(
		"POST",
		"/v1/webhooks/chat:rotateSecret",
		r.admin,
		`{}`,
	); got.code != http.StatusBadRequest ||
		!strings.Contains(got.body, "ROTATION_IN_PROGRESS") {
		t.Errorf("a second rotation: %d %s", got.code, got.body)
	}
	if got := r.rest("DELETE", "/v1/webhooks/chat", r.admin, ""); got.code != http.StatusNoContent {
		t.Errorf("deleted: %d %s", got.code, got.body)
	}
	if got := r.rest("GET", "/v1/webhooks/chat", r.admin, ""); got.code != http.StatusNotFound {
		t.Errorf("after that: %d %s", got.code, got.body)
	}
}

func TestDeliveriesOfAWebhookOverREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hookOf(
		t,
		r.rest("POST", "/v1/webhooks", r.admin, `{"webhook_id":"chat","url":"https://hooks.example.com/"}`),
		http.StatusCreated,
	)
	d := hookOf(t, r.rest("POST", "/v1/webhooks/chat:test", r.admin, `{}`), http.StatusOK)
	if d.EventType != "webhook.test" || d.State != "PENDING" || len(d.DeliveryID) != 32 {
		t.Fatalf("tested: %+v", d)
	}
	for query, want := range map[string]bool{"": true, "?state=PENDING&event_type=webhook.test": true, "?state=DELIVERED": false, "?event_type=token.created": false} {
		got := r.rest("GET", "/v1/webhooks/chat/deliveries"+query, r.admin, "")
		if got.code != http.StatusOK || strings.Contains(got.body, d.DeliveryID) != want {
			t.Errorf("deliveries%s: %d %s", query, got.code, got.body)
		}
	}
	if one := hookOf(
		t,
		r.rest("GET", "/v1/webhooks/chat/deliveries/"+d.DeliveryID, r.admin, ""),
		http.StatusOK,
	); one.DeliveryID != d.DeliveryID {
		t.Errorf("read: %+v", one)
	}
	if again := hookOf(
		t,
		r.rest("POST", "/v1/webhooks/chat/deliveries/"+d.DeliveryID+":redeliver", r.admin, `{}`),
		http.StatusOK,
	); again.DeliveryID != d.DeliveryID {
		t.Errorf("sent again: %+v", again)
	}
	for _, path := range []string{"/v1/webhooks/chat/deliveries/no", "/v1/webhooks/none/deliveries"} {
		if got := r.rest("GET", path, r.admin, ""); got.code != http.StatusNotFound {
			t.Errorf("GET %s: %d %s", path, got.code, got.body)
		}
	}
	if got := r.rest(
		"GET",
		"/v1/webhooks/chat/deliveries?after=made-up",
		r.admin,
		"",
	); got.code != http.StatusBadRequest ||
		!strings.Contains(got.body, `"after"`) {
		t.Errorf("a cursor of its own making: %d %s", got.code, got.body)
	}
}
