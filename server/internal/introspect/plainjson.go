package introspect

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/wire"
	"patd/tokens"
)

// parser parses an introspection request in plain JSON: fields by their names in the contract, each at most once, and
// strings of ASCII without escapes. Its methods return false for any other text, valid or not.
type parser struct{ rest string }

// space skips white space.
func (p *parser) space() {
	for p.rest != "" && p.rest[0] <= ' ' {
		switch p.rest[0] {
		case ' ', '\t', '\r', '\n':
			p.rest = p.rest[1:]
		default:
			return
		}
	}
}

// take skips white space and takes a character, if it comes next.
func (p *parser) take(c byte) bool {
	p.space()
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// end reports whether only white space is left.
func (p *parser) end() bool {
	p.space()
	return p.rest == ""
}

func (p *parser) text() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	for i := range len(p.rest) {
		switch c := p.rest[i]; {
		case c == '"':
			s := p.rest[:i]
			p.rest = p.rest[i+1:]
			return s, true
		case !plainByte(c):
			return "", false
		}
	}
	return "", false
}

// list reads the items of a list.
func (p *parser) list(item func() bool) bool {
	if !p.take('[') {
		return false
	}
	if p.take(']') {
		return true
	}
	for item() {
		if !p.take(',') {
			return p.take(']')
		}
	}
	return false
}

// request reads an IntrospectRequest.
func (p *parser) request(q *request) bool {
	if !p.take('{') {
		return false
	}
	q.required = q.required[:0]
	for seen := fieldSet(0); ; {
		name, ok := p.text()
		field := fieldOf(name)
		if !ok || field == 0 || seen.has(field) || !p.take(':') {
			return false
		}
		seen.add(field)
		if field == fieldRequired {
			ok = p.list(func() bool {
				s, ok := p.text()
				q.required = append(q.required, s)
				return ok && len(q.required) <= wire.MaxTexts
			})
		} else {
			var s string
			s, ok = p.text()
			switch field {
			case fieldToken:
				q.token = s
			case fieldAudience:
				q.audience = s
			case fieldClientIP:
				q.clientIP = s
			}
		}
		if !ok {
			return false
		}
		if !p.take(',') {
			return p.take('}')
		}
	}
}

// fieldSet is a set of field numbers.
type fieldSet uint8

func (f fieldSet) has(n int) bool { return f&(1<<n) != 0 }

func (f *fieldSet) add(n int) { *f |= 1 << n }

func fieldOf(name string) int {
	switch name {
	case "token":
		return fieldToken
	case "audience":
		return fieldAudience
	case "required_scopes":
		return fieldRequired
	case "client_ip":
		return fieldClientIP
	default:
		return 0
	}
}

// batch reads a BatchIntrospectRequest.
func (p *parser) batch(q *batchRequest) bool {
	if !p.take('{') {
		return false
	}
	if name, ok := p.text(); !ok || name != "requests" || !p.take(':') {
		return false
	}
	n := strings.Count(p.rest, "{")
	if n > wire.MaxMessages {
		return false
	}
	q.items = make([]request, 0, 1+n)
	ok := p.list(func() bool {
		q.items = q.items[:len(q.items)+1]
		return p.request(&q.items[len(q.items)-1])
	})
	return ok && p.take('}')
}

// plainByte reports whether every JSON writer writes a byte as itself.
func plainByte(c byte) bool { return c >= ' ' && c <= '~' && c != '"' && c != '\\' }

// writer writes JSON as the gateway does, as long as all texts are plain.
type writer struct {
	b   []byte
	odd bool
}

