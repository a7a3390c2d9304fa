package frame

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/httpx"
	"patd/tokens"
)

// Config configures a Frame. Chain, Service and Issuer are required.
type Config struct {
	Chain   *call.Chain
	Service *tokens.Service
	Issuer  string // the base of every URL
	// Origins are those that may embed the pages, and that a hand-off may return to.
	Origins []string
	Look    Look
	// SignsIn reports whether users can sign in here, by /signin. Nil: they cannot.
	SignsIn func() bool
	// FormTargets returns the origins other than this one that a form may lead to: the provider's. Nil: none.
	FormTargets func() []string
}

// Frame serves the pages that were added to it.
type Frame struct {
	Config
	base    string // the path of the issuer, without a slash at its end
	secure  bool   // the issuer is https
	mux     *http.ServeMux
	cross   *http.CrossOriginProtection
	assets  assets
	views   *views
	methods map[string]*call.Method
}

// New makes a frame without pages.
func New(c Config) (*Frame, error) {
	at, err := url.Parse(c.Issuer)
	if err != nil {
		return nil, errors.New("make the pages: the issuer is no URL")
	}
	f := &Frame{
		Config: c, base: strings.TrimRight(at.Path, "/"), secure: at.Scheme == "https", mux: http.NewServeMux(),
		cross: http.NewCrossOriginProtection(), methods: c.Chain.PageMethods(),
	}
	// Behind a proxy that changes Host, the origin of a form is the issuer's.
	if err := f.cross.AddTrustedOrigin(at.Scheme + "://" + at.Host); err != nil {
		return nil, errors.New("make the pages: the issuer has no origin")
	}
	if f.assets, err = newAssets(c.Look); err != nil {
		return nil, err
	}
	if f.views, err = newViews(f); err != nil {
		return nil, err
	}
	f.mux.Handle("GET /assets/{name}", f.assets)
	f.mux.HandleFunc("GET /embed.js", f.assets.embed)
	return f, nil
}

// Handler serves one request, or returns an error, which the frame shows.
type Handler func(*Request) error

// Open adds a page that needs no session. The pattern is http.ServeMux's.
func (f *Frame) Open(pattern string, h Handler) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, h, false) })
}

// Page adds a page for signed-in users.
func (f *Frame) Page(pattern string, h Handler) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, h, true) })
}

// Takes reports whether a path is a page's, or would be if there were one.
func (f *Frame) Takes(path string) bool {
	switch path {
	case "/", "/new", "/activity", "/signin", "/signin/callback", "/signout", "/handoff", "/embed.js", "/admin":
		return true
	}
	return strings.HasPrefix(path, "/tokens/") || strings.HasPrefix(path, "/assets/") ||
		strings.HasPrefix(path, "/admin/")
}

// ServeHTTP serves one request.
func (f *Frame) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.head(w.Header(), r.URL.Path)
	if err := f.cross.Check(r); err != nil {
		q := f.request(r.Context(), w, r)
		q.Message(http.StatusForbidden, "cross_origin")
		return
	}
	if _, pattern := f.mux.Handler(r); pattern == "" {
		q := f.request(r.Context(), w, r)
		f.missing(q)
		return
	}
	f.mux.ServeHTTP(w, r)
}

// missing serves a path without a page, or a method that the page does not have.
func (f *Frame) missing(q *Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := q.R.Clone(q.R.Context())
		if other.Method = method; method != q.R.Method {
			if _, pattern := f.mux.Handler(other); pattern != "" {
				allowed = append(allowed, method)
			}
		}
	}
	if len(allowed) > 0 {
		q.W.Header().Set("Allow", strings.Join(allowed, ", "))
		q.Message(http.StatusMethodNotAllowed, "method")
		return
	}
	q.Message(http.StatusNotFound, "not_found")
}

// head sets the headers of a page. Those of operators are in no other page's frame.
func (f *Frame) head(h http.Header, path string) {
	targets, ancestors := []string{"'self'"}, []string{"'none'"}
	if f.FormTargets != nil {
		targets = append(targets, f.FormTargets()...)
	}
	if len(f.Origins) > 0 && path != "/admin" && !strings.HasPrefix(path, "/admin/") {
		ancestors = f.Origins
	} else {
		h.Set("X-Frame-Options", "DENY")
	}
	h.Set(
		"Content-Security-Policy",
		"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"form-action "+strings.Join(targets, " ")+"; base-uri 'none'; frame-ancestors "+strings.Join(ancestors, " "),
	)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	if f.secure {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// request makes the Request of an HTTP request.
func (f *Frame) request(ctx context.Context, w http.ResponseWriter, r *http.Request) *Request {
	x := httpx.ExchangeOf(ctx)
	return &Request{
		Frame: f, W: w, R: r.WithContext(ctx), exchange: x, Peer: tokens.Peer{IP: x.Client},
		connection: connection.Of(ctx), Now: f.Service.Now(),
	}
}

func (f *Frame) serve(w http.ResponseWriter, r *http.Request, h Handler, signedIn bool) {
	ctx, cancel := context.WithTimeout(r.Context(), f.Chain.Timeout)
	defer cancel()
	q := f.request(ctx, w, r)
	q.whole = r.Context()
	// A form takes many times its size once it is parsed, and its sender may be a stranger: it is not read before the
	// wait for the session.
	var stranger error
	most := int64(maxOpenForm)
	if signedIn {
		most, stranger = maxForm, q.identify()
	}
	if err := q.readForm(most); err != nil {
		q.Fail(err)
		return
	}
	if stranger != nil {
		q.unidentified(stranger)
		return
	}
	switch err := h(q); {
	case err == nil:
	case OtherList(err):
		q.firstPage()
	default:
		q.Fail(err)
	}
}

// URL returns the address of a local path.
func (f *Frame) URL(path string) string { return f.base + path }

// Absolute returns the whole address of a local path.
func (f *Frame) Absolute(path string) string { return strings.TrimRight(f.Issuer, "/") + path }

// Local returns a path, with its query, that a user may be sent to after signing in: one of a page. Any other is "/".
func (f *Frame) Local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") ||
		strings.ContainsFunc(next, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }) {
		return "/"
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !slices.Contains([]string{"", "new", "tokens", "activity", "admin"}, first) || strings.Contains(u.Path, "..") ||
		u.EscapedPath() != u.Path ||
		strings.Contains(u.Path, "//") {
		return "/"
	}
	u.Fragment = ""
	return u.String()
}

// canSignIn reports whether users can sign in here.
func (f *Frame) canSignIn() bool { return f.SignsIn != nil && f.SignsIn() }

// signInLife is how long a sign-in under way may take.
const signInLife = 10 * time.Minute
