package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// token is a token as GET shows it.
func (r *rig) token(t *testing.T, user, id string) *patdv1.Token {
	t.Helper()
	got, err := patdv1.NewTokenServiceClient(r.conn).
		GetToken(as(r.admin), &patdv1.GetTokenRequest{User: user, TokenId: id})
	must(t, err)
	return got.GetToken()
}

// required asks for scopes in every way that a service can say which it needs.
func (r *rig) required(t *testing.T, service, secret string, scopes ...string) map[string]*patdv1.IntrospectResponse {
	t.Helper()
	rpc, request := patdv1.NewIntrospectionServiceClient(
		r.conn,
	), &patdv1.IntrospectRequest{
		Token:          secret,
		RequiredScopes: scopes,
		ClientIp:       "203.0.113.9",
	}
	unary, err := rpc.Introspect(as(service), request)
	must(t, err)
	batch, err := rpc.BatchIntrospect(
		as(service),
		&patdv1.BatchIntrospectRequest{Requests: []*patdv1.IntrospectRequest{request}},
	)
	must(t, err)
	stream := r.open(service)
	must(t, stream.Send(&patdv1.IntrospectStreamRequest{Id: 1, Request: request}))
	streamed := answered(t, stream).GetResponse()
	must(t, stream.CloseSend())
	list, err := json.Marshal(append([]string{}, scopes...))
	must(t, err)
	var rest struct {
		Decision        string
		Scopes          []string
		PausedScopes    []string `json:"paused_scopes"`
		SuspendedScopes []string `json:"suspended_scopes"`
		GrantedScopes   []string `json:"granted_scopes"`
	}
	body := r.rest(
		"POST",
		"/v1/introspect",
		service,
		fmt.Sprintf(`{"token":%q,"required_scopes":%s,"client_ip":"203.0.113.9"}`, secret, list),
	).body
	must(t, json.Unmarshal([]byte(body), &rest))
	return map[string]*patdv1.IntrospectResponse{
		"unary": unary, "batch": batch.GetResponses()[0], "stream": streamed, "REST": {
			Decision: patdv1.IntrospectResponse_Decision(
				patdv1.IntrospectResponse_Decision_value[rest.Decision],
			),
			Scopes:          rest.Scopes,
			PausedScopes:    rest.PausedScopes,
			SuspendedScopes: rest.SuspendedScopes,
			GrantedScopes:   rest.GrantedScopes,
		},
	}
}

func TestUsesOfScopesAreShown(t *testing.T) {
	t.Parallel()
	newRigs(t, func(t *testing.T, r *rig) {
		service := r.service("gateway", "introspect")
		tok, secret := r.pat(tokens.MintRequest{User: "u1", Name: "n"}, "a", "b", "c")
		day := r.now().UTC().Format(time.DateOnly)
		for way, got := range r.required(t, service, secret, "a") {
			if got.GetDecision() != patdv1.IntrospectResponse_ALLOW {
				t.Fatalf("%s: %v", way, got.GetDecision())
			}
		}
		r.required(t, service, secret, "b", "unknown")
		r.lookAt(secret) // RFC 7662 says nothing of what is required
		dry := r.rest("POST", "/v1/users/u1/tokens/"+tok.ID.String()+":narrow", r.admin, `{"dry_run":true}`)
		if dry.code != http.StatusOK || !strings.Contains(dry.body, `"narrowed_scopes":["b","c"]`) {
			t.Fatalf("the dry run: %d %s", dry.code, dry.body)
		}
		got := r.token(t, "u1", tok.ID.String())
		want := map[string]string{"a": day + " 4", "b": " 0", "c": " 0"}
		for _, u := range got.GetScopeUses() {
			if have := fmt.Sprint(u.GetLastUsedDay(), " ", u.GetUseCount()); have != want[u.GetScope()] {
				t.Errorf("uses of %s: %s, want %s", u.GetScope(), have, want[u.GetScope()])
			}
		}
		if len(got.GetScopeUses()) != len(want) || got.GetUnscopedUses().GetUseCount() != 1 ||
			got.GetScopeUsesSince() != nil {
			t.Errorf(
				"%v, without scopes %v, since %v",
				got.GetScopeUses(),
				got.GetUnscopedUses(),
				got.GetScopeUsesSince(),
			)
		}
		sources := map[string]bool{}
		for _, s := range got.GetUseSources() {
			sources[s.GetService()+" "+s.GetIp()] = true
		}
		if !sources["gateway 203.0.113.9"] || len(sources) > 5 {
			t.Errorf("sources: %v", got.GetUseSources())
		}
	})
}

