package server_test

import (
	"database/sql"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"patd/tokens"
)

// hookForm returns the form of a new webhook.
func (b *browser) hookForm(id, to string) url.Values {
	b.t.Helper()
	form := b.get("/admin/webhooks/new").wants(http.StatusOK, "New webhook").form("create")
	for name, text := range map[string]string{"webhook_id": id, "url": to, "enabled": "yes"} {
		form.Set(name, text)
	}
	return form
}

// TestAnOperatorKeepsWebhooksInTheBrowser makes, changes, tests, disables, enables, rotates and deletes one, without
// JavaScript.
func TestAnOperatorKeepsWebhooksInTheBrowser(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "admin")
	b.get("/admin").wants(http.StatusOK, `href="/admin/webhooks"`)
	b.get("/admin/webhooks").wants(http.StatusOK, "There is no webhook.")
	form := b.hookForm("bad id", "ftp://hooks.example.com/")
	form.Set("users", "al\x01ice")
	form.Set("labels", "team=build\r\nteam=other")
	b.post("/admin/webhooks/new", form).
		wants(http.StatusBadRequest, `id="labels-error" role="alert"`, `value="bad id"`, "team=other</textarea>")
	form.Set("labels", "team=build\r\n\r\nstage=night")
	form["event_types"] = []string{"token.created", "token.left"}
	form = b.post("/admin/webhooks/new", form).
		wants(http.StatusBadRequest, `id="webhook_id-error" role="alert"`, `id="url-error" role="alert"`,
			`id="users-error" role="alert"`, `id="event_types-error" role="alert"`, `value="token.created" checked`).
		form("create")
	for name, text := range map[string]string{
		"webhook_id": "chat", "url": "https://hooks.example.com/in", "enabled": "yes", "users": "alice\r\nbob\r\n", "audiences": "", "labels": "team=build\r\nstage=night",
	} {
		form.Set(name, text)
	}
	form["event_types"] = []string{"token.created", "token.revoked"}
	first := b.post("/admin/webhooks/new", form).wants(http.StatusOK, "Store it now.").secret()
	if twice := b.post("/admin/webhooks/new", form).secret(); !strings.HasPrefix(first, "whsec_") || twice != first {
		t.Errorf("sent twice, the form shows %q and %q", first, twice)
	}
	w, err := r.svc.Webhook(t.Context(), tokens.Operator(), "chat")
	must(t, err)
	if f := w.Filter; !w.Enabled || len(f.Types) != 2 || len(f.Users) != 2 || len(f.Audiences) != 0 ||
		f.Labels["stage"] != "night" ||
		f.Labels["team"] != "build" {
		t.Errorf("the webhook is %+v", w)
	}
	b.post("/admin/webhooks/new", b.hookForm("chat", "https://hooks.example.com/")).
		wants(http.StatusConflict, `id="webhook_id-error" role="alert"`)

	page := b.get("/admin/webhooks/chat").
		wants(http.StatusOK, ">Enabled<", "Nothing to send so far.", "https://hooks.example.com/in",
			`value="token.revoked" checked`, "alice\nbob</textarea>", "stage=night\nteam=build</textarea>")
	if strings.Contains(page.text, first) {
		t.Error("the secret is shown again")
	}
	old, edit := page.form("save"), page.form("save")
	edit.Set("url", "https://hooks.example.com/other")
	edit.Set("description", "for the team")
	edit.Set("enabled", "yes")
	b.post("/admin/webhooks/chat", edit).
		wants(http.StatusOK, "Saved.", "https://hooks.example.com/other", "for the team")
	old.Set("url", "https://hooks.example.com/lost")
	b.post("/admin/webhooks/chat", old).
		wants(http.StatusPreconditionFailed, "changed in another window", "https://hooks.example.com/lost")
	if w, err = r.svc.Webhook(
		t.Context(),
		tokens.Operator(),
		"chat",
	); err != nil || w.URL != "https://hooks.example.com/other" ||
		len(w.Filter.Types)+len(w.Filter.Users) != 0 {
		t.Errorf("after the change it is %+v, %v", w, err)
	}

	tested := b.post("/admin/webhooks/chat", page.form("test")).
		wants(http.StatusOK, "A test is on its way", "webhook.test", ">Pending<")
	again := tested.form("redeliver")
	b.post("/admin/webhooks/chat", again).wants(http.StatusOK, "It is sent again.")
	again.Set("delivery", strings.Repeat("0", 32))
	b.post("/admin/webhooks/chat", again).wants(http.StatusNotFound)
	b.get("/admin/webhooks/chat?state=delivered").wants(http.StatusOK, "Nothing to send so far.")
	b.get("/admin/webhooks/-?id=chat&state=pending").wants(http.StatusOK, "webhook.test")
	b.get("/admin/webhooks/chat?page=forged").wants(http.StatusOK, "webhook.test")
	b.post("/admin/webhooks/chat", tested.form("disable")).wants(http.StatusOK, "It is disabled.", ">Disabled<")
	b.post("/admin/webhooks/chat", page.form("test")).wants(http.StatusBadRequest, `role="alert"`)
	b.post("/admin/webhooks/chat", b.get("/admin/webhooks/chat").form("enable")).
		wants(http.StatusOK, "It is enabled.", ">Enabled<")

	rotate := b.get("/admin/webhooks/chat").form("rotate")
	second := b.post("/admin/webhooks/chat", rotate).wants(http.StatusOK, "signs along until").secret()
	if twice := b.post("/admin/webhooks/chat", rotate).secret(); second == "" || second == first || twice != second {
		t.Errorf("rotated to %q, and sent twice to %q", second, twice)
	}
	force := b.get("/admin/webhooks/chat").wants(http.StatusOK, `name="force"`).form("rotate")
	b.post("/admin/webhooks/chat", force).wants(http.StatusBadRequest, `role="alert"`)
	force.Set("force", "yes")
	third := b.post("/admin/webhooks/chat", force).wants(http.StatusOK).secret()
	b.get("/admin/webhooks").wants(http.StatusOK, ">chat</a>", "Pending")
	b.post("/admin/webhooks/chat", b.get("/admin/webhooks/chat").form("delete")).
		wants(http.StatusOK, "The webhook is deleted.")
	b.get("/admin/webhooks/chat").wants(http.StatusNotFound)
	for _, secret := range []string{first, second, third} {
		if strings.Contains(r.logs.String(), secret) {
			t.Error("a secret stands in the log")
		}
	}
}

