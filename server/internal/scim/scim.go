package scim

import (
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/refusal"
)

// Root is the path below which everything lies.
const Root = "/scim/v2"

// Endpoints serves SCIM.
type Endpoints struct {
	*call.Chain
	service *tokens.Service
	methods map[string]*call.Method
	base    string // Root below the issuer
	by      UserID
}

// Config configures the endpoints. All fields are required.
type Config struct {
	Chain   *call.Chain             // of the HTTP front
	Methods map[string]*call.Method // of Chain.ProviderMethods
	Service *tokens.Service
	Issuer  string // the base of every URL
	UserID  UserID
}

// New returns the endpoints.
func New(c Config) *Endpoints {
	return &Endpoints{c.Chain, c.Service, c.Methods, strings.TrimSuffix(c.Issuer, "/") + Root, c.UserID}
}

// Takes reports whether a path is SCIM's.
func (e *Endpoints) Takes(path string) bool {
	return path == Root || strings.HasPrefix(path, Root+"/")
}

// request is one request, whose caller is known.
type request struct {
	*call.Call
	w     http.ResponseWriter
	r     *http.Request
	query url.Values
	id    string // in the path; empty: none
}

// target is what a path is about.
type target struct {
	route   string // the pattern, for the log
	methods []string
	serve   func(*Endpoints, *request) error
}

// ServeHTTP serves one request and writes its log line, whatever the result.
func (e *Endpoints) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), e.Timeout)
	defer cancel()
	t, id, found := targetOf(r.URL.EscapedPath())
	served := httpx.Begin(ctx, e.Chain, e.methods[methodOf(r.Method, r.URL.Path)], t.route)
	begun := served.Call
	begun.Credentials = r.Header["Authorization"]
	e.TraceDirect(begun, r.Header)
	defer served.End(func(err error) codes.Code { return e.fail(w, begun, err) })
	err := e.answer(&request{Call: begun, w: w, r: r.WithContext(ctx), id: id}, t, found)
	if served.Code = codes.OK; err != nil {
		served.Code = e.fail(w, begun, err)
	}
}

// methodOf returns the name of the call of an HTTP method, as far as that tells.
func methodOf(verb, path string) string {
	switch verb {
	case http.MethodPost:
		if strings.HasSuffix(path, "/.search") {
			return call.SCIMRead
		}
		return call.SCIMCreate
	case http.MethodPut, http.MethodPatch:
		return call.SCIMUpdate
	case http.MethodDelete:
		return call.SCIMDelete
	default:
		return call.SCIMRead
	}
}

// targetOf returns what an encoded path is about, and the id in it.
func targetOf(path string) (t target, id string, found bool) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, Root), "/"), "/")
	read := []string{http.MethodGet, http.MethodHead}
	at := func(route string, methods []string, serve func(*Endpoints, *request) error) (target, string, bool) {
		return target{Root + route, methods, serve}, id, true
	}
	if len(parts) == 3 {
		var err error
		if id, err = url.PathUnescape(parts[2]); err != nil || id == "" {
			return target{route: Root}, "", false
		}
	}
	switch {
	case len(parts) < 2 || len(parts) > 3:
	case parts[1] == ".search" && id == "", parts[1] == "Users" && id == ".search":
		return at("/Users/.search", []string{http.MethodPost}, (*Endpoints).search)
	case parts[1] == "Users" && id == "":
		return at("/Users", append(read, http.MethodPost), (*Endpoints).users)
	case parts[1] == "Users":
		return at("/Users/{id}", append(read, http.MethodPut, http.MethodPatch, http.MethodDelete), (*Endpoints).user)
	case parts[1] == "ServiceProviderConfig" && id == "":
		return at("/ServiceProviderConfig", read, (*Endpoints).providerConfig)
	case parts[1] == "ResourceTypes":
		return at("/ResourceTypes", read, (*Endpoints).resourceTypes)
	case parts[1] == "Schemas":
		return at("/Schemas", read, (*Endpoints).schemas)
	}
	return target{route: Root}, "", false
}

// answer serves a request: the caller is identified before anything of the request counts.
func (e *Endpoints) answer(q *request, t target, found bool) error {
	if err := e.Known(q.Call); err != nil {
		return err
	}
	if expires := e.TokenExpires(q.Call); expires != nil {
		q.w.Header()[refusal.HeaderExpiresAt] = expires
	}
	if err := e.Forbidden(q.Call); err != nil {
		return err
	}
	if !found {
		return tokens.Fail(
			tokens.CodeNotFound,
			"PATH_NOT_FOUND",
			"there is no such resource; there are Users, ServiceProviderConfig, ResourceTypes and Schemas",
		)
	}
	if err := e.check(q, t); err != nil {
		return err
	}
	return t.serve(e, q)
}

