package server_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// inventoried mints tokens of several users, and returns their ids by name.
func inventoried(r *rig) map[string]string {
	ids := map[string]string{}
	for _, m := range []tokens.MintRequest{
		{User: "u1", Name: "a", Labels: map[string]string{"team": "infra", "a.b": "x=y"}, Audiences: []string{"api"}},
		{User: "u1", Name: "b", Labels: map[string]string{"team": "web"}, Scopes: []string{"reports.read"}},
		{User: "u2", Name: "c", Labels: map[string]string{"team": "infra"}, Lifetime: tokens.Lifetime{Never: true}},
		{User: "u3", Name: "CI deploy"},
	} {
		r.features(m.User, "reports.read", "queries.read")
		if m.Scopes == nil {
			m.Scopes = []string{"queries.read"}
		}
		minted, err := r.svc.Mint(r.t.Context(), tokens.Operator(), m)
		must(r.t, err)
		ids[m.Name] = minted.Token.ID.String()
		r.wait(time.Hour)
	}
	return ids
}

func names(t *testing.T, body string) []string {
	t.Helper()
	var page struct{ Tokens []struct{ Name, User string } }
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	list := []string{}
	for _, tok := range page.Tokens {
		list = append(list, tok.Name)
	}
	return list
}

func TestInventoryFindsTokensOfAllUsers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	began := r.now()
	ids := inventoried(r)
	_, err := r.svc.Revoke(t.Context(), tokens.Operator(), "u1", ids["b"], "")
	must(t, err)
	secret := r.service("ops", "tokens")
	at := func(d time.Duration) string { return url.QueryEscape(began.Add(d).UTC().Format(time.RFC3339Nano)) }
	for query, want := range map[string]string{
		"":                                       "CI deploy,c,b,a",
		"user=u1":                                "b,a",
		"user=nobody":                            "",
		"state=ACTIVE":                           "CI deploy,c,a",
		"state=REVOKED":                          "b",
		"scope=reports.read":                     "b",
		"audience=api":                           "a",
		"label.team=infra":                       "c,a",
		"label.team=infra&label.a.b=x%3Dy":       "a",
		"label.team=inf":                         "",
		"q=DEP":                                  "CI deploy",
		"q=" + ids["c"]:                          "c",
		"order=issue_time":                       "a,b,c,CI deploy",
		"order=expire_time":                      "a,b,CI deploy,c",
		"order=-expire_time":                     "c,CI deploy,b,a",
		"created_before=" + at(90*time.Minute):   "b,a",
		"unused_since=" + at(30*time.Minute):     "a",
		"expires_before=" + at(181*24*time.Hour): "CI deploy,b,a",
		"user=u1&state=ACTIVE&order=expire_time": "a",
	} {
		got := r.rest("GET", "/v1/tokens?"+query, secret, "")
		if got.code != http.StatusOK || strings.Join(names(t, got.body), ",") != want {
			t.Errorf("%s: %d %s; want %s", query, got.code, got.body, want)
		}
	}
	resp, err := patdv1.NewInventoryServiceClient(r.conn).SearchTokens(as(secret), &patdv1.SearchTokensRequest{
		Label: map[string]string{"team": "infra"}, CreatedBefore: timestamppb.New(began.Add(time.Minute)),
	})
	if err != nil || len(resp.GetTokens()) != 1 || resp.GetTokens()[0].GetUser() != "u1" {
		t.Errorf("over gRPC: %v, %v", resp, err)
	}
}

func TestInventoryIsPagedAndLinksTheNextPage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	inventoried(r)
	for _, query := range []string{"", "&order=expire_time", "&user=u1", "&label.team=infra&order=-expire_time"} {
		whole := names(t, r.rest("GET", "/v1/tokens?page_size=200"+query, r.admin, "").body)
		var paged []string
		for path := "/v1/tokens?page_size=1" + query; path != ""; {
			got := r.rest("GET", path, r.admin, "")
			paged = append(paged, names(t, got.body)...)
			path, _, _ = strings.Cut(got.header.Get("Link"), ">")
			if at := strings.Index(path, "/v1/"); at >= 0 {
				path = path[at:]
			}
		}
		if len(whole) == 0 || !slices.Equal(paged, whole) {
			t.Errorf("%s: by pages %v; at once %v", query, paged, whole)
		}
	}
	first := r.rest("GET", "/v1/tokens?page_size=1", r.admin, "")
	var page struct {
		Next string `json:"next_page_token"`
	}
	must(t, json.Unmarshal([]byte(first.body), &page))
	for _, other := range []string{"&order=issue_time", "&q=a", "&state=ACTIVE"} {
		got := r.rest("GET", "/v1/tokens?page_token="+page.Next+other, r.admin, "")
		if reason, _ := got.reason(); reason != "PAGE_TOKEN_INVALID" {
			t.Errorf("the next page of another query, %s: %d %s", other, got.code, got.body)
		}
	}
}

func TestInventoryRefusesMalformedFilters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for query, want := range map[string]string{
		"lable.team=infra":                    "QUERY_UNKNOWN lable",
		"label=team":                          "QUERY_UNKNOWN label",
		"label.team=a&label.team=b":           "QUERY_INVALID label",
		"label.=a":                            "LABEL_INVALID labels",
		"order=name":                          "ORDER_UNKNOWN order",
		"state=LIVE":                          "QUERY_INVALID state",
		"created_before=yesterday":            "QUERY_INVALID created_before",
		"created_before=0001-01-01T00:00:00Z": "TIME_INVALID created_before",
		"user=me":                             "USER_INVALID user",
		"scope=a%20b":                         "SCOPE_INVALID scope[0]",
		"audience=a%20b":                      "AUDIENCE_INVALID audience",
		"label.a=1&label.b=1&label.c=1&label.d=1&label.e=1": "TOO_MANY_LABELS labels",
	} {
		got := r.rest("GET", "/v1/tokens?"+query, r.admin, "")
		if reason, field := got.reason(); got.code != http.StatusBadRequest || reason+" "+field != want {
			t.Errorf("%s: %d %s; want %s", query, got.code, got.body, want)
		}
	}
}
