package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"patd/tokens"
)

// EventsConfig configures whose security events are taken.
type EventsConfig struct {
	Issuers []EventIssuer // at least one
	// Timeout, MaxBody, MaxWaiting, Transport, Now and Logger are as in Config.
	Timeout    time.Duration
	MaxBody    int64
	MaxWaiting int
	Transport  http.RoundTripper
	Now        func() time.Time
	Logger     *slog.Logger
}

// EventIssuer is a transmitter of security events.
type EventIssuer struct {
	URL        string   // exactly as in `iss`; https, or http to a loopback address
	KeysURL    string   // of its keys; empty: as its discovery document says
	Audiences  []string // at least one; an event's `aud` holds one of them
	UserPrefix string   // put before the subject to form the user's id
	Algorithms []string // pinned; empty: RS256, PS256, ES256, EdDSA
	// Foreign are longer prefixes of other issuers that begin with this one's; their users are rejected.
	Foreign []string
	// ByEmail takes the email address of the subject for the user's id, instead of its own id at the issuer.
	ByEmail bool
}

// Faults of security events, as RFC 8935 section 2.4 names them.
const (
	FaultRequest  = "invalid_request"
	FaultKey      = "invalid_key"
	FaultIssuer   = "invalid_issuer"
	FaultAudience = "invalid_audience"
)

// EventError is why a security event was refused. Its text repeats nothing of the event.
type EventError struct {
	Fault string
	cause error
}

// Error returns the text.
func (e *EventError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *EventError) Unwrap() error { return e.cause }

func eventFault(fault, text string) error { return &EventError{fault, errors.New(text)} }

// SecurityEvent is a security event token (RFC 8417) whose signature was verified.
type SecurityEvent struct {
	Issuer, ID string
	IssueTime  time.Time
	// Types are the last parts of the URIs of the events that patd knows, in byte order; none: it knows none of them.
	Types []string
	User  string // whom they are about; empty if Types are
}

// Events verifies security event tokens of configured issuers. Its methods are safe for concurrent use.
type Events struct {
	now     func() time.Time
	issuers map[string]*eventIssuer
	client  *http.Client
	stop    context.CancelFunc
}

type eventIssuer struct {
	issuer
	EventIssuer
}

// NewEvents checks the configuration. It sends no request. Call Close to release its resources.
func NewEvents(c EventsConfig) (*Events, error) {
	if len(c.Issuers) == 0 {
		return nil, errors.New("configure security events: name at least one issuer")
	}
	filled := Config{
		Timeout:    c.Timeout,
		MaxBody:    c.MaxBody,
		MaxWaiting: c.MaxWaiting,
		Transport:  c.Transport,
		Now:        c.Now,
		Logger:     c.Logger,
	}.withDefaults()
	ctx, stop := context.WithCancel(context.Background())
	e := &Events{now: filled.Now, issuers: map[string]*eventIssuer{}, client: newClient(filled), stop: stop}
	for _, i := range c.Issuers {
		signs := Issuer{
			URL:        i.URL,
			Audiences:  i.Audiences,
			UserPrefix: i.UserPrefix,
			Algorithms: i.Algorithms,
		}.withDefaults()
		var keysURL *url.URL
		err := signs.check()
		switch {
		case err == nil && e.issuers[i.URL] != nil:
			err = errors.New("it is named twice")
		case err == nil && i.KeysURL != "":
			keysURL, err = parseKeysURL(i.KeysURL)
		}
		if err != nil {
			stop()
			return nil, fmt.Errorf("configure the issuer of security events %s: %w", shown(i.URL), err)
		}
		e.issuers[i.URL] = &eventIssuer{EventIssuer: i, issuer: issuer{Issuer: signs, keys: &keyring{
			issuer: i.URL, at: keysURL, events: true, client: e.client, timeout: filled.Timeout,
			waiting: make(chan struct{}, filled.MaxWaiting), now: filled.Now, logger: filled.Logger, ctx: ctx,
		}}}
	}
	return e, nil
}

func parseKeysURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("the URL of its keys is none")
	}
	if err := reachable(u); err != nil {
		return nil, fmt.Errorf("its keys: %w", err)
	}
	return u, nil
}

