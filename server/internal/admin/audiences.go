package admin

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
)

// blockWithin is how long one form blocks or unblocks; what is left then takes another one.
const blockWithin = 5 * time.Second

type audienceRow struct {
	ID, DisplayName, URL string
	MaxTTL               string
	Named                bool
}

type audiencesData struct {
	outcome

	Audiences   []audienceRow
	Q           string
	Next, First string
}

// audiences lists the APIs that accept tokens.
func (p *Pages) audiences(q *frame.Request) error {
	query := q.R.URL.Query()
	d := audiencesData{outcome: done(q, "deleted_entry"), Q: query.Get("q")}
	var found []tokens.AudienceEntry
	var next string
	err := q.Operate(
		patdv1.CatalogService_ListAudiences_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) (err error) {
			found, next, err = p.service.Audiences(ctx, a, d.Q, tokens.Page{Size: pageSize, Token: query.Get("page")})
			return err
		},
	)
	if err != nil {
		return err
	}
	for _, e := range found {
		d.Audiences = append(
			d.Audiences,
			audienceRow{e.ID, e.DisplayName, p.frame.URL(at("audiences", e.ID)), duration(e.MaxTTL), e.RequireNamed},
		)
	}
	d.Next, d.First = p.turned(q, next)
	q.Render(http.StatusOK, "admin-audiences", d)
	return nil
}

// duration writes a lifetime for a form; empty: the server's.
func duration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return tokens.FormatDuration(d)
}

type audienceData struct {
	outcome

	ID      string // empty: it is a new one
	F       url.Values
	Formats []option
	ETag    string
	Self    string
	Errors  map[string]string
	Unnamed int64
	Named   bool // the form asks for the number of tokens that name no audience
	Stake   tokens.BlockStake
	Dry     *dryData
}

// dryData is the dry run of a policy.
type dryData struct {
	F               url.Values
	Alert           string
	Tried           bool // a policy was given; else it is the present one
	Count, Unnamed  int64
	Named           bool
	Tokens          []exceedingRow
	Next            string
	ExceedingNumber int
}

type exceedingRow struct {
	Name, User string
	URL        string // of the token's page; empty: it may not be seen
	Expires    frame.Moment
	Blocked    bool
}

// newAudience shows the form for an audience.
func (p *Pages) newAudience(q *frame.Request) error {
	return p.showAudience(q, http.StatusOK, "", done(q), nil)
}

// audience shows an audience, and what a policy would mean.
func (p *Pages) audience(q *frame.Request) error {
	return p.showAudience(
		q,
		http.StatusOK,
		idOf(q),
		done(q, "saved", "blocked", "unblocked", "blocked_some", "unblocked_some"),
		nil,
	)
}

func audienceForm(e tokens.AudienceEntry) url.Values {
	yes := map[bool]string{true: "yes"}
	format := "opaque"
	if e.AccessFormat == tokens.AccessJWT {
		format = "jwt"
	}
	return url.Values{
		"id": {
			e.ID,
		},
		"display_name": {e.DisplayName},
		"resource":     {e.Resource},
		"default_ttl":  {duration(e.DefaultTTL)},
		"max_ttl":      {duration(e.MaxTTL)},
		"access_token_ttl": {
			duration(e.AccessTTL),
		},
		"format":        {format},
		"allow_never":   {yes[e.AllowNever]},
		"allow_offline": {yes[e.AllowOffline]},
		"require_named": {yes[e.RequireNamed]},
	}
}

// readAudience reads an audience out of a form.
func readAudience(id string, form url.Values) (tokens.AudienceEntry, error) {
	e := tokens.AudienceEntry{
		ID:          id,
		DisplayName: form.Get("display_name"),
		Resource:    strings.TrimSpace(form.Get("resource")),
		AllowNever:  form.Get("allow_never") == "yes",
		AllowOffline: form.Get(
			"allow_offline",
		) == "yes",
		RequireNamed: form.Get("require_named") == "yes",
		AccessFormat: tokens.AccessOpaque,
	}
	if form.Get("format") == "jwt" {
		e.AccessFormat = tokens.AccessJWT
	}
	for field, to := range map[string]*time.Duration{"default_ttl": &e.DefaultTTL, "max_ttl": &e.MaxTTL, "access_token_ttl": &e.AccessTTL} {
		d, err := life(field, strings.TrimSpace(form.Get(field)))
		if err != nil {
			return e, err
		}
		if d != nil {
			*to = *d
		}
	}
	return e, nil
}

