package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
)

// userRow is a user as a page shows it.
type userRow struct {
	ID, URL string
	State   string // the key of its text
	Since   frame.Moment
}

type usersData struct {
	outcome

	Users       []userRow
	Q           string
	States      []option
	Open        string // address of the page of the user that was searched for; empty: nobody was
	Filtered    bool
	Next, First string
}

func userState(s tokens.UserState) string {
	if s == tokens.UserSuspended {
		return "suspended"
	}
	return "active"
}

func (p *Pages) userRow(q *frame.Request, u tokens.User) userRow {
	return userRow{
		ID:    u.ID,
		URL:   p.frame.URL(at("users", u.ID)),
		State: userState(u.State),
		Since: q.Moment(u.CreateTime),
	}
}

// users lists the users that patd knows.
func (p *Pages) users(q *frame.Request) error {
	query := q.R.URL.Query()
	d := usersData{
		outcome: done(q, "deleted"),
		Q:       query.Get("q"),
		States:  options(q, "admin.user.state", query.Get("state"), "", "active", "suspended"),
	}
	f := tokens.UserFilter{
		Begins: d.Q,
		State:  map[string]tokens.UserState{"active": tokens.UserActive, "suspended": tokens.UserSuspended}[query.Get("state")],
	}
	d.Filtered = f != tokens.UserFilter{}
	if d.Q != "" {
		d.Open = p.frame.URL(at("users", d.Q))
	}
	var found []tokens.User
	var next string
	err := q.Operate(
		patdv1.UserService_ListUsers_FullMethodName,
		nil,
		func(ctx context.Context, a tokens.Actor) (err error) {
			found, next, err = p.service.Users(ctx, a, f, tokens.Page{Size: pageSize, Token: query.Get("page")})
			return err
		},
	)
	if err != nil {
		return err
	}
	for _, u := range found {
		d.Users = append(d.Users, p.userRow(q, u))
	}
	d.Next, d.First = p.turned(q, next)
	q.Render(http.StatusOK, "admin-users", d)
	return nil
}

type userData struct {
	outcome

	User     userRow
	Known    bool // patd has a record of the user
	Manage   bool // the operator may change users
	Features []tokens.FeatureEntry
	Stale    bool
	Unknown  string // why the features are not known; empty: they are
	ETag     string // of the features; empty: they are not changed here
	Edited   string // the features, one on each line
	Tokens   []tokenRow
	More     string // address of all of the user's tokens; empty: these are all, or they may not be seen
	Stake    tokens.Stake
	Links    []frame.Link
	Self     string // where the forms are sent
}

// ActiveCount is how many tokens a suspension makes inactive.
func (d userData) ActiveCount() int { return int(d.Stake.Active) }

// UnrevokedCount is how many tokens a deletion revokes.
func (d userData) UnrevokedCount() int { return int(d.Stake.Unrevoked) }

// user shows one user.
func (p *Pages) user(q *frame.Request) error {
	return p.showUser(q, http.StatusOK, done(q, "suspended", "resumed", "saved", "refreshed"))
}

