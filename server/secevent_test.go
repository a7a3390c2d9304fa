package server_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/oidctest"
	"patd/server"
	"patd/server/signin"
	"patd/tokens"
)

const eventAudience = "https://patd.example.com/v1/security-events"

const (
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
)

// withEvents takes security events of the rig's provider. Each action is as --security-event-actions has it.
func withEvents(t testing.TB, actions map[string]string) func(*server.Config) {
	t.Helper()
	does := map[string]tokens.SecurityAction{}
	for name, text := range actions {
		action, err := tokens.ParseSecurityAction(text)
		must(t, err)
		does[name] = action
	}
	return func(c *server.Config) {
		verifier, err := signin.NewEvents(signin.EventsConfig{Now: c.Now, Issuers: []signin.EventIssuer{{
			URL: idpOf(c), Audiences: []string{eventAudience},
		}}})
		must(t, err)
		t.Cleanup(verifier.Close)
		c.SecurityEvents = server.SecurityEvents{Verifier: verifier, Actions: does}
	}
}

// idpOf is the issuer of the sign-in that a rig has.
func idpOf(c *server.Config) string {
	for url := range c.SignIn.(*signin.SignIn).Statuses() {
		return url
	}
	return ""
}

func eventRig(t testing.TB, actions map[string]string) *rig {
	t.Helper()
	return newRig(t, withEvents(t, actions))
}

// set is a security event token. Claims replace those of a good one; header, if not nil, its header.
func (p *idp) set(t testing.TB, event, user string, header oidctest.Claims, changed ...claim) string {
	t.Helper()
	all := object{
		"iss":    p.URL,
		"aud":    eventAudience,
		"iat":    p.Now().Unix(),
		"jti":    strings.ReplaceAll(t.Name(), "/", "-") + event + user,
		"sub_id": object{"format": "iss_sub", "iss": p.URL, "sub": user},
		"events": object{event: object{}},
	}
	if header == nil {
		header = oidctest.Claims{"kid": "k0", "typ": "secevent+jwt"}
	}
	return p.Key().Sign(t, header, oidctest.Claims(all).With(claims(changed)))
}

// push sends a security event, and returns the status, and the error of RFC 8935.
func (r *rig) push(set string, headers ...string) (code int, fault string) {
	r.t.Helper()
	if len(headers) == 0 {
		headers = []string{"Content-Type", "application/secevent+jwt"}
	}
	got := r.rest(http.MethodPost, "/v1/security-events", "", set, headers...)
	var e struct{ Err, Description string }
	_ = json.Unmarshal([]byte(got.body), &e)
	if got.code == 202 && got.body != "" || got.code >= 400 && e.Description == "" {
		r.t.Errorf("%d %q", got.code, got.body)
	}
	return got.code, e.Err
}