func (p *Pages) showAudience(q *frame.Request, code int, id string, o outcome, errs map[string]string) error {
	d := audienceData{outcome: o, ID: id, Self: p.frame.URL("/admin/audiences/new"), Errors: errs, F: url.Values{}}
	method := patdv1.CatalogService_GetAudience_FullMethodName
	if id == "" {
		method = patdv1.CatalogService_ListAudiences_FullMethodName
	}
	var e tokens.AudienceEntry
	err := q.Operate(method, nil, func(ctx context.Context, a tokens.Actor) (err error) {
		if id != "" {
			e, err = p.service.Audience(ctx, a, id)
		}
		return err
	})
	if err != nil {
		return err
	}
	if id != "" {
		d.Self, d.F, d.ETag = p.frame.URL(at("audiences", id)), audienceForm(e), e.ETag()
		err := q.Operate(call.AdminBlocks, nil, func(ctx context.Context, a tokens.Actor) (err error) {
			d.Stake, err = p.service.AudienceStake(ctx, a, id)
			return err
		})
		if err == nil {
			d.Dry, err = p.dryRun(q, id)
		}
		if err != nil {
			return err
		}
	}
	if o.Form != nil && (o.At == "save" || id == "") {
		d.F = o.Form
	}
	if id != "" && !e.RequireNamed && d.F.Get("require_named") == "yes" {
		d.Named = true
		if d.Unnamed, err = p.unnamed(q, id); err != nil {
			return err
		}
	}
	d.Formats = options(q, "admin.audience.format", cmp.Or(d.F.Get("format"), "opaque"), "opaque", "jwt")
	q.Render(code, "admin-audience", d)
	return nil
}

// unnamed counts the tokens that an audience would not accept any more.
func (p *Pages) unnamed(q *frame.Request, id string) (n int64, err error) {
	err = q.Operate(
		patdv1.CatalogService_CheckAudience_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) error {
			found, _, err := p.service.CheckAudience(ctx, a, id, nil, true, tokens.Page{Size: 1})
			n = found.Unnamed
			return err
		},
	)
	return n, err
}

// dryRun returns what the policy in the address would mean, or the present one.
func (p *Pages) dryRun(q *frame.Request, id string) (*dryData, error) {
	query := q.R.URL.Query()
	d := &dryData{F: query, Named: query.Get("named") == "yes"}
	var found tokens.Exceeding
	var next string
	err := q.Operate(
		patdv1.CatalogService_CheckAudience_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) error {
			longest, err := life("max_ttl", strings.TrimSpace(query.Get("longest")))
			if err != nil {
				return err
			}
			var try *tokens.Policy
			if longest != nil {
				d.Tried, try = true, &tokens.Policy{MaxTTL: *longest, AllowNever: query.Get("never") == "yes"}
			}
			found, next, err = p.service.CheckAudience(
				ctx,
				a,
				id,
				try,
				d.Named,
				tokens.Page{Size: 20, Token: query.Get("page")},
			)
			return err
		},
	)
	switch {
	case err != nil && !elsewhere(err):
		_, e := q.Explain(err)
		d.Alert = q.Reason(e)
		return d, nil
	case err != nil:
		return d, err
	}
	d.Count, d.Unnamed, d.ExceedingNumber = found.Count, found.Unnamed, int(found.Count)
	for _, t := range found.Tokens {
		row := exceedingRow{Name: t.Name, User: t.User, Expires: q.Moment(t.ExpireTime), Blocked: len(t.Blockers()) > 0}
		if q.May(patdv1.InventoryService_SearchTokens_FullMethodName) {
			row.URL = p.frame.URL("/admin/tokens/" + t.ID.String())
		}
		d.Tokens = append(d.Tokens, row)
	}
	if next != "" {
		d.Next, _ = p.turned(q, next)
	}
	return d, nil
}

