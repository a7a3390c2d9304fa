package page

import (
	"context"
	"errors"
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

// tokenData is the data of the page of one token.
type tokenData struct {
	Token     tokenRow
	Details   []detail
	Active    bool
	Editable  bool
	Groups    []featureGroup // of its scopes
	Form      url.Values     // the edit form, as it was filled in
	ETag      string
	Key       string
	Graces    []lifetimeOption
	Lifetimes lifetimes
	Unknown   string
	Errors    map[string]string
	Alert     string // about the edit form
	AlertAt   string // which form the alert is about: edit, rotate, resume or revoke
	Notice    string
	Dialog    bool
	Labels    bool   // the edit form has the labels
	Cancel    string // the secret before the rotation is good until then, and the rotation can be canceled; empty: it cannot
	Idle      bool   // it is paused, since it was not used
	Force     bool   // the user may rotate though the secret before is still good
	Unused    []featureBox
	Unscoped  bool // some uses did not say which scopes they needed
	Paused    []featureBox
	PausedFor string // until when the first of the paused scopes can be resumed
	Events    []eventRow
	More      string // address of the whole activity of the token; empty: all of it is shown
}

type detail struct {
	Name, Text string
	Items      []string
	Moment     frame.Moment
}

// token shows one token.
func (p *Pages) token(q *frame.Request) error {
	d := tokenData{Errors: map[string]string{}, Dialog: q.R.URL.Query().Has("revoke")}
	if notice := q.R.URL.Query().
		Get("done"); slices.Contains(
		[]string{"saved", "revoked", "canceled", "paused", "resumed", "scopes_resumed"},
		notice,
	) {
		d.Notice = q.Text("notice." + notice)
	}
	if form := q.TakeDraft(); form != nil {
		d.Notice, d.Form = q.Text("notice.draft"), form
	}
	return p.showToken(q, http.StatusOK, d)
}

// change does what a form of the page of one token asks for.
func (p *Pages) change(q *frame.Request) error {
	d := tokenData{Errors: map[string]string{}, Form: q.R.PostForm, AlertAt: q.R.PostForm.Get("action")}
	if !q.Bound() {
		d.Alert = q.Text("reason.FORM_STALE")
		return p.showToken(q, http.StatusConflict, d)
	}
	switch d.AlertAt {
	case "edit":
		return p.edit(q, d)
	case "rotate":
		return p.rotate(q, d)
	case "cancel":
		return p.cancelRotation(q, d)
	case "resume":
		return p.resume(q, d)
	case "narrow", "unpause":
		return p.pauseOrResume(q, d)
	case "revoke":
		return p.revoke(q, d)
	}
	return tokens.Invalid("FORM_INVALID", "", "the form cannot be read")
}

// refused shows the page again with what is wrong.
func (p *Pages) refused(q *frame.Request, d tokenData, err error) error {
	code, alert := p.explain(q, err, d.Errors)
	if d.Alert = alert; code == http.StatusNotFound {
		return err
	}
	return p.showToken(q, code, d)
}

func (p *Pages) edit(q *frame.Request, d tokenData) error {
	id, form := q.R.PathValue("id"), q.R.PostForm
	name, description, scopes := form.Get(
		"name",
	), strings.ReplaceAll(
		form.Get("description"),
		"\r\n",
		"\n",
	), form["scopes"]
	change := tokens.TokenChange{Name: &name, Description: &description, Scopes: &scopes}
	if form.Has("labels") {
		labels, ok := readLabels(form.Get("labels"))
		if !ok {
			d.Errors["labels"] = q.Text("error.labels")
			return p.showToken(q, http.StatusBadRequest, d)
		}
		change.Labels = &labels
	}
	err := q.Do(
		patdv1.TokenService_UpdateToken_FullMethodName,
		frame.Mine{TokenID: id},
		func(ctx context.Context) error {
			if tag := form.Get("etag"); tag != "" { // so that what another window has changed is not undone
				ctx = tokens.WithPrecondition(ctx, tokens.Precondition{Match: []string{tag}})
			}
			_, err := p.service.UpdateToken(ctx, q.In.Actor, "me", id, change)
			return err
		},
	)
	if err != nil {
		return p.refused(q, d, err)
	}
	q.Redirect("/tokens/" + url.PathEscape(id) + "?done=saved")
	return nil
}

// readLabels reads labels, one on each line as KEY=VALUE.
func readLabels(text string) (map[string]string, bool) {
	labels := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if _, twice := labels[key]; !ok || twice {
			return nil, false
		}
		labels[key] = value
	}
	return labels, true
}

