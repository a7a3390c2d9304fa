package tokens_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"patd/tokens"
	"patd/tokens/secret"
)

// lost are ids that a URL library or a proxy folds away.
var lost = []string{
	".", "..", "%2E", "%2e", ".%2e", "%2E%2E", "%252e%252E", "a/..", "a/../b", "../b", "a/./b", `a\..\b`, "a%2F..%2Fb",
	"https://api.example/v1/../admin", "%" + strings.Repeat("25", 300) + "2e",
}

// kept are ids that nothing folds away.
var kept = []string{
	"a",
	"...",
	".a",
	"a.",
	"a..b",
	"reports.read",
	"/",
	"//",
	"a//b",
	"%",
	"100%",
	"%2",
	"%zz",
	"a%2Fb",
	"https://api.example/v1/",
	"auth0|1",
	"..a/b..",
	"%2E%2E%2E",
	"~",
	"a:..",
	"..:suspend",
}

func TestIDsThatAreLostInURLsAreKnown(t *testing.T) {
	t.Parallel()
	for _, id := range lost {
		if !tokens.LostInPath(id) {
			t.Errorf("%.40q is lost, and is not known to be", id)
		}
	}
	for _, id := range kept {
		if tokens.LostInPath(id) {
			t.Errorf("%.40q is not lost", id)
		}
	}
}

// TestIDsThatAreLostInURLsDoNotEnter tries each way by which an id gets into the store.
func TestIDsThatAreLostInURLsDoNotEnter(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	mint := func(r tokens.MintRequest) error {
		r.Name = "n"
		_, err := h.Mint(ctx, admin, r)
		return err
	}
	ways := map[string]func(id string) error{
		"USER_INVALID suspend": func(id string) error { _, err := h.SuspendUser(ctx, admin, id, ""); return err },
		"USER_INVALID set":     func(id string) error { _, err := h.SetUserFeatures(ctx, admin, id, []string{"a"}); return err },
		"USER_INVALID update":  func(id string) error { _, err := h.UpdateUserFeatures(ctx, admin, id, []string{"a"}, nil); return err },
		"USER_INVALID mint":    func(id string) error { return mint(tokens.MintRequest{User: id, Scopes: []string{"a"}}) },
		"SCOPE_INVALID set":    func(id string) error { _, err := h.SetUserFeatures(ctx, admin, "u2", []string{id}); return err },
		"SCOPE_INVALID update": func(id string) error { _, err := h.UpdateUserFeatures(ctx, admin, "u2", []string{id}, nil); return err },
		"SCOPE_INVALID mint":   func(id string) error { return mint(tokens.MintRequest{User: "u1", Scopes: []string{"a", id}}) },
		"SCOPE_INVALID catalog": func(id string) error {
			_, err := h.CreateFeature(ctx, admin, tokens.FeatureEntry{Name: id})
			return err
		},
		"AUDIENCE_INVALID catalog": func(id string) error {
			_, err := h.CreateAudience(ctx, admin, tokens.AudienceEntry{ID: id})
			return err
		},
		"AUDIENCE_INVALID mint": func(id string) error {
			return mint(tokens.MintRequest{User: "u1", Scopes: []string{"a"}, Audiences: []string{id}})
		},
		"AUDIENCE_INVALID service": func(id string) error {
			_, err := h.CreateService(
				ctx,
				admin,
				tokens.ServiceRequest{Name: "s", Permissions: []string{"introspect"}, Audience: id},
			)
			return err
		},
		"SERVICE_NAME_INVALID service": func(id string) error {
			_, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: id, Permissions: []string{"introspect"}})
			return err
		},
	}
	for way, enter := range ways {
		want, _, _ := strings.Cut(way, " ")
		for _, id := range lost {
			wantReason(t, enter(id), want, way+" "+id)
		}
		if want == "USER_INVALID" {
			wantReason(t, enter(" \t\u00a0\u3000"[:1]), want, way+" of white space")
			wantReason(t, enter("\u00a0\u3000"), want, way+" of white space")
		}
	}
	if users, _, err := h.Users(ctx, admin, tokens.UserFilter{}, tokens.Page{}); err != nil || len(users) != 1 {
		t.Errorf("users %v, %v", users, err)
	}
}

