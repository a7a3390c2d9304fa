package page

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
)

// eventRow is an event as a page shows it.
type eventRow struct {
	Moment  frame.Moment
	Text    string
	From    string
	Refused bool
}

// sessionRow is a session of the page as the page shows it.
type sessionRow struct {
	ID, Agent, IP, Service string
	Since, Seen            frame.Moment
	This                   bool
}

type activityData struct {
	Events   []eventRow
	Next     string
	Sessions []sessionRow
	Others   bool // there are others than this one
	Notice   string
	Alert    string
	TokenID  string
}

// activity shows the user's own events and sessions.
func (p *Pages) activity(q *frame.Request) error {
	var d activityData
	if q.R.URL.Query().Get("done") == "ended" {
		d.Notice = q.Text("notice.ended")
	}
	return p.showActivity(q, http.StatusOK, d)
}

func (p *Pages) showActivity(q *frame.Request, code int, d activityData) (err error) {
	d.TokenID = q.R.URL.Query().Get("token")
	page := q.R.URL.Query().Get("page")
	var next string
	d.Events, next, err = p.events(q, d.TokenID, page, 50)
	if err != nil {
		return err
	}
	d.Next = next
	var found []tokens.PageSession
	err = q.Do(call.PageSessions, frame.Mine{}, func(ctx context.Context) (err error) {
		found, err = p.service.PageSessions(ctx, q.In.Actor)
		return err
	})
	if err != nil {
		return err
	}
	for _, v := range found {
		row := sessionRow{
			ID:      v.ID.String(),
			Agent:   browser(v.Agent),
			Service: v.Service,
			Since:   q.Moment(v.IssueTime),
			Seen:    q.Moment(v.SeenTime),
			This:    v.ID == q.In.Session.ID,
		}
		if v.IP.IsValid() {
			row.IP = v.IP.String()
		}
		d.Others = d.Others || !row.This
		d.Sessions = append(d.Sessions, row)
	}
	q.Render(code, "activity", d)
	return nil
}

// browser returns a short name of a browser, by what it says of itself.
func browser(agent string) string {
	for _, b := range []struct{ mark, name string }{
		{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"},
	} {
		if !strings.Contains(agent, b.mark) {
			continue
		}
		for _, on := range []struct{ mark, name string }{
			{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"},
		} {
			if strings.Contains(agent, on.mark) {
				return b.name + ", " + on.name
			}
		}
		return b.name
	}
	return agent[:min(len(agent), 40)]
}

// endSessions ends one of the user's other sessions, or all others.
func (p *Pages) endSessions(q *frame.Request) error {
	if !q.Bound() {
		return frame.ErrStale
	}
	err := q.Do(call.PageEndSessions, frame.Mine{}, func(ctx context.Context) error {
		_, err := p.service.EndPageSessions(ctx, q.In.Actor, q.R.PostForm.Get("end"), q.In.Session.ID)
		return err
	})
	if err != nil {
		return err
	}
	q.Redirect("/activity?done=ended")
	return nil
}

// events returns a page of the user's events, or of one token's, and the address of the next page.
func (p *Pages) events(q *frame.Request, tokenID, page string, size int) ([]eventRow, string, error) {
	var (
		found []tokens.Event
		names map[tokens.ID]string
		next  string
	)
	err := q.Do(call.PageActivity, frame.Mine{TokenID: tokenID}, func(ctx context.Context) (err error) {
		found, names, next, err = p.service.UserEvents(
			ctx,
			q.In.Actor,
			"me",
			tokenID,
			tokens.Page{Size: size, Token: page},
		)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	rows := make([]eventRow, len(found))
	for i, e := range found {
		rows[i] = eventRow{
			Moment:  q.Moment(e.Time),
			Text:    p.sentence(q, e, names[e.TokenID]),
			Refused: e.Outcome == tokens.OutcomeRefused,
		}
		if e.PeerIP.IsValid() {
			rows[i].From = e.PeerIP.String()
		}
	}
	if next == "" {
		return rows, "", nil
	}
	v := url.Values{"page": {next}}
	if tokenID != "" {
		v.Set("token", tokenID)
	}
	return rows, p.frame.URL("/activity?" + v.Encode()), nil
}

// sentence says what an event is.
func (p *Pages) sentence(q *frame.Request, e tokens.Event, name string) string {
	if name == "" && e.TokenID != 0 {
		name = e.TokenID.String()
	}
	who := p.actor(q, e.Actor)
	if e.Outcome == tokens.OutcomeRefused {
		if name != "" {
			return q.Text("event.refused_about", who, q.Text("attempt."+string(e.Action)), name, e.Reason)
		}
		return q.Text("event.refused", who, q.Text("attempt."+string(e.Action)), e.Reason)
	}
	key := "event." + string(e.Action)
	text := q.Text(key, who, name, e.Detail)
	if strings.HasPrefix(text, key) { // an action without a sentence
		return q.Text("event.other", who, string(e.Action), e.Detail)
	}
	return text
}

// actor names who did something.
func (p *Pages) actor(q *frame.Request, actor string) string {
	kind, name, _ := strings.Cut(actor, ":")
	switch kind {
	case "user":
		if name == q.In.Session.User {
			return q.Text("actor.you")
		}
		return q.Text("actor.user", name)
	case "service", "token":
		return q.Text("actor."+kind, name)
	case "operator":
		if name != "" {
			return q.Text("actor.operator_named", name)
		}
		return q.Text("actor.operator")
	}
	return q.Text("actor.nobody")
}