// appendJSON writes a response; false: one of its texts is not plain, so the gateway's codec must write it.
func appendJSON(b []byte, in *tokens.Introspection) ([]byte, bool) {
	w, t := writer{b: b}, &in.Token
	active := in.Decision.Active()
	var end time.Time
	if !active { // nothing else is disclosed but the instants
		bare := &tokens.Introspection{Decision: in.Decision}
		if in.Ended != nil {
			bare.ExpireTime, end = in.Ended.Refusal.ExpireTime, in.Ended.Refusal.Since
		}
		in, t = bare, &tokens.Subject{}
	}
	w.raw(`{"active":`)
	w.b = strconv.AppendBool(w.b, active)
	w.raw(`,"decision":"`)
	w.raw(patdv1.IntrospectResponse_Decision_name[int32(toDecision(in.Decision))])
	w.raw(`","token_id":"`)
	if active {
		w.b = t.ID.Append(w.b)
	}
	w.raw(`"`)
	w.text(`,"user":`, t.User)
	w.text(`,"name":`, t.Name)
	w.texts(`,"scopes":`, in.Effective)
	w.texts(`,"granted_scopes":`, in.Granted)
	w.texts(`,"suspended_scopes":`, in.Suspended)
	w.texts(`,"missing_scopes":`, in.Missing)
	w.texts(`,"audiences":`, in.Audiences)
	w.labels(t.Labels)
	w.time(`,"issue_time":`, in.IssueTime)
	w.time(`,"expire_time":`, in.ExpireTime)
	if active && !in.ExpireTime.IsZero() {
		w.duration(`,"expires_in":`, in.ExpiresIn)
	}
	if active {
		w.duration(`,"cache_for":`, in.CacheFor)
	}
	w.raw(`,"sequence":"`)
	w.b = strconv.AppendUint(w.b, in.Sequence, 10)
	w.raw(`","stale":`)
	w.b = strconv.AppendBool(w.b, in.Stale)
	w.raw(`,"access_token_id":"`)
	clientID := ""
	if in.AccessID != 0 {
		w.b = in.AccessID.Append(w.b)
		clientID = in.ClientID
	}
	w.text(`","client_id":`, clientID)
	w.raw(`,"any_client_ip":`)
	w.b = strconv.AppendBool(w.b, active && in.Token.AnyAddress)
	w.time(`,"end_time":`, end)
	w.texts(`,"effective_scopes":`, in.Effective)
	w.texts(`,"paused_scopes":`, in.Paused)
	w.raw(`}`)
	return w.b, !w.odd
}

func (w *writer) raw(s string) { w.b = append(w.b, s...) }

func (w *writer) text(name, s string) {
	w.raw(name)
	w.quoted(s)
}

func (w *writer) quoted(s string) {
	for i := range len(s) {
		if !plainByte(s[i]) {
			w.odd = true
		}
	}
	w.b = append(w.b, '"')
	w.raw(s)
	w.b = append(w.b, '"')
}

func (w *writer) texts(name string, list []string) {
	w.raw(name)
	w.b = append(w.b, '[')
	for i, s := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.quoted(s)
	}
	w.b = append(w.b, ']')
}

func (w *writer) labels(labels map[string]string) {
	w.raw(`,"labels":{`)
	if len(labels) > 0 {
		for i, k := range slices.Sorted(maps.Keys(labels)) {
			if i > 0 {
				w.b = append(w.b, ',')
			}
			w.quoted(k)
			w.b = append(w.b, ':')
			w.quoted(labels[k])
		}
	}
	w.b = append(w.b, '}')
}

// time writes an instant, unless t is zero: RFC 3339 in UTC, with 0, 3, 6 or 9 digits after the point.
func (w *writer) time(name string, t time.Time) {
	if t.IsZero() {
		return
	}
	w.raw(name)
	w.b = append(w.b, '"')
	w.b = t.UTC().AppendFormat(w.b, time.RFC3339) // which costs a quarter of any other format
	w.b = w.b[:len(w.b)-len("Z")]
	w.fraction(t.Nanosecond())
	w.raw(`Z"`)
}

// duration writes seconds, with 0, 3, 6 or 9 digits after the point.
func (w *writer) duration(name string, d time.Duration) {
	if d < 0 {
		w.odd = true
	}
	w.raw(name)
	w.b = append(w.b, '"')
	w.b = strconv.AppendInt(w.b, int64(d/time.Second), 10)
	w.fraction(int(d % time.Second))
	w.raw(`s"`)
}

func (w *writer) fraction(nanos int) {
	if nanos <= 0 {
		return
	}
	digits := 9
	for digits > 3 && nanos%1000 == 0 {
		nanos, digits = nanos/1000, digits-3
	}
	w.b = append(w.b, '.')
	at := len(w.b)
	w.b = append(w.b, "000000000"[:digits]...)
	for i := at + digits - 1; i >= at; i-- {
		w.b[i] = byte('0' + nanos%10)
		nanos /= 10
	}
}