// labelLines writes labels as readLabels reads them; false: a key has a character that a line cannot have.
func labelLines(labels map[string]string) (string, bool) {
	var b strings.Builder
	for _, k := range sortedKeys(labels) {
		if strings.Contains(k, "=") || strings.TrimSpace(k) != k {
			return "", false
		}
		b.WriteString(k + "=" + labels[k] + "\n")
	}
	return b.String(), true
}

func (p *Pages) cancelRotation(q *frame.Request, d tokenData) error {
	id := q.R.PathValue("id")
	err := q.Do(
		patdv1.TokenService_CancelRotation_FullMethodName,
		frame.Mine{TokenID: id},
		func(ctx context.Context) error {
			_, err := p.service.CancelRotation(ctx, q.In.Actor, "me", id)
			return err
		},
	)
	if err != nil {
		return p.refused(q, d, err)
	}
	q.Redirect("/tokens/" + url.PathEscape(id) + "?done=canceled")
	return nil
}

func (p *Pages) resume(q *frame.Request, d tokenData) error {
	id := q.R.PathValue("id")
	err := q.Do(
		patdv1.TokenService_ResumeToken_FullMethodName,
		frame.Mine{TokenID: id},
		func(ctx context.Context) error {
			_, err := p.service.ResumeToken(ctx, q.In.Actor, "me", id)
			return err
		},
	)
	if err != nil {
		return p.refused(q, d, err)
	}
	q.Redirect("/tokens/" + url.PathEscape(id) + "?done=resumed")
	return nil
}

func (p *Pages) rotate(q *frame.Request, d tokenData) error {
	id, form := q.R.PathValue("id"), q.R.PostForm
	life, field, problem := readLifetime(form)
	if problem != "" {
		d.Errors["rotate."+field] = q.Text(problem)
	}
	grace, err := time.ParseDuration(form.Get("grace"))
	if err != nil {
		d.Errors["grace"] = q.Text("error.grace")
	}
	if len(d.Errors) > 0 {
		return p.showToken(q, http.StatusBadRequest, d)
	}
	var out tokens.Rotated
	err = q.Do(
		patdv1.TokenService_RotateToken_FullMethodName,
		frame.Mine{TokenID: id},
		func(ctx context.Context) (err error) {
			out, err = p.service.Rotate(ctx, q.In.Actor, tokens.RotateRequest{
				User:           "me",
				TokenID:        id,
				Grace:          &grace,
				Lifetime:       life,
				Renew:          form.Get("expiration") == lifeRenew,
				Force:          form.Get("force") == "yes",
				IdempotencyKey: form.Get("key"),
			})
			return err
		},
	)
	var e *tokens.Error
	d.Force = errors.As(err, &e) && e.Reason == "ROTATION_IN_PROGRESS" || form.Has("force")
	if err != nil {
		return p.refused(q, d, err)
	}
	p.showMade(q, out.Token, out.Secret, true, q.Moment(out.PreviousUntil))
	return nil
}

func (p *Pages) revoke(q *frame.Request, d tokenData) error {
	id := q.R.PathValue("id")
	err := q.Do(
		patdv1.TokenService_RevokeToken_FullMethodName,
		frame.Mine{TokenID: id},
		func(ctx context.Context) error {
			_, err := p.service.Revoke(ctx, q.In.Actor, "me", id, "")
			return err
		},
	)
	if err != nil {
		return p.refused(q, d, err)
	}
	q.Redirect("/tokens/" + url.PathEscape(id) + "?done=revoked")
	return nil
}

// showToken shows the page of one token. Its forms are filled in with d.Form, or with the token.
func (p *Pages) showToken(q *frame.Request, code int, d tokenData) error {
	id := q.R.PathValue("id")
	var t tokens.Token
	err := q.Do(
		patdv1.TokenService_GetToken_FullMethodName,
		frame.Mine{TokenID: id},
		func(ctx context.Context) (err error) {
			t, err = p.service.Token(ctx, q.In.Actor, "me", id)
			return err
		},
	)
	if err != nil {
		return err
	}
	held, unknown := p.held(q)
	d.Unknown = unknown
	d.Token = p.row(q, t, held, unknown == "", len(t.Scopes))
	d.Active = t.Status(q.Now) == tokens.StateActive
	d.Details = p.details(q, t)
	d.ETag, d.Key = t.ETag(), newKey()
	lines, editable := labelLines(t.Labels)
	d.Labels = editable
	d.Idle = d.Active && !t.IdleTime().IsZero()
	if t.Cancelable(q.Now) {
		d.Cancel = q.Moment(t.Rotation.PreviousUntil).Exact
	}
	edited := d.Form != nil && d.Form.Get("action") == "edit"
	if edited {
		d.ETag = d.Form.Get("etag")
		if d.Alert != "" {
			d.ETag = t.ETag() // the user has seen what is there now
		}
	}
	if d.Form == nil || !edited {
		old := d.Form
		d.Form = url.Values{"name": {t.Name}, "description": {t.Description}, "scopes": t.Scopes, "labels": {lines}}
		for _, name := range []string{"expiration", "date", "grace"} {
			d.Form.Set(name, old.Get(name))
		}
		if key := old.Get("key"); key != "" && old.Get("action") == "rotate" {
			d.Key = key
		}
	}
	if d.Active {
		p.useBoxes(q, t, &d)
	}
	if err := p.scopeBoxes(q, t, &d); err != nil {
		return err
	}
	d.Lifetimes = choices(q, p.service.ServerPolicy(), d.Form.Get("expiration"), d.Form.Get("date"), true)
	d.Graces = graces(q, d.Form.Get("grace"))
	if d.Events, d.More, err = p.events(q, id, "", 10); err != nil {
		return err
	}
	q.Render(code, "token", d)
	return nil
}