// Start starts to fetch the keys of every issuer and does not wait.
func (e *Events) Start() {
	for _, i := range e.issuers {
		i.keys.look()
	}
}

// Close cancels the work under way and waits for it.
func (e *Events) Close() {
	e.stop()
	for _, i := range e.issuers {
		i.keys.close()
	}
	e.client.CloseIdleConnections()
}

// Verify returns what a security event token says. A fault of the token is an *EventError. Keys that cannot be fetched
// are a *tokens.Error of CodeUnavailable, which says nothing about the token.
func (e *Events) Verify(ctx context.Context, set tokens.Secret) (SecurityEvent, error) {
	t, typ, given, err := parseAny(set)
	switch {
	case err != nil:
		return SecurityEvent{}, &EventError{FaultRequest, err}
	case !given || !isEventType(typ):
		// RFC 8417 section 2.3 recommends it, and it keeps other tokens of the issuer from being taken for events.
		return SecurityEvent{}, eventFault(FaultRequest, "the type in its header is not secevent+jwt")
	}
	name, _ := t.claims.text("iss")
	from, ok := e.issuers[name]
	if !ok {
		return SecurityEvent{}, eventFault(FaultIssuer, "its issuer is not configured here")
	}
	if !slices.ContainsFunc(
		t.claims.audience(),
		func(a string) bool { return slices.Contains(from.issuer.Audiences, a) },
	) {
		return SecurityEvent{}, eventFault(FaultAudience, "it is for another audience")
	}
	if !slices.Contains(from.issuer.Algorithms, t.alg) {
		return SecurityEvent{}, eventFault(FaultKey, "its algorithm is not one of those configured")
	}
	// No claim is trusted before this, and none beyond the names above is read.
	if err := from.signed(ctx, t); err != nil {
		var ours *tokens.Error
		if errors.As(err, &ours) && ours.Code == tokens.CodeUnauthenticated {
			return SecurityEvent{}, eventFault(FaultKey, "no key of its issuer made its signature")
		}
		return SecurityEvent{}, keysOfEvents(err)
	}
	return from.read(t, e.now())
}

// keysOfEvents says of an outage that it is one of the keys of security events.
func keysOfEvents(err error) error {
	var ours *tokens.Error
	if !errors.As(err, &ours) || ours.Code != tokens.CodeUnavailable {
		return err
	}
	told := *ours
	told.Message = "the keys of the issuer of security events cannot be fetched; send the event again"
	return &told
}

// isEventType reports whether `typ` is that of a security event token.
func isEventType(typ any) bool {
	text, _ := typ.(string)
	return strings.TrimPrefix(strings.ToLower(text), "application/") == "secevent+jwt"
}

// maxEventID bounds a jti, in bytes.
const maxEventID = 255

// read reads the claims of a verified token.
func (i *eventIssuer) read(t *token, now time.Time) (SecurityEvent, error) {
	out := SecurityEvent{Issuer: i.issuer.URL}
	var err error
	if out.ID, _ = t.claims.text("jti"); out.ID == "" || len(out.ID) > maxEventID {
		return out, eventFault(FaultRequest, "it has no jti of 1 to 255 bytes (RFC 8417 section 2.2)")
	}
	if out.IssueTime, err = t.claims.instant("iat"); err != nil || out.IssueTime.IsZero() {
		return out, eventFault(FaultRequest, "it has no iat (RFC 8417 section 2.2)")
	}
	if exp, err := t.claims.instant("exp"); err != nil || !exp.IsZero() && !now.Before(exp.Add(defaultLeeway)) {
		return out, eventFault(FaultRequest, "it has expired")
	}
	var events map[string]json.RawMessage
	if err := json.Unmarshal(t.claims["events"], &events); err != nil || len(events) == 0 {
		return out, eventFault(FaultRequest, "it has no events (RFC 8417 section 2.2)")
	}
	for uri, payload := range events {
		kind, known := eventType(uri)
		if !known {
			continue
		}
		user, err := i.subject(t.claims, payload)
		switch {
		case err != nil:
			return out, err
		case out.User != "" && out.User != user:
			return out, eventFault(FaultRequest, "its events have different subjects")
		}
		out.User = user
		if !slices.Contains(out.Types, kind) {
			out.Types = append(out.Types, kind)
		}
	}
	slices.Sort(out.Types)
	return out, nil
}

