package admin

import (
	"context"
	"net/http"
	"strings"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/frame"
	"patd/tokens"
)

// createWebhook makes a webhook, and shows its secret in the answer.
func (p *Pages) createWebhook(q *frame.Request) error {
	form := q.R.PostForm
	return p.writeWebhook(
		q,
		"",
		patdv1.WebhookService_CreateWebhook_FullMethodName,
		func(ctx context.Context, a tokens.Actor) (answer, error) {
			r, err := readWebhook(strings.TrimSpace(form.Get("webhook_id")), form)
			if err != nil {
				return answer{}, err
			}
			r.IdempotencyKey = form.Get("key")
			m, err := p.service.CreateWebhook(ctx, a, r)
			return answer{made: &m}, err
		},
	)
}

// changeWebhook does what a form of the page of one webhook asks for.
func (p *Pages) changeWebhook(q *frame.Request) error {
	id, form := idOf(q), q.R.PostForm
	to := func(done string) answer { return answer{to: and(at("webhooks", id), "done", done)} }
	switch action := form.Get("action"); action {
	case "save":
		return p.writeWebhook(
			q,
			id,
			patdv1.WebhookService_ReplaceWebhook_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (answer, error) {
				r, err := readWebhook(id, form)
				if err == nil {
					_, err = p.service.ReplaceWebhook(tagged(ctx, form), a, r)
				}
				return to("saved"), err
			},
		)
	case "enable", "disable":
		return p.writeWebhook(
			q,
			id,
			patdv1.WebhookService_ReplaceWebhook_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (answer, error) {
				w, err := p.service.Webhook(ctx, a, id)
				if err == nil {
					r := tokens.WebhookRequest{
						ID:          id,
						URL:         w.URL,
						Description: w.Description,
						Filter:      w.Filter,
						Enabled:     action == "enable",
					}
					_, err = p.service.ReplaceWebhook(tagged(ctx, form), a, r)
				}
				return to(action + "d"), err
			},
		)
	case "test":
		return p.writeWebhook(
			q,
			id,
			patdv1.WebhookService_TestWebhook_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (answer, error) {
				_, err := p.service.TestWebhook(ctx, a, id)
				return to("tested"), err
			},
		)
	case "redeliver":
		return p.writeWebhook(
			q,
			id,
			patdv1.WebhookService_RedeliverWebhook_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (answer, error) {
				_, err := p.service.Redeliver(ctx, a, id, form.Get("delivery"))
				return to("redelivered"), err
			},
		)
	case "rotate":
		return p.writeWebhook(
			q,
			id,
			patdv1.WebhookService_RotateWebhookSecret_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (answer, error) {
				m, err := p.service.RotateWebhookSecret(ctx, a, tokens.RotateWebhookRequest{
					ID: id, Force: form.Get("force") == "yes", IdempotencyKey: form.Get("key"),
				})
				return answer{made: &m}, err
			},
		)
	case "delete":
		return p.writeWebhook(
			q,
			id,
			patdv1.WebhookService_DeleteWebhook_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (answer, error) {
				return answer{
						to: "/admin/webhooks?done=deleted_webhook",
					}, p.service.DeleteWebhook(
						tagged(ctx, form),
						a,
						id,
					)
			},
		)
	}
	return tokens.Invalid("FORM_INVALID", "", "the form cannot be read")
}

// answer is what follows a change: a page to go to, or one that shows a secret.
type answer struct {
	to   string
	made *tokens.MintedWebhook
}

// writeWebhook makes a change.
func (p *Pages) writeWebhook(
	q *frame.Request,
	id, method string,
	do func(context.Context, tokens.Actor) (answer, error),
) error {
	if !q.Bound() {
		_, o := refused(q, frame.ErrStale)
		return p.showWebhook(q, http.StatusConflict, id, o, nil)
	}
	var out answer
	err := q.Operate(method, nil, func(ctx context.Context, a tokens.Actor) (err error) {
		out, err = do(ctx, a)
		return err
	})
	switch {
	case err != nil && elsewhere(err) && reasonOf(err) != "RECORD_INVALID":
		return err
	case err != nil:
		code, o := refused(q, err)
		errs := atFields(
			q,
			err,
			"webhook_id",
			"url",
			"description",
			"event_types",
			"user",
			"users",
			"audiences",
			"labels",
		)
		if text, ok := errs["user"]; ok {
			errs["users"] = text
		}
		switch reasonOf(err) {
		case "WEBHOOK_EXISTS":
			errs["webhook_id"] = q.Text("admin.webhook.taken")
		case "IDEMPOTENCY_KEY_REUSED": // sent again, it is another request
			o.Form = without(o.Form, "key")
		}
		if len(errs) > 0 {
			o.Alert = q.Text("error.some")
		}
		return p.showWebhook(q, code, id, o, errs)
	case out.made != nil:
		w := out.made.Webhook
		q.Render(http.StatusOK, "admin-webhook-secret", map[string]any{
			"ID":       w.ID,
			"URL":      p.frame.URL(at("webhooks", w.ID)),
			"Secret":   out.made.Secret.Reveal(),
			"Previous": previousSecret(q, w),
		})
		return nil
	}
	q.Redirect(out.to)
	return nil
}

// previousSecret is until when the secret before signs along; no text: there is none.
func previousSecret(q *frame.Request, w tokens.Webhook) frame.Moment {
	if w.OldSecret.IsZero() || !q.Now.Before(w.OldUntil) {
		return frame.Moment{}
	}
	return q.Moment(w.OldUntil)
}
