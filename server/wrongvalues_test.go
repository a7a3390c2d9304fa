package server_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// wrongValues are requests that are good but for one value, by the field that has it: an instant of no year, a duration
// of two signs, or an enum's value that is none.
func wrongValues(req proto.Message) map[string]proto.Message {
	found := map[string]proto.Message{}
	fields := req.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		only := f.Name() == "token" || f.Name() == "webhook" // records whose instants and states only patd sets
		if only || f.IsMap() {
			continue
		}
		wrong := proto.Clone(req)
		to := wrong.ProtoReflect()
		switch {
		case f.Kind() == protoreflect.EnumKind && !f.IsList():
			to.Set(f, protoreflect.ValueOfEnum(99))
		case f.Message() == nil:
			continue
		case f.Message().FullName() == "google.protobuf.Timestamp":
			to.Set(f, protoreflect.ValueOfMessage((&timestamppb.Timestamp{Seconds: 1 << 60}).ProtoReflect()))
		case f.Message().FullName() == "google.protobuf.Duration":
			to.Set(f, protoreflect.ValueOfMessage((&durationpb.Duration{Seconds: 1, Nanos: -1}).ProtoReflect()))
		case f.IsList() && to.Get(f).List().Len() == 0, !f.IsList() && !to.Has(f):
			continue
		case f.IsList():
			for name, inner := range wrongValues(to.Get(f).List().Get(0).Message().Interface()) {
				wrong := proto.Clone(req)
				wrong.ProtoReflect().Mutable(f).List().Set(0, protoreflect.ValueOfMessage(inner.ProtoReflect()))
				found[string(f.Name())+"[0]."+name] = wrong
			}
			continue
		default:
			for name, inner := range wrongValues(to.Get(f).Message().Interface()) {
				wrong := proto.Clone(req)
				wrong.ProtoReflect().Set(f, protoreflect.ValueOfMessage(inner.ProtoReflect()))
				found[string(f.Name())+"."+name] = wrong
			}
			continue
		}
		found[string(f.Name())] = wrong
	}
	return found
}

// valuesRig is a rig for good requests of every method.
func valuesRig(t *testing.T) (r *rig, id, secret string) {
	t.Helper()
	r = newRig(t)
	id, secret = r.mint("u1", "a")
	r.service("victim", "audit")
	r.catalogue()
	return r, id, secret
}

// TestValuesThatAreNoneAreRefusedAtTheirFields has every method refuse each of its fields that may hold one.
func TestValuesThatAreNoneAreRefusedAtTheirFields(t *testing.T) {
	t.Parallel()
	r, id, secret := valuesRig(t)
	tried := 0
	for name, m := range served(t, r) {
		credential := r.admin
		if strings.HasPrefix(name, "SelfService/") {
			credential = secret
		}
		wrong := wrongValues(goodRequest(r, name, id, secret))
		if name == "TokenService/UpdateToken" { // which reads what its mask names
			never := &timestamppb.Timestamp{Seconds: 1 << 60}
			wrong["token.expire_time"] = &patdv1.UpdateTokenRequest{
				User: "u1", TokenId: id, Token: &patdv1.Token{ExpireTime: never}, UpdateMask: "expire_time",
			}
			wrong["token.renewable_until"] = &patdv1.UpdateTokenRequest{
				User: "u1", TokenId: id, Token: &patdv1.Token{RenewableUntil: never}, UpdateMask: "renewable_until",
			}
		}
		for field, req := range wrong {
			tried++
			err := r.invoke(as(credential), m, req, answerFor(t, m))
			_, at := grpcReason(err)
			if status.Code(err) != codes.InvalidArgument ||
				at != field && !strings.HasSuffix(field, "."+at) { // the fields of a record go by their own names
				t.Errorf("%s with a wrong %s: %v at %q", name, field, err, at)
			}
		}
	}
	if tried < 30 {
		t.Errorf("only %d fields were tried", tried)
	}
	if got := r.introspect(secret).String(); got != "ALLOW" {
		t.Errorf("after all these calls the token is %s", got)
	}
}