// check refuses what would be ignored otherwise.
func (e *Endpoints) check(q *request, t target) (err error) {
	switch {
	case !slices.Contains(t.methods, q.r.Method):
		q.w.Header().Set("Allow", strings.Join(t.methods, ", "))
		return tokens.Fail(fault.CodeUnimplemented, "METHOD_NOT_ALLOWED", "this path has no such method")
	case call.Conditional(q.r.Header):
		return call.Unconditional()
	case !q.Method.Reads && len(q.r.Header.Values("Idempotency-Key")) > 0:
		return call.ErrKeyUnsupported()
	}
	if q.query, err = url.ParseQuery(q.r.URL.RawQuery); err != nil || !httpx.CleanText(q.r.URL.Path) {
		return tokens.Invalid("QUERY_INVALID", "", "a path and a query are UTF-8 in percent-encoding")
	}
	return nil
}

// body reads the body of a request.
func (q *request) body() ([]byte, error) {
	kinds := q.r.Header.Values("Content-Type")
	if len(kinds) != 1 {
		return nil, errContentType
	}
	switch kind, _, err := mime.ParseMediaType(kinds[0]); {
	case err != nil:
		return nil, errContentType
	case kind != contentType && kind != "application/json":
		return nil, errContentType
	}
	text, err := io.ReadAll(q.r.Body)
	if err != nil {
		return nil, httpx.UnreadBody(err)
	}
	return text, nil
}

var errContentType = tokens.Invalid("CONTENT_TYPE_INVALID", "", "send JSON, with Content-Type: "+contentType)

// users serves the collection.
func (e *Endpoints) users(q *request) error {
	if q.r.Method == http.MethodPost {
		return e.create(q)
	}
	return e.list(q)
}

// search serves a query in a body (RFC 7644 section 3.4.3).
func (e *Endpoints) search(q *request) error {
	text, err := q.body()
	if err != nil {
		return err
	}
	if q.query, err = parseSearch(text); err != nil {
		return err
	}
	return e.list(q)
}

// list serves a page of users.
func (e *Endpoints) list(q *request) error {
	if err := e.Authorize(q.Call); err != nil {
		return err
	}
	f, err := parseFilter(q.query.Get("filter"))
	if err != nil {
		return err
	}
	p, err := parsePage(q.query)
	if err != nil {
		return err
	}
	wanted, err := projectionOf(q.query)
	if err != nil {
		return err
	}
	found, total, err := e.service.ProvisionedUsers(q.Call, q.Actor, f, p.start-1, p.count)
	if err != nil {
		return err
	}
	out := list{
		Schemas:      []string{schemaList},
		TotalResults: total,
		StartIndex:   p.start,
		ItemsPerPage: len(found),
		Resources:    []resource{},
	}
	for _, u := range found {
		out.Resources = append(out.Resources, wanted.of(e.show(u)))
	}
	write(q.w, http.StatusOK, out)
	return nil
}

// create serves a POST of a user.
func (e *Endpoints) create(q *request) error {
	text, err := q.body()
	if err != nil {
		return err
	}
	wanted, err := projectionOf(q.query)
	if err != nil {
		return err
	}
	w, err := parseUser(text)
	if err != nil {
		return err
	}
	if err := e.Authorize(q.Call); err != nil {
		return err
	}
	p, err := w.provision(e.by)
	if err != nil {
		return err
	}
	u, err := e.service.ProvisionUser(q.Call, q.Actor, p)
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", e.location(u.ID))
	write(q.w, http.StatusCreated, wanted.of(e.show(u)))
	return nil
}

// user serves one user.
func (e *Endpoints) user(q *request) error {
	switch q.r.Method {
	case http.MethodDelete:
		if err := e.Authorize(q.Call); err != nil {
			return err
		}
		if err := e.service.DeleteProvisionedUser(q.Call, q.Actor, q.id); err != nil {
			return err
		}
		q.w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPut, http.MethodPatch:
		return e.update(q)
	}
	if err := e.Authorize(q.Call); err != nil {
		return err
	}
	wanted, err := projectionOf(q.query)
	if err != nil {
		return err
	}
	u, err := e.service.ProvisionedUser(q.Call, q.Actor, q.id)
	if err != nil {
		return err
	}
	write(q.w, http.StatusOK, wanted.of(e.show(u)))
	return nil
}

// update serves a PUT or a PATCH of a user. One that suspends spends from its caller's revocations, which no number of
// other changes uses up.
func (e *Endpoints) update(q *request) error {
	text, err := q.body()
	if err != nil {
		return err
	}
	wanted, err := projectionOf(q.query)
	if err != nil {
		return err
	}
	parse, read := parseUser, (*words).replacement
	if q.r.Method == http.MethodPatch {
		parse, read = parsePatch, (*words).change
	}
	w, err := parse(text)
	if err != nil {
		return err
	}
	change, err := read(&w, q.id, e.by)
	if err != nil {
		return err
	}
	if change.Ends() {
		q.Method = e.methods[call.SCIMDeactivate]
	}
	if err := e.Authorize(q.Call); err != nil {
		return err
	}
	u, err := e.service.UpdateProvisionedUser(q.Call, q.Actor, q.id, change)
	if err != nil {
		return err
	}
	write(q.w, http.StatusOK, wanted.of(e.show(u)))
	return nil
}
