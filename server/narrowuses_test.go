package server_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// TestScopesOfReportedUsesAreRecorded reports uses that a service decided itself: of a scope that is in effect, of one
// that never was, of one that the user does not hold, and of none in particular.
func TestScopesOfReportedUsesAreRecorded(t *testing.T) {
	t.Parallel()
	newRigs(t, func(t *testing.T, r *rig) {
		service := r.service("gateway", "introspect")
		tok, secret := r.pat(tokens.MintRequest{User: "u1", Name: "n"}, "a", "b", "c")
		r.introspect(secret)
		r.features("u1", "a", "b")
		report := func(unscoped bool, scopes ...string) {
			t.Helper()
			_, err := patdv1.NewIntrospectionServiceClient(r.conn).
				ReportUses(as(service), &patdv1.ReportUsesRequest{Uses: []*patdv1.ReportUsesRequest_Use{
					{
						TokenId:  tok.ID.String(),
						Time:     timestamppb.New(r.now()),
						ClientIp: "192.0.2.1",
						Scopes:   scopes,
						Unscoped: unscoped,
					},
				}})
			must(t, err)
		}
		report(false, "b", "a", "a")
		report(false, "c", "unknown")
		report(true, "a")
		report(false)
		must(t, r.store.FlushUses(t.Context(), nil))
		got := r.token(t, "u1", tok.ID.String())
		for _, u := range got.GetScopeUses() {
			if want := map[string]int64{"a": 2, "b": 1, "c": 0}[u.GetScope()]; u.GetUseCount() != want {
				t.Errorf("%s was used %d times, want %d", u.GetScope(), u.GetUseCount(), want)
			}
		}
		if n := got.GetUnscopedUses().GetUseCount(); n != 3 { // one is the introspection's
			t.Errorf("%d uses without scopes, want 3", n)
		}
		_, err := patdv1.NewIntrospectionServiceClient(r.conn).
			ReportUses(as(service), &patdv1.ReportUsesRequest{Uses: []*patdv1.ReportUsesRequest_Use{
				{
					TokenId: tok.ID.String(),
					Time:    timestamppb.New(r.now()),
					Scopes:  make([]string, tokens.MaxReportedScopes+1),
				},
			}})
		if err == nil {
			t.Error("a use of 257 scopes is taken")
		}
	})
}