func (p *Pages) showUser(q *frame.Request, code int, o outcome) error {
	id := idOf(q)
	d := userData{
		outcome: o,
		Manage:  q.May(patdv1.UserService_SuspendUser_FullMethodName),
		Self:    p.frame.URL(at("users", id)),
	}
	var u tokens.User
	err := q.Operate(
		patdv1.UserService_GetUser_FullMethodName,
		frame.Of{User: id},
		func(ctx context.Context, a tokens.Actor) (err error) {
			u, err = p.service.User(ctx, a, id)
			return err
		},
	)
	var e *tokens.Error
	switch {
	case err == nil || errors.Is(err, tokens.ErrRecordInvalid): // it may be suspended and deleted
		d.Known = true
	case errors.As(err, &e) && e.Code == tokens.CodeNotFound:
	default:
		return err
	}
	if d.User = p.userRow(q, u); err != nil {
		d.User = userRow{ID: id, State: "unknown"}
	}
	p.userFeatures(q, id, &d)
	if d.Manage {
		err = q.Operate(call.AdminStake, frame.Of{User: id}, func(ctx context.Context, a tokens.Actor) (err error) {
			d.Stake, err = p.service.UserStake(ctx, a, id)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := p.userTokens(q, id, &d); err != nil {
		return err
	}
	if q.May(patdv1.AuditService_ListEvents_FullMethodName) {
		d.Links = append(
			d.Links,
			frame.Link{Text: q.Text("admin.user.events"), URL: p.frame.URL(and("/admin/events", "user", id))},
		)
	}
	suspended := u.State == tokens.UserSuspended
	d.among(map[string]bool{"features": d.ETag != "", "suspend": !suspended, "resume": suspended, "delete": d.Known})
	q.Render(code, "admin-user", d)
	return nil
}

// userFeatures fills in what a user holds.
func (p *Pages) userFeatures(q *frame.Request, id string, d *userData) {
	var held tokens.HeldFeatures
	err := q.Operate(
		patdv1.UserService_GetUserFeatures_FullMethodName,
		frame.Of{User: id},
		func(ctx context.Context, a tokens.Actor) (err error) {
			held, err = p.service.UserFeatures(ctx, a, id)
			return err
		},
	)
	if err != nil {
		_, e := q.Explain(err)
		d.Unknown = q.Reason(e)
		return
	}
	d.Features, d.Stale, d.ETag = held.Features, held.Stale, held.ETag
	names := make([]string, len(held.Features))
	for i, f := range held.Features {
		names[i] = f.Name
	}
	d.Edited = strings.Join(names, "\n")
	if d.At == "features" {
		d.Edited = d.Form.Get("features")
	}
}

// userTokens fills in the newest tokens of a user.
func (p *Pages) userTokens(q *frame.Request, id string, d *userData) error {
	if !q.May(call.AdminTokens) {
		return nil
	}
	var found []tokens.Token
	var next string
	err := q.Operate(call.AdminTokens, frame.Of{User: id}, func(ctx context.Context, a tokens.Actor) (err error) {
		found, next, err = p.service.Tokens(ctx, a, tokens.TokenFilter{User: id}, tokens.Page{Size: 20})
		return err
	})
	if err != nil {
		return err
	}
	for _, t := range found {
		d.Tokens = append(d.Tokens, p.tokenRow(q, t))
	}
	if next != "" && q.May(patdv1.InventoryService_SearchTokens_FullMethodName) {
		d.More = p.frame.URL(and("/admin/tokens", "user", id))
	}
	return nil
}

// changeUser does what a form of the page of one user asks for.
func (p *Pages) changeUser(q *frame.Request) error {
	id, form := idOf(q), q.R.PostForm
	if !q.Bound() {
		code, o := refused(q, frame.ErrStale)
		return p.showUser(q, max(code, http.StatusConflict), o)
	}
	reason := form.Get("reason")
	var method, said string
	var do func(context.Context, tokens.Actor) error
	counted := false
	switch form.Get("action") {
	case "suspend":
		method, said, counted = patdv1.UserService_SuspendUser_FullMethodName, "suspended", true
		do = func(ctx context.Context, a tokens.Actor) error {
			_, err := p.service.SuspendUser(ctx, a, id, reason)
			return err
		}
	case "resume":
		method, said = patdv1.UserService_ResumeUser_FullMethodName, "resumed"
		do = func(ctx context.Context, a tokens.Actor) error {
			_, err := p.service.ResumeUser(ctx, a, id, reason)
			return err
		}
	case "delete":
		method, said, counted = patdv1.UserService_DeleteUser_FullMethodName, "deleted", true
		do = func(ctx context.Context, a tokens.Actor) error {
			_, err := p.service.DeleteUser(ctx, a, id, reason)
			return err
		}
	case "features":
		method, said = patdv1.UserService_SetUserFeatures_FullMethodName, "saved"
		do = func(ctx context.Context, a tokens.Actor) error {
			if tag := form.Get("etag"); tag != "" {
				ctx = tokens.WithPrecondition(ctx, tokens.Precondition{Match: []string{tag}})
			}
			_, err := p.service.SetUserFeatures(ctx, a, id, strings.Fields(form.Get("features")))
			return err
		}
	case "refresh":
		method, said = patdv1.UserService_RefreshUser_FullMethodName, "refreshed"
		do = func(ctx context.Context, a tokens.Actor) error { return p.service.RefreshUser(ctx, a, id) }
	default:
		return tokens.Invalid("FORM_INVALID", "", "the form cannot be read")
	}
	err := q.Operate(method, frame.Of{User: id}, func(ctx context.Context, a tokens.Actor) error {
		if counted {
			n, err := typed(form)
			if err != nil {
				return err
			}
			ctx = tokens.WithCount(ctx, n)
		}
		return do(ctx, a)
	})
	switch {
	case err != nil && elsewhere(err):
		return err
	case err != nil:
		code, o := refused(q, err)
		return p.showUser(q, code, o)
	case said == "deleted":
		q.Redirect(with("/admin/users", url.Values{"done": {said}}))
		return nil
	}
	q.Redirect(and(at("users", id), "done", said))
	return nil
}
