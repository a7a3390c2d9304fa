package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

const impactPath = "/v1/features:impact"

// TestAnImpactIsSaidBeforeAnybodyChangesAnything asks over REST in each form, and over gRPC.
func TestAnImpactIsSaidBeforeAnybodyChangesAnything(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tok, secret := r.pat(tokens.MintRequest{User: "u1", Name: "both"}, "a", "b")
	r.pat(tokens.MintRequest{User: "u1", Name: "one"}, "b")
	r.pat(tokens.MintRequest{User: "u2", Name: "one"}, "b")
	r.features("u1", "a", "b")
	asked, err := patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret, RequiredScopes: []string{"a"}})
	if err != nil || asked.GetDecision() != patdv1.IntrospectResponse_ALLOW {
		t.Fatal(asked, err)
	}
	must(t, r.faulty.Flush(t.Context()))
	for _, body := range []string{`{"lose":["a","x"],"users":"all"}`, `{"lose":["a","x"],"all":true,"used_within":"30d"}`, `{"lose":["a","x"],"users":["u1","u3"]}`} {
		got := r.rest("POST", impactPath, r.admin, body)
		var found struct {
			TokenCount string `json:"token_count"`
			UserCount  string `json:"user_count"`
			Features   []struct {
				Feature    string
				TokenCount string `json:"token_count"`
			}
			Users []struct {
				User     string
				Features []string
				Tokens   []struct {
					TokenID      string `json:"token_id"`
					RecentlyUsed bool   `json:"recently_used"`
					UseUnknown   bool   `json:"use_unknown"`
				}
			}
			UseBasis     string `json:"use_basis"`
			UnknownCount string `json:"unknown_use_token_count"`
		}
		if err := json.Unmarshal([]byte(got.body), &found); err != nil || got.code != http.StatusOK {
			t.Fatalf("%s: %d %s", body, got.code, got.body)
		}
		if found.TokenCount != "1" || found.UserCount != "1" || len(found.Features) != 2 ||
			found.Features[0].TokenCount != "1" ||
			found.Features[1].TokenCount != "0" ||
			len(found.Users) != 1 ||
			found.Users[0].User != "u1" ||
			found.Users[0].Tokens[0].TokenID != tok.ID.String() ||
			!found.Users[0].Tokens[0].RecentlyUsed ||
			found.UseBasis != "SCOPE" ||
			found.Users[0].Tokens[0].UseUnknown ||
			found.UnknownCount != "0" {
			t.Errorf("%s: %s", body, got.body)
		}
	}
	resp, err := patdv1.NewCatalogServiceClient(r.conn).
		GetFeatureImpact(as(r.service("people", "users")), &patdv1.GetFeatureImpactRequest{Lose: []string{"b"}, All: true, Limit: 1})
	if err != nil || resp.GetTokenCount() != 3 || resp.GetUserCount() != 2 || len(resp.GetUsers()) != 1 ||
		resp.GetAfter() == "" {
		t.Errorf("over gRPC: %v %v", resp, err)
	}
	if got := r.rest("GET", "/v1/users/u1/features", r.admin, ""); !strings.Contains(got.body, `"a"`) {
		t.Errorf("it changed something: %s", got.body)
	}
	for body, reason := range map[string]string{
		`{"lose":["a"]}`: "USERS_REQUIRED", `{"all":true}`: "SCOPES_REQUIRED", `{"lose":["a"],"all":true,"used_within":"0s"}`: "DURATION_OUT_OF_RANGE",
		`{"lose":["a"],"users":"some"}`: "JSON_INVALID", `{"lose":["a"],"users":"all","all":false}`: "JSON_INVALID", `{"lose":["a"],"users":"all","more":1}`: "FIELD_UNKNOWN",
	} {
		got := r.rest("POST", impactPath, r.admin, body)
		if is, _ := got.reason(); got.code != http.StatusBadRequest || is != reason {
			t.Errorf("%s: %d %s, want %s", body, got.code, got.body, reason)
		}
	}
}