func TestUseSourcesAreTheLastFive(t *testing.T) {
	t.Parallel()
	newRigs(t, func(t *testing.T, r *rig) {
		tok, secret := r.pat(tokens.MintRequest{User: "u1", Name: "n"}, "a")
		rpc := patdv1.NewIntrospectionServiceClient(r.conn)
		for i := range 20 {
			r.wait(time.Second)
			_, err := rpc.Introspect(
				as(r.admin),
				&patdv1.IntrospectRequest{Token: secret, ClientIp: fmt.Sprintf("2001:db8::%x", i+1)},
			)
			must(t, err)
			must(t, r.store.FlushUses(t.Context(), nil))
		}
		var got []string
		for _, s := range r.token(t, "u1", tok.ID.String()).GetUseSources() {
			got = append(got, s.GetService()+" "+s.GetIp())
		}
		if want := []string{
			"admin 2001:db8::14",
			"admin 2001:db8::13",
			"admin 2001:db8::12",
			"admin 2001:db8::11",
			"admin 2001:db8::10",
		}; !slices.Equal(
			got,
			want,
		) {
			t.Errorf("sources: %v, want %v", got, want)
		}
	})
}

func TestPausedScopesAreInEffectNowhere(t *testing.T) {
	t.Parallel()
	newRigs(t, func(t *testing.T, r *rig) {
		r.audience(tokens.AudienceEntry{ID: "api"})
		service := r.service("gateway", "introspect")
		tok, secret := r.pat(tokens.MintRequest{User: "u1", Name: "n"}, "a", "b", "c")
		path := "/v1/users/u1/tokens/" + tok.ID.String()
		r.required(t, service, secret, "a", "c")
		r.features("u1", "a", "b")
		narrowed := r.rest("POST", path+":narrow", r.idp.jwt(t, "u1"), `{}`)
		if narrowed.code != http.StatusOK || !strings.Contains(narrowed.body, `"narrowed_scopes":["b"]`) {
			t.Fatalf("narrow: %d %s", narrowed.code, narrowed.body)
		}
		check := func(when string, decision patdv1.IntrospectResponse_Decision, effective, paused string) {
			t.Helper()
			for way, got := range r.required(t, service, secret, "b") {
				have := strings.Join(got.GetScopes(), " ") + "|" + strings.Join(got.GetPausedScopes(), " ") + "|" +
					strings.Join(got.GetSuspendedScopes(), " ") + "|" + strings.Join(got.GetGrantedScopes(), " ")
				if want := effective + "|" + paused + "|c|a b c"; got.GetDecision() != decision || have != want {
					t.Errorf("%s, %s: %v %s, want %v %s", when, way, got.GetDecision(), have, decision, want)
				}
			}
			good := decision == patdv1.IntrospectResponse_ALLOW
			if got := r.ask("?scope=b", secret).code == http.StatusOK; got != good {
				t.Errorf("%s, forward-auth: %v", when, got)
			}
			passed := envoy{
				r:      r,
				secret: service,
			}.route(
				routed{extensions: map[string]string{"scope": "b"}, headers: headers(secret)},
			).upstream != nil
			if passed != good {
				t.Errorf("%s, Envoy: %v", when, passed)
			}
			if got := r.lookAt(secret).json["scope"]; got != effective {
				t.Errorf("%s, RFC 7662: %v, want %s", when, got, effective)
			}
			exchanged := r.exchange(secret, "audience", "api")
			if got := exchanged.json["scope"]; got != effective {
				t.Errorf("%s, exchanged: %v, want %s", when, exchanged.body, effective)
			}
			if got := r.exchange(secret, "audience", "api", "scope", "b").code == http.StatusOK; got != good {
				t.Errorf("%s, exchanged for b: %v", when, got)
			}
			self := r.rest("GET", "/v1/self", secret, "")
			var shown struct {
				Token struct {
					Scopes          []string
					EffectiveScopes []string `json:"effective_scopes"`
					PausedScopes    []string `json:"paused_scopes"`
				}
			}
			must(t, json.Unmarshal([]byte(self.body), &shown))
			if s := shown.Token; strings.Join(s.EffectiveScopes, " ") != effective ||
				strings.Join(s.PausedScopes, " ") != paused ||
				len(s.Scopes) != 3 {
				t.Errorf("%s, self: %+v", when, s)
			}
			if got := r.rest("GET", "/v1/tokens?scope=b", r.admin, ""); !strings.Contains(got.body, tok.ID.String()) {
				t.Errorf("%s, the inventory does not find it by a granted scope", when)
			}
		}
		check("paused", patdv1.IntrospectResponse_INSUFFICIENT_SCOPE, "a", "b")
		refused := r.ask("?scope=b", secret)
		if !strings.Contains(refused.header.Get("WWW-Authenticate")+refused.body, "paused") {
			t.Errorf("the refusal does not say that b is paused: %v %s", refused.header, refused.body)
		}
		rotated := r.rest("POST", path+":rotate", r.admin, `{}`)
		var next struct{ Secret string }
		must(t, json.Unmarshal([]byte(rotated.body), &next))
		secret = next.Secret
		check("rotated", patdv1.IntrospectResponse_INSUFFICIENT_SCOPE, "a", "b")
		if resumed := r.rest(
			"POST",
			path+":resumeScopes",
			r.idp.jwt(t, "u1"),
			`{"scopes":["b"]}`,
		); resumed.code != http.StatusOK {
			t.Fatalf("resume: %d %s", resumed.code, resumed.body)
		}
		check("resumed", patdv1.IntrospectResponse_ALLOW, "a b", "")
	})
}

