package webhook_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"patd/internal/servicetest"
	"patd/server/webhook"
	"patd/tokens"
	"patd/tokens/secret"
)

// schemas are those that are served, compiled.
func schemas(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	var served struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	}
	must(t, json.Unmarshal(webhook.Schemas(), &served))
	compiled := map[string]*jsonschema.Schema{}
	for name, text := range served.Schemas {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		must(t, err)
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		must(t, c.AddResource("urn:"+name, doc))
		compiled[name], err = c.Compile("urn:" + name)
		must(t, err)
	}
	return compiled
}

func TestEachTypeHasASchema(t *testing.T) {
	t.Parallel()
	want := slices.Sorted(slices.Values(append(tokens.WebhookTypes(), tokens.WebhookTest)))
	if got := slices.Sorted(maps.Keys(schemas(t))); !slices.Equal(got, want) {
		t.Errorf("there are schemas of %v; want %v", got, want)
	}
}

const confidential = "the reason is nobody's business"

// everything has each use case happen that is sent, and some that are not.
func (r *rig) everything() (tok tokens.Token) {
	ctx, op := r.t.Context(), tokens.Operator()
	did := func(_ any, err error) { r.t.Helper(); must(r.t, err) }
	did(r.svc.CreateAudience(ctx, op, tokens.AudienceEntry{ID: "api", MaxTTL: 30 * tokens.Day}))
	tok = r.mint("alice", "nightly", func(q *tokens.MintRequest) {
		q.Description, q.Labels, q.Audiences = confidential, map[string]string{"team": "finance"}, []string{"api"}
		q.Scopes = []string{"a", "b"}
	})
	id := tok.ID.String()
	less := []string{"a"}
	did(r.svc.UpdateToken(ctx, op, "alice", id, tokens.TokenChange{Scopes: &less, Description: new(string)}))
	rotated, err := r.svc.Rotate(ctx, op, tokens.RotateRequest{User: "alice", TokenID: id})
	must(r.t, err)
	did(r.svc.ReplaceAudience(ctx, op, tokens.AudienceEntry{ID: "api", MaxTTL: tokens.Day, DefaultTTL: tokens.Day}))
	did(r.svc.SuspendUser(ctx, op, "alice", confidential))
	did(r.svc.ResumeUser(ctx, op, "alice", confidential))
	pause(time.Second) // the counts of tokens are those of when the message is made
	r.hold("alice", "b", "c")
	pause(time.Second)
	r.st.RecordUse(
		tokens.Usage{
			ID:      tok.ID,
			Use:     tokens.Use{Time: r.now(), IP: netip.MustParseAddr("192.0.2.9")},
			Scopes:  []string{"a"},
			Service: "gateway",
		},
	)
	must(r.t, r.st.FlushUses(ctx, nil))
	service, err := r.svc.CreateService(
		ctx,
		op,
		tokens.ServiceRequest{Name: "backend", Permissions: []string{"introspect"}, Audience: "api"},
	)
	must(r.t, err)
	replaced, err := r.svc.RotateService(ctx, op, tokens.RotateServiceRequest{Name: "backend"})
	must(r.t, err)
	r.secrets = append(r.secrets, rotated.Secret, service.Secret, replaced.Secret)
	did(r.svc.RevokeService(ctx, op, "backend", confidential))
	r.mint("alice", "other")
	did(r.svc.DeleteUser(ctx, op, "alice", confidential))
	must(r.t, r.svc.DeleteAudience(ctx, op, "api"))
	for _, e := range []tokens.SecurityEvent{
		{ID: "1", Types: []string{"account-disabled", "session-revoked"}, Action: tokens.SecuritySuspend | tokens.SecurityRevoke},
		{ID: "2", Types: []string{"session-revoked"}, Action: tokens.SecurityEndSessions},
	} {
		e.Issuer, e.IssueTime, e.User = "https://idp.example.com", r.now(), "dora"
		must(r.t, r.svc.TakeSecurityEvent(ctx, tokens.Peer{}, e))
	}
	for _, e := range []tokens.Event{
		{Action: tokens.ActionTokenSupersededUse, User: "alice", TokenID: tok.ID, Outcome: tokens.OutcomeRefused, Detail: "secret 1 of 2, presented to service:backend"},
		{Action: tokens.ActionTokenLeaked, User: "alice", TokenID: tok.ID, Detail: tokens.Leak{
			What: "token", By: "github", Place: "commit", URL: "https://github.com/acme/app", Effective: []string{"a"},
			LastUsed: tokens.Use{Time: r.now(), IP: netip.MustParseAddr("192.0.2.7")},
		}.String()},
		{Action: tokens.ActionTokenBlock, User: "alice", TokenID: tok.ID, Detail: "audience api: " + confidential},
		{Action: tokens.ActionTokenScopesRemoved, User: "alice", TokenID: tok.ID, Detail: "scopes -b"},
		{Action: tokens.ActionTokenUnblock, User: "alice", TokenID: tok.ID, Detail: "audience api"},
		{Action: tokens.ActionUserSecurityEvent, User: "alice", Detail: "session-revoked"}, // by an earlier version
		{Action: tokens.ActionUserSecurityEvent, User: "alice", Outcome: tokens.OutcomeRefused, Reason: "EVENT_REPLAYED"},
		{Action: tokens.ActionKeyAdd, Detail: "k2"},
		{Action: tokens.ActionWebhookDisable, Detail: "wh7 GONE"},
		{Action: tokens.ActionTokenRevoke, User: "alice", TokenID: tok.ID, Outcome: tokens.OutcomeRefused, Reason: "PERMISSION_DENIED"},
		{Action: tokens.ActionTokenRevokeAll, User: "alice", Detail: "2 revoked: " + confidential},
		{Action: tokens.ActionSessionCreate, User: "alice"},
		{Action: tokens.ActionFeatureCreate, Detail: "a"},
	} {
		r.happened(e)
	}
	return tok
}

