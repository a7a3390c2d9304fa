package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/tokens"
)

func webhookRequest(id string) tokens.WebhookRequest {
	return tokens.WebhookRequest{ID: id, URL: "https://hooks.example.com/" + id, Enabled: true}
}

// hook adds a webhook.
func (h *house) hook(r tokens.WebhookRequest) tokens.MintedWebhook {
	h.t.Helper()
	m, err := h.CreateWebhook(ctx, admin, r)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

// signs returns the secrets that sign what is sent to a webhook.
func (h *house) signs(id string) []string {
	h.t.Helper()
	w, err := h.Webhook(ctx, admin, id)
	if err != nil {
		h.t.Fatal(err)
	}
	secrets, err := h.OpenWebhookSecrets(w)
	if err != nil {
		h.t.Fatal(err)
	}
	var texts []string
	for _, s := range secrets {
		texts = append(texts, s.Reveal())
	}
	return texts
}

func wantSecrets(t *testing.T, got []string, want ...tokens.Secret) {
	t.Helper()
	texts := []string{}
	for _, s := range want {
		texts = append(texts, s.Reveal())
	}
	if !slices.Equal(got, texts) {
		t.Errorf("%d secrets sign, want other %d", len(got), len(want))
	}
}

func TestWebhookIsKeptAsItWasAskedFor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r := webhookRequest("chat")
	r.Description = "to the chat"
	r.Filter = tokens.WebhookFilter{
		Types: []string{
			tokens.WebhookTokenRevoked,
			tokens.WebhookTokenCreated,
			tokens.WebhookTokenCreated,
		},
		Users:     []string{"u1"},
		Audiences: []string{"api"},
		Labels:    map[string]string{"team": "a"},
	}
	m := h.hook(r)
	if !strings.HasPrefix(m.Secret.Reveal(), "whsec_") || len(m.Secret.Reveal()) != len("whsec_")+44 {
		t.Errorf("the secret has %d characters", len(m.Secret.Reveal()))
	}
	w, err := h.Webhook(ctx, admin, "chat")
	if err != nil || w.ETag() != m.Webhook.ETag() ||
		!slices.Equal(w.Filter.Types, []string{"token.created", "token.revoked"}) ||
		!w.Enabled {
		t.Errorf("read as %+v, %v", w, err)
	}
	if text := fmt.Sprintf(
		"%v %+v %#v %s",
		w,
		w,
		w,
		w.Secret,
	); strings.Contains(text, string(w.Secret.Box)) ||
		strings.Contains(text, m.Secret.Reveal()) {
		t.Errorf("printed as %s", text)
	}
	wantSecrets(t, h.signs("chat"), m.Secret)
	unnamed := h.hook(tokens.WebhookRequest{URL: "https://hooks.example.com/"})
	if unnamed.Webhook.ID == "" || unnamed.Webhook.Enabled {
		t.Errorf("without a name: %+v", unnamed.Webhook)
	}
	list, next, err := h.Webhooks(ctx, admin, tokens.Page{Size: 1})
	if err != nil || len(list) != 1 || list[0].ID != "chat" || next == "" {
		t.Errorf("listed %v, %v", list, err)
	}
	if list, next, err = h.Webhooks(
		ctx,
		admin,
		tokens.Page{Size: 1, Token: next},
	); err != nil || len(list) != 1 || list[0].ID != unnamed.Webhook.ID ||
		next != "" {
		t.Errorf("listed %v, %v", list, err)
	}
	if found, err := h.store.Check(ctx); err != nil || len(found) != 0 {
		t.Errorf("check: %q, %v", found, err)
	}
}

