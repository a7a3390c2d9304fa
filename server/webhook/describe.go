package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"patd/tokens"
)

// Message is what endpoints are sent of an event. It is made once, when it is queued, and kept with the delivery: what
// it says, such as the labels of a token, is the same at each attempt, whatever has changed meanwhile.
type Message struct {
	Facts tokens.WebhookFacts // what filters look at
	// Subject orders messages: those of one subject are delivered one after another, in the order of the audit log.
	Subject string
	Body    []byte
}

// maxCounted is how many tokens of a user are looked at to count those of a feature.
const maxCounted = 10_000

// Describe makes the message of an event from the records as they are now. ok is false if it has none.
func Describe(tx tokens.ReadTx, e tokens.Event) (m Message, ok bool, err error) {
	t, ok := tokens.WebhookType(e)
	if !ok {
		return Message{}, false, nil
	}
	m.Facts.Type = t
	noun, _, _ := strings.Cut(t, ".")
	var data any
	switch noun {
	case "token":
		data, err = m.token(tx, e)
	case "user":
		data, err = m.aboutUser(tx, e)
	case "service":
		data, err = m.service(tx, e)
	case "key":
		m.Subject = "key"
		data = keyData{about{e.Actor}, e.Detail}
	case "audience":
		m.Subject, m.Facts.Audiences = "audience:"+e.Detail, []string{e.Detail}
		data = audienceData{about{e.Actor}, e.Detail, string(e.Action)[len("audience."):] + "d"}
	case "webhook":
		id, reason, _ := strings.Cut(e.Detail, " ")
		m.Subject = "webhook:" + id
		data = webhookData{about{e.Actor}, id, reason}
	}
	if err != nil {
		return Message{}, false, fmt.Errorf("describe event %d: %w", e.Seq, err)
	}
	if m.Body, err = body(t, e.Time, data); err != nil {
		return Message{}, false, fmt.Errorf("describe event %d: %w", e.Seq, err)
	}
	return m, true, nil
}

// read returns nil for a record that is absent or not as patd wrote it: the event is sent without what the record says.
func read(err error) error {
	if errors.Is(err, tokens.ErrNotFound) || errors.Is(err, tokens.ErrRecordInvalid) {
		return nil
	}
	return err
}

func (m *Message) token(tx tokens.ReadTx, e tokens.Event) (any, error) {
	t, err := tx.Token(e.TokenID)
	if read(err) != nil {
		return nil, fmt.Errorf("read token %s: %w", e.TokenID, err)
	}
	if err != nil {
		t = tokens.Token{}
	}
	m.Subject = "token:" + e.TokenID.String()
	m.Facts.User, m.Facts.Audiences, m.Facts.Labels = e.User, t.Audiences, t.Labels
	d := tokenData{
		about: about{e.Actor}, TokenID: e.TokenID.String(), User: e.User, Name: t.Name, Labels: t.Labels,
		Scopes: listed(t.Scopes), Audiences: listed(t.Audiences), Expire: instant(t.ExpireTime),
	}
	if d.Labels == nil {
		d.Labels = map[string]string{}
	}
	switch m.Facts.Type {
	case tokens.WebhookTokenUpdated:
		return tokenUpdatedData{d, changedFields(e)}, nil
	case tokens.WebhookTokenSupersededUse:
		to := presentedTo.FindStringSubmatch(e.Detail)
		if to == nil {
			return supersededUseData{d, ""}, nil
		}
		return supersededUseData{d, to[1]}, nil
	case tokens.WebhookTokenLeaked:
		uses, err := tx.ScopeUses([]tokens.ID{e.TokenID})
		if err != nil {
			return nil, fmt.Errorf("read the uses of token %s: %w", e.TokenID, err)
		}
		return leaked(d, e, uses[e.TokenID].Sources), nil
	case tokens.WebhookTokenUnused:
		n, _ := tokens.NoticeOf(e)
		return tokenUnusedData{d, instant(n.LastUsedTime), instant(n.PauseTime)}, nil
	case tokens.WebhookTokenExpiring, tokens.WebhookTokenExpired:
		n, _ := tokens.NoticeOf(e)
		if d.Expire = instant(n.ExpireTime); m.Facts.Type == tokens.WebhookTokenExpiring {
			return tokenExpiringData{d, tokens.FormatDuration(n.Threshold)}, nil
		}
	case tokens.WebhookTokenBlocked, tokens.WebhookTokenUnblocked:
		return tokenBlockedData{d, listed(t.Blockers()), instant(t.IdleTime())}, nil
	}
	return d, nil
}