// happened writes an event to the audit log.
func (r *rig) happened(e tokens.Event) {
	r.t.Helper()
	if e.Outcome == 0 {
		e.Outcome = tokens.OutcomeSuccess
	}
	e.Time, e.Actor = r.now(), "operator"
	must(
		r.t,
		told{
			r.st,
			r,
		}.Update(
			context.Background(),
			func(tokens.Tx) ([]tokens.Event, error) { return []tokens.Event{e}, nil },
		),
	)
}

func TestMessagesAreAsTheirSchemasSay(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokens.WebhookFilter{})
		r.engine("one")
		tok := r.everything()
		pause(5 * time.Second)
		compiled, byType := schemas(t), map[string][]received{}
		for _, m := range r.at(hook) {
			byType[m.Type] = append(byType[m.Type], m)
			doc, err := jsonschema.UnmarshalJSON(strings.NewReader(m.Body))
			must(t, err)
			if s := compiled[m.Type]; s == nil {
				t.Errorf("%s has no schema", m.Type)
			} else if err := s.Validate(doc); err != nil {
				t.Errorf("%s: %v\n%s", m.Type, err, m.Body)
			}
			for _, text := range []string{confidential, secretA} {
				if strings.Contains(m.Body, text) {
					t.Errorf("%s says %q: %s", m.Type, text, m.Body)
				}
			}
		}
		for _, want := range []struct {
			kind  string
			count int
			data  string // of the first
		}{
			{"token.created", 2, `"name":"nightly"`},
			{"token.updated", 2, `"changed":["scopes","description"]`},
			{"token.rotated", 1, `"token_id":"` + tok.ID.String() + `"`},
			{"token.revoked", 2, `"user":"alice"`},
			{"token.superseded_use", 1, `"presented_to":"backend"`},
			{"token.leaked", 1, `"url":"https://github.com/acme/app","effective_scopes":["a"]`},
			{"token.leaked", 1, `"use_sources":[{"ip":"192.0.2.9","service":"gateway","time":"`},
			{"token.blocked", 1, `"blocked_by":[`},
			{"token.unblocked", 1, `"audiences":["api"]`},
			{"user.suspended", 2, `"user":"alice"`},
			{"user.resumed", 1, `"user":"alice"`},
			{"user.deleted", 1, `"user":"alice"`},
			{"user.security_event", 3, `"actor":"issuer:https://idp.example.com","user":"dora","events":["account-disabled","session-revoked"],"actions":["suspend","revoke"]`},
			{"service.created", 1, `"permissions":["introspect"]`},
			{"service.rotated", 1, `"audience":"api"`},
			{"service.revoked", 1, `"service":"backend"`},
			{"key.rotated", 1, `"key":"k2"`},
			{"audience.changed", 3, `"change":"created"`},
			{"webhook.disabled", 1, `"webhook_id":"wh7","reason":"GONE"`},
		} {
			got := byType[want.kind]
			if len(got) != want.count {
				t.Errorf("%d messages of type %s; want %d", len(got), want.kind, want.count)
			} else if !strings.Contains(got[0].Body, want.data) {
				t.Errorf("%s lacks %s: %s", want.kind, want.data, got[0].Body)
			}
		}
		lost := byType["user.features_changed"][1]
		if !strings.Contains(
			lost.Body,
			`"suspended":[{"scope":"a","tokens":1}],"restored":[{"scope":"c","tokens":0}]`,
		) {
			t.Errorf("the change of features is %s", lost.Body)
		}
	})
}

