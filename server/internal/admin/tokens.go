package admin

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

// tokenRow is a token as a page shows it.
type tokenRow struct {
	ID, Name, User    string
	URL               string // of its page; empty: it may not be seen
	UserURL           string // of its user's page; empty: it may not be seen
	Scopes            []string
	More              int    // scopes that are not shown
	State             string // the key of its text
	LastUsed, Expires frame.Moment
	Since             frame.Moment
}

const scopesShown = 3 // of a token in a list

func (p *Pages) tokenRow(q *frame.Request, t tokens.Token) tokenRow {
	r := tokenRow{
		ID: t.ID.String(), Name: t.Name, User: t.User, Scopes: t.Scopes[:min(len(t.Scopes), scopesShown)],
		State: map[tokens.State]string{tokens.StateExpired: "expired", tokens.StateRevoked: "revoked"}[t.Status(q.Now)],
		Since: q.Moment(t.IssueTime), LastUsed: q.Moment(t.LastUsed.Time), Expires: q.Moment(t.ExpireTime),
	}
	r.More = len(t.Scopes) - len(r.Scopes)
	switch {
	case r.State != "":
	case len(t.Blockers()) > 0:
		r.State = "blocked"
	case !t.IdleTime().IsZero():
		r.State = "idle"
	default:
		r.State = "active"
	}
	if q.May(patdv1.InventoryService_SearchTokens_FullMethodName) {
		r.URL = p.frame.URL("/admin/tokens/" + r.ID)
	}
	if q.May(patdv1.UserService_GetUser_FullMethodName) {
		r.UserURL = p.frame.URL(at("users", t.User))
	}
	return r
}

// filterFields are the fields of the filter, by their names in an address.
func filterFields() []string {
	return []string{
		"q",
		"user",
		"state",
		"scope",
		"audience",
		"label",
		"expires_before",
		"unused_since",
		"created_before",
	}
}

// readFilter reads the filter of a list of tokens.
func readFilter(v url.Values) (tokens.Filter, error) {
	states := map[string]tokens.State{
		"active":  tokens.StateActive,
		"expired": tokens.StateExpired,
		"revoked": tokens.StateRevoked,
	}
	f := tokens.Filter{
		NameHas: strings.TrimSpace(
			v.Get("q"),
		),
		User:     v.Get("user"),
		State:    states[v.Get("state")],
		Scope:    strings.TrimSpace(v.Get("scope")),
		Audience: strings.TrimSpace(v.Get("audience")),
	}
	if v.Get("state") != "" && f.State == tokens.StateAny {
		return f, tokens.Invalid("FILTER_INVALID", "state", "no such state")
	}
	for label := range strings.SplitSeq(v.Get("label"), ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(label), "=")
		switch {
		case strings.TrimSpace(label) == "":
		case !ok:
			return f, tokens.Invalid("FILTER_INVALID", "label", "give labels as name=value, with commas between them")
		default:
			if f.Labels == nil {
				f.Labels = map[string]string{}
			}
			f.Labels[name] = value
		}
	}
	for field, to := range map[string]*time.Time{"expires_before": &f.ExpiresBefore, "unused_since": &f.UnusedSince, "created_before": &f.CreatedBefore} {
		var err error
		if *to, err = day(field, v.Get(field)); err != nil {
			return f, err
		}
	}
	return f, nil
}

// kept returns the fields of the filter that are set.
func kept(v url.Values) url.Values {
	out := url.Values{}
	for _, name := range filterFields() {
		if text := v.Get(name); text != "" {
			out.Set(name, text)
		}
	}
	return out
}

type tokensData struct {
	outcome

	Tokens      []tokenRow
	F           url.Values // the filter, as it was filled in
	States      []option
	Orders      []option
	Filtered    bool
	Revoke      string // address of the revocation of all that match; empty: the operator may not, or nothing is selected
	Next, First string
}

// tokens lists the tokens of all users.
func (p *Pages) tokens(q *frame.Request) error {
	query := q.R.URL.Query()
	d := tokensData{
		outcome: done(q),
		F:       query,
		States:  options(q, "state", query.Get("state"), "", "active", "expired", "revoked"),
		Orders: options(
			q,
			"admin.order",
			query.Get("order"),
			"",
			"-issue_time",
			"issue_time",
			"expire_time",
			"-expire_time",
		),
	}
	code := http.StatusOK
	var found []tokens.Token
	var next string
	err := q.Operate(
		patdv1.InventoryService_SearchTokens_FullMethodName,
		frame.Of{User: query.Get("user")},
		func(ctx context.Context, a tokens.Actor) error {
			f, err := readFilter(query)
			if err != nil {
				return err
			}
			d.Filtered = !f.Empty()
			if d.Filtered && f.State != tokens.StateRevoked &&
				q.May(patdv1.InventoryService_BulkRevokeTokens_FullMethodName) {
				d.Revoke = p.frame.URL(with("/admin/tokens/revoke", kept(query)))
			}
			found, next, err = p.service.Inventory(
				ctx,
				a,
				f,
				query.Get("order"),
				tokens.Page{Size: pageSize, Token: query.Get("page")},
			)
			return err
		},
	)
	switch {
	case err != nil && elsewhere(err):
		return err
	case err != nil:
		var e *tokens.Error
		code, e = q.Explain(err)
		d.Alert, d.Revoke = q.Reason(e), ""
	}
	for _, t := range found {
		d.Tokens = append(d.Tokens, p.tokenRow(q, t))
	}
	d.Next, d.First = p.turned(q, next)
	q.Render(code, "admin-tokens", d)
	return nil
}

