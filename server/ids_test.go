package server_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
)

// TestNoPathOfRESTHasASegmentOfDots puts ids that are lost on the way into each parameter of each REST path.
func TestNoPathOfRESTHasASegmentOfDots(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	parameters := 0
	for name, m := range served(t, r) {
		for _, route := range routes(m) {
			parts := strings.Split(route.path, "/")
			for i, part := range parts {
				begin, end := strings.Index(part, "{"), strings.Index(part, "}")
				if begin < 0 {
					continue
				}
				parameters++
				for _, id := range []string{
					".", "..", "%2E", "%2e%2E", ".%2e", "%252e%252E", "%25252E", "a%2F..%2Fb", "..%2Fb", "%2e%2e%5Cb", "a%252F..%252Fb",
				} {
					some := append([]string(nil), parts...)
					some[i] = part[:begin] + id + part[end+1:]
					path := strings.NewReplacer("{user}", "u1", "{token_id}", "15ODq7pq8Hy", "{name}", "f", "{id}", "api").
						Replace(strings.Join(some, "/"))
					got := r.rest(route.method, path, r.admin, "{}")
					if why, _ := got.reason(); got.code != http.StatusBadRequest || why != "PATH_INVALID" {
						t.Errorf("%s: %s %s: %d %s", name, route.method, path, got.code, got.body)
					}
				}
			}
		}
	}
	if parameters < 25 {
		t.Errorf("only %d parameters were tried", parameters)
	}
}

// TestIDsOfDotsCanBeEndedOverGRPC says by which way a record from before such ids were refused can be reached: a
// NOT_FOUND here means that it was looked for.
func TestIDsOfDotsCanBeEndedOverGRPC(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	users, catalog := patdv1.NewUserServiceClient(r.conn), patdv1.NewCatalogServiceClient(r.conn)
	ctx := as(r.admin)
	for what, call := range map[string]func() error{
		"a user": func() error { _, err := users.DeleteUser(ctx, &patdv1.DeleteUserRequest{User: ".."}); return err },
		"a feature": func() error {
			_, err := catalog.DeleteFeature(ctx, &patdv1.DeleteFeatureRequest{Name: ".."})
			return err
		},
		"an audience": func() error {
			_, err := catalog.DeleteAudience(ctx, &patdv1.DeleteAudienceRequest{Id: ".."})
			return err
		},
		"a service": func() error {
			_, err := patdv1.NewServiceAccountServiceClient(r.conn).RevokeService(ctx, &patdv1.RevokeServiceRequest{Name: ".."})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.NotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := users.SuspendUser(ctx, &patdv1.SuspendUserRequest{User: ".."})
	if why, field := grpcReason(
		err,
	); status.Code(err) != codes.InvalidArgument || why != "USER_INVALID" ||
		field != "user" {
		t.Errorf("a new user: %v", err)
	}
}