func TestFiltersSelectWhatMatchesAllOfThem(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		filters := map[string]tokens.WebhookFilter{
			"types":     {Types: []string{"user.deleted", "token.created"}},
			"users":     {Users: []string{"alice"}},
			"audiences": {Audiences: []string{"api", "billing"}},
			"labels":    {Labels: map[string]string{"team": "finance", "env": "prod"}},
			"all": {
				Users:     []string{"alice", "bob"},
				Audiences: []string{"api"},
				Labels:    map[string]string{"team": "finance"},
			},
		}
		for i, name := range slices.Sorted(maps.Keys(filters)) {
			r.add(tokens.ID(i+1), name, filters[name])
		}
		r.engine("one")
		mint := func(user, name string, audiences []string, labels map[string]string) {
			r.mint(user, name, func(q *tokens.MintRequest) { q.Audiences, q.Labels = audiences, labels })
		}
		finance := map[string]string{"team": "finance"}
		mint("alice", "1", nil, nil)
		mint("alice", "2", []string{"api"}, finance)
		mint("bob", "3", []string{"api", "web"}, map[string]string{"team": "finance", "env": "prod"})
		mint("bob", "4", []string{"web"}, finance)
		mint("carol", "5", []string{"api"}, finance)
		_, err := r.svc.CreateService(
			t.Context(),
			tokens.Operator(),
			tokens.ServiceRequest{Name: "bound", Permissions: []string{"introspect"}, Audience: "billing"},
		)
		must(t, err)
		_, err = r.svc.CreateAudience(t.Context(), tokens.Operator(), tokens.AudienceEntry{ID: "billing"})
		must(t, err)
		r.happened(tokens.Event{Action: tokens.ActionKeyAdd, Detail: "k2"})
		_, err = r.svc.DeleteUser(t.Context(), tokens.Operator(), "alice", "")
		must(t, err)
		pause(5 * time.Second)
		for name, want := range map[string]string{
			"types":     "created:1 created:2 created:3 created:4 created:5 deleted:alice",
			"users":     "created:1 created:2 deleted:alice features_changed:alice revoked:1 revoked:2",
			"audiences": "changed:billing created:2 created:3 created:5 created:bound revoked:2",
			"labels":    "created:3",
			"all":       "created:2 created:3 revoked:2",
		} {
			var got []string
			for _, m := range r.at(name) {
				about := m.Data["name"]
				for _, field := range []string{"audience", "user", "service"} {
					if v, ok := m.Data[field]; ok && about == nil {
						about = v
					}
				}
				if s, ok := m.Data["service"]; ok {
					about = s
				}
				_, verb, _ := strings.Cut(m.Type, ".")
				got = append(got, fmt.Sprint(verb, ":", about))
			}
			slices.Sort(got)
			if text := strings.Join(got, " "); text != want {
				t.Errorf("the filter of %s selects %s; want %s", name, text, want)
			}
		}
	})
}

// TestNoSecretIsInAMessageOrTheLog has everything happen that is sent, with endpoints that accept and that fail, and
// looks for each secret that was made, for what is stored of it, and for the secret that signs.
func TestNoSecretIsInAMessageOrTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokens.WebhookFilter{})
		r.add(2, other, tokens.WebhookFilter{})
		r.answer(other, func(context.Context, received) webhook.Outcome { return status(500) })
		dying := &mortal{Store: r.st}
		_, stop := r.engineOn(dying, "one")
		r.everything()
		pause(time.Minute)
		r.answer(other, func(context.Context, received) webhook.Outcome { return status(410) })
		pause(time.Minute)
		dying.dead.Store(true) // its failures are logged
		r.mint("bob", "last")
		pause(time.Minute)
		stop()
		keys, err := secret.ParseKeys(servicetest.KeyLine)
		must(t, err)
		marks := []string{
			secretA,
			strings.TrimPrefix(secretA, "whsec_"),
			strings.TrimPrefix(servicetest.KeyLine, "k1:"),
		}
		for _, s := range r.secrets {
			text, sum := s.Reveal(), keys.Digest(s).Sum
			_, tail, _ := strings.Cut(text, "_")
			_, tail, _ = strings.Cut(tail, "_")
			marks = append(
				marks,
				text,
				tail[:43],
				base64.StdEncoding.EncodeToString([]byte(text))[:40],
				hex.EncodeToString(sum[:]),
				base64.StdEncoding.EncodeToString(
					sum[:],
				),
				base64.RawURLEncoding.EncodeToString(sum[:]),
				fmt.Sprint(sum),
			)
		}
		if len(r.secrets) < 6 || len(r.at(hook)) < 20 || !strings.Contains(r.logs.String(), errDead.Error()) ||
			!strings.Contains(r.logs.String(), "disabled") {
			t.Fatalf("too little happened: %d secrets, %d messages\n%s", len(r.secrets), len(r.at(hook)), r.logs)
		}
		for _, m := range append(r.at(hook), r.at(other)...) {
			for i, mark := range marks {
				if strings.Contains(m.Body, mark) || strings.Contains(m.ID, mark) {
					t.Errorf("%s holds form %d of a secret: %s", m.Type, i, m.Body)
				}
			}
		}
		for i, mark := range marks {
			if strings.Contains(r.logs.String(), mark) {
				t.Errorf("the log holds form %d of a secret", i)
			}
		}
		if strings.Contains(r.logs.String(), "hooks.example.com") {
			t.Error("the log holds the URL of an endpoint, which may be confidential")
		}
	})
}
