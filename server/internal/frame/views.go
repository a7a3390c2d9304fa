package frame

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"patd/server/web"
)

// views are the templates and the texts.
type views struct {
	frame *Frame
	texts map[string]string
	pages map[string]func() (*template.Template, error) // parsed when they are first shown
}

func newViews(f *Frame) (*views, error) {
	v := &views{frame: f, pages: map[string]func() (*template.Template, error){}}
	text, err := web.Files.ReadFile("texts/en.json")
	if err != nil {
		return nil, fmt.Errorf("read the texts: %w", err)
	}
	if err := json.Unmarshal(text, &v.texts); err != nil {
		return nil, fmt.Errorf("read the texts: %w", err)
	}
	layout, err := template.New("layout").
		Funcs(v.functions()).
		ParseFS(web.Files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("read the templates: %w", err)
	}
	names, err := fs.Glob(web.Files, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("read the templates: %w", err)
	}
	for _, file := range names {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		v.pages[name] = sync.OnceValues(func() (*template.Template, error) {
			page, err := layout.Clone()
			if err != nil {
				return nil, err
			}
			return page.ParseFS(web.Files, file)
		})
	}
	return v, nil
}

func (v *views) functions() template.FuncMap {
	return template.FuncMap{
		"t":     v.text,
		"n":     v.count,
		"url":   v.frame.URL,
		"asset": func(name string) string { return v.frame.URL("/assets/" + v.frame.assets.names[name]) },
		"join":  strings.Join,
		"dict":  dict,
	}
}

// dict makes a map of names and values, for a template within a template.
func dict(pairs ...any) (map[string]any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("the name %v is no string", pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}

// text returns a text by its key; a key without a text is shown, so that somebody notices.
func (v *views) text(key string, args ...any) string {
	text, ok := v.texts[key]
	if !ok {
		return key
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// count returns a text with a number in it: that of key.one or of key.other.
func (v *views) count(key string, n int) string {
	if n == 1 {
		return v.text(key + ".one")
	}
	return v.text(key+".other", n)
}

// view is what a template gets: the page's own data, and what every page shows.
type view struct {
	Q       *Request
	D       any
	Page    string // the template's name
	Title   string
	User    string // empty: nobody is signed in
	Session string // for the hidden field of each form
	HasLogo bool
	Back    string // where a session that was handed over came from
	Embed   bool
}

func (v *views) render(q *Request, name string, data any) ([]byte, error) {
	parsed, ok := v.pages[name]
	if !ok {
		return nil, fmt.Errorf("there is no page %s", name)
	}
	page, err := parsed()
	if err != nil {
		return nil, fmt.Errorf("read the template %s: %w", name, err)
	}
	out := view{
		Q:       q,
		D:       data,
		Page:    name,
		Title:   v.frame.Look.Title,
		User:    q.In.Session.User,
		HasLogo: v.frame.Look.Logo != nil,
		Back:    q.In.Session.ReturnURL,
		Embed:   q.Embedded(),
	}
	if out.User != "" {
		out.Session = q.In.Session.ID.String()
	}
	if out.Title == "" {
		out.Title = v.text("title")
	}
	var b bytes.Buffer
	if err := page.ExecuteTemplate(&b, "layout", out); err != nil {
		return nil, fmt.Errorf("write the page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// Moment is an instant as a page shows it.
type Moment struct {
	Text  string // relative, such as "in 12 days"
	Exact string
	ISO   string
}

// Count returns a text with a number in it.
func (q *Request) Count(key string, n int) string { return q.Frame.views.count(key, n) }

// Moment returns an instant as a page shows it; a zero time has no text.
func (q *Request) Moment(at time.Time) Moment {
	if at.IsZero() {
		return Moment{}
	}
	at = at.UTC()
	return Moment{
		Text:  q.relative(at.Sub(q.Now)),
		Exact: at.Format("2 January 2006, 15:04 UTC"),
		ISO:   at.Format(time.RFC3339),
	}
}

// Day returns a date as a page shows it.
func Day(at time.Time) string { return at.UTC().Format("2 January 2006") }

func (q *Request) relative(d time.Duration) string {
	way, size := "in", d
	if d < 0 {
		way, size = "ago", -d
	}
	for _, unit := range []struct {
		name  string
		of    time.Duration
		below time.Duration
	}{{"minute", time.Minute, time.Hour - time.Minute/2}, {"hour", time.Hour, 36 * time.Hour}, {"day", 24 * time.Hour, 1<<63 - 1}} {
		if size < time.Minute/2 {
			return q.Text("time.now." + way)
		}
		if size < unit.below {
			return q.Frame.views.count("time."+way+"."+unit.name, max(int((size+unit.of/2)/unit.of), 1))
		}
	}
	return ""
}
