package server_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/waittest"
	"patd/tokens"
)

// way is one way to ask about a token at an audience, and reports whether the token is good there.
type way struct {
	name string
	good func(secret string) bool
}

// ways are all of them, for the audience api: a caller that asks for it, and one that is bound to it.
func (r *rig) ways(t *testing.T) []way {
	t.Helper()
	unbound := r.service("gw", "introspect")
	m, err := r.svc.CreateService(
		t.Context(),
		tokens.Operator(),
		tokens.ServiceRequest{Name: "bound", Permissions: []string{"introspect"}, Audience: "api"},
	)
	must(t, err)
	bound := m.Secret.Reveal()
	rpc := patdv1.NewIntrospectionServiceClient(r.conn)
	all := []way{
		{"forward-auth", func(secret string) bool { return r.ask("?audience=api", secret).code == http.StatusOK }},
		{"ext_authz", func(secret string) bool {
			return envoy{
				r:      r,
				secret: unbound,
			}.route(
				routed{extensions: map[string]string{"audience": "api"}, headers: headers(secret)},
			).upstream != nil
		}},
		{"ext_authz, bound", func(secret string) bool {
			return envoy{r: r, secret: bound}.route(routed{headers: headers(secret)}).upstream != nil
		}},
		{"RFC 7662, bound", func(secret string) bool {
			return r.oauth("/oauth2/introspect", formOf("token", secret), basic("bound", bound)...).json["active"] == true
		}},
	}
	for _, by := range []struct{ name, secret, audience string }{{"asking for it", unbound, "api"}, {"bound to it", bound, ""}} {
		request := func(secret string) *patdv1.IntrospectRequest {
			return &patdv1.IntrospectRequest{Token: secret, Audience: by.audience}
		}
		stream := r.open(by.secret)
		all = append(all,
			way{"unary, " + by.name, func(secret string) bool {
				resp, err := rpc.Introspect(as(by.secret), request(secret))
				must(t, err)
				return resp.GetActive()
			}},
			way{"batch, " + by.name, func(secret string) bool {
				resp, err := rpc.BatchIntrospect(
					as(by.secret),
					&patdv1.BatchIntrospectRequest{
						Requests: []*patdv1.IntrospectRequest{request("x"), request(secret)},
					},
				)
				must(t, err)
				return resp.GetResponses()[1].GetActive()
			}},
			way{"stream, " + by.name, func(secret string) bool {
				must(t, stream.Send(&patdv1.IntrospectStreamRequest{Id: 1, Request: request(secret)}))
				return answered(t, stream).GetResponse().GetActive()
			}},
			way{"REST, " + by.name, func(secret string) bool {
				return strings.Contains(
					r.rest(
						"POST",
						"/v1/introspect",
						by.secret,
						fmt.Sprintf(`{"token":%q,"audience":%q}`, secret, by.audience),
					).body,
					`"active":true`,
				)
			}},
			way{"REST of a batch, " + by.name, func(secret string) bool {
				body := fmt.Sprintf(`{"requests":[{"token":%q,"audience":%q}]}`, secret, by.audience)
				return strings.Contains(r.rest("POST", "/v1/introspect:batch", by.secret, body).body, `"active":true`)
			}},
		)
	}
	return all
}

// library is a verifier of the client library, with a service token.
func (r *rig) library(t *testing.T, secret string) *client.Verifier {
	t.Helper()
	conn, err := client.Dial(
		r.srv.GRPCAddr(),
		client.ServiceToken(func(context.Context) (string, error) { return secret, nil }),
	)
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	v, err := client.New(conn, client.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	return v
}

func TestAnAudienceThatMustBeNamedIsClosedAtEveryDoor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	api := tokens.AudienceEntry{ID: "api", Resource: "https://api.example", AccessFormat: tokens.AccessOpaque}
	r.audience(api)
	secrets := map[string]string{}
	_, secrets["names none"] = r.pat(tokens.MintRequest{User: "u1", Name: "free"}, "a")
	_, secrets["names it"] = r.pat(tokens.MintRequest{User: "u1", Name: "named", Audiences: []string{"api"}}, "a")
	_, secrets["names another"] = r.pat(
		tokens.MintRequest{User: "u1", Name: "other", Audiences: []string{"other"}},
		"a",
	)
	came := r.exchange(secrets["names none"], "audience", "api")
	if came.text("access_token") == "" {
		t.Fatalf("exchange: %d %s", came.code, came.body)
	}
	secrets["came of one that names none"] = came.text("access_token")
	ctx := t.Context()
	libraries := map[string]*client.Verifier{"asking for it": r.library(t, r.service("lib", "introspect"))}
	m, err := r.svc.CreateService(
		ctx,
		tokens.Operator(),
		tokens.ServiceRequest{Name: "boundlib", Permissions: []string{"introspect"}, Audience: "api"},
	)
	must(t, err)
	libraries["bound to it"] = r.library(t, m.Secret.Reveal())
	ways := r.ways(t)
	for _, required := range []bool{false, true, false} {
		api.RequireNamed = required
		_, err := r.svc.ReplaceAudience(ctx, tokens.Operator(), api)
		must(t, err)
		want := map[string]bool{
			"names none":                  !required,
			"came of one that names none": !required,
			"names it":                    true,
			"names another":               false,
		}
		for _, d := range ways {
			for token, good := range want {
				if got := d.good(secrets[token]); got != good {
					t.Errorf("require_named %t, %s: a token that %s is good: %t", required, d.name, token, got)
				}
			}
		}
		for name, v := range libraries {
			call := client.Call{}
			if name == "asking for it" {
				call.Audience = "api"
			}
			waittest.Until(t, "the client library, "+name+", follows", func() bool {
				for token, good := range want {
					if got, err := v.Verify(ctx, secrets[token], call); err != nil || got.Decision.Active() != good {
						return false
					}
				}
				return true
			})
			waittest.Until(t, "the client library, "+name+", answers from its cache", func() bool {
				before := v.Stats().Hits
				got, err := v.Verify(ctx, secrets["names it"], call)
				return err == nil && got.Allowed() && v.Stats().Hits > before
			})
		}
	}
}
