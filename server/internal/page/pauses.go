package page

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/frame"
	"patd/tokens"
)

// neverUsed reports whether a scope of a token was never used, as far as is known.
func neverUsed(t tokens.Token, scope string) bool {
	return t.Uses != nil && t.Uses.Since.IsZero() && t.Uses.Of(scope).Day.IsZero()
}

// useBoxes fills in the scopes that were never used, ticked to be paused, and those that are paused.
func (*Pages) useBoxes(q *frame.Request, t tokens.Token, d *tokenData) {
	chosen := func(action, scope string, ticked bool) featureBox {
		if d.AlertAt == action {
			ticked = slices.Contains(q.R.PostForm["scopes"], scope)
		}
		return featureBox{Name: scope, Text: scope, Ticked: ticked}
	}
	for _, scope := range t.Scopes {
		if neverUsed(t, scope) {
			d.Unused = append(d.Unused, chosen("narrow", scope, len(t.Scopes) > 1 && !t.LastUsed.Time.IsZero()))
		}
	}
	d.Unscoped = t.Uses != nil && t.Uses.Unscoped.Count > 0
	for _, scope := range t.PausedScopes(q.Now) {
		d.Paused = append(d.Paused, chosen("unpause", scope, false))
	}
	if at := t.PausedUntil(q.Now); !at.IsZero() {
		d.PausedFor = q.Moment(at).Exact
	}
}

// pauseOrResume pauses the ticked scopes of a token, or has them in effect again.
func (p *Pages) pauseOrResume(q *frame.Request, d tokenData) error {
	id, form := q.R.PathValue("id"), q.R.PostForm
	scopes := form["scopes"]
	if len(scopes) == 0 {
		d.Alert = q.Text("error.choose_scopes")
		return p.showToken(q, http.StatusBadRequest, d)
	}
	method, done := patdv1.TokenService_NarrowToken_FullMethodName, "paused"
	if d.AlertAt == "unpause" {
		method, done = patdv1.TokenService_ResumeScopes_FullMethodName, "scopes_resumed"
	}
	err := q.Do(method, frame.Mine{TokenID: id}, func(ctx context.Context) (err error) {
		if tag := form.Get("etag"); tag != "" { // so that only what the user saw is changed
			ctx = tokens.WithPrecondition(ctx, tokens.Precondition{Match: []string{tag}})
		}
		if d.AlertAt == "unpause" {
			_, err = p.service.ResumeScopes(ctx, q.In.Actor, "me", id, scopes)
		} else {
			_, err = p.service.Narrow(ctx, q.In.Actor, tokens.NarrowRequest{User: "me", TokenID: id, Scopes: scopes})
		}
		return err
	})
	if err != nil {
		return p.refused(q, d, err)
	}
	q.Redirect("/tokens/" + url.PathEscape(id) + "?done=" + done)
	return nil
}