// TestStoredIDsThatURLsLoseCanBeReadAndEnded is about stores from before such ids were refused.
func TestStoredIDsThatURLsLoseCanBeReadAndEnded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const id = ".."
	s := tokens.Secret{}
	err := h.store.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		u := tokens.User{ID: id, State: tokens.UserActive, CreateTime: noon, Features: []string{id, "a"}}
		var err error
		if u.Key, err = tx.InsertUser(u); err != nil {
			return nil, err
		}
		tok := tokens.Token{
			ID:         77,
			User:       id,
			UserKey:    u.Key,
			Name:       "n",
			Scopes:     []string{id, "a"},
			Audiences:  []string{id},
			IssueTime:  noon,
			ExpireTime: noon.Add(999 * time.Hour * 24),
		}
		if s, err = secret.Mint("pat", tok.ID, zeros{}); err != nil {
			return nil, err
		}
		if err := tx.InsertToken(tok, h.ring.Get().Digest(s)); err != nil {
			return nil, err
		}
		if err := tx.InsertFeature(tokens.FeatureEntry{Name: id, Consent: tokens.ConsentImplicit}); err != nil {
			return nil, err
		}
		if err := tx.InsertAudience(
			tokens.AudienceEntry{ID: id, AccessTTL: time.Hour, AccessFormat: tokens.AccessOpaque},
		); err != nil {
			return nil, err
		}
		v := tokens.ServiceAccount{ID: 78, Name: id, Permissions: tokens.PermAudit, IssueTime: noon}
		e := tokens.Event{
			Time:    noon,
			Actor:   "operator",
			Action:  tokens.ActionTokenCreate,
			User:    id,
			TokenID: tok.ID,
			Outcome: tokens.OutcomeSuccess,
		}
		return []tokens.Event{e}, tx.InsertService(v, h.ring.Get().Digest(secret.NewSecret("x")))
	})
	if err != nil {
		t.Fatal(err)
	}
	h.wants(s, tokens.Allow, "a token from before")
	if g := h.exchange(
		s,
		func(r *tokens.ExchangeRequest) { r.Audiences, r.Scopes = []string{id}, []string{id} },
	); !slices.Equal(
		g.Scopes,
		[]string{id},
	) {
		t.Errorf("exchanged for %v", g.Scopes)
	}
	narrower := []string{id}
	token := tokens.ID(77).String()
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"read the user", func() error { _, err := h.User(ctx, admin, id); return err }},
		{"read its features", func() error { _, err := h.UserFeatures(ctx, admin, id); return err }},
		{"list its tokens", func() error {
			_, _, err := h.Tokens(ctx, admin, tokens.TokenFilter{User: id}, tokens.Page{})
			return err
		}},
		{"narrow its token", func() error {
			_, err := h.UpdateToken(ctx, admin, id, token, tokens.TokenChange{Scopes: &narrower})
			return err
		}},
		{"remove its feature", func() error { _, err := h.UpdateUserFeatures(ctx, admin, id, nil, []string{id}); return err }},
		{"suspend it", func() error { _, err := h.SuspendUser(ctx, admin, id, ""); return err }},
		{"resume it", func() error { _, err := h.ResumeUser(ctx, admin, id, ""); return err }},
		{"refresh it", func() error { return h.RefreshUser(ctx, admin, id) }},
		{"block tokens", func() error { _, _, err := h.BlockTokens(ctx, admin, id, ""); return err }},
		{"unblock tokens", func() error { _, _, err := h.UnblockTokens(ctx, admin, id, ""); return err }},
		{"revoke the token", func() error { _, err := h.Revoke(ctx, admin, id, token, ""); return err }},
		{"delete the user", func() error { _, err := h.DeleteUser(ctx, admin, id, ""); return err }},
		{"read the feature", func() error { _, err := h.Feature(ctx, admin, id); return err }},
		{"find the feature", func() error {
			_, _, err := h.Features(ctx, admin, tokens.FeatureFilter{Filter: `name eq ".."`}, tokens.Page{})
			return err
		}},
		{"delete the feature", func() error { return h.DeleteFeature(ctx, admin, id) }},
		{"read the audience", func() error { _, err := h.Audience(ctx, admin, id); return err }},
		{"delete the audience", func() error { return h.DeleteAudience(ctx, admin, id) }},
		{"revoke the service", func() error { _, err := h.RevokeService(ctx, admin, id, ""); return err }},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
	}
	_, err = h.SetUserFeatures(ctx, admin, id, []string{"a"})
	wantReason(t, err, "USER_INVALID", "once deleted, it does not come back")
}
