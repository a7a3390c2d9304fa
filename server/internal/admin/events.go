package admin

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
)

// Bounds of an export.
const (
	exportWithin = 10 * time.Minute // all of it
	exportWrite  = 30 * time.Second // one part of it, as long as the browser reads none
)

// eventRow is an event as a page shows it.
type eventRow struct {
	Moment        frame.Moment
	When          string // to the second, UTC
	Actor, Action string
	About         []frame.Link
	From          string
	Refused       bool
	Reason        string
	Detail        string
}

type eventsData struct {
	outcome

	Events      []eventRow
	User, Token string
	Actor       string
	Actions     []option
	NDJSON, CSV string // addresses of the export
	Next, First string
}

func eventFilter(v url.Values) tokens.EventFilter {
	return tokens.EventFilter{
		User: v.Get(
			"user",
		),
		TokenID: strings.TrimSpace(v.Get("token")),
		Actor:   strings.TrimSpace(v.Get("actor")),
		Action:  v.Get("action"),
	}
}

// events lists the audit log.
func (p *Pages) events(q *frame.Request) error {
	query := q.R.URL.Query()
	f := eventFilter(query)
	d := eventsData{
		User:    f.User,
		Token:   f.TokenID,
		Actor:   f.Actor,
		Actions: []option{{"", q.Text("state.all"), f.Action == ""}},
	}
	for _, a := range tokens.Actions() {
		d.Actions = append(d.Actions, option{string(a), string(a), string(a) == f.Action})
	}
	export := func(format string) string {
		v := url.Values{
			"user":   {f.User},
			"token":  {f.TokenID},
			"actor":  {f.Actor},
			"action": {f.Action},
			"format": {format},
		}
		return p.frame.URL(with("/admin/events/export", v))
	}
	d.NDJSON, d.CSV = export("ndjson"), export("csv")
	code := http.StatusOK
	var found []tokens.Event
	var next string
	err := q.Operate(
		patdv1.AuditService_ListEvents_FullMethodName,
		frame.Of{User: f.User, TokenID: f.TokenID},
		func(ctx context.Context, a tokens.Actor) (err error) {
			found, next, err = p.service.Events(ctx, a, f, tokens.Page{Size: pageSize, Token: query.Get("page")})
			return err
		},
	)
	switch {
	case err != nil && elsewhere(err):
		return err
	case err != nil:
		var e *tokens.Error
		code, e = q.Explain(err)
		d.Alert, d.NDJSON, d.CSV = q.Reason(e), "", ""
	}
	for _, e := range found {
		d.Events = append(d.Events, p.eventRow(q, e))
	}
	d.Next, d.First = p.turned(q, next)
	q.Render(code, "admin-events", d)
	return nil
}

func (p *Pages) eventRow(q *frame.Request, e tokens.Event) eventRow {
	r := eventRow{
		Moment: q.Moment(
			e.Time,
		),
		When:    e.Time.UTC().Format("2006-01-02 15:04:05"),
		Actor:   e.Actor,
		Action:  string(e.Action),
		Refused: e.Outcome == tokens.OutcomeRefused,
		Reason:  e.Reason,
		Detail:  e.Detail,
	}
	if e.PeerIP.IsValid() {
		r.From = e.PeerIP.String()
	}
	if e.User != "" {
		link := frame.Link{Text: e.User}
		if q.May(patdv1.UserService_GetUser_FullMethodName) {
			link.URL = p.frame.URL(at("users", e.User))
		}
		r.About = append(r.About, link)
	}
	if e.TokenID != 0 {
		link := frame.Link{Text: e.TokenID.String()}
		if e.Service == "" && q.May(patdv1.InventoryService_SearchTokens_FullMethodName) {
			link.URL = p.frame.URL("/admin/tokens/" + link.Text)
		}
		r.About = append(r.About, link)
	}
	if e.Service != "" {
		r.About = append(r.About, frame.Link{Text: e.Service})
	}
	return r
}

