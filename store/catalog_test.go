package store_test

import (
	"errors"
	"testing"

	"patd/internal/servicetest"
	"patd/tokens"
)

// TestCheckAgreesWithTheService: the audit events that Check asks for are those that the service writes.
func TestCheckAgreesWithTheService(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := servicetest.New(t, servicetest.Options{File: newPath(t), Now: c.now})
	st := s.Store
	made, err := s.CreateService(
		t.Context(),
		tokens.Actor{Kind: tokens.OperatorActor},
		tokens.ServiceRequest{Name: "admin", Permissions: []string{"admin"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := s.Authenticate(t.Context(), made.Secret, tokens.Peer{})
	if err != nil {
		t.Fatal(err)
	}
	steps := []func() error{
		func() error {
			_, err := s.CreateFeature(t.Context(), admin, tokens.FeatureEntry{Name: "a"})
			return err
		},
		func() error {
			_, err := s.ReplaceFeature(t.Context(), admin, tokens.FeatureEntry{Name: "a", Default: true})
			return err
		},
		func() error {
			_, err := s.CreateAudience(t.Context(), admin, tokens.AudienceEntry{ID: "api"})
			return err
		},
		func() error {
			_, err := s.SetUserFeatures(t.Context(), admin, "u", []string{"a"})
			return err
		},
		func() error {
			_, err := s.Mint(t.Context(), admin, tokens.MintRequest{User: "u", Name: "n", Audiences: []string{"api"}})
			return err
		},
		func() error {
			_, err := s.ReplaceAudience(t.Context(), admin, tokens.AudienceEntry{ID: "api", MaxTTL: tokens.Day})
			return err
		},
		func() error {
			n, _, err := s.BlockTokens(t.Context(), admin, "api", "why")
			if err == nil && n != 1 {
				err = errors.New("no token was blocked")
			}
			return err
		},
		func() error { return s.DeleteAudience(t.Context(), admin, "api") },
		func() error { _, _, err := s.UnblockTokens(t.Context(), admin, "api", ""); return err },
		func() error { return s.DeleteFeature(t.Context(), admin, "a") },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("check after step %d: %v, %v", i, found, err)
		}
	}
}
