package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
)

const pageSize = 50

// Server is what operators see of the server itself.
type Server struct {
	Version string
	Store   string // the kind of the store; empty: not known
	Health  func(context.Context) Health
}

// Pages are the operators' pages.
type Pages struct {
	service *tokens.Service
	frame   *frame.Frame
	server  Server
}

// Add adds the operators' pages to a frame.
func Add(f *frame.Frame, service *tokens.Service, server Server) {
	p := &Pages{service: service, frame: f, server: server}
	for pattern, h := range map[string]frame.Handler{
		"GET /admin":                 p.home,
		"GET /admin/{$}":             p.home,
		"GET /admin/users":           p.users,
		"GET /admin/users/{id}":      p.user,
		"POST /admin/users/{id}":     p.changeUser,
		"GET /admin/tokens":          p.tokens,
		"GET /admin/tokens/{id}":     p.token,
		"POST /admin/tokens/{id}":    p.revokeToken,
		"GET /admin/tokens/revoke":   p.plan,
		"POST /admin/tokens/revoke":  p.bulk,
		"GET /admin/events":          p.events,
		"GET /admin/events/export":   p.export,
		"GET /admin/services":        p.services,
		"GET /admin/services/new":    p.newService,
		"POST /admin/services/new":   p.createService,
		"GET /admin/services/{id}":   p.serviceAccount,
		"POST /admin/services/{id}":  p.changeService,
		"GET /admin/webhooks":        p.webhooks,
		"GET /admin/webhooks/new":    p.newWebhook,
		"POST /admin/webhooks/new":   p.createWebhook,
		"GET /admin/webhooks/{id}":   p.webhook,
		"POST /admin/webhooks/{id}":  p.changeWebhook,
		"GET /admin/audiences":       p.audiences,
		"GET /admin/audiences/new":   p.newAudience,
		"POST /admin/audiences/new":  p.createAudience,
		"GET /admin/audiences/{id}":  p.audience,
		"POST /admin/audiences/{id}": p.changeAudience,
		"GET /admin/features":        p.features,
		"GET /admin/features/new":    p.newFeature,
		"POST /admin/features/new":   p.createFeature,
		"GET /admin/features/{id}":   p.feature,
		"POST /admin/features/{id}":  p.changeFeature,
		"GET /admin/keys":            p.keys,
		"GET /admin/health":          p.health,
	} {
		f.Page(pattern, func(q *frame.Request) error {
			q.Nav = p.nav(q)
			return h(q)
		})
	}
}

// area is one of the pages that the others lead to, and the call that it begins with.
type area struct{ name, method string }

func areas() []area {
	return []area{
		{"users", patdv1.UserService_ListUsers_FullMethodName},
		{"tokens", patdv1.InventoryService_SearchTokens_FullMethodName},
		{"events", patdv1.AuditService_ListEvents_FullMethodName},
		{"services", patdv1.ServiceAccountService_ListServices_FullMethodName},
		{"webhooks", patdv1.WebhookService_ListWebhooks_FullMethodName},
		{"audiences", patdv1.CatalogService_ListAudiences_FullMethodName},
		{"features", patdv1.CatalogService_ListFeatures_FullMethodName},
		{"keys", call.AdminKeys},
		{"health", call.AdminHealth},
	}
}

// nav returns the links to the pages that the operator may use.
func (p *Pages) nav(q *frame.Request) []frame.Link {
	var links []frame.Link
	for _, a := range areas() {
		if !q.May(a.method) {
			continue
		}
		path := "/admin/" + a.name
		links = append(links, frame.Link{
			Text: q.Text("admin." + a.name), URL: p.frame.URL(path),
			Here: q.R.URL.Path == path || strings.HasPrefix(q.R.URL.Path, path+"/"),
		})
	}
	return links
}

// homeCard is a link of the first page with what is behind it.
type homeCard struct {
	frame.Link

	About string
}

// home shows what the operator may do.
func (p *Pages) home(q *frame.Request) error {
	err := q.Operate(call.AdminHealth, nil, func(context.Context, tokens.Actor) error { return nil })
	if err != nil {
		return err
	}
	var cards []homeCard
	for _, a := range areas() {
		if q.May(a.method) {
			cards = append(
				cards,
				homeCard{
					frame.Link{Text: q.Text("admin." + a.name), URL: p.frame.URL("/admin/" + a.name)},
					q.Text("admin." + a.name + ".about"),
				},
			)
		}
	}
	q.Render(http.StatusOK, "admin", map[string]any{"Cards": cards, "Permissions": q.In.Session.Permissions.Names()})
	return nil
}

// outcome is what a page says about the form that was sent.
type outcome struct {
	Notice string
	Alert  string
	At     string // which form the alert is about
	Form   url.Values
}

// Kept returns what was typed into a field of the form that the outcome is about.
func (o outcome) Kept(at, field string) string {
	if o.At != at {
		return ""
	}
	return o.Form.Get(field)
}

// among moves the outcome to the top of the page if its form is not shown there any more.
func (o *outcome) among(forms map[string]bool) {
	if !forms[o.At] {
		o.At = ""
	}
}