// TestSecurityEventsDoWhatIsConfigured has each action of each type.
func TestSecurityEventsDoWhatIsConfigured(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		event, action string
		want          patdv1.IntrospectResponse_Decision
		actions       []string // of the audit log
	}{
		"account-disabled":      {risc + "account-disabled", "suspend", patdv1.IntrospectResponse_USER_SUSPENDED, []string{"user.security_event", "user.suspend"}},
		"account-purged":        {risc + "account-purged", "delete", patdv1.IntrospectResponse_REVOKED, []string{"user.security_event", "token.revoke", "user.delete"}},
		"credential-compromise": {risc + "credential-compromise", "revoke", patdv1.IntrospectResponse_REVOKED, []string{"user.security_event", "token.revoke", "token.revoke_all"}},
		"session-revoked":       {caep + "session-revoked", "notify", patdv1.IntrospectResponse_ALLOW, []string{"user.security_event"}},
		"both":                  {caep + "session-revoked", "suspend+revoke", patdv1.IntrospectResponse_REVOKED, []string{"user.security_event", "token.revoke", "token.revoke_all", "user.suspend"}},
		"the old name":          {risc + "sessions-revoked", "suspend", patdv1.IntrospectResponse_USER_SUSPENDED, []string{"user.security_event", "user.suspend"}},
		"not acted on":          {caep + "credential-change", "suspend", patdv1.IntrospectResponse_ALLOW, nil},
		"of the stream":         {"https://schemas.openid.net/secevent/ssf/event-type/verification", "suspend", patdv1.IntrospectResponse_ALLOW, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			actions := map[string]string{}
			for _, kind := range signin.EventTypes() {
				actions[kind] = c.action
			}
			r := eventRig(t, actions)
			_, secret := r.mint("alice", "laptop")
			_, other := r.mint("bob", "laptop")
			r.introspect(secret)
			before := r.events(t, "issuer:"+r.idp.URL)
			if code, fault := r.push(r.idp.set(t, c.event, "alice", nil)); code != 202 {
				t.Fatalf("%d %s", code, fault)
			}
			if got := r.introspect(secret); got != c.want {
				t.Errorf("the token is %s, want %s", got, c.want)
			}
			if got := r.introspect(other); got != patdv1.IntrospectResponse_ALLOW {
				t.Errorf("another user's token is %s", got)
			}
			if got := r.events(t, "issuer:"+r.idp.URL); len(before) != 0 || !slices.Equal(got, c.actions) {
				t.Errorf("the events are %q, want %q", got, c.actions)
			}
		})
	}
}

// events are the actions of an actor in the audit log, oldest first.
func (r *rig) events(t testing.TB, actor string) (actions []string) {
	t.Helper()
	found, _, err := r.svc.Events(
		context.Background(),
		tokens.Operator(),
		tokens.EventFilter{Actor: actor},
		tokens.Page{},
	)
	must(t, err)
	for _, e := range slices.Backward(found) {
		actions = append(actions, string(e.Action))
	}
	return actions
}