type tokenData struct {
	outcome

	Token   tokenRow
	Details []detail
	Revoke  bool // there is something to revoke, and the operator may
	Dialog  bool
	Links   []frame.Link
	Self    string
}

// find returns a token of any user by its id.
func (p *Pages) find(q *frame.Request, id string) (t tokens.Token, err error) {
	err = q.Operate(
		patdv1.InventoryService_SearchTokens_FullMethodName,
		frame.Of{TokenID: id},
		func(ctx context.Context, a tokens.Actor) error {
			found, _, err := p.service.Inventory(ctx, a, tokens.Filter{NameHas: id}, "", tokens.Page{Size: 1})
			if err != nil {
				return err
			}
			if len(found) == 0 || found[0].ID.String() != id {
				return tokens.Fail(tokens.CodeNotFound, "NOT_FOUND", q.Text("message.not_found.text"))
			}
			t = found[0]
			return nil
		},
	)
	return t, err
}

// token shows one token.
func (p *Pages) token(q *frame.Request) error {
	return p.showToken(q, http.StatusOK, done(q, "revoked"))
}

func (p *Pages) showToken(q *frame.Request, code int, o outcome) error {
	t, err := p.find(q, q.R.PathValue("id"))
	if err != nil {
		return err
	}
	d := tokenData{
		outcome: o,
		Token:   p.tokenRow(q, t),
		Details: p.details(q, t),
		Self:    p.frame.URL("/admin/tokens/" + t.ID.String()),
		Revoke: t.Revocation == nil &&
			q.May(patdv1.TokenService_RevokeToken_FullMethodName),
		Dialog: q.R.URL.Query().Has("revoke"),
	}
	d.Dialog = d.Dialog && d.Revoke
	if q.May(patdv1.AuditService_ListEvents_FullMethodName) {
		d.Links = append(
			d.Links,
			frame.Link{
				Text: q.Text("admin.token.events"),
				URL:  p.frame.URL(and("/admin/events", "token", t.ID.String())),
			},
		)
	}
	q.Render(code, "admin-token", d)
	return nil
}

// details are the facts about a token.
func (p *Pages) details(q *frame.Request, t tokens.Token) []detail {
	row := p.tokenRow(q, t)
	out := []detail{
		{Name: q.Text("detail.id"), Text: row.ID}, {Name: q.Text("admin.column.user"), Text: t.User, URL: row.UserURL},
		{Name: q.Text("column.scopes"), Items: t.Scopes}, {Name: q.Text("detail.issued"), Moment: row.Since},
	}
	add := func(name string, d detail) {
		d.Name = q.Text("detail." + name)
		out = append(out, d)
	}
	if t.ExpireTime.IsZero() {
		add("expires", detail{Text: q.Text("life.never")})
	} else {
		add("expires", detail{Moment: row.Expires})
	}
	used := detail{Moment: row.LastUsed}
	if t.LastUsed.Time.IsZero() {
		used.Text = q.Text("never_used")
	} else if t.LastUsed.IP.IsValid() {
		used.Text = q.Text("from_address", t.LastUsed.IP.String())
	}
	add("last_used", used)
	if r := t.Revocation; r != nil {
		add("revoked", detail{Moment: q.Moment(r.Time)})
		add("revoked_by", detail{Text: r.By})
		if r.Reason != "" {
			add("reason", detail{Text: r.Reason})
		}
	}
	if t.Rotations > 0 {
		add("rotations", detail{Text: strconv.FormatInt(t.Rotations, 10)})
	}
	if by := t.Blockers(); len(by) > 0 {
		add("blocked", detail{Items: by})
	}
	if at := t.IdleTime(); !at.IsZero() {
		add("idle", detail{Moment: q.Moment(at)})
	}
	if paused := t.PausedScopes(q.Now); len(paused) > 0 {
		out = append(out, detail{Name: q.Text("admin.token.paused"), Items: paused})
	}
	if len(t.Audiences) > 0 {
		add("audiences", detail{Items: t.Audiences})
	}
	var nets []string
	for _, n := range t.CIDRs {
		nets = append(nets, n.String())
	}
	if len(nets) > 0 {
		add("networks", detail{Items: nets})
	}
	labels := make([]string, 0, len(t.Labels))
	for name, value := range t.Labels {
		labels = append(labels, name+"="+value)
	}
	slices.Sort(labels)
	if len(labels) > 0 {
		out = append(out, detail{Name: q.Text("admin.labels"), Items: labels})
	}
	if t.Description != "" {
		out = append(out, detail{Name: q.Text("field.description"), Text: t.Description})
	}
	return out
}