// done returns the outcome of a form that led here, if its text is one of those.
func done(q *frame.Request, texts ...string) (o outcome) {
	if name := q.R.URL.Query().Get("done"); slices.Contains(texts, name) {
		o.Notice = q.Text("admin.done." + name)
	}
	if form := q.TakeDraft(); form != nil {
		o.Notice, o.Form, o.At = q.Text("notice.draft"), form, form.Get("action")
	}
	return o
}

// refused returns the outcome of a form whose call returned an error, with the status of the page.
func refused(q *frame.Request, err error) (int, outcome) {
	code, e := q.Explain(err)
	o := outcome{Form: q.R.PostForm, At: q.R.PostForm.Get("action"), Alert: q.Reason(e)}
	switch {
	case e.Reason == tokens.ReasonPrecondition:
		code = http.StatusPreconditionFailed
	case e.Reason == "COUNT_CHANGED":
		o.Alert = q.Text("admin.count_changed", e.Metadata["count"])
	case e.Code == tokens.CodeInternal:
		o.Alert = q.Text("message.internal.text")
	}
	return code, o
}

// elsewhere reports whether an error is about more than the form: the page itself would not be shown either, an outage
// keeps the form to be sent again, or the list is to be shown from its first page.
func elsewhere(err error) bool {
	var e *tokens.Error
	if !errors.As(err, &e) {
		return true
	}
	return frame.OtherList(err) || e.Code == tokens.CodeDenied || e.Code == tokens.CodeUnavailable ||
		e.Code == tokens.CodeUnauthenticated ||
		e.Code == tokens.CodeExhausted
}

// typed reads the number that a form gives back.
func typed(form url.Values) (int64, error) {
	n, err := strconv.ParseInt(strings.Join(strings.Fields(form.Get("count")), ""), 10, 64)
	if err != nil || n < 0 {
		return 0, tokens.Invalid("COUNT_REQUIRED", "count", "type the number that the page says")
	}
	return n, nil
}

// with returns an address with a query, whose empty values are left out.
func with(path string, query url.Values) string {
	v := url.Values{}
	for name, texts := range query {
		for _, text := range texts {
			if text != "" {
				v.Add(name, text)
			}
		}
	}
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

// turned returns the addresses of the next and the first page of a list; empty: there is none.
func (p *Pages) turned(q *frame.Request, next string) (to, first string) {
	query := q.R.URL.Query()
	if query.Get("page") != "" {
		query.Del("page")
		first = p.frame.URL(with(q.R.URL.Path, query))
	}
	if next != "" {
		query.Set("page", next)
		to = p.frame.URL(with(q.R.URL.Path, query))
	}
	return to, first
}

// plainID reports whether an id can stand in a path as it is.
func plainID(id string) bool {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_@+."
	return id != "" && id != "revoke" && id != "new" && strings.Trim(id, plain) == "" && !strings.Contains(id, "..") &&
		!tokens.LostInPath(id)
}

// at returns the path of the page of one thing. An id that a path might lose stands in the query.
func at(area, id string) string {
	if plainID(id) {
		return "/admin/" + area + "/" + id
	}
	return "/admin/" + area + "/-?id=" + url.QueryEscape(id)
}

// and returns an address with one more value in its query.
func and(address, name, value string) string {
	mark := "?"
	if strings.Contains(address, "?") {
		mark = "&"
	}
	return address + mark + name + "=" + url.QueryEscape(value)
}

// idOf returns the id of the thing that a page is about.
func idOf(q *frame.Request) string {
	if id := q.R.URL.Query().Get("id"); id != "" && q.R.PathValue("id") == "-" {
		return id
	}
	return q.R.PathValue("id")
}

// key returns a fresh idempotency key, or that of the form that was sent.
func key(form url.Values) string {
	if k := form.Get("key"); k != "" {
		return k
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return hex.EncodeToString(raw[:])
}

// detail is a fact about a thing.
type detail struct {
	Name, Text string
	Items      []string
	Moment     frame.Moment
	URL        string // where the text leads; empty: nowhere
}

// option is a choice of a field.
type option struct {
	Value, Text string
	Chosen      bool
}

func options(q *frame.Request, key, chosen string, values ...string) []option {
	var out []option
	for _, v := range values {
		text := v
		if v == "" {
			text = "any"
		}
		out = append(out, option{v, q.Text(key + "." + text), v == chosen})
	}
	return out
}

// lined returns a text of several lines as it is stored.
func lined(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }

// day reads a date of a form: its first instant, UTC; zero: none was given.
func day(field, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse("2006-01-02", text)
	if err != nil || at.Year() < 1970 {
		return time.Time{}, tokens.Invalid("TIME_INVALID", field, "give a date such as 2026-01-31")
	}
	return at, nil
}

// atFields returns what is wrong with each of the fields of a form.
func atFields(q *frame.Request, err error, fields ...string) map[string]string {
	_, e := q.Explain(err)
	at := map[string]string{}
	for _, v := range e.Violations {
		name, _, _ := strings.Cut(v.Field, "[")
		if slices.Contains(fields, name) && at[name] == "" {
			at[name] = q.Reason(&tokens.Error{Reason: v.Reason, Message: v.Description})
		}
	}
	return at
}

func reasonOf(err error) string {
	var e *tokens.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// without returns a form without a field.
func without(form url.Values, field string) url.Values {
	out := url.Values{}
	for name, texts := range form {
		if name != field {
			out[name] = texts
		}
	}
	return out
}
