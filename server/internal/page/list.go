package page

import (
	"context"
	"net/http"
	"net/url"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/frame"
	"patd/tokens"
)

const (
	pageSize    = 20
	scopesShown = 6 // of a token in the list
)

// tokenRow is a token as a page shows it.
type tokenRow struct {
	ID, Name  string
	Scopes    []scopeView
	More      int // scopes that are not shown
	Suspended int
	State     string // the key of its text
	LastUsed  frame.Moment
	Expires   frame.Moment
	Ended     frame.Moment
}

// scopeView is a scope of a token.
type scopeView struct {
	Name      string
	Suspended bool
	Why       string
}

// listData is the data of the list.
type listData struct {
	Tokens       []tokenRow
	Q, State     string
	States       []string
	Next, First  string // addresses; empty: there is none
	Filtered     bool
	Unknown      string // why the features are not known; empty: they are
	Notice, Curl string
}

// statesOf are the states by which the list is filtered, by their values in its address.
func statesOf() map[string]tokens.State {
	return map[string]tokens.State{
		"":        tokens.StateAny,
		"active":  tokens.StateActive,
		"expired": tokens.StateExpired,
		"revoked": tokens.StateRevoked,
	}
}

func stateKey(s tokens.State) string {
	for name, state := range statesOf() {
		if state == s && name != "" {
			return name
		}
	}
	return "active"
}

// list shows the user's tokens.
func (p *Pages) list(q *frame.Request) error {
	query := q.R.URL.Query()
	d := listData{Q: query.Get("q"), State: query.Get("state"), States: []string{"", "active", "expired", "revoked"}}
	state, ok := statesOf()[d.State]
	if !ok {
		d.State = ""
	}
	d.Filtered = d.Q != "" || d.State != ""
	d.Curl = curlSelf(p.frame.Absolute("/v1/self"), "$TOKEN")
	var (
		found []tokens.Token
		next  string
	)
	err := q.Do(patdv1.TokenService_ListTokens_FullMethodName, frame.Mine{}, func(ctx context.Context) (err error) {
		filter := tokens.TokenFilter{User: "me", State: state, NameHas: d.Q}
		found, next, err = p.service.Tokens(
			ctx,
			q.In.Actor,
			filter,
			tokens.Page{Size: pageSize, Token: query.Get("page")},
		)
		return err
	})
	if err != nil {
		return err
	}
	held, unknown := p.held(q)
	d.Unknown = unknown
	for _, t := range found {
		d.Tokens = append(d.Tokens, p.row(q, t, held, unknown == "", scopesShown))
	}
	if next != "" {
		d.Next = p.frame.URL("/?" + listQuery(d.Q, d.State, next))
	}
	if query.Get("page") != "" {
		d.First = p.frame.URL("/?" + listQuery(d.Q, d.State, ""))
	}
	q.Render(http.StatusOK, "tokens", d)
	return nil
}

func listQuery(q, state, page string) string {
	v := url.Values{}
	for name, text := range map[string]string{"q": q, "state": state, "page": page} {
		if text != "" {
			v.Set(name, text)
		}
	}
	return v.Encode()
}

// held returns the features that the user holds now, or why they are not known.
func (p *Pages) held(q *frame.Request) (tokens.Held, string) {
	var held tokens.Held
	err := q.Do(patdv1.UserService_GetUserFeatures_FullMethodName, frame.Mine{}, func(ctx context.Context) (err error) {
		held, err = p.service.HeldNow(ctx, q.In.Actor, "me")
		return err
	})
	if err != nil {
		_, e := q.Explain(err)
		return held, q.Reason(e)
	}
	return held, ""
}

// row returns a token as a page shows it, with at most so many scopes. Its scopes are checked against held if known.
func (p *Pages) row(q *frame.Request, t tokens.Token, held tokens.Held, known bool, most int) tokenRow {
	state := t.Status(q.Now)
	r := tokenRow{
		ID:       t.ID.String(),
		Name:     t.Name,
		State:    stateKey(state),
		LastUsed: q.Moment(t.LastUsed.Time),
		Expires:  q.Moment(t.ExpireTime),
	}
	if t.Revocation != nil {
		r.Ended = q.Moment(t.Revocation.Time)
	}
	if state == tokens.StateActive && len(t.Blockers()) > 0 {
		r.State = "blocked"
	} else if state == tokens.StateActive && !t.IdleTime().IsZero() {
		r.State = "idle"
	}
	var lost []string
	if known && !held.AsGranted && state == tokens.StateActive {
		_, lost = tokens.Effective(t.Scopes, held.Features)
	}
	r.Suspended = len(lost)
	for i, s := range ordered(t.Scopes, lost) {
		if i == most {
			r.More = len(t.Scopes) - most
			break
		}
		v := scopeView{Name: s}
		if i < len(lost) {
			v.Suspended, v.Why = true, q.Text("scope.lost")
		}
		r.Scopes = append(r.Scopes, v)
	}
	return r
}

// ordered returns the scopes of a token, those that are suspended first.
func ordered(scopes, lost []string) []string {
	_, rest := tokens.Effective(scopes, lost)
	return append(append([]string{}, lost...), rest...)
}

// curlSelf returns a line that shows what a token may do. The secret is no argument of a program, which everybody on
// the machine can read.
func curlSelf(address, secret string) string {
	return `printf 'Authorization: Bearer %s' "` + secret + `" | curl -sS -H @- ` + address
}