// revokeToken revokes one token.
func (p *Pages) revokeToken(q *frame.Request) error {
	id := q.R.PathValue("id")
	if !q.Bound() {
		_, o := refused(q, frame.ErrStale)
		return p.showToken(q, http.StatusConflict, o)
	}
	t, err := p.find(q, id)
	if err != nil {
		return err
	}
	err = q.Operate(
		patdv1.TokenService_RevokeToken_FullMethodName,
		frame.Of{User: t.User, TokenID: id},
		func(ctx context.Context, a tokens.Actor) error {
			_, err := p.service.Revoke(ctx, a, t.User, id, q.R.PostForm.Get("reason"))
			return err
		},
	)
	switch {
	case err != nil && elsewhere(err):
		return err
	case err != nil:
		code, o := refused(q, err)
		return p.showToken(q, code, o)
	}
	q.Redirect("/admin/tokens/" + id + "?done=revoked")
	return nil
}

type planData struct {
	outcome

	Count   int64
	Plan    string
	Until   frame.Moment
	Filter  string // in words
	Fields  []detail
	Back    string
	Reason  string
	Begun   bool // the revocation has begun
	Done    bool // and is over
	Revoked int64
}

// Number is how many tokens it would be.
func (d planData) Number() int { return int(d.Count) }

// plan says how many tokens a revocation would end, and asks for the number.
func (p *Pages) plan(q *frame.Request) error {
	return p.showPlan(q, http.StatusOK, q.R.URL.Query(), outcome{})
}

// showPlan makes a plan for the filter, and shows its form.
func (p *Pages) showPlan(q *frame.Request, code int, v url.Values, o outcome) error {
	d := p.planOf(v, o)
	err := q.Operate(
		patdv1.InventoryService_BulkRevokeTokens_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) error {
			f, err := readFilter(v)
			if err != nil {
				return err
			}
			plan, err := p.service.PlanRevocation(ctx, a, f)
			d.Count, d.Plan, d.Until, d.Filter = plan.Count, plan.Plan, q.Moment(plan.ExpireTime), f.String()
			return err
		},
	)
	switch {
	case err != nil && elsewhere(err):
		return err
	case err != nil:
		status, e := q.Explain(err)
		code, d.Alert = max(code, status), q.Reason(e)
	}
	q.Render(code, "admin-revoke", d)
	return nil
}

func (p *Pages) planOf(v url.Values, o outcome) planData {
	d := planData{outcome: o, Back: p.frame.URL(with("/admin/tokens", kept(v))), Reason: v.Get("reason")}
	for _, name := range filterFields() {
		if text := v.Get(name); text != "" {
			d.Fields = append(d.Fields, detail{Name: name, Text: text})
		}
	}
	return d
}

// bulk revokes the tokens of a plan, if the form gives back how many they are.
func (p *Pages) bulk(q *frame.Request) error {
	form := q.R.PostForm
	if !q.Bound() {
		_, o := refused(q, frame.ErrStale)
		return p.showPlan(q, http.StatusConflict, form, o)
	}
	d := p.planOf(form, outcome{Form: form})
	d.Plan, d.Begun = form.Get("plan"), true
	err := q.Operate(
		patdv1.InventoryService_BulkRevokeTokens_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) error {
			f, err := readFilter(form)
			if err != nil {
				return err
			}
			n, err := typed(form)
			if err != nil {
				return err
			}
			d.Filter = f.String()
			b, err := p.service.BulkRevoke(
				tokens.WithCount(ctx, n),
				a,
				tokens.BulkRequest{Filter: f, Reason: form.Get("reason"), Plan: d.Plan},
			)
			d.Count, d.Revoked, d.Done = b.Count, b.Revoked, !b.EndTime.IsZero()
			return err
		},
	)
	var e *tokens.Error
	switch {
	case err == nil:
		q.Render(http.StatusOK, "admin-revoke", d)
		return nil
	case errors.As(err, &e) && e.Reason == "PLAN_OUTDATED":
		code, o := refused(q, err)
		o.Alert = q.Text("admin.plan_outdated")
		return p.showPlan(q, code, form, o)
	case elsewhere(err):
		return err
	}
	code, o := refused(q, err)
	return p.showPlan(q, code, form, o)
}
