package frame

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"patd/server/internal/call"
	"patd/tokens"
	"patd/tokens/secret"
)

// Names of cookies. The prefix makes the browser refuse one that another host or plain http set; browsers take loopback
// for secure.
const (
	cookieSession  = "__Host-patd-session"
	cookieEmbedded = "__Host-patd-embedded" // of a page in another site's page
	cookieSignIn   = "__Host-patd-signin-"  // of a sign-in under way, with the beginning of its state
)

// Embedded reports whether the page is shown within another site's page. Only then is the cookie sent along from there,
// and the browser keeps it apart for each such site.
func (q *Request) Embedded() bool {
	return q.R.Header.Get("Sec-Fetch-Dest") == "iframe"
}

func (q *Request) sessionCookie() string {
	if q.Embedded() {
		return cookieEmbedded
	}
	return cookieSession
}

// Secret returns the secret of the browser's session; empty: it has none.
func (q *Request) Secret() tokens.Secret {
	c, err := q.R.Cookie(q.sessionCookie())
	if err != nil || c.Value == "" {
		return tokens.Secret{}
	}
	return secret.NewSecret(c.Value)
}

// SetSession gives the browser a session. The cookie itself has no end: the server ends the session.
func (q *Request) SetSession(in tokens.SignedIn) {
	http.SetCookie(q.W, q.cookie(q.sessionCookie(), in.Secret.Reveal()))
	q.In = in
}

// DropSession takes the session from the browser.
func (q *Request) DropSession() {
	c := q.cookie(q.sessionCookie(), "")
	c.MaxAge = -1
	http.SetCookie(q.W, c)
	q.In = tokens.SignedIn{}
}

func (q *Request) cookie(name, value string) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if name == cookieEmbedded {
		c.SameSite, c.Partitioned = http.SameSiteNoneMode, true
	}
	return c
}

// SetSignIn keeps what a sign-in under way needs when the provider sends the browser back.
func (q *Request) SetSignIn(state, value string) {
	c := q.cookie(cookieSignIn+short(state), value)
	c.MaxAge = int(signInLife.Seconds())
	http.SetCookie(q.W, c)
}

// TakeSignIn returns what SetSignIn kept, once.
func (q *Request) TakeSignIn(state string) string {
	name := cookieSignIn + short(state)
	c, err := q.R.Cookie(name)
	if err != nil {
		return ""
	}
	gone := q.cookie(name, "")
	gone.MaxAge = -1
	http.SetCookie(q.W, gone)
	return c.Value
}

// short returns the beginning of a state, if it can stand in a cookie's name.
func short(state string) string {
	state = state[:min(len(state), 12)]
	if strings.Trim(state, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return ""
	}
	return state
}

var errNoSession = tokens.Fail(tokens.CodeUnauthenticated, "SESSION_REQUIRED", "sign in")

// identify finds the session of the browser.
func (q *Request) identify() error {
	text := q.Secret()
	if text.IsEmpty() {
		return errNoSession
	}
	return q.Frame.Chain.Identify(q.R.Context(), q.Peer, func(ctx context.Context) error {
		in, err := q.Frame.Service.PageSession(ctx, text, q.Peer)
		if err != nil {
			q.ended = in
			return err
		}
		q.In = in
		q.connection.Authenticated()
		return nil
	})
}

// StillSignedIn returns nil if the session has not ended since the request began, for an answer that lasts.
func (q *Request) StillSignedIn() error {
	_, err := q.Frame.Service.PageSession(q.R.Context(), q.In.Secret, q.Peer)
	return err
}

// unidentified serves a request without a good session: the user signs in and comes back, and loses no input.
func (q *Request) unidentified(err error) {
	var ours *tokens.Error
	if !errors.As(err, &ours) || ours.Code != tokens.CodeUnauthenticated {
		q.Fail(err)
		return
	}
	posted := q.R.Method == http.MethodPost
	kept := !posted
	if posted && call.HasEnded(err) {
		if err := q.Frame.Chain.Limits.Draft(q.Secret()); err != nil {
			q.Fail(err)
			return
		}
		draft := q.R.URL.RequestURI() + "\n" + q.R.PostForm.Encode()
		if err := q.Frame.Service.KeepDraft(q.R.Context(), q.Secret(), draft); err != nil {
			q.Fail(err)
			return
		}
		kept = true
	}
	next := q.R.URL.RequestURI()
	if q.Frame.canSignIn() && !q.Embedded() {
		if !kept {
			q.retry(http.StatusUnauthorized, "signin_first")
			return
		}
		q.Redirect("/signin?next=" + url.QueryEscape(q.Frame.Local(next)))
		return
	}
	if back := q.ended.Session.ReturnURL; back != "" {
		q.leave(back, posted)
		return
	}
	q.Message(http.StatusUnauthorized, "no_session")
}

// leave sends the user back to the company's own product. A form must not be redirected there, by form-action.
func (q *Request) leave(to string, posted bool) {
	if !posted && !q.Embedded() {
		http.Redirect(q.W, q.R, to, http.StatusSeeOther)
		return
	}
	q.Leave = to
	if !q.Embedded() {
		q.W.Header().Set("Refresh", "0; url="+to)
	}
	q.Message(http.StatusUnauthorized, "session_over")
}

// Leaving serves the end of a session that was handed over: the user goes back, if there is somewhere to go.
func (q *Request) Leaving(to string) {
	q.Leave = to
	if to != "" && !q.Embedded() {
		q.W.Header().Set("Refresh", "0; url="+to)
	}
	q.Message(http.StatusOK, "signed_out")
}

// TakeDraft returns what was typed into the form at this address before the user signed in again, once; nil: nothing.
func (q *Request) TakeDraft() url.Values {
	path, text, _ := strings.Cut(q.In.Draft, "\n")
	if q.In.Draft == "" || path != q.R.URL.RequestURI() {
		return nil
	}
	form, err := url.ParseQuery(text)
	if err != nil {
		return nil
	}
	// If it cannot be dropped it is shown again.
	if err := q.Frame.Service.KeepDraft(q.R.Context(), q.In.Secret, ""); err != nil {
		q.exchange.Cause = err
	}
	return form
}

// DraftPath returns the address of the form that a draft is for; empty: there is no draft.
func DraftPath(in tokens.SignedIn) string {
	path, _, _ := strings.Cut(in.Draft, "\n")
	return path
}

// Bound reports whether a form was made for the session that sends it.
func (q *Request) Bound() bool {
	return q.R.PostForm.Get("session") == q.In.Session.ID.String()
}

// ErrStale is the error for a form that was made for another session. Nothing was done.
var ErrStale = tokens.Fail(
	tokens.CodePrecondition,
	"FORM_STALE",
	"this form was opened before you signed in here; nothing was done",
)
