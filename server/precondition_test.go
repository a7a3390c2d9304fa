package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/tokens"
)

// TestNoPreconditionIsIgnored calls every method of patd, over gRPC and by each of its REST routes, with preconditions
// that do not hold. One that takes them says so, and any other refuses them: none goes on.
func TestNoPreconditionIsIgnored(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	id, secret := r.mint("u1", "n")
	r.audience(tokens.AudienceEntry{ID: "api"})
	if got := r.rest("POST", "/v1/features", r.admin, `{"name":"f"}`); got.code != http.StatusCreated {
		t.Fatal(got)
	}
	if got := r.rest(
		"POST",
		"/v1/webhooks",
		r.admin,
		`{"webhook_id":"w","url":"https://hooks.example.com/"}`,
	); got.code != http.StatusCreated {
		t.Fatal(got)
	}
	fields := map[string]string{"user": "u1", "token_id": id, "id": "api", "name": "f", "webhook_id": "w"}
	bodies := map[string]string{
		"ReplaceFeature": `{"feature":{}}`, "ReplaceAudience": `{"audience":{}}`,
		"ReplaceWebhook": `{"webhook":{"url":"https://other.example.com/"}}`,
		"UpdateToken":    `{"token":{"name":"m"},"update_mask":"name"}`, "UpdateUserFeatures": `{"remove":["a"]}`,
		"Introspect": `{"token":"x"}`, "BatchIntrospect": `{"requests":[{}]}`,
	}
	const since = "Mon, 02 Jan 2006 15:04:05 GMT"
	takes, before := server.Conditional(), everything(r, id)
	for name, m := range served(t, r) {
		full := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
		credential := r.admin
		if m.Parent().Name() == "SelfService" {
			credential = secret
		}
		if m.Input().Fields().ByName("etag") != nil && !takes[full] {
			t.Errorf("%s has an etag in its request, and refuses it", name)
		}
		want, code, reason := http.StatusBadRequest, codes.InvalidArgument, "PRECONDITION_UNSUPPORTED"
		if takes[full] {
			want, code, reason = http.StatusPreconditionFailed, codes.Aborted, tokens.ReasonPrecondition
		}
		for _, route := range routes(m) {
			path, method, body := fill(route.path, fields), route.method, bodyOf(bodies, m)
			if route.body != "*" {
				var whole map[string]json.RawMessage
				must(t, json.Unmarshal([]byte(body), &whole))
				if body = "{}"; len(whole[route.body]) > 0 {
					body = string(whole[route.body])
				}
			}
			if method == http.MethodGet || method == http.MethodDelete {
				body = ""
			}
			for _, tag := range []string{`"another"`, `W/"another"`} {
				got := r.rest(method, path, credential, body, "If-Match", tag)
				if why, _ := got.reason(); got.code != want || why != reason {
					t.Errorf(
						"%s %s If-Match %s: %d %s, want %d %s",
						method,
						path,
						tag,
						got.code,
						got.body,
						want,
						reason,
					)
				}
			}
			if got := r.rest(
				method,
				path,
				credential,
				body,
				"If-Unmodified-Since",
				since,
			); got.code != http.StatusBadRequest {
				t.Errorf("%s %s If-Unmodified-Since: %d %s", method, path, got.code, got.body)
			}
		}
		if m.Name() == "Introspect" || m.Name() == "BatchIntrospect" {
			continue // over gRPC metadata that they do not know is not looked at, for speed; they change nothing
		}
		req := request(t, m, "u1")
		must(t, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(bodyOf(bodies, m)), req))
		for field, v := range fields {
			if f := m.Input().
				Fields().
				ByName(protoreflect.Name(field)); f != nil &&
				f.Kind() == protoreflect.StringKind {
				req.ProtoReflect().Set(f, protoreflect.ValueOfString(v))
			}
		}
		for key, value := range map[string]string{"if-match": `"another"`, "if-unmodified-since": since} {
			err := r.invoke(metadata.AppendToOutgoingContext(as(credential), key, value), m, req, answerFor(t, m))
			expected := code
			if key == "if-unmodified-since" {
				expected = codes.InvalidArgument
			}
			if status.Code(err) != expected {
				t.Errorf("%s with %s: %v, want %v", name, key, err, expected)
			}
		}
	}
	if after := everything(r, id); after != before {
		t.Errorf("something was changed:\n%s\n%s", before, after)
	}
	for _, c := range [][2]string{{"POST", "/oauth2/introspect"}, {"POST", "/oauth2/token"}, {"POST", "/oauth2/revoke"}, {"GET", "/healthz"}} {
		if got := r.rest(c[0], c[1], r.admin, "", "If-Match", `"another"`); got.code != http.StatusBadRequest {
			t.Errorf("%s %s: %d %s", c[0], c[1], got.code, got.body)
		}
	}
}

