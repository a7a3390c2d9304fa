package page

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"patd/server/internal/frame"
	"patd/tokens"
)

// Values of the field Expiration.
const (
	lifeCustom = "custom"
	lifeNever  = "never"
	lifeKeep   = "keep" // when a token is rotated
	lifeRenew  = "renew"
)

// lifetimeOption is a choice of Expiration.
type lifetimeOption struct {
	Value, Text string
	End         string // the date on which the token would end; empty: it is not known beforehand
	Chosen      bool
}

// lifetimes is the field Expiration with its custom date.
type lifetimes struct {
	Options        []lifetimeOption
	Date           string
	First, Last    string // dates that the policy allows
	Limit          string // what the policy says
	End            string // the date of the chosen option
	CustomSelected bool
}

const dateForm = "2006-01-02"

// choices are the lifetimes that a policy allows. chosen is the value of the field; date that of the custom date.
func choices(q *frame.Request, policy tokens.Policy, chosen, date string, keep bool) lifetimes {
	days := []int{7, 30, 90, 180, 365}
	if own := int(policy.DefaultTTL / tokens.Day); policy.DefaultTTL%tokens.Day == 0 && own > 0 {
		days = append(days, own)
	}
	slices.Sort(days)
	l := lifetimes{
		Date:  date,
		First: q.Now.Format(dateForm),
		Last:  q.Now.Add(policy.MaxTTL - tokens.Day).Format(dateForm),
	}
	if keep {
		l.Options = append(
			l.Options,
			lifetimeOption{Value: lifeKeep, Text: q.Text("life.keep")},
			lifetimeOption{Value: lifeRenew, Text: q.Text("life.renew")},
		)
	}
	for _, n := range slices.Compact(days) {
		if ttl := time.Duration(n) * tokens.Day; ttl <= policy.MaxTTL {
			text := q.Text("life.days", n)
			if n == 365 {
				text = q.Text("life.year")
			}
			l.Options = append(
				l.Options,
				lifetimeOption{Value: strconv.Itoa(n) + "d", Text: text, End: frame.Day(q.Now.Add(ttl))},
			)
		}
	}
	l.Options = append(l.Options, lifetimeOption{Value: lifeCustom, Text: q.Text("life.custom")})
	l.Limit = q.Text("life.limit", inDays(q, policy.MaxTTL))
	if policy.AllowNever {
		l.Options = append(l.Options, lifetimeOption{Value: lifeNever, Text: q.Text("life.never")})
		l.Limit = q.Text("life.limit_or_never", inDays(q, policy.MaxTTL))
	}
	known := func(v string) bool {
		return slices.ContainsFunc(l.Options, func(o lifetimeOption) bool { return o.Value == v })
	}
	switch {
	case known(chosen):
	case keep:
		chosen = lifeKeep
	case known(inDaysValue(policy.DefaultTTL)):
		chosen = inDaysValue(policy.DefaultTTL)
	default:
		chosen = l.Options[0].Value
	}
	for i := range l.Options {
		if o := &l.Options[i]; o.Value == chosen {
			o.Chosen, l.End, l.CustomSelected = true, o.End, chosen == lifeCustom
		}
	}
	return l
}

func inDaysValue(d time.Duration) string { return strconv.Itoa(int(d/tokens.Day)) + "d" }

func inDays(q *frame.Request, d time.Duration) string {
	if d%tokens.Day == 0 {
		return q.Text("life.days", int(d/tokens.Day))
	}
	return tokens.FormatDuration(d)
}

// readLifetime reads the fields Expiration and Custom date. problem is the key of a text about the field, which is
// "expiration" or "date".
func readLifetime(form url.Values) (l tokens.Lifetime, field, problem string) {
	chosen, date := form.Get("expiration"), form.Get("date")
	if chosen != lifeCustom && date != "" {
		return l, "date", "error.date_unused"
	}
	switch chosen {
	case lifeKeep, lifeRenew:
		return l, "", ""
	case lifeNever:
		return tokens.Lifetime{Never: true}, "", ""
	case lifeCustom:
		at, err := time.Parse(dateForm, date)
		if err != nil {
			return l, "date", "error.date"
		}
		at = at.Add(tokens.Day - time.Second) // the whole day is in it
		return tokens.Lifetime{ExpireTime: &at}, "", ""
	}
	n, err := strconv.Atoi(strings.TrimSuffix(chosen, "d"))
	if err != nil || n <= 0 || n > 36500 || !strings.HasSuffix(chosen, "d") {
		return l, "expiration", "error.expiration"
	}
	ttl := time.Duration(n) * tokens.Day
	return tokens.Lifetime{TTL: &ttl}, "", ""
}

// newKey returns a fresh idempotency key for a form.
func newKey() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return hex.EncodeToString(raw[:])
}

// featureBox is a checkbox of a feature.
type featureBox struct {
	Name, Text, Description string
	Ticked, Required        bool
	Suspended               bool
	Unused                  bool // never, as far as is known
}

// About reports whether there is more to say than the box's own text.
func (b featureBox) About() bool {
	return b.Text != b.Name || b.Required || b.Suspended || b.Unused || b.Description != ""
}

// featureGroup is the features whose names begin alike, before the first dot.
type featureGroup struct {
	Name  string
	Boxes []featureBox
}

// grouped returns checkboxes by group, in the order of their names. ticked says which are ticked.
func grouped(features []tokens.FeatureEntry, ticked func(tokens.FeatureEntry) bool) []featureGroup {
	var groups []featureGroup
	for _, e := range features {
		name, _, dotted := strings.Cut(e.Name, ".")
		if !dotted {
			name = ""
		}
		i := slices.IndexFunc(groups, func(g featureGroup) bool { return g.Name == name })
		if i < 0 {
			groups = append(groups, featureGroup{Name: name})
			i = len(groups) - 1
		}
		groups[i].Boxes = append(groups[i].Boxes, featureBox{
			Name: e.Name, Text: cmp.Or(e.DisplayName, e.Name), Description: e.Description, Ticked: ticked(e),
			Required: e.Consent == tokens.ConsentRequired,
		})
	}
	return groups
}

// lines returns the parts of a text that stand on lines or between commas or spaces.
func lines(text string) []string {
	return strings.FieldsFunc(
		text,
		func(r rune) bool { return r == '\n' || r == '\r' || r == ',' || r == ' ' || r == '\t' },
	)
}