// TestIdempotencyKeysThatContradictAreRefused by every method that takes one: none does its work twice by mistake.
func TestIdempotencyKeysThatContradictAreRefused(t *testing.T) {
	t.Parallel()
	r, id, secret := valuesRig(t)
	key := strings.Repeat("k", 16)
	tried := 0
	for name, m := range served(t, r) {
		f := m.Input().Fields().ByName("request_id")
		if f == nil {
			continue
		}
		tried++
		credential := r.admin
		if strings.HasPrefix(name, "SelfService/") {
			credential = secret
		}
		for what, c := range map[string]struct {
			headers []string
			field   string
		}{
			"two keys":      {[]string{key, key}, ""},
			"an empty key":  {[]string{""}, ""},
			"another field": {[]string{key}, strings.Repeat("l", 16)},
		} {
			req := goodRequest(r, name, id, secret)
			if c.field != "" {
				req.ProtoReflect().Set(f, protoreflect.ValueOfString(c.field))
			}
			ctx := as(credential)
			for _, v := range c.headers {
				ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", v)
			}
			err := r.invoke(ctx, m, req, answerFor(t, m))
			if reason, at := grpcReason(err); status.Code(err) != codes.InvalidArgument ||
				reason != "IDEMPOTENCY_KEY_INVALID" || at != "request_id" {
				t.Errorf("%s with %s: %v", name, what, err)
			}
		}
	}
	if tried < 5 {
		t.Errorf("only %d methods were tried", tried)
	}
	if got := r.introspect(secret).String(); got != "ALLOW" {
		t.Errorf("after all these calls the token is %s", got)
	}
}

// TestPreconditionsAreReadAsTheRFCSays (RFC 9110 section 13): what is no list of tags is refused, and never ignored.
func TestPreconditionsAreReadAsTheRFCSays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "api"})
	got := r.rest("GET", "/v1/audiences/api", r.admin, "")
	tag := got.header.Get("ETag")
	const path, put = "/v1/audiences/api", `{"display_name":"API"}`
	for _, c := range []struct {
		method, header, value string
		code                  int
	}{
		{"GET", "If-None-Match", tag, http.StatusNotModified},
		{"GET", "If-None-Match", "W/" + tag, http.StatusNotModified},
		{"GET", "If-None-Match", `"a" , ` + tag + `,`, http.StatusNotModified},
		{"GET", "If-None-Match", "*", http.StatusNotModified},
		{"GET", "If-None-Match", `"a"`, http.StatusOK},
		{"GET", "If-Match", tag, http.StatusOK},
		{"GET", "If-Match", "*", http.StatusOK},
		{"GET", "If-Match", `"a", "b"`, http.StatusPreconditionFailed},
		{"GET", "If-Match", "W/" + tag, http.StatusPreconditionFailed},
		{"GET", "If-Match", strings.Trim(tag, `"`), http.StatusBadRequest},
		{"GET", "If-Match", `"a`, http.StatusBadRequest},
		{"GET", "If-Match", `"a b"`, http.StatusBadRequest},
		{"GET", "If-Match", `"a""b"`, http.StatusBadRequest},
		{"GET", "If-Match", `"a"; "b"`, http.StatusBadRequest},
		{"GET", "If-Match", `,`, http.StatusBadRequest},
		{"GET", "If-None-Match", `w/"a"`, http.StatusBadRequest},
		{"GET", "If-None-Match", "\"\u00fc\"", http.StatusBadRequest},
		{"PUT", "If-Match", `"a" x`, http.StatusBadRequest},
		{"PUT", "If-Match", `"a"`, http.StatusPreconditionFailed},
		{"PUT", "If-None-Match", `*`, http.StatusPreconditionFailed},
	} {
		body := ""
		if c.method == "PUT" {
			body = put
		}
		got := r.rest(c.method, path, r.admin, body, c.header, c.value)
		if got.code != c.code {
			t.Errorf("%s with %s %s: %d %s, want %d", c.method, c.header, c.value, got.code, got.body, c.code)
		}
		if reason, field := got.reason(); c.code == http.StatusBadRequest &&
			(reason != "PRECONDITION_INVALID" || !strings.EqualFold(field, c.header)) {
			t.Errorf("%s %s: %s", c.header, c.value, got.body)
		}
	}
	// A tag in the record counts beside the header: both must hold.
	for etag, code := range map[string]int{
		`"a"`: http.StatusPreconditionFailed, "a": http.StatusBadRequest, "*": http.StatusBadRequest,
		`"a","b"`: http.StatusBadRequest, tag: http.StatusOK,
	} {
		body := `{"display_name":"API","etag":` + quoted(t, etag) + `}`
		if got := r.rest("PUT", path, r.admin, body, "If-Match", `"x", `+tag); got.code != code {
			t.Errorf("etag %s in the record: %d %s, want %d", etag, got.code, got.body, code)
		}
	}
}