// everything is the state that the calls of a test could change, as REST shows it. Of the token it is the tag, since a
// use changes its record.
func everything(r *rig, tokenID string) string {
	var all strings.Builder
	for _, path := range []string{
		"/v1/users", "/v1/users/u1/features", "/v1/features", "/v1/audiences", "/v1/services", "/v1/webhooks",
	} {
		got := r.rest("GET", path, r.admin, "")
		fmt.Fprintln(&all, path, got.code, got.body)
	}
	fmt.Fprintln(&all, r.rest("GET", "/v1/users/u1/tokens/"+tokenID, r.admin, "").header.Get("Etag"))
	return all.String()
}

type route struct{ method, path, body string }

// routes lists the REST routes of a method, as its annotations have them.
func routes(m protoreflect.MethodDescriptor) []route {
	rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return nil
	}
	var found []route
	for _, one := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		for method, path := range map[string]string{
			"GET": one.GetGet(), "POST": one.GetPost(), "PUT": one.GetPut(), "PATCH": one.GetPatch(), "DELETE": one.GetDelete(),
		} {
			if path != "" {
				found = append(found, route{method, path, one.GetBody()})
			}
		}
	}
	return found
}

// fill puts values into the template of a route.
func fill(path string, values map[string]string) string {
	for name, v := range values {
		path = strings.ReplaceAll(path, "{"+name+"}", v)
	}
	return path
}

func bodyOf(bodies map[string]string, m protoreflect.MethodDescriptor) string {
	if body := bodies[string(m.Name())]; body != "" {
		return body
	}
	return "{}"
}

func TestAnEntityTagFollowsEachChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	id, _ := r.mint("u1", "n")
	r.audience(tokens.AudienceEntry{ID: "api"})
	for path, change := range map[string][2]string{
		"/v1/users/u1/tokens/" + id: {"PATCH", `{"token":{"description":"d"},"update_mask":"description"}`},
		"/v1/users/u1/features":     {"PUT", `{"features":["a","b"]}`},
		"/v1/audiences/api":         {"PUT", `{"max_ttl":"3600s"}`},
	} {
		before := r.rest("GET", path, r.admin, "").header.Get("Etag")
		if got := r.rest(
			"GET",
			path,
			r.admin,
			"",
			"If-None-Match",
			"W/"+before,
		); before == "" || got.code != http.StatusNotModified ||
			got.body != "" {
			t.Errorf("%s: tag %s, then %d %q", path, before, got.code, got.body)
		}
		done := r.rest(change[0], path, r.admin, change[1], "If-Match", `"x", `+before)
		if after := r.rest(
			"GET",
			path,
			r.admin,
			"",
		).header.Get(
			"Etag",
		); done.code != 200 || after == before ||
			done.header.Get("Etag") != after {
			t.Errorf("%s: %d %s, tags %s, %s, %s", path, done.code, done.body, before, done.header.Get("Etag"), after)
		}
		if again := r.rest(
			change[0],
			path,
			r.admin,
			change[1],
			"If-Match",
			before,
		); again.code != http.StatusPreconditionFailed {
			t.Errorf("%s: a second change of the same state: %d %s", path, again.code, again.body)
		}
	}
	c := patdv1.NewCatalogServiceClient(r.conn)
	_, err := c.ReplaceAudience(
		as(r.admin),
		&patdv1.ReplaceAudienceRequest{Id: "api", Audience: &patdv1.Audience{Etag: `"another"`}},
	)
	if status.Code(err) != codes.Aborted {
		t.Errorf("the field: %v", err)
	}
	_, err = c.DeleteAudience(
		metadata.AppendToOutgoingContext(as(r.admin), "if-match", `"another"`),
		&patdv1.DeleteAudienceRequest{Id: "api"},
	)
	if status.Code(err) != codes.Aborted {
		t.Errorf("over gRPC: %v", err)
	}
}
