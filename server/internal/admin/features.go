package admin

import (
	"context"
	"net/http"
	"net/url"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/frame"
	"patd/tokens"
)

// featureRow is an entry of the catalogue as a page shows it.
type featureRow struct {
	Name, DisplayName, URL string
	Consent                string // the key of its text
	Default, System        bool
}

type featuresData struct {
	outcome

	Features    []featureRow
	Q           string
	Next, First string
}

func consents() map[string]tokens.Consent {
	return map[string]tokens.Consent{
		"implicit": tokens.ConsentImplicit,
		"required": tokens.ConsentRequired,
		"flexible": tokens.ConsentFlexible,
	}
}

func consentKey(c tokens.Consent) string {
	for name, is := range consents() {
		if is == c {
			return name
		}
	}
	return "implicit"
}

// features lists the catalogue's entries of features.
func (p *Pages) features(q *frame.Request) error {
	query := q.R.URL.Query()
	d := featuresData{outcome: done(q, "deleted_entry"), Q: query.Get("q")}
	var found []tokens.FeatureEntry
	var next string
	err := q.Operate(
		patdv1.CatalogService_ListFeatures_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) (err error) {
			found, next, err = p.service.Features(
				ctx,
				a,
				tokens.FeatureFilter{Q: d.Q},
				tokens.Page{Size: pageSize, Token: query.Get("page")},
			)
			return err
		},
	)
	if err != nil {
		return err
	}
	for _, e := range found {
		d.Features = append(
			d.Features,
			featureRow{
				e.Name,
				e.DisplayName,
				p.frame.URL(at("features", e.Name)),
				consentKey(e.Consent),
				e.Default,
				e.System,
			},
		)
	}
	d.Next, d.First = p.turned(q, next)
	q.Render(http.StatusOK, "admin-features", d)
	return nil
}

type featureData struct {
	outcome

	Name     string // empty: it is a new one
	Entry    tokens.FeatureEntry
	Consents []option
	ETag     string
	Self     string
	Errors   map[string]string
}

// newFeature shows the form for an entry.
func (p *Pages) newFeature(q *frame.Request) error {
	return p.showFeature(q, http.StatusOK, "", done(q), nil)
}

// feature shows an entry.
func (p *Pages) feature(q *frame.Request) error {
	return p.showFeature(q, http.StatusOK, idOf(q), done(q, "saved"), nil)
}

// readFeature reads an entry out of a form.
func readFeature(name string, form url.Values) tokens.FeatureEntry {
	return tokens.FeatureEntry{
		Name:        name,
		DisplayName: form.Get("display_name"),
		Description: lined(form.Get("description")),
		Consent:     consents()[form.Get("consent")],
		Default: form.Get(
			"default",
		) == "yes",
		Optional:  form.Get("optional") == "yes",
		Published: form.Get("published") == "yes",
	}
}

func (p *Pages) showFeature(q *frame.Request, code int, name string, o outcome, errs map[string]string) error {
	d := featureData{outcome: o, Name: name, Self: p.frame.URL("/admin/features/new"), Errors: errs}
	method := patdv1.CatalogService_GetFeature_FullMethodName
	if name == "" {
		method = patdv1.CatalogService_ListFeatures_FullMethodName
	}
	err := q.Operate(method, nil, func(ctx context.Context, a tokens.Actor) (err error) {
		if name != "" {
			d.Self = p.frame.URL(at("features", name))
			d.Entry, err = p.service.Feature(ctx, a, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	d.ETag = d.Entry.ETag() // who is told that it was changed has seen what is there now
	if o.Form != nil && o.At != "delete" {
		system := d.Entry.System
		d.Entry = readFeature(cmpName(name, o.Form), o.Form)
		d.Entry.System = system
	}
	d.among(map[string]bool{"delete": name != "" && !d.Entry.System})
	d.Consents = options(q, "admin.consent", consentKey(d.Entry.Consent), "implicit", "required", "flexible")
	q.Render(code, "admin-feature", d)
	return nil
}

// cmpName returns the name of an entry that is there, or else that of the form.
func cmpName(name string, form url.Values) string {
	if name != "" {
		return name
	}
	return form.Get("name")
}

// createFeature adds an entry.
func (p *Pages) createFeature(q *frame.Request) error {
	form := q.R.PostForm
	return p.writeFeature(
		q,
		"",
		patdv1.CatalogService_CreateFeature_FullMethodName,
		"saved",
		func(ctx context.Context, a tokens.Actor) error {
			_, err := p.service.CreateFeature(ctx, a, readFeature(form.Get("name"), form))
			return err
		},
	)
}

// changeFeature replaces or deletes an entry.
func (p *Pages) changeFeature(q *frame.Request) error {
	name, form := idOf(q), q.R.PostForm
	switch form.Get("action") {
	case "save":
		return p.writeFeature(
			q,
			name,
			patdv1.CatalogService_ReplaceFeature_FullMethodName,
			"saved",
			func(ctx context.Context, a tokens.Actor) error {
				_, err := p.service.ReplaceFeature(tagged(ctx, form), a, readFeature(name, form))
				return err
			},
		)
	case "delete":
		return p.writeFeature(
			q,
			name,
			patdv1.CatalogService_DeleteFeature_FullMethodName,
			"deleted_entry",
			func(ctx context.Context, a tokens.Actor) error {
				return p.service.DeleteFeature(tagged(ctx, form), a, name)
			},
		)
	}
	return tokens.Invalid("FORM_INVALID", "", "the form cannot be read")
}

func (p *Pages) writeFeature(
	q *frame.Request,
	name, method, said string,
	do func(context.Context, tokens.Actor) error,
) error {
	if !q.Bound() {
		_, o := refused(q, frame.ErrStale)
		return p.showFeature(q, http.StatusConflict, name, o, nil)
	}
	err := q.Operate(method, nil, do)
	switch {
	case err != nil && elsewhere(err):
		return err
	case err != nil:
		code, o := refused(q, err)
		errs := atFields(q, err, "name", "display_name", "description")
		if len(errs) > 0 {
			o.Alert = q.Text("error.some")
		}
		return p.showFeature(q, code, name, o, errs)
	case said == "saved":
		q.Redirect(and(at("features", cmpName(name, q.R.PostForm)), "done", said))
	default:
		q.Redirect("/admin/features?done=" + said)
	}
	return nil
}

// tagged returns a context in which a change is made only to what the form was made from.
func tagged(ctx context.Context, form url.Values) context.Context {
	return tokens.WithPrecondition(ctx, tokens.Precondition{Match: []string{form.Get("etag")}})
}