func TestWebhookThatCouldNotWorkIsRejected(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *tokens.Config) {
		c.CheckWebhookURL = func(url string) error {
			if strings.Contains(url, "10.0.0.1") {
				return errors.New("its URL is private")
			}
			return nil
		}
	})
	for name, c := range map[string]struct {
		change func(*tokens.WebhookRequest)
		want   string
	}{
		"id":              {func(r *tokens.WebhookRequest) { r.ID = "a/b" }, "WEBHOOK_ID_INVALID"},
		"id of a page":    {func(r *tokens.WebhookRequest) { r.ID = "schemas" }, "WEBHOOK_ID_INVALID"},
		"dots":            {func(r *tokens.WebhookRequest) { r.ID = ".." }, "WEBHOOK_ID_INVALID"},
		"no URL":          {func(r *tokens.WebhookRequest) { r.URL = "" }, "WEBHOOK_URL_INVALID"},
		"no web URL":      {func(r *tokens.WebhookRequest) { r.URL = "ftp://a.example/" }, "WEBHOOK_URL_INVALID"},
		"private":         {func(r *tokens.WebhookRequest) { r.URL = "https://10.0.0.1/" }, "WEBHOOK_URL_INVALID"},
		"long URL":        {func(r *tokens.WebhookRequest) { r.URL += strings.Repeat("a", 2000) }, "WEBHOOK_URL_INVALID"},
		"type":            {func(r *tokens.WebhookRequest) { r.Filter.Types = []string{"token.create"} }, "EVENT_TYPE_UNKNOWN"},
		"test":            {func(r *tokens.WebhookRequest) { r.Filter.Types = []string{"webhook.test"} }, "EVENT_TYPE_UNKNOWN"},
		"user":            {func(r *tokens.WebhookRequest) { r.Filter.Users = []string{""} }, "USER_INVALID"},
		"audience":        {func(r *tokens.WebhookRequest) { r.Filter.Audiences = []string{"a b"} }, "AUDIENCE_INVALID"},
		"label":           {func(r *tokens.WebhookRequest) { r.Filter.Labels = map[string]string{"": "a"} }, "LABEL_INVALID"},
		"description":     {func(r *tokens.WebhookRequest) { r.Description = strings.Repeat("a", 1001) }, "TEXT_TOO_LONG"},
		"idempotency key": {func(r *tokens.WebhookRequest) { r.IdempotencyKey = "short" }, "IDEMPOTENCY_KEY_INVALID"},
	} {
		r := webhookRequest("w")
		c.change(&r)
		_, err := h.CreateWebhook(ctx, admin, r)
		var e *tokens.Error
		if !errors.As(err, &e) || len(e.Violations) == 0 || e.Violations[0].Reason != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	m := h.mint2("u9")
	r := webhookRequest("w")
	r.URL += "?token=" + m.Reveal()
	_, err := h.CreateWebhook(ctx, admin, r)
	wantReason(t, err, "SECRET_IN_FIELD", "a secret in the URL")
	h.hook(webhookRequest("w"))
	_, err = h.CreateWebhook(ctx, admin, webhookRequest("w"))
	wantReason(t, err, "WEBHOOK_EXISTS", "a second one of an id")
	_, err = h.CreateWebhook(ctx, tokens.Actor{Kind: tokens.UserActor, User: "u1"}, webhookRequest("x"))
	wantReason(t, err, "PERMISSION_DENIED", "a user")
	_, err = h.Webhook(ctx, admin, "none")
	wantReason(t, err, "NOT_FOUND", "an unknown one")
}

// mint2 mints a token for a new user and returns its secret.
func (h *house) mint2(user string) tokens.Secret {
	h.t.Helper()
	h.give(user, "a")
	return h.mint(user, "n", "a").Secret
}

func TestThereAreOnlySoManyWebhooks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for i := range tokens.MaxWebhooks {
		h.hook(webhookRequest(fmt.Sprintf("w%03d", i)))
	}
	_, err := h.CreateWebhook(ctx, admin, webhookRequest("more"))
	wantReason(t, err, "WEBHOOK_LIMIT_REACHED", "one too many")
	if err := h.DeleteWebhook(ctx, admin, "w000"); err != nil {
		t.Fatal(err)
	}
	h.hook(webhookRequest("more"))
}

