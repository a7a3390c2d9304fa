package page

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
)

// searchAbove is how many features a list has before it gets a search.
const searchAbove = 12

// mintData is the data of the form for a new token.
type mintData struct {
	Form      url.Values // as it was filled in
	Key       string
	Lifetimes lifetimes
	Groups    []featureGroup
	Count     int
	Search    bool
	Audiences []audienceBox
	Others    string
	Lacking   []string // scopes that the address asks for and the user does not hold
	Unticked  []string // scopes that the address asks for and that only the user may tick
	Stale     bool
	Unknown   bool // the features are not known now
	Errors    map[string]string
	Alert     string
	Notice    string
}

type audienceBox struct {
	ID, Text, Limit string
	Ticked          bool
}

// draft shows the form for a new token, filled in from its address or from what was typed before signing in again.
func (p *Pages) draft(q *frame.Request) error {
	if form := q.TakeDraft(); form != nil {
		return p.showMint(
			q,
			http.StatusOK,
			mintData{Form: form, Key: form.Get("key"), Notice: q.Text("notice.draft")},
			nil,
		)
	}
	query := q.R.URL.Query()
	form := url.Values{}
	for _, name := range []string{"name", "description", "networks"} {
		form.Set(name, query.Get(name))
	}
	form["audiences"] = lines(query.Get("audiences"))
	asked := query["scopes"]
	for i := range asked {
		form["scopes"] = append(form["scopes"], lines(asked[i])...)
	}
	if ttl := query.Get("ttl"); ttl != "" {
		fillTTL(q, p.service.ServerPolicy(), form, ttl)
	}
	return p.showMint(q, http.StatusOK, mintData{Form: form, Key: newKey()}, form["scopes"])
}

// fillTTL fills in the expiration that an address asks for, such as 90d, or never. One that is no choice of its own
// becomes a date.
func fillTTL(q *frame.Request, policy tokens.Policy, form url.Values, ttl string) {
	if ttl == "1y" {
		ttl = "365d"
	}
	form.Set("expiration", ttl)
	l, _, problem := readLifetime(form)
	if problem != "" || l.TTL == nil {
		return
	}
	for _, o := range choices(q, policy, ttl, "", false).Options {
		if o.Value == ttl {
			return
		}
	}
	if *l.TTL <= policy.MaxTTL-tokens.Day {
		form.Set("expiration", lifeCustom)
		form.Set("date", q.Now.Add(*l.TTL).Format(dateForm))
	}
}

// showMint shows the form. prefilled are the scopes that the address asks for; nil, if the form was sent or there are
// none.
func (p *Pages) showMint(q *frame.Request, code int, d mintData, prefilled []string) error {
	var c tokens.Choices
	err := q.Do(patdv1.UserService_GetUserFeatures_FullMethodName, frame.Mine{}, func(ctx context.Context) (err error) {
		c, err = p.service.MintChoices(ctx, q.In.Actor, "me")
		return err
	})
	sent := d.Form["scopes"]
	if err != nil {
		status, e := q.Explain(err)
		if e.Code != tokens.CodeUnavailable {
			return err
		}
		// What was ticked stays, so that the form can be sent again when the outage is over.
		code, d.Unknown, d.Alert = max(code, status), true, q.Reason(e)
		for _, name := range slices.Sorted(slices.Values(sent)) {
			c.Features = append(c.Features, tokens.FeatureEntry{Name: name})
		}
		c.Policy = p.service.ServerPolicy()
	}
	fresh := q.R.Method == http.MethodGet && len(sent) == 0 && d.Notice == ""
	d.Groups = grouped(c.Features, func(e tokens.FeatureEntry) bool {
		switch {
		case fresh:
			return e.Default && e.Consent != tokens.ConsentRequired
		case slices.Contains(prefilled, e.Name) && e.Consent == tokens.ConsentRequired:
			d.Unticked = append(d.Unticked, e.Name)
			return false
		}
		return slices.Contains(sent, e.Name)
	})
	if !d.Unknown {
		for _, name := range sent {
			if !slices.ContainsFunc(c.Features, func(e tokens.FeatureEntry) bool { return e.Name == name }) {
				d.Lacking = append(d.Lacking, name)
			}
		}
	}
	d.Count, d.Stale = len(c.Features), c.Stale
	d.Search = d.Count > searchAbove
	var others []string
	for _, id := range d.Form["audiences"] {
		if !slices.ContainsFunc(c.Audiences, func(a tokens.AudienceChoice) bool { return a.ID == id }) {
			others = append(others, id)
		}
	}
	for _, a := range c.Audiences {
		box := audienceBox{ID: a.ID, Text: a.DisplayName, Ticked: slices.Contains(d.Form["audiences"], a.ID)}
		if box.Text == "" {
			box.Text = a.ID
		}
		if a.Policy.MaxTTL < c.Policy.MaxTTL {
			box.Limit = q.Text("life.limit", inDays(q, a.Policy.MaxTTL))
		}
		d.Audiences = append(d.Audiences, box)
	}
	d.Others = strings.Join(append(others, lines(d.Form.Get("other_audiences"))...), "\n")
	d.Lifetimes = choices(q, c.Policy, d.Form.Get("expiration"), d.Form.Get("date"), false)
	q.Render(code, "new", d)
	return nil
}