// TestStrangersAndReplaysOfSecurityEventsAreRefused holds that only a configured issuer is believed, about its own
// users, and each event once.
func TestStrangersAndReplaysOfSecurityEventsAreRefused(t *testing.T) {
	t.Parallel()
	r := eventRig(t, map[string]string{"account-disabled": "suspend"})
	_, secret := r.mint("alice", "laptop")
	p, disabled := r.idp, risc+"account-disabled"
	stranger := oidctest.Key{
		ID: "k0", Algorithm: jose.EdDSA, Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize))),
	}
	forged := object{
		"iss": p.URL, "aud": eventAudience, "iat": p.Now().Unix(), "jti": "forged",
		"sub_id": object{"format": "opaque", "id": "alice"}, "events": object{disabled: object{}},
	}
	head := func(change object) oidctest.Claims {
		h := oidctest.Claims{"kid": "k0", "typ": "secevent+jwt"}
		maps.Copy(h, change)
		return h
	}
	good := p.set(t, disabled, "alice", nil)
	for name, c := range map[string]struct{ set, fault string }{
		"signed by a stranger":    {stranger.Sign(t, head(nil), forged), "invalid_key"},
		"an unknown key":          {stranger.Sign(t, head(object{"kid": "other"}), forged), "invalid_key"},
		"not signed":              {strings.Join(append(strings.Split(good, ".")[:2], ""), "."), "invalid_request"},
		"alg none":                {unsigned(good), "invalid_request"},
		"a changed payload":       {strings.Replace(good, ".", ".eyJ", 1), "invalid_request"},
		"another issuer":          {p.set(t, disabled, "alice", nil, claim{"iss", "https://elsewhere.example"}), "invalid_issuer"},
		"no issuer":               {p.set(t, disabled, "alice", nil, claim{"iss", nil}), "invalid_issuer"},
		"another audience":        {p.set(t, disabled, "alice", nil, claim{"aud", idpAudience}), "invalid_audience"},
		"no audience":             {p.set(t, disabled, "alice", nil, claim{"aud", nil}), "invalid_audience"},
		"a sign-in token":         {p.jwt(t, "alice", claim{"aud", eventAudience}), "invalid_request"},
		"no type":                 {p.set(t, disabled, "alice", oidctest.Claims{"kid": "k0"}), "invalid_request"},
		"a logout token":          {p.set(t, disabled, "alice", head(object{"typ": "logout+jwt"})), "invalid_request"},
		"critical":                {p.set(t, disabled, "alice", head(object{"crit": []string{"b64"}, "b64": true})), "invalid_request"},
		"no jti":                  {p.set(t, disabled, "alice", nil, claim{"jti", nil}), "invalid_request"},
		"no iat":                  {p.set(t, disabled, "alice", nil, claim{"iat", nil}), "invalid_request"},
		"old":                     {p.set(t, disabled, "alice", nil, claim{"iat", p.Now().Add(-8 * tokens.Day).Unix()}), "invalid_request"},
		"from the future":         {p.set(t, disabled, "alice", nil, claim{"iat", p.Now().Add(time.Hour).Unix()}), "invalid_request"},
		"expired":                 {p.set(t, disabled, "alice", nil, claim{"exp", p.Now().Add(-time.Hour).Unix()}), "invalid_request"},
		"no events":               {p.set(t, disabled, "alice", nil, claim{"events", nil}), "invalid_request"},
		"no subject":              {p.set(t, disabled, "alice", nil, claim{"sub_id", nil}), "invalid_request"},
		"another issuer's user":   {p.set(t, disabled, "alice", nil, claim{"sub_id", object{"format": "iss_sub", "iss": "https://other.example", "sub": "alice"}}), "invalid_request"},
		"another form of subject": {p.set(t, disabled, "alice", nil, claim{"sub_id", object{"format": "email", "email": "alice"}}), "invalid_request"},
		"a device":                {p.set(t, disabled, "alice", nil, claim{"sub_id", object{"format": "complex", "device": object{"format": "opaque", "id": "alice"}}}), "invalid_request"},
		"no user id":              {p.set(t, disabled, "me", nil), "invalid_request"},
		"garbage":                 {"garbage", "invalid_request"},
		"nothing":                 {"", "invalid_request"},
	} {
		if code, fault := r.push(c.set); code != 400 || fault != c.fault {
			t.Errorf("%s: %d %s, want %s", name, code, fault, c.fault)
		}
	}
	if got := r.introspect(secret); got != patdv1.IntrospectResponse_ALLOW {
		t.Fatalf("a refused event did something: %s", got)
	}
	if code, _ := r.push(good, "Content-Type", "application/json"); code != 415 {
		t.Errorf("another content type: %d", code)
	}
	if got := r.rest(http.MethodGet, "/v1/security-events", "", ""); got.code != 405 {
		t.Errorf("a GET: %d", got.code)
	}
	if code, fault := r.push(good + "\n"); code != 202 {
		t.Fatalf("a good one: %d %s", code, fault)
	}
	_, err := r.svc.ResumeUser(context.Background(), tokens.Operator(), "alice", "")
	must(t, err)
	r.wait(6 * tokens.Day)
	if code, fault := r.push(good); code != 400 || fault != "invalid_request" {
		t.Errorf("a replay: %d %s", code, fault)
	}
	r.wait(2 * tokens.Day)
	if code, _ := r.push(good); code != 400 {
		t.Errorf("a replay when it is too old: %d", code)
	}
	if got := r.introspect(secret); got != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("a replay did something: %s", got)
	}
	if strings.Contains(r.logs.String(), strings.Split(good, ".")[1]) {
		t.Error("an event is in the log")
	}
}