// exported is an event in an export. The names are those of the API.
type exported struct {
	EventID string `json:"event_id"`
	Time    string `json:"time"`
	Actor   string `json:"actor"`
	Action  string `json:"action"`
	User    string `json:"user"`
	TokenID string `json:"token_id"`
	Service string `json:"service"`
	PeerIP  string `json:"peer_ip"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Detail  string `json:"detail"`
}

func exportOf(e tokens.Event) exported {
	out := exported{
		EventID: strconv.FormatUint(
			e.Seq,
			10,
		),
		Time:    e.Time.UTC().Format(time.RFC3339Nano),
		Actor:   e.Actor,
		Action:  string(e.Action),
		User:    e.User,
		Service: e.Service,
		Outcome: "SUCCESS",
		Reason:  e.Reason,
		Detail:  e.Detail,
	}
	if e.Outcome == tokens.OutcomeRefused {
		out.Outcome = "REFUSED"
	}
	if e.TokenID != 0 {
		out.TokenID = e.TokenID.String()
	}
	if e.PeerIP.IsValid() {
		out.PeerIP = e.PeerIP.String()
	}
	return out
}

// cells returns the columns of an event in a table. A program of tables would take a text that begins with one of these
// for a formula.
func (e exported) cells() []string {
	cells := []string{
		e.EventID,
		e.Time,
		e.Actor,
		e.Action,
		e.User,
		e.TokenID,
		e.Service,
		e.PeerIP,
		e.Outcome,
		e.Reason,
		e.Detail,
	}
	for i, text := range cells {
		if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
			cells[i] = "'" + text
		}
	}
	return cells
}

// export sends the events that the filter selects, newest first, as a file: lines of JSON, or CSV. If it breaks off, so
// does the connection: a part must not look like all of it.
func (p *Pages) export(q *frame.Request) error {
	query := q.R.URL.Query()
	f, format := eventFilter(query), query.Get("format")
	kinds := map[string]string{"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
	kind, ok := kinds[format]
	if !ok {
		return tokens.Invalid("FORMAT_INVALID", "format", "the formats are ndjson and csv")
	}
	defer q.Lasting(exportWithin)()
	return q.Operate(
		call.AdminExport,
		frame.Of{User: f.User, TokenID: f.TokenID},
		func(ctx context.Context, a tokens.Actor) error {
			found, next, err := p.service.Events(ctx, a, f, tokens.Page{Size: tokens.MaxPageSize})
			if err != nil {
				return err
			}
			h := q.W.Header()
			h.Set("Content-Type", kind)
			h.Set("Content-Disposition", `attachment; filename="events-`+q.Now.Format("20060102-150405")+"."+format+`"`)
			write := writer(q.W, format)
			out := http.NewResponseController(q.W)
			for {
				_ = out.SetWriteDeadline(time.Now().Add(exportWrite)) // without it the whole answer has one
				if err = write(found); err == nil && next == "" {
					return nil
				}
				if err == nil {
					err = q.StillSignedIn()
				}
				if err == nil {
					found, next, err = p.service.Events(ctx, a, f, tokens.Page{Size: tokens.MaxPageSize, Token: next})
				}
				if err != nil {
					q.BreakOff(err)
					return nil
				}
			}
		},
	)
}

// writer returns a function that writes events.
func writer(to io.Writer, format string) func([]tokens.Event) error {
	if format == "ndjson" {
		enc := json.NewEncoder(to)
		return func(events []tokens.Event) error {
			for _, e := range events {
				if err := enc.Encode(exportOf(e)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	w := csv.NewWriter(to)
	_ = w.Write(
		[]string{
			"event_id",
			"time",
			"actor",
			"action",
			"user",
			"token_id",
			"service",
			"peer_ip",
			"outcome",
			"reason",
			"detail",
		},
	) // Error says
	return func(events []tokens.Event) error {
		for _, e := range events {
			_ = w.Write(exportOf(e).cells()) // Error says
		}
		w.Flush()
		return w.Error()
	}
}