func TestRepeatedCreateWebhookAnswersTheSameSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r := tokens.WebhookRequest{URL: "https://hooks.example.com/", Enabled: true, IdempotencyKey: idem}
	first := h.hook(r)
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	again := h.hook(r)
	if !again.Replayed || again.Webhook.ID != first.Webhook.ID || again.Secret.Reveal() != first.Secret.Reveal() {
		t.Errorf("replayed %t, %s", again.Replayed, again.Webhook.ID)
	}
	other := r
	other.URL += "other"
	_, err := h.CreateWebhook(ctx, admin, other)
	wantReason(t, err, "IDEMPOTENCY_KEY_REUSED", "another request")
	rotated, err := h.RotateWebhookSecret(
		ctx,
		admin,
		tokens.RotateWebhookRequest{ID: first.Webhook.ID, IdempotencyKey: idem + "2"},
	)
	if err != nil {
		t.Fatal(err)
	}
	if again = h.hook(r); !again.Replayed || !again.Secret.IsEmpty() {
		t.Error("the replay has the secret that was rotated away")
	}
	// The repetition of a rotation is one, whatever its precondition says of the state before.
	conditional := tokens.WithPrecondition(ctx, tokens.Precondition{Match: []string{first.Webhook.ETag()}})
	repeated, err := h.RotateWebhookSecret(
		conditional,
		admin,
		tokens.RotateWebhookRequest{ID: first.Webhook.ID, IdempotencyKey: idem + "2"},
	)
	if err != nil || !repeated.Replayed || repeated.Secret.Reveal() != rotated.Secret.Reveal() {
		t.Errorf("the repeated rotation: replayed %t, %v", repeated.Replayed, err)
	}
	wantSecrets(t, h.signs(first.Webhook.ID), rotated.Secret, first.Secret)
	if err := h.DeleteWebhook(ctx, admin, first.Webhook.ID); err != nil {
		t.Fatal(err)
	}
	_, err = h.CreateWebhook(ctx, admin, r)
	wantReason(t, err, "WEBHOOK_DELETED", "the replay after the deletion")
	if found, err := h.store.Check(ctx); err != nil || len(found) != 0 {
		t.Errorf("check: %q, %v", found, err)
	}
}

func TestRotatedWebhookSecretSignsAlongForADay(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.hook(webhookRequest("w"))
	rotate := func(force bool) (tokens.MintedWebhook, error) {
		return h.RotateWebhookSecret(ctx, admin, tokens.RotateWebhookRequest{ID: "w", Force: force})
	}
	second, err := rotate(false)
	if err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, h.signs("w"), second.Secret, first.Secret)
	h.wait(24*time.Hour - time.Second)
	wantSecrets(t, h.signs("w"), second.Secret, first.Secret)
	_, err = rotate(false)
	wantReason(t, err, "ROTATION_IN_PROGRESS", "a rotation within the day")
	forced, err := rotate(true)
	if err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, h.signs("w"), forced.Secret, second.Secret)
	h.wait(24 * time.Hour)
	wantSecrets(t, h.signs("w"), forced.Secret)
	if _, err := rotate(false); err != nil {
		t.Errorf("a rotation after the day: %v", err)
	}
}

