package admin

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/frame"
	"patd/tokens"
)

// mark is a short text with a look.
type mark struct{ Look, Text string }

// webhookRow is a webhook as a page shows it.
type webhookRow struct {
	ID, URL  string
	Endpoint string
	State    mark
	Why      string       // why it is in that state
	Last     frame.Moment // the newest delivery
	LastIs   string       // what became of it
}

func (p *Pages) webhookRow(q *frame.Request, st tokens.WebhookState) webhookRow {
	r := webhookRow{ID: st.ID, URL: p.frame.URL(at("webhooks", st.ID)), Endpoint: st.URL}
	if !st.Last.CreateTime.IsZero() {
		r.Last, r.LastIs = q.Moment(lastMoment(st.Last)), q.Text("admin.delivery.state."+deliveryState(st.Last))
	}
	look := func(look, key string) { r.State = mark{look, q.Text("admin.webhook.state." + key)} }
	switch failing := !st.Failing.CreateTime.IsZero(); {
	case st.Edited:
		look("revoked", "edited")
		r.Why = q.Text("admin.webhook.edited")
	case !st.Enabled && !st.DisableTime.IsZero():
		look("revoked", "disabled")
		r.Why = q.Text("admin.webhook.disabled." + st.DisableReason)
	case !st.Enabled:
		look("expired", "disabled")
	case failing:
		look("blocked", "failing")
		r.Why = q.Text("admin.webhook.failing", attempted(q, st.Failing))
	default:
		look("active", "enabled")
	}
	return r
}

// lastMoment is when something last happened to a delivery.
func lastMoment(d tokens.WebhookDelivery) time.Time {
	switch {
	case !d.EndTime.IsZero():
		return d.EndTime
	case !d.AttemptTime.IsZero():
		return d.AttemptTime
	}
	return d.CreateTime
}

func deliveryState(d tokens.WebhookDelivery) string {
	switch {
	case d.State == tokens.DeliveryDelivered:
		return "delivered"
	case d.State == tokens.DeliveryFailed:
		return "failed"
	case d.SinceTime.IsZero():
		return "pending"
	}
	return "retried"
}

// attempted says what came of the last attempt at a delivery.
func attempted(q *frame.Request, d tokens.WebhookDelivery) string {
	switch {
	case d.AttemptTime.IsZero():
		return ""
	case d.Status != 0 && d.Error != "":
		return strconv.Itoa(d.Status) + " " + d.Error
	case d.Status != 0:
		return strconv.Itoa(d.Status)
	case d.Error != "":
		return d.Error
	}
	return q.Text("admin.delivery.no_answer")
}

type webhooksData struct {
	outcome

	Webhooks    []webhookRow
	Next, First string
}

// webhooks lists the webhooks.
func (p *Pages) webhooks(q *frame.Request) error {
	d := webhooksData{outcome: done(q, "deleted_webhook")}
	var found []tokens.WebhookState
	var next string
	err := q.Operate(
		patdv1.WebhookService_ListWebhooks_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) (err error) {
			found, next, err = p.service.WebhookStates(
				ctx,
				a,
				tokens.Page{Size: pageSize, Token: q.R.URL.Query().Get("page")},
			)
			return err
		},
	)
	if err != nil {
		return err
	}
	for _, st := range found {
		d.Webhooks = append(d.Webhooks, p.webhookRow(q, st))
	}
	d.Next, d.First = p.turned(q, next)
	q.Render(http.StatusOK, "admin-webhooks", d)
	return nil
}

type deliveryRow struct {
	ID, Type, Subject string
	State             mark
	Moment            frame.Moment
	Attempts          int64
	Result            string
	Next              frame.Moment // the next attempt
}

type webhookData struct {
	outcome

	ID         string // empty: it is a new one
	Row        webhookRow
	Details    []detail
	F          url.Values
	Types      []option
	Errors     map[string]string
	ETag, Self string
	Key        string
	Enabled    bool
	Usable     bool // it is as patd wrote it
	Force      bool // an earlier secret signs along
	Deliveries []deliveryRow
	States     []option
	Next       string
	First      string
}

// newWebhook shows the form for a webhook.
func (p *Pages) newWebhook(q *frame.Request) error {
	return p.showWebhook(q, http.StatusOK, "", done(q), nil)
}

// webhook shows a webhook with its deliveries.
func (p *Pages) webhook(q *frame.Request) error {
	return p.showWebhook(
		q,
		http.StatusOK,
		idOf(q),
		done(q, "saved", "tested", "redelivered", "enabled", "disabled"),
		nil,
	)
}

func webhookForm(w tokens.Webhook) url.Values {
	labels := make([]string, 0, len(w.Filter.Labels))
	for name, value := range w.Filter.Labels {
		labels = append(labels, name+"="+value)
	}
	slices.Sort(labels)
	f := url.Values{
		"url": {
			w.URL,
		},
		"description": {w.Description},
		"event_types": w.Filter.Types,
		"users":       {strings.Join(w.Filter.Users, "\n")},
		"audiences":   {strings.Join(w.Filter.Audiences, "\n")},
		"labels":      {strings.Join(labels, "\n")},
	}
	if w.Enabled {
		f.Set("enabled", "yes")
	}
	return f
}