func leaked(d tokenData, e tokens.Event, sources []tokens.UseSource) tokenLeakedData {
	l, _ := tokens.ParseLeak(e.Detail)
	out := tokenLeakedData{
		tokenData: d, Service: e.Service, What: l.What, ReportedBy: l.By, Place: l.Place, URL: l.URL,
		Effective: listed(l.Effective), Suspended: listed(l.Suspended), Unknown: l.Unknown, More: l.More,
		LastUsed: instant(l.LastUsed.Time),
	}
	if l.LastUsed.IP.IsValid() {
		out.LastIP = l.LastUsed.IP.String()
	}
	out.Sources = []source{}
	for _, s := range sources {
		one := source{Service: s.Service, Time: s.Time.UTC()}
		if s.IP.IsValid() {
			one.IP = s.IP.String()
		}
		out.Sources = append(out.Sources, one)
	}
	return out
}

var presentedTo = regexp.MustCompile(`, presented to service:([A-Za-z0-9._-]{1,64})$`)

// changedFields returns the names of the fields that an update changed. Its event lists them, some with what changed.
func changedFields(e tokens.Event) []string {
	switch e.Action {
	case tokens.ActionTokenCancel:
		return []string{"rotation"}
	case tokens.ActionTokenNarrow, tokens.ActionTokenResume:
		return []string{"paused_scopes"}
	case tokens.ActionTokenScopesRemoved:
		return []string{"scopes", "paused_scopes"}
	}
	fields := []string{}
	for part := range strings.SplitSeq(e.Detail, ", ") {
		if name, _, _ := strings.Cut(part, " "); name != "" && !slices.Contains(fields, name) {
			fields = append(fields, name)
		}
	}
	return fields
}

func (m *Message) aboutUser(tx tokens.ReadTx, e tokens.Event) (any, error) {
	m.Subject, m.Facts.User = "user:"+e.User, e.User
	d := userData{about{e.Actor}, e.User}
	switch m.Facts.Type {
	case tokens.WebhookUserFeaturesChanged:
	case tokens.WebhookUserSecurityEvent:
		events, actions := tokens.SecurityEventOf(e)
		return securityEventData{d, events, listed(actions)}, nil
	default:
		return d, nil
	}
	out := featuresChangedData{userData: d, Suspended: []scopeCount{}, Restored: []scopeCount{}}
	counts, err := grantedIn(tx, e.User, e.Time)
	if err != nil {
		return nil, err
	}
	text, more, _ := strings.Cut(e.Detail, " and ")
	for part := range strings.FieldsSeq(text) {
		switch name := part[1:]; part[0] {
		case '+':
			out.Restored = append(out.Restored, scopeCount{name, counts[name]})
		case '-':
			out.Suspended = append(out.Suspended, scopeCount{name, counts[name]})
		}
	}
	more, _, _ = strings.Cut(more, " ")
	out.More, _ = strconv.Atoi(more) // none: 0
	return out, nil
}

// grantedIn counts the active tokens of a user by scope.
func grantedIn(tx tokens.ReadTx, user string, now time.Time) (map[string]int, error) {
	counts := map[string]int{}
	u, err := tx.User(user)
	switch {
	case read(err) != nil:
		return nil, fmt.Errorf("read user: %w", err)
	case err != nil:
		return counts, nil //nolint:nilerr // deleted meanwhile, or not as patd wrote it
	}
	q := tokens.TokenQuery{UserKey: u.Key, State: tokens.StateActive, Now: now, Limit: 200}
	for seen := 0; seen < maxCounted; seen += q.Limit {
		list, err := tx.Tokens(q)
		if err != nil {
			return nil, fmt.Errorf("count a user's tokens: %w", err)
		}
		for _, t := range list {
			for _, scope := range t.Scopes {
				counts[scope]++
			}
		}
		if len(list) < q.Limit {
			break
		}
		q.Before = list[len(list)-1].ID
	}
	return counts, nil
}

func (m *Message) service(tx tokens.ReadTx, e tokens.Event) (any, error) {
	m.Subject = "service:" + e.Service
	d := serviceData{about: about{e.Actor}, Service: e.Service, TokenID: e.TokenID.String(), Permissions: []string{}}
	at, err := tx.Services(e.TokenID+1, 1) // ids below, newest first
	if read(err) != nil {
		return nil, fmt.Errorf("read service: %w", err)
	}
	if err == nil && len(at) == 1 && at[0].ID == e.TokenID {
		d.Permissions, d.Audience, d.Expire = listed(
			at[0].Permissions.Names(),
		), at[0].Audience, instant(
			at[0].ExpireTime,
		)
		if d.Audience != "" {
			m.Facts.Audiences = []string{d.Audience}
		}
	}
	if n, ok := tokens.NoticeOf(e); ok {
		d.Expire = instant(n.ExpireTime)
		return serviceExpiringData{d, tokens.FormatDuration(n.Threshold)}, nil
	}
	return d, nil
}

// listed returns a list that is not nil, so that JSON has an empty list for it.
func listed(names []string) []string {
	if names == nil {
		return []string{}
	}
	return names
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// body returns the body of a message.
func body(t string, at time.Time, data any) ([]byte, error) {
	return json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      any       `json:"data"`
	}{t, at.UTC(), data})
}
