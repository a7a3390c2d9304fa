package admin

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/frame"
	"patd/tokens"
)

// serviceRow is a service as a page shows it.
type serviceRow struct {
	Name, URL   string
	State       string // the key of its text
	Permissions []string
	Audience    string
	Expires     frame.Moment
	Previous    frame.Moment // until when the secret before is good; no text: there is none
}

func (p *Pages) serviceRow(q *frame.Request, v tokens.ServiceAccount) serviceRow {
	r := serviceRow{
		Name:        v.Name,
		URL:         p.frame.URL(at("services", v.Name)),
		State:       "active",
		Permissions: v.Permissions.Names(),
		Audience:    v.Audience,
		Expires:     q.Moment(v.ExpireTime),
	}
	switch v.Status(q.Now) {
	case tokens.StateRevoked:
		r.State = "revoked"
	case tokens.StateExpired:
		r.State = "expired"
	default:
		if v.PreviousUntil.After(q.Now) {
			r.Previous = q.Moment(v.PreviousUntil)
		}
	}
	return r
}

type servicesData struct {
	outcome

	Services    []serviceRow
	Shows       []option
	New         bool // the operator may make one
	Next, First string
}

// services lists services, those that end soonest first.
func (p *Pages) services(q *frame.Request) error {
	query := q.R.URL.Query()
	d := servicesData{
		outcome: done(q), Shows: options(q, "admin.services.show", query.Get("show"), "", "all"),
		New: q.May(patdv1.ServiceAccountService_CreateService_FullMethodName),
	}
	var found []tokens.ServiceAccount
	var next string
	err := q.Operate(
		patdv1.ServiceAccountService_ListServices_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) (err error) {
			found, next, err = p.service.ServicesByExpiry(
				ctx,
				a,
				query.Get("show") == "all",
				tokens.Page{Size: pageSize, Token: query.Get("page")},
			)
			return err
		},
	)
	if err != nil {
		return err
	}
	for _, v := range found {
		d.Services = append(d.Services, p.serviceRow(q, v))
	}
	d.Next, d.First = p.turned(q, next)
	q.Render(http.StatusOK, "admin-services", d)
	return nil
}

type serviceData struct {
	outcome

	Service serviceRow
	Details []detail
	Active  bool
	Rotate  bool // the operator may
	Revoke  bool // the operator may, and it is not revoked
	Graces  []option
	Lives   []option
	Key     string
	Force   bool // the operator may rotate though the secret before is still good
	Secrets int64
	Self    string
}

// SecretCount is how many secrets a revocation ends.
func (d serviceData) SecretCount() int { return int(d.Secrets) }

// serviceAccount shows one service.
func (p *Pages) serviceAccount(q *frame.Request) error {
	return p.showService(q, http.StatusOK, done(q, "revoked"))
}

func (p *Pages) showService(q *frame.Request, code int, o outcome) error {
	name := idOf(q)
	var v tokens.ServiceAccount
	err := q.Operate(
		patdv1.ServiceAccountService_ListServices_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) (err error) {
			v, err = p.service.ServiceNamed(ctx, a, name)
			return err
		},
	)
	if err != nil {
		return err
	}
	d := serviceData{
		outcome: o,
		Service: p.serviceRow(q, v),
		Secrets: v.Secrets(q.Now),
		Self:    p.frame.URL(at("services", name)),
	}
	d.Active = d.Service.State == "active"
	d.Rotate = d.Active && q.May(patdv1.ServiceAccountService_RotateService_FullMethodName)
	d.Revoke = v.Revocation == nil && q.May(patdv1.ServiceAccountService_RevokeService_FullMethodName)
	d.Graces = options(q, "grace", cmp.Or(o.Form.Get("grace"), "168h"), "0s", "1h", "24h", "168h", "720h")
	d.Lives = options(q, "admin.service.life", o.Form.Get("life"), "", "30d", "90d", "180d", "365d")
	d.Key = key(url.Values{"key": {o.Kept("rotate", "key")}})
	d.Force = o.At == "rotate" && (o.Form.Has("force") || v.PreviousUntil.After(q.Now))
	d.among(map[string]bool{"rotate": d.Rotate, "revoke": d.Revoke})
	add := func(name string, x detail) {
		x.Name = q.Text(name)
		d.Details = append(d.Details, x)
	}
	add("detail.id", detail{Text: v.ID.String()})
	add("admin.service.permissions", detail{Items: d.Service.Permissions})
	if v.Audience != "" {
		add("admin.service.audience", detail{Items: []string{v.Audience}})
	}
	add("detail.issued", detail{Moment: q.Moment(v.IssueTime)})
	if !v.RotateTime.IsZero() {
		add("admin.service.rotated", detail{Moment: q.Moment(v.RotateTime)})
	}
	if d.Service.Previous.Text != "" {
		add("admin.service.previous", detail{Moment: d.Service.Previous})
	}
	add("detail.expires", detail{Moment: d.Service.Expires})
	if r := v.Revocation; r != nil {
		add("detail.revoked", detail{Moment: q.Moment(r.Time)})
		add("detail.revoked_by", detail{Text: r.By})
		if r.Reason != "" {
			add("detail.reason", detail{Text: r.Reason})
		}
	}
	q.Render(code, "admin-service", d)
	return nil
}