// TestWebhooksSayHowTheyFare shows one that is refused, one that the service disabled, and one that was edited.
func TestWebhooksSayHowTheyFare(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "admin")
	ctx := t.Context()
	now := r.now()
	lease := func(id string) (tokens.WebhookLease, tokens.WebhookDelivery) {
		_, err := r.svc.CreateWebhook(
			ctx,
			tokens.Operator(),
			tokens.WebhookRequest{ID: id, URL: "https://hooks.example.com/" + id, Enabled: true},
		)
		must(t, err)
		d, err := r.svc.TestWebhook(ctx, tokens.Operator(), id)
		must(t, err)
		leases, err := r.queue.LeaseWebhooks(ctx, "test", now, now.Add(time.Minute))
		must(t, err)
		for _, l := range leases {
			if l.Webhook == d.Webhook {
				return l, d
			}
		}
		t.Fatalf("no lease of %s", id)
		return tokens.WebhookLease{}, d
	}
	l, d := lease("refuses")
	must(t, r.queue.RecordAttempts(ctx, l, []tokens.WebhookAttempt{
		{
			Seq:      d.Seq,
			Item:     d.Item,
			Time:     now,
			Duration: time.Second,
			Status:   500,
			Error:    "STATUS",
			State:    tokens.DeliveryPending,
			NextTime: now.Add(time.Minute),
		},
	}))
	l, _ = lease("gone")
	must(t, r.svc.DisableWebhook(ctx, l, "GONE"))
	list := b.get("/admin/webhooks").
		wants(http.StatusOK, ">Failing<", "tried again: 500 STATUS", ">Disabled<", "answered 410")
	if strings.Contains(list.text, "admin.webhook") {
		t.Errorf("a text is missing\n%s", list.text)
	}
	b.get("/admin/webhooks/refuses").wants(http.StatusOK, ">Failing<", ">Tried again<", "500 STATUS")
	b.get("/admin/webhooks/gone").wants(http.StatusOK, "answered 410")
	file, err := sql.Open("sqlite", "file:"+r.file+"?_pragma=busy_timeout(5000)")
	must(t, err)
	defer file.Close()
	_, err = file.ExecContext(ctx, "UPDATE webhooks SET url = 'https://elsewhere.example.com/' WHERE id = 'gone'")
	must(t, err)
	edited := b.get("/admin/webhooks/gone").wants(http.StatusOK, ">Refused<", "changed it in the database")
	for _, form := range []string{`value="save"`, `value="rotate"`, `value="test"`, `value="enable"`} {
		if strings.Contains(edited.text, form) {
			t.Errorf("an edited webhook has the form %s", form)
		}
	}
	b.post("/admin/webhooks/gone", edited.form("delete")).wants(http.StatusOK, "The webhook is deleted.")
}