// createAudience adds an audience.
func (p *Pages) createAudience(q *frame.Request) error {
	form := q.R.PostForm
	id := strings.TrimSpace(form.Get("id"))
	return p.writeAudience(
		q,
		"",
		patdv1.CatalogService_CreateAudience_FullMethodName,
		func(ctx context.Context, a tokens.Actor) (string, error) {
			e, err := readAudience(id, form)
			if err == nil {
				e.RequireNamed = false // that is a change of its own, which says how many tokens it refuses
				_, err = p.service.CreateAudience(ctx, a, e)
			}
			return and(at("audiences", id), "done", "saved"), err
		},
	)
}

// changeAudience does what a form of the page of one audience asks for.
func (p *Pages) changeAudience(q *frame.Request) error {
	id, form := idOf(q), q.R.PostForm
	self := at("audiences", id)
	switch form.Get("action") {
	case "save":
		return p.writeAudience(
			q,
			id,
			patdv1.CatalogService_ReplaceAudience_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (string, error) {
				e, err := readAudience(id, form)
				if err != nil {
					return "", err
				}
				if e.RequireNamed {
					n, err := typed(form)
					if err != nil {
						n = -1 // counted only if the audience begins to require it
					}
					ctx = tokens.WithCount(ctx, n)
				}
				_, err = p.service.ReplaceAudience(tagged(ctx, form), a, e)
				return and(self, "done", "saved"), err
			},
		)
	case "delete":
		return p.writeAudience(
			q,
			id,
			patdv1.CatalogService_DeleteAudience_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (string, error) {
				return "/admin/audiences?done=deleted_entry", p.service.DeleteAudience(tagged(ctx, form), a, id)
			},
		)
	case "block":
		return p.writeAudience(
			q,
			id,
			patdv1.CatalogService_BlockTokens_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (string, error) {
				left, err := p.repeat(ctx, form, func(ctx context.Context) (int64, error) {
					_, left, err := p.service.BlockTokens(ctx, a, id, form.Get("reason"))
					return left, err
				})
				return and(self, "done", map[bool]string{true: "blocked", false: "blocked_some"}[left == 0]), err
			},
		)
	case "unblock":
		return p.writeAudience(
			q,
			id,
			patdv1.CatalogService_UnblockTokens_FullMethodName,
			func(ctx context.Context, a tokens.Actor) (string, error) {
				left, err := p.repeat(ctx, form, func(ctx context.Context) (int64, error) {
					_, left, err := p.service.UnblockTokens(ctx, a, id, form.Get("reason"))
					return left, err
				})
				return and(self, "done", map[bool]string{true: "unblocked", false: "unblocked_some"}[left == 0]), err
			},
		)
	}
	return tokens.Invalid("FORM_INVALID", "", "the form cannot be read")
}

// repeat calls a change of many tokens that each call makes a part of, until nothing is left or the time is over. The
// first call compares the form's number.
func (p *Pages) repeat(
	ctx context.Context,
	form url.Values,
	part func(context.Context) (left int64, err error),
) (int64, error) {
	n, err := typed(form)
	if err != nil {
		return 0, err
	}
	over := time.Now().Add(blockWithin)
	left, err := part(tokens.WithCount(ctx, n))
	for err == nil && left > 0 && time.Now().Before(over) {
		left, err = part(ctx)
	}
	return left, err
}

// writeAudience makes a change, which returns the address to go to.
func (p *Pages) writeAudience(
	q *frame.Request,
	id, method string,
	do func(context.Context, tokens.Actor) (string, error),
) error {
	if !q.Bound() {
		_, o := refused(q, frame.ErrStale)
		return p.showAudience(q, http.StatusConflict, id, o, nil)
	}
	to := ""
	err := q.Operate(method, nil, func(ctx context.Context, a tokens.Actor) (err error) {
		to, err = do(ctx, a)
		return err
	})
	switch {
	case err != nil && elsewhere(err):
		return err
	case err != nil:
		code, o := refused(q, err)
		errs := atFields(q, err, "id", "display_name", "resource", "default_ttl", "max_ttl", "access_token_ttl")
		if len(errs) > 0 {
			o.Alert = q.Text("error.some")
		}
		return p.showAudience(q, code, id, o, errs)
	}
	q.Redirect(to)
	return nil
}