// life reads a lifetime of a form; nil: none was chosen.
func life(field, text string) (*time.Duration, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no lifetime is a choice
	}
	d, err := tokens.ParseDuration(text)
	if err != nil || d == 0 {
		return nil, tokens.Invalid("DURATION_INVALID", field, "must be a duration such as 12h or 90d")
	}
	return &d, nil
}

// changeService rotates or revokes a service.
func (p *Pages) changeService(q *frame.Request) error {
	name, form := idOf(q), q.R.PostForm
	if !q.Bound() {
		_, o := refused(q, frame.ErrStale)
		return p.showService(q, http.StatusConflict, o)
	}
	var err error
	switch form.Get("action") {
	case "rotate":
		var out tokens.RotatedService
		err = q.Operate(
			patdv1.ServiceAccountService_RotateService_FullMethodName,
			frame.Of{Name: name},
			func(ctx context.Context, a tokens.Actor) error {
				grace, err := time.ParseDuration(form.Get("grace"))
				if err != nil {
					return tokens.Invalid("GRACE_OUT_OF_RANGE", "grace", "choose a grace period")
				}
				ttl, err := life("life", form.Get("life"))
				if err != nil {
					return err
				}
				out, err = p.service.RotateService(ctx, a, tokens.RotateServiceRequest{
					Name:           name,
					Grace:          &grace,
					TTL:            ttl,
					Force:          form.Get("force") == "yes",
					IdempotencyKey: form.Get("key"),
				})
				return err
			},
		)
		if err == nil {
			p.showSecret(q, out.Service, out.Secret, out.PreviousUntil)
			return nil
		}
	case "revoke":
		err = q.Operate(
			patdv1.ServiceAccountService_RevokeService_FullMethodName,
			frame.Of{Name: name},
			func(ctx context.Context, a tokens.Actor) error {
				n, err := typed(form)
				if err == nil {
					_, err = p.service.RevokeService(tokens.WithCount(ctx, n), a, name, form.Get("reason"))
				}
				return err
			},
		)
		if err == nil {
			q.Redirect(and(at("services", name), "done", "revoked"))
			return nil
		}
	default:
		err = tokens.Invalid("FORM_INVALID", "", "the form cannot be read")
	}
	if elsewhere(err) {
		return err
	}
	code, o := refused(q, err)
	return p.showService(q, code, o)
}

// showSecret shows the secret of a service, once: a reload shows the same.
func (p *Pages) showSecret(q *frame.Request, v tokens.ServiceAccount, secret tokens.Secret, previous time.Time) {
	q.Render(http.StatusOK, "admin-secret", map[string]any{
		"Service": p.serviceRow(q, v), "Secret": secret.Reveal(), "Previous": q.Moment(previous),
	})
}

type newServiceData struct {
	outcome

	Permissions []option
	Lives       []option
	Key         string
	Errors      map[string]string
}

// newService shows the form for a service.
func (p *Pages) newService(q *frame.Request) error {
	return p.showNewService(q, http.StatusOK, done(q), nil)
}

func (p *Pages) showNewService(q *frame.Request, code int, o outcome, errs map[string]string) error {
	err := q.Operate(
		patdv1.ServiceAccountService_ListServices_FullMethodName,
		nil,
		func(context.Context, tokens.Actor) error { return nil },
	)
	if err != nil {
		return err
	}
	if o.Form == nil {
		o.Form = url.Values{}
	}
	d := newServiceData{
		outcome: o, Key: key(o.Form), Errors: errs,
		Lives: options(q, "admin.service.life", cmp.Or(o.Form.Get("life"), "365d"), "30d", "90d", "180d", "365d"),
	}
	for _, name := range []string{"introspect", "tokens", "users", "catalog", "audit", "admin"} {
		d.Permissions = append(
			d.Permissions,
			option{name, q.Text("admin.service.permission." + name), slices.Contains(o.Form["permissions"], name)},
		)
	}
	q.Render(code, "admin-service-new", d)
	return nil
}

// createService makes a service, and shows its secret in the answer.
func (p *Pages) createService(q *frame.Request) error {
	form := q.R.PostForm
	if !q.Bound() {
		_, o := refused(q, frame.ErrStale)
		return p.showNewService(q, http.StatusConflict, o, nil)
	}
	var out tokens.MintedService
	err := q.Operate(
		patdv1.ServiceAccountService_CreateService_FullMethodName,
		frame.Of{Name: form.Get("name")},
		func(ctx context.Context, a tokens.Actor) error {
			ttl, err := life("life", form.Get("life"))
			if err != nil {
				return err
			}
			out, err = p.service.CreateService(ctx, a, tokens.ServiceRequest{
				Name: form.Get(
					"name",
				),
				Permissions:    form["permissions"],
				Audience:       form.Get("audience"),
				TTL:            ttl,
				IdempotencyKey: form.Get("key"),
			})
			return err
		},
	)
	switch {
	case err == nil:
		p.showSecret(q, out.Service, out.Secret, time.Time{})
		return nil
	case elsewhere(err):
		return err
	}
	code, o := refused(q, err)
	errs := atFields(q, err, "name", "permissions", "audience")
	if e := reasonOf(err); e == "NAME_TAKEN" {
		errs["name"] = q.Text("admin.service.taken")
	}
	if len(errs) > 0 {
		o.Alert = q.Text("error.some")
	}
	if reasonOf(err) == "IDEMPOTENCY_KEY_REUSED" { // sent again, it is another request
		o.Form = without(o.Form, "key")
	}
	return p.showNewService(q, code, o, errs)
}