func TestUnusedScopesOfManyTokensArePaused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	service := r.service("gateway", "introspect")
	type made struct {
		tok    tokens.Token
		secret string
	}
	minted := map[string]made{}
	for _, name := range []string{"used", "later", "unscoped", "never", "other"} {
		team := map[string]string{"team": "infra"}
		if name == "other" {
			team = nil
		}
		tok, secret := r.pat(tokens.MintRequest{User: "u1", Name: name, Labels: team}, "a", "b")
		minted[name] = made{tok, secret}
	}
	r.required(t, service, minted["used"].secret, "a")
	r.required(t, service, minted["later"].secret, "a")
	r.required(t, service, minted["unscoped"].secret)
	ask := func(body string, code int) (got struct {
		Count         string
		ScopeCount    string `json:"scope_count"`
		UnscopedCount string `json:"unscoped_count"`
		NotRecorded   string `json:"not_recorded_count"`
		Narrowed      string `json:"narrowed_count"`
		Paused        string `json:"paused_scope_count"`
		Plan          string
		Done          bool
	}, reason string) {
		t.Helper()
		a := r.rest("POST", "/v1/tokens:narrow", r.admin, body)
		if a.code != code {
			t.Fatalf("%s: %d %s", body, a.code, a.body)
		}
		must(t, json.Unmarshal([]byte(a.body), &got))
		reason, _ = a.reason()
		return got, reason
	}
	const filter = `"filter":{"label":{"team":"infra"}}`
	plan, _ := ask(`{`+filter+`,"dry_run":true}`, http.StatusOK)
	if plan.Count != "3" || plan.ScopeCount != "4" || plan.UnscopedCount != "1" || plan.NotRecorded != "0" ||
		plan.Done {
		t.Fatalf("the plan: %+v", plan)
	}
	if young, _ := ask(
		`{`+filter+`,"unused_for":"90d","dry_run":true}`,
		http.StatusOK,
	); young.Count != "0" ||
		young.NotRecorded != "4" {
		t.Errorf("tokens of today were not used for 90 days: %+v", young)
	}
	for body, want := range map[string]string{
		`{"dry_run":true}`: "FILTER_REQUIRED",
		`{` + filter + `}`: "PLAN_REQUIRED",
		`{"filter":{"user":"u1"},"plan":"` + plan.Plan + `"}`:                 "PLAN_INVALID",
		`{` + filter + `,"include_unscoped":true,"plan":"` + plan.Plan + `"}`: "PLAN_INVALID",
		`{` + filter + `,"unused_for":"1h","dry_run":true}`:                   "UNUSED_FOR_INVALID",
	} {
		if _, reason := ask(body, http.StatusBadRequest); reason != want {
			t.Errorf("%s: %s, want %s", body, reason, want)
		}
	}
	r.required(t, service, minted["later"].secret, "b") // after the plan: it is left alone
	done, _ := ask(`{`+filter+`,"plan":"`+plan.Plan+`"}`, http.StatusOK)
	must(t, r.store.FlushUses(t.Context(), nil))
	if !done.Done {
		t.Fatalf("the narrowing: %+v", done)
	}
	if again, _ := ask(`{`+filter+`,"plan":"`+plan.Plan+`"}`, http.StatusOK); again != done {
		t.Errorf("repeated: %+v, was %+v", again, done)
	}
	for name, want := range map[string]string{"used": "b", "later": "", "unscoped": "", "never": "a b", "other": ""} {
		if got := strings.Join(r.token(t, "u1", minted[name].tok.ID.String()).GetPausedScopes(), " "); got != want {
			t.Errorf("%s: paused %q, want %q", name, got, want)
		}
	}
	events := r.rest("GET", "/v1/events?action=token.narrow_matching", r.admin, "")
	if strings.Count(events.body, `"event_id"`) != 1 || !strings.Contains(events.body, "label.team=infra") {
		t.Errorf("events: %s", events.body)
	}
}