// madeData is the data of the page that shows a secret once.
type madeData struct {
	ID, Name string
	Secret   string // empty: it cannot be shown any more
	Curl     string
	Expires  frame.Moment
	Rotated  bool
	Previous frame.Moment // until when the previous secret is accepted
}

// mint makes a token, and shows its secret in the answer.
func (p *Pages) mint(q *frame.Request) error {
	form := q.R.PostForm
	d := mintData{Form: form, Key: form.Get("key"), Errors: map[string]string{}}
	if !q.Bound() {
		d.Alert = q.Text("reason.FORM_STALE")
		return p.showMint(q, http.StatusConflict, d, nil)
	}
	life, field, problem := readLifetime(form)
	if problem != "" {
		d.Errors[field] = q.Text(problem)
	}
	if len(form["scopes"]) == 0 {
		d.Errors["scopes"] = q.Text("error.scopes")
	}
	if strings.TrimSpace(form.Get("name")) == "" {
		d.Errors["name"] = q.Text("error.name")
	}
	if len(d.Errors) > 0 {
		return p.showMint(q, http.StatusBadRequest, d, nil)
	}
	audiences := append(slices.Clone(form["audiences"]), lines(form.Get("other_audiences"))...)
	var m tokens.Minted
	err := q.Do(patdv1.TokenService_CreateToken_FullMethodName, frame.Mine{}, func(ctx context.Context) (err error) {
		m, err = p.service.Mint(ctx, q.In.Actor, tokens.MintRequest{
			User:           "me",
			Name:           form.Get("name"),
			Description:    strings.ReplaceAll(form.Get("description"), "\r\n", "\n"),
			Scopes:         form["scopes"],
			Audiences:      audiences,
			CIDRs:          lines(form.Get("networks")),
			Lifetime:       life,
			IdempotencyKey: form.Get("key"),
		})
		call.Of(ctx).Subject = m.Token.ID
		return err
	})
	if err != nil {
		code, alert := p.explain(q, err, d.Errors)
		if alert == "" && len(d.Errors) == 0 {
			return err
		}
		var e *tokens.Error
		if errors.As(err, &e) && e.Reason == "IDEMPOTENCY_KEY_REUSED" {
			d.Key = newKey()
		}
		d.Alert = alert
		return p.showMint(q, code, d, nil)
	}
	p.showMade(q, m.Token, m.Secret, false, frame.Moment{})
	return nil
}

func (p *Pages) showMade(q *frame.Request, t tokens.Token, secret tokens.Secret, rotated bool, previous frame.Moment) {
	d := madeData{
		ID:       t.ID.String(),
		Name:     t.Name,
		Secret:   secret.Reveal(),
		Expires:  q.Moment(t.ExpireTime),
		Rotated:  rotated,
		Previous: previous,
	}
	if d.Secret != "" {
		d.Curl = curlSelf(p.frame.Absolute("/v1/self"), d.Secret)
	}
	q.Render(http.StatusOK, "made", d)
}

// explain puts the faults of a request at the fields of its form, and returns the text of any other fault. An outage
// and a limit have such a text too: the form is shown again with it.
func (p *Pages) explain(q *frame.Request, err error, at map[string]string) (code int, alert string) {
	code, e := q.Explain(err)
	if e.Code == tokens.CodeInternal {
		return code, q.Text("message.internal.text")
	}
	if len(e.Violations) == 0 {
		if e.Reason == "NAME_TAKEN" {
			at["name"] = q.Reason(e)
			return code, ""
		}
		return code, q.Reason(e)
	}
	for _, v := range e.Violations {
		field := fieldOf(v.Field)
		text := q.Reason(&tokens.Error{Reason: v.Reason, Message: v.Description})
		switch {
		case field == "":
			alert = text
		case field == "expiration" && q.R.PostForm.Get("expiration") == lifeCustom:
			at["date"] = text
		case field == "scopes" && v.Reason == "SCOPE_NOT_HELD":
			at[field] = q.Text("error.not_held", e.Metadata["scopes"])
		case at[field] == "":
			at[field] = text
		}
	}
	return code, alert
}

// fieldOf returns the field of a form that a request's field comes from; empty: none.
func fieldOf(field string) string {
	name, _, _ := strings.Cut(field, "[")
	switch name {
	case "name", "description", "scopes", "audiences", "labels":
		return name
	case "ttl", "expire_time", "never_expires":
		return "expiration"
	case "allowed_cidrs":
		return "networks"
	case "grace":
		return name
	}
	return ""
}