// EventTypes returns the types of event that patd acts on.
func EventTypes() []string {
	return []string{"account-disabled", "account-purged", "credential-compromise", "session-revoked"}
}

const (
	riscEvents = "https://schemas.openid.net/secevent/risc/event-type/"
	caepEvents = "https://schemas.openid.net/secevent/caep/event-type/"
)

// eventType returns the type that a URI names; false: patd does not act on it.
func eventType(uri string) (string, bool) {
	switch name := strings.TrimPrefix(uri, riscEvents); name {
	case uri:
	case "sessions-revoked": // OpenID RISC 1.0 section 2.9, superseded by that of CAEP
		return "session-revoked", true
	case "account-disabled", "account-purged", "credential-compromise":
		return name, true
	}
	if uri == caepEvents+"session-revoked" {
		return "session-revoked", true
	}
	return "", false
}

// subject returns the id of the user whom an event is about. Its identifier (RFC 9493) is the claim sub_id, or in the
// events of earlier drafts, which are still in use, their member subject.
func (i *eventIssuer) subject(claims object, payload json.RawMessage) (string, error) {
	raw := claims["sub_id"]
	if raw == nil {
		var p object
		if err := json.Unmarshal(payload, &p); err == nil {
			raw = p["subject"]
		}
	}
	var subject object
	if err := json.Unmarshal(raw, &subject); err != nil || subject == nil {
		return "", eventFault(FaultRequest, "it has no sub_id that is a subject identifier (RFC 9493)")
	}
	id, err := i.identifier(subject, 0)
	if err != nil {
		return "", err
	}
	user := i.EventIssuer.UserPrefix + id
	foreign := slices.ContainsFunc(i.Foreign, func(p string) bool { return strings.HasPrefix(user, p) })
	if id == "" || !validUser(id) || !validUser(user) || foreign {
		return "", eventFault(FaultRequest, "its subject has no id that is a user's, in the way that is configured")
	}
	return user, nil
}

// maxSubjectDepth bounds how deep a subject may be nested: a complex one of aliases.
const maxSubjectDepth = 3

// identifier returns the id in a subject identifier; empty: there is none of the kind that is configured.
func (i *eventIssuer) identifier(s object, depth int) (string, error) {
	if depth > maxSubjectDepth {
		return "", eventFault(FaultRequest, "its subject is nested too deep")
	}
	format, ok := s.text("format")
	if !ok {
		format, _ = s.text("subject_type") // of earlier drafts
	}
	var inner object
	switch strings.ReplaceAll(format, "-", "_") {
	case "iss_sub":
		return i.issuedSubject(s)
	case "opaque":
		return i.unlessByEmail(s, "id"), nil
	case "email":
		if i.ByEmail {
			email, _ := s.text("email")
			return email, nil
		}
		return "", nil
	case "aliases":
		return i.alias(s, depth)
	case "complex", "":
		if _ = json.Unmarshal(s["user"], &inner); inner == nil {
			return "", nil // it is about a device, a group, a tenant
		}
		return i.identifier(inner, depth+1)
	default:
		return "", nil
	}
}

// issuedSubject returns the subject of an iss_sub identifier. An issuer speaks for its own subjects only.
func (i *eventIssuer) issuedSubject(s object) (string, error) {
	iss, _ := s.text("iss")
	if strings.TrimSuffix(iss, "/") != strings.TrimSuffix(i.issuer.URL, "/") {
		return "", eventFault(FaultRequest, "its subject is of another issuer")
	}
	return i.unlessByEmail(s, "sub"), nil
}

func (i *eventIssuer) unlessByEmail(s object, member string) string {
	if i.ByEmail {
		return ""
	}
	id, _ := s.text(member)
	return id
}

// alias returns the id in the first of several identifiers that has one.
func (i *eventIssuer) alias(s object, depth int) (string, error) {
	var all []object
	if err := json.Unmarshal(s["identifiers"], &all); err != nil {
		return "", eventFault(FaultRequest, "its subject has no identifiers")
	}
	for _, one := range all {
		if id, err := i.identifier(one, depth+1); err != nil || id != "" {
			return id, err
		}
	}
	return "", nil
}