// scopeBoxes fills in the checkboxes of the scopes that a token keeps, with the names of the catalogue if they are
// known.
func (p *Pages) scopeBoxes(q *frame.Request, t tokens.Token, d *tokenData) error {
	if !d.Active {
		return nil
	}
	var found []tokens.FeatureEntry
	err := q.Do(patdv1.UserService_GetUserFeatures_FullMethodName, frame.Mine{}, func(ctx context.Context) (err error) {
		found, err = p.service.DescribeScopes(ctx, q.In.Actor, "me", t.Scopes)
		return err
	})
	if err != nil {
		return err
	}
	d.Groups = grouped(found, func(e tokens.FeatureEntry) bool { return slices.Contains(d.Form["scopes"], e.Name) })
	for i := range d.Groups {
		for j := range d.Groups[i].Boxes {
			box := &d.Groups[i].Boxes[j]
			box.Required = false
			box.Unused = neverUsed(t, box.Name)
			box.Suspended = slices.ContainsFunc(
				d.Token.Scopes,
				func(s scopeView) bool { return s.Name == box.Name && s.Suspended },
			)
		}
	}
	return nil
}

// graces are the choices of the field Grace period.
func graces(q *frame.Request, chosen string) []lifetimeOption {
	if chosen == "" {
		chosen = "24h"
	}
	var out []lifetimeOption
	for _, v := range []string{"0s", "1h", "24h", "168h", "720h"} {
		out = append(out, lifetimeOption{Value: v, Text: q.Text("grace." + v), Chosen: v == chosen})
	}
	return out
}

// details are the facts about a token that no form changes.
func (p *Pages) details(q *frame.Request, t tokens.Token) []detail {
	var out []detail
	add := func(d detail) {
		d.Name = q.Text("detail." + d.Name)
		out = append(out, d)
	}
	add(detail{Name: "id", Text: t.ID.String()})
	add(detail{Name: "issued", Moment: q.Moment(t.IssueTime)})
	if t.ExpireTime.IsZero() {
		add(detail{Name: "expires", Text: q.Text("life.never")})
	} else {
		add(detail{Name: "expires", Moment: q.Moment(t.ExpireTime)})
	}
	if r := t.Revocation; r != nil {
		add(detail{Name: "revoked", Moment: q.Moment(r.Time)})
		add(detail{Name: "revoked_by", Text: p.actor(q, r.By)})
		if r.Reason != "" {
			add(detail{Name: "reason", Text: r.Reason})
		}
	}
	if t.LastUsed.Time.IsZero() {
		add(detail{Name: "last_used", Text: q.Text("never_used")})
	} else {
		d := detail{Name: "last_used", Moment: q.Moment(t.LastUsed.Time)}
		if t.LastUsed.IP.IsValid() {
			d.Text = q.Text("from_address", t.LastUsed.IP.String())
		}
		add(d)
	}
	if t.Rotations > 0 {
		add(detail{Name: "rotations", Text: strconv.FormatInt(t.Rotations, 10)})
	}
	if by := t.Blockers(); len(by) > 0 {
		add(detail{Name: "blocked", Items: by})
	}
	if at := t.IdleTime(); !at.IsZero() {
		add(detail{Name: "idle", Moment: q.Moment(at)})
	}
	if len(t.Audiences) > 0 {
		add(detail{Name: "audiences", Items: t.Audiences})
	}
	if len(t.CIDRs) > 0 {
		var nets []string
		for _, n := range t.CIDRs {
			nets = append(nets, n.String())
		}
		add(detail{Name: "networks", Items: nets})
	}
	for _, k := range sortedKeys(t.Labels) {
		out = append(out, detail{Name: q.Text("detail.label", k), Text: t.Labels[k]})
	}
	return out
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
