package signin_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"patd/internal/oidctest"
	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestKeysOfSecurityEventsAreFound by either discovery document, or where the operator says they are.
func TestKeysOfSecurityEventsAreFound(t *testing.T) {
	t.Parallel()
	clock := newClock()
	for name, c := range map[string]struct {
		issuer, document string
		at               string // of --security-event-keys-url
	}{
		"OpenID":                     {"", oidctest.Discovery, ""},
		"shared signals":             {"", "/.well-known/ssf-configuration", ""},
		"shared signals with a path": {"/tenant", "/.well-known/ssf-configuration/tenant", ""},
		"no document":                {"", "", "/jwks"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, clock)
			p.Describe(c.document, p.URL+c.issuer)
			issuer := signin.EventIssuer{URL: p.URL + c.issuer, Audiences: []string{audience}}
			if c.at != "" {
				issuer.KeysURL = p.URL + c.at
			}
			events, err := signin.NewEvents(signin.EventsConfig{Issuers: []signin.EventIssuer{issuer}, Now: clock.now})
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			set := p.Key().Sign(t, claims{"kid": "k0", "typ": "secevent+jwt"}, claims{
				"iss": issuer.URL, "aud": audience, "iat": clock.now().Unix(), "jti": "1",
				"sub_id": claims{"format": "opaque", "id": "alice"},
				"events": claims{"https://schemas.openid.net/secevent/risc/event-type/account-disabled": claims{}},
			})
			got, err := events.Verify(t.Context(), secret.NewSecret(set))
			if err != nil || got.User != "alice" {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// transmitter is a provider whose security events are taken, and what is configured of it.
type transmitter struct {
	*provider

	issuer signin.EventIssuer
}

func newTransmitter(t *testing.T) *transmitter {
	t.Helper()
	p := newProvider(t, newClock())
	return &transmitter{p, signin.EventIssuer{URL: p.URL, Audiences: []string{audience}}}
}

// events verifies the transmitter's events, as it is configured now.
func (p *transmitter) events(t *testing.T) *signin.Events {
	t.Helper()
	e, err := signin.NewEvents(signin.EventsConfig{
		Issuers: []signin.EventIssuer{p.issuer}, Now: p.clock.now, Timeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

const disabled = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"

// set is a security event about alice, with changed claims.
func (p *transmitter) set(t *testing.T, changed claims) string {
	t.Helper()
	return p.Key().Sign(t, claims{"kid": "k0", "typ": "secevent+jwt"}, claims{
		"iss": p.URL, "aud": audience, "iat": p.clock.now().Unix(), "jti": "1",
		"sub_id": claims{"format": "opaque", "id": "alice"}, "events": claims{disabled: claims{}},
	}.With(changed))
}

// wantFault wants an event to be refused with a fault, by a text that repeats nothing of it.
func wantFault(t *testing.T, e *signin.Events, set, fault string) {
	t.Helper()
	got, err := e.Verify(t.Context(), secret.NewSecret(set))
	var refused *signin.EventError
	if !errors.As(err, &refused) || refused.Fault != fault || errors.Unwrap(refused) == nil {
		t.Errorf("%+v, %v, want %s", got, err, fault)
		return
	}
	noLeak(t, set, err)
	if text := err.Error(); strings.Contains(text, "alice") || strings.Contains(text, "mallory") {
		t.Errorf("the text repeats the event: %s", text)
	}
}

// TestConfigOfSecurityEventsIsChecked holds that a setting which cannot do is refused at the start, by the issuer it is
// of.
func TestConfigOfSecurityEventsIsChecked(t *testing.T) {
	t.Parallel()
	good := signin.EventIssuer{URL: "https://id.example", Audiences: []string{"a"}}
	with := func(change func(*signin.EventIssuer)) []signin.EventIssuer {
		bad := good
		change(&bad)
		return []signin.EventIssuer{bad}
	}
	for name, c := range map[string]struct {
		issuers []signin.EventIssuer
		want    string
	}{
		"none":         {nil, "at least one issuer"},
		"twice":        {[]signin.EventIssuer{good, good}, "https://id.example: it is named twice"},
		"plain http":   {with(func(i *signin.EventIssuer) { i.URL = "http://id.example" }), "must be https"},
		"no URL":       {with(func(i *signin.EventIssuer) { i.URL = "https://%zz" }), "(not a URL): it is no URL"},
		"no audience":  {with(func(i *signin.EventIssuer) { i.Audiences = nil }), "name the audience"},
		"HS256":        {with(func(i *signin.EventIssuer) { i.Algorithms = []string{"HS256"} }), "HS256"},
		"keys by http": {with(func(i *signin.EventIssuer) { i.KeysURL = "http://id.example/jwks" }), "its keys: the URL must be https"},
		"keys nowhere": {with(func(i *signin.EventIssuer) { i.KeysURL = "https://%zz" }), "the URL of its keys is none"},
	} {
		if _, err := signin.NewEvents(signin.EventsConfig{Issuers: c.issuers}); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestSecurityEventsThatAreNotTaken has an event for each way in which one is malformed, of another, or about no user.
func TestSecurityEventsThatAreNotTaken(t *testing.T) {
	t.Parallel()
	p := newTransmitter(t)
	p.issuer.Foreign = []string{"mallory"}
	p.Publish(t, oidctest.PublicKey("k0", rsaKey(t, 0).Public(), "")) // of any algorithm
	e := p.events(t)
	const purged = "https://schemas.openid.net/secevent/risc/event-type/account-purged"
	opaque := func(id string) claims { return claims{"format": "opaque", "id": id} }
	nested := opaque("alice")
	for range 4 {
		nested = claims{"format": "complex", "user": nested}
	}
	now := p.clock.now().Unix()
	for name, c := range map[string]struct {
		changed claims
		fault   string
	}{
		"another issuer":    {claims{"iss": "https://elsewhere.example"}, signin.FaultIssuer},
		"another audience":  {claims{"aud": "another"}, signin.FaultAudience},
		"no id":             {claims{"jti": nil}, signin.FaultRequest},
		"a long id":         {claims{"jti": strings.Repeat("a", 256)}, signin.FaultRequest},
		"no time":           {claims{"iat": nil}, signin.FaultRequest},
		"a time in text":    {claims{"iat": "now"}, signin.FaultRequest},
		"expired":           {claims{"exp": now - 30}, signin.FaultRequest},
		"an expiry in text": {claims{"exp": "now"}, signin.FaultRequest},
		"no events":         {claims{"events": claims{}}, signin.FaultRequest},
		"a list of events":  {claims{"events": []string{disabled}}, signin.FaultRequest},
		"two subjects": {claims{"sub_id": nil, "events": claims{
			disabled: claims{"subject": opaque("alice")}, purged: claims{"subject": opaque("bob")},
		}}, signin.FaultRequest},
		"no subject":         {claims{"sub_id": nil}, signin.FaultRequest},
		"a subject in text":  {claims{"sub_id": "alice"}, signin.FaultRequest},
		"subject of another": {claims{"sub_id": claims{"format": "iss_sub", "iss": "https://elsewhere.example", "sub": "alice"}}, signin.FaultRequest},
		"nested too deep":    {claims{"sub_id": nested}, signin.FaultRequest},
		"an email address":   {claims{"sub_id": claims{"format": "email", "email": "alice"}}, signin.FaultRequest},
		"a phone number":     {claims{"sub_id": claims{"format": "phone_number", "phone_number": "1"}}, signin.FaultRequest},
		"a device":           {claims{"sub_id": claims{"format": "complex", "device": opaque("alice")}}, signin.FaultRequest},
		"no aliases":         {claims{"sub_id": claims{"format": "aliases", "identifiers": "alice"}}, signin.FaultRequest},
		"aliases of none":    {claims{"sub_id": claims{"format": "aliases", "identifiers": []claims{{"format": "email", "email": "alice"}}}}, signin.FaultRequest},
		"an alias too deep":  {claims{"sub_id": claims{"format": "aliases", "identifiers": []claims{nested}}}, signin.FaultRequest},
		"no user id":         {claims{"sub_id": opaque("me")}, signin.FaultRequest},
		"a foreign user":     {claims{"sub_id": opaque("mallory")}, signin.FaultRequest},
	} {
		t.Run(name, func(t *testing.T) { wantFault(t, e, p.set(t, c.changed), c.fault) })
	}
	payload := claims{"iss": p.URL, "aud": audience}
	wantFault(t, e, "a.b.c", signin.FaultRequest)
	wantFault(t, e, p.Sign(t, p.good()), signin.FaultRequest) // no token that signs in is an event
	wantFault(t, e, p.Key().Sign(t, claims{"kid": "k0", "typ": 1}, payload), signin.FaultRequest)
	typed := claims{"kid": "k0", "typ": "secevent+jwt"}
	wantFault(t, e, oidctest.Sign(t, jose.RS512, rsaKey(t, 0), typed, payload), signin.FaultKey)
	wantFault(t, e, oidctest.Sign(t, jose.RS256, rsaKey(t, 1), typed, payload), signin.FaultKey)
	if got, err := e.Verify(t.Context(), secret.NewSecret(p.set(t, nil))); err != nil || got.User != "alice" {
		t.Errorf("a good one: %+v, %v", got, err)
	}
}

// TestSubjectsOfSecurityEvents holds whom an event is about, where users are known by their ids and where by their
// addresses. An identifier of the other kind is no user's.
func TestSubjectsOfSecurityEvents(t *testing.T) {
	t.Parallel()
	p := newTransmitter(t)
	email, opaque := claims{"format": "email", "email": "alice@corp.example"}, claims{"format": "opaque", "id": "u-17"}
	issued := claims{"format": "iss_sub", "iss": p.URL + "/", "sub": "u-17"}
	for name, c := range map[string]struct {
		subject     claims
		byID, byAdr string
	}{
		"opaque":   {opaque, "u-17", ""},
		"issued":   {issued, "u-17", ""},
		"email":    {email, "", "alice@corp.example"},
		"aliases":  {claims{"format": "aliases", "identifiers": []claims{email, opaque}}, "u-17", "alice@corp.example"},
		"complex":  {claims{"format": "complex", "user": issued, "device": opaque}, "u-17", ""},
		"old name": {claims{"subject_type": "iss-sub", "iss": p.URL, "sub": "u-17"}, "u-17", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for byEmail, want := range map[bool]string{false: c.byID, true: c.byAdr} {
				by := *p
				by.issuer.ByEmail = byEmail
				e, set := by.events(t), p.set(t, claims{"sub_id": c.subject})
				if want == "" {
					wantFault(t, e, set, signin.FaultRequest)
				} else if got, err := e.Verify(t.Context(), secret.NewSecret(set)); err != nil || got.User != want {
					t.Errorf("by email %v: %+v, %v", byEmail, got, err)
				}
			}
		})
	}
}

// TestSecurityEventsOutliveAnOutage holds that keys which cannot be fetched say nothing about an event: its sender is
// asked to send it again, and then it is taken. A sender that goes away gets the end of its own call.
func TestSecurityEventsOutliveAnOutage(t *testing.T) {
	t.Parallel()
	p := newTransmitter(t)
	set := secret.NewSecret(p.set(t, nil))
	p.SetDown(true)
	e := p.events(t)
	_, err := e.Verify(t.Context(), set)
	var ours *tokens.Error
	if !errors.As(err, &ours) || ours.Code != tokens.CodeUnavailable ||
		!strings.Contains(ours.Message, "send the event again") {
		t.Fatalf("while it is down: %v", err)
	}
	p.SetDown(false)
	arrived, release := make(chan struct{}), make(chan struct{})
	keys := p.KeysResponse()
	p.Set(nil, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		keys(w, r)
	})
	p.clock.wait(3 * time.Second)
	e.Start() // what waits for an event is not the fetch of its keys
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Verify(ctx, set); !errors.Is(err, context.Canceled) || errors.As(err, new(*signin.EventError)) {
		t.Errorf("a sender that went away: %v", err)
	}
	close(release)
	if got, err := e.Verify(t.Context(), set); err != nil || got.User != "alice" {
		t.Errorf("after the outage: %+v, %v", got, err)
	}
}