// TestSubjectsOfSecurityEvents has the forms of subjects in use: of the final specification, and of its drafts.
func TestSubjectsOfSecurityEvents(t *testing.T) {
	t.Parallel()
	r := eventRig(t, map[string]string{"session-revoked": "suspend"})
	p, revoked := r.idp, caep+"session-revoked"
	iss := func(user string) object { return object{"format": "iss_sub", "iss": p.URL + "/", "sub": user} }
	for user, claims := range map[string][]claim{
		"u1": {{"sub_id", iss("u1")}},
		"u2": {{"sub_id", object{"format": "opaque", "id": "u2"}}},
		"u3": {{"sub_id", object{"format": "complex", "user": iss("u3"), "session": object{"format": "opaque", "id": "s"}}}},
		"u4": {{"sub_id", nil}, {"events", object{revoked: object{"subject": object{"user": iss("u4"), "tenant": iss("t")}}}}},
		"u5": {{"sub_id", nil}, {"events", object{revoked: object{"subject": object{"subject_type": "iss-sub", "iss": p.URL, "sub": "u5"}}}}},
		"u6": {{"sub_id", object{"format": "aliases", "identifiers": []object{{"format": "email", "email": "x@example.com"}, iss("u6")}}}},
		"u7": {{"aud", []string{"other", eventAudience}}, {"sub_id", iss("u7")}},
	} {
		if code, fault := r.push(p.set(t, revoked, user, nil, claims...)); code != 202 || r.state(user) != "SUSPENDED" {
			t.Errorf("%s: %d %s, and the user is %s", user, code, fault, r.state(user))
		}
	}
}

// TestASecurityEventIsAcknowledgedAfterItsCommit holds that an event which could not be stored, or verified, can be
// sent again; and that of the same one at once exactly one is taken.
func TestASecurityEventIsAcknowledgedAfterItsCommit(t *testing.T) {
	t.Parallel()
	r := eventRig(t, map[string]string{"account-disabled": "suspend"})
	set := r.idp.set(t, risc+"account-disabled", "alice", nil)
	r.idp.SetDown(true)
	if code, _ := r.push(set); code != 503 {
		t.Errorf("without keys: %d", code)
	}
	r.idp.SetDown(false)
	r.wait(time.Minute)
	r.store.set(func(op string) error {
		if op == "Update" {
			return tokens.StoreUnavailable(op, errors.New("down"))
		}
		return nil
	})
	if code, _ := r.push(set); code != 503 || r.state("alice") != "-" {
		t.Errorf("without a store: %d %s", code, r.state("alice"))
	}
	r.store.set(nil)
	var all sync.WaitGroup
	codes := make([]int, 8)
	for i := range codes {
		all.Go(func() { codes[i], _ = r.push(set) })
	}
	all.Wait()
	slices.Sort(codes)
	if want := []int{202, 400, 400, 400, 400, 400, 400, 400}; !slices.Equal(codes, want) {
		t.Errorf("of the same event at once: %d", codes)
	}
	if r.state("alice") != "SUSPENDED" {
		t.Errorf("the user is %s", r.state("alice"))
	}
}

// TestSecurityEventsEndSessionsOfThePage holds for an end of sessions, whatever else it does.
func TestSecurityEventsEndSessionsOfThePage(t *testing.T) {
	t.Parallel()
	r := eventRig(t, map[string]string{"session-revoked": "notify"})
	r.features("alice", "reports.read")
	b := r.signedIn("alice", time.Hour, "")
	b.get("/").wants(http.StatusOK)
	if code, fault := r.push(r.idp.set(t, caep+"session-revoked", "alice", nil)); code != 202 {
		t.Fatalf("%d %s", code, fault)
	}
	b.get("/").wants(http.StatusUnauthorized)
}

// TestNoSecurityEventsWithoutAnIssuer holds that a server takes none unless its operator says whose.
func TestNoSecurityEventsWithoutAnIssuer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if code, _ := r.push(r.idp.set(t, risc+"account-disabled", "alice", nil)); code != 404 {
		t.Errorf("%d", code)
	}
}