// linesOf returns the lines of a field that are not blank.
func linesOf(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// readWebhook reads a webhook out of a form.
func readWebhook(id string, form url.Values) (tokens.WebhookRequest, error) {
	r := tokens.WebhookRequest{
		ID:          id,
		URL:         strings.TrimSpace(form.Get("url")),
		Description: lined(form.Get("description")),
		Enabled:     form.Get("enabled") == "yes",
		Filter: tokens.WebhookFilter{
			Types:     form["event_types"],
			Users:     linesOf(form.Get("users")),
			Audiences: linesOf(form.Get("audiences")),
		},
	}
	for _, line := range linesOf(form.Get("labels")) {
		name, value, ok := strings.Cut(line, "=")
		if _, twice := r.Filter.Labels[name]; !ok || twice {
			return r, tokens.Invalid(
				"FILTER_INVALID",
				"labels",
				"write each label on a line of its own, as name=value, and each name once",
			)
		}
		if r.Filter.Labels == nil {
			r.Filter.Labels = map[string]string{}
		}
		r.Filter.Labels[name] = value
	}
	return r, nil
}

func (p *Pages) showWebhook(q *frame.Request, code int, id string, o outcome, errs map[string]string) error {
	d := webhookData{
		outcome: o,
		ID:      id,
		Self:    p.frame.URL("/admin/webhooks/new"),
		Errors:  errs,
		F:       url.Values{"enabled": {"yes"}},
		Usable:  true,
	}
	method := patdv1.WebhookService_GetWebhook_FullMethodName
	if id == "" {
		method = patdv1.WebhookService_ListWebhooks_FullMethodName
	}
	var st tokens.WebhookState
	err := q.Operate(method, nil, func(ctx context.Context, a tokens.Actor) (err error) {
		if id != "" {
			st, err = p.service.WebhookState(ctx, a, id)
		}
		return err
	})
	if err != nil {
		return err
	}
	action := "create"
	if id != "" {
		action = "save"
		if err := p.fillWebhook(q, &d, st); err != nil {
			return err
		}
	}
	if o.Form != nil && (o.At == action || id == "") {
		d.F = o.Form
	}
	d.Key = key(url.Values{"key": {o.Kept("rotate", "key") + o.Kept("create", "key")}})
	for _, t := range tokens.WebhookTypes() {
		d.Types = append(d.Types, option{Value: t, Text: t, Chosen: slices.Contains(d.F["event_types"], t)})
	}
	q.Render(code, "admin-webhook", d)
	return nil
}

// fillWebhook adds what is known of a webhook.
func (p *Pages) fillWebhook(q *frame.Request, d *webhookData, st tokens.WebhookState) error {
	d.Row, d.F, d.ETag, d.Self = p.webhookRow(
		q,
		st,
	), webhookForm(
		st.Webhook,
	), st.ETag(), p.frame.URL(
		at("webhooks", st.ID),
	)
	d.Enabled, d.Usable = st.Enabled, !st.Edited
	d.Force = !st.OldSecret.IsZero() && q.Now.Before(st.OldUntil)
	add := func(name string, x detail) {
		x.Name = q.Text(name)
		d.Details = append(d.Details, x)
	}
	add("detail.id", detail{Text: st.ID})
	add("admin.webhook.url", detail{Text: st.URL})
	add("detail.issued", detail{Moment: q.Moment(st.CreateTime)})
	add("admin.webhook.updated", detail{Moment: q.Moment(st.UpdateTime)})
	if !st.DisableTime.IsZero() {
		add("admin.webhook.disabled", detail{Moment: q.Moment(st.DisableTime)})
	}
	if d.Force {
		add("admin.webhook.previous", detail{Moment: q.Moment(st.OldUntil)})
	}
	query := q.R.URL.Query()
	states := map[string]tokens.DeliveryState{
		"pending":   tokens.DeliveryPending,
		"delivered": tokens.DeliveryDelivered,
		"failed":    tokens.DeliveryFailed,
	}
	d.States = options(q, "admin.delivery.state", query.Get("state"), "", "pending", "delivered", "failed")
	if d.Usable {
		return p.deliveries(q, d, st.ID, tokens.WebhookDeliveryFilter{State: states[query.Get("state")]})
	}
	return nil
}

// deliveries adds a page of the deliveries of a webhook.
func (p *Pages) deliveries(q *frame.Request, d *webhookData, id string, f tokens.WebhookDeliveryFilter) error {
	var found []tokens.WebhookDelivery
	var next string
	err := q.Operate(
		patdv1.WebhookService_ListWebhookDeliveries_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) (err error) {
			found, next, err = p.service.WebhookDeliveries(
				ctx,
				a,
				id,
				f,
				tokens.Page{Size: deliveriesShown, Token: q.R.URL.Query().Get("page")},
			)
			return err
		},
	)
	if err != nil {
		return err
	}
	for _, one := range found {
		state := deliveryState(one)
		row := deliveryRow{
			ID:       one.ID.String(),
			Type:     one.Type,
			Subject:  one.Subject,
			Moment:   q.Moment(one.CreateTime),
			Attempts: one.Attempts,
			State:    mark{deliveryLooks()[state], q.Text("admin.delivery.state." + state)},
			Result:   attempted(q, one),
		}
		if one.State == tokens.DeliveryPending {
			row.Next = q.Moment(one.NextTime)
		}
		d.Deliveries = append(d.Deliveries, row)
	}
	d.Next, d.First = p.turned(q, next)
	return nil
}

const deliveriesShown = 20

func deliveryLooks() map[string]string {
	return map[string]string{"delivered": "active", "failed": "revoked", "pending": "expired", "retried": "blocked"}
}