func TestSealedWebhookSecretsOutliveTheirKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.hook(webhookRequest("w"))
	ended := h.hook(webhookRequest("ended"))
	if _, err := h.RotateWebhookSecret(ctx, admin, tokens.RotateWebhookRequest{ID: "ended"}); err != nil {
		t.Fatal(err)
	}
	h.wait(23 * time.Hour)
	second, err := h.RotateWebhookSecret(ctx, admin, tokens.RotateWebhookRequest{ID: "w"})
	if err != nil {
		t.Fatal(err)
	}
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	if err := h.store.Flush(ctx); err != nil { // the digests of the services that ask
		t.Fatal(err)
	}
	wantSecrets(t, h.signs("w"), second.Secret, first.Secret)
	h.wait(2 * time.Hour) // the first secret of "ended" signs no more
	before, err := h.Webhook(ctx, admin, "w")
	if err != nil {
		t.Fatal(err)
	}
	// Without the key there is nothing to seal anew from, and the key stays.
	if err := tokens.RetireKey(ctx, h.store, parseKeys(t, lineB), "a", h.now()); err == nil {
		t.Error("a key whose secrets cannot be opened was retired")
	}
	if err := tokens.RetireKey(ctx, h.store, h.ring.Get(), "a", h.now()); err != nil {
		t.Fatal(err)
	}
	h.ring.Set(parseKeys(t, lineB))
	h.reopen()
	wantSecrets(t, h.signs("w"), second.Secret, first.Secret)
	if got := h.signs("ended"); len(got) != 1 || got[0] == ended.Secret.Reveal() {
		t.Errorf("%d secrets sign, or the one that ended does", len(got))
	}
	after, err := h.Webhook(ctx, admin, "w")
	if err != nil || after.ETag() != before.ETag() || after.Secret.Key != "b" || after.OldSecret.Key != "b" {
		t.Errorf("sealed anew as %v and %v, %v", after.Secret, after.OldSecret, err)
	}
}

func TestSealedSecretOpensForItsWebhookOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a, b := h.hook(webhookRequest("a")).Webhook, h.hook(webhookRequest("b")).Webhook
	a.Secret = b.Secret
	if _, err := h.OpenWebhookSecrets(a); err == nil {
		t.Error("another webhook's secret was opened")
	}
	b.Secret.Box = b.Secret.Box[:len(b.Secret.Box)-1]
	if _, err := h.OpenWebhookSecrets(b); err == nil {
		t.Error("a secret that was cut was opened")
	}
}

func TestWebhookIsChangedOnlyAsItWasRead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	w := h.hook(webhookRequest("w")).Webhook
	change := func(ctx context.Context, url string) (tokens.Webhook, error) {
		r := webhookRequest("w")
		r.URL = url
		return h.ReplaceWebhook(ctx, admin, r)
	}
	as := func(w tokens.Webhook) context.Context {
		return tokens.WithPrecondition(ctx, tokens.Precondition{Match: []string{w.ETag()}})
	}
	same, err := change(as(w), w.URL)
	if err != nil || same.ETag() != w.ETag() {
		t.Errorf("a change of nothing: %v", err)
	}
	h.wait(time.Second)
	next, err := change(as(w), "https://new.example.com/")
	if err != nil || next.ETag() == w.ETag() || next.Cursor != w.Cursor {
		t.Fatalf("%+v, %v", next, err)
	}
	_, err = change(as(w), "https://newer.example.com/")
	wantReason(t, err, tokens.ReasonPrecondition, "a change of what was changed")
	wantReason(t, h.DeleteWebhook(as(w), admin, "w"), tokens.ReasonPrecondition, "a deletion of what was changed")
	_, err = h.RotateWebhookSecret(as(w), admin, tokens.RotateWebhookRequest{ID: "w"})
	wantReason(t, err, tokens.ReasonPrecondition, "a rotation of what was changed")
	if err := h.DeleteWebhook(as(next), admin, "w"); err != nil {
		t.Fatal(err)
	}
	wantReason(t, h.DeleteWebhook(ctx, admin, "w"), "NOT_FOUND", "a second deletion")
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{}, tokens.Page{Size: 50})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range events {
		if strings.HasPrefix(string(e.Action), "webhook.") && e.Outcome == tokens.OutcomeSuccess {
			said = append(said, string(e.Action)+": "+e.Detail)
		}
		if strings.Contains(e.Detail, "example.com") {
			t.Errorf("the log has a URL, which may be confidential: %s", e.Detail)
		}
	}
	if want := []string{"webhook.delete: w", "webhook.update: w url", "webhook.create: w"}; !slices.Equal(said, want) {
		t.Errorf("the log says %q, want %q", said, want)
	}
}
