package httpx

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// TestBadJSONNamesTheFieldAndThePlace gives nothing of the JSON decoder's own error to what it tests: that text differs
// from build to build of protobuf.
func TestBadJSONNamesTheFieldAndThePlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		m                         proto.Message
		text, reason, field, says string
	}{
		{&patdv1.CreateTokenRequest{}, `{"nope":1}`, "FIELD_UNKNOWN", "nope", `"nope" at line 1:2`},
		{&patdv1.CreateTokenRequest{}, "{\n \"name\": \"é\", \"nope\":1}", "FIELD_UNKNOWN", "nope", "at line 2:15"},
		{&patdv1.CreateTokenRequest{}, `{"no pe":1}`, "FIELD_UNKNOWN", "", "at line 1:2"},
		{&patdv1.CreateTokenRequest{}, `{"eyJhbGciOiJub25lIn0.eyJz":1}`, "FIELD_UNKNOWN", "", "at line 1:2"},
		{&patdv1.CreateTokenRequest{}, `{"allowedCidrs":5}`, "JSON_INVALID", "allowed_cidrs", "list"},
		{&patdv1.CreateTokenRequest{}, `{"name":"a","scopes":["b",{}]}`, "JSON_INVALID", "scopes", "a string: error at line 1:27"},
		{&patdv1.CreateTokenRequest{}, `{"name":"a", "name":null}`, "JSON_INVALID", "name", "twice: error at line 1:14"},
		{&patdv1.CreateTokenRequest{}, `{"expireTime":1, "expire_time":1}`, "JSON_INVALID", "expire_time", "RFC 3339"},
		{&patdv1.CreateTokenRequest{}, `{"ttl":"90y"}`, "JSON_INVALID", "ttl", `"7776000s": error at line 1:8`},
		{&patdv1.CreateTokenRequest{}, `{"labels":{"a":1}}`, "JSON_INVALID", "labels", "a string"},
		{&patdv1.CreateTokenRequest{}, `{"name":"\ud800"}`, "JSON_INVALID", "name", "line 1:9"},
		{&patdv1.CreateTokenRequest{}, "{\"name\":\"a\xff\"}", "JSON_INVALID", "", "UTF-8: error at line 1:11"},
		{&patdv1.CreateTokenRequest{}, `{"name":"a"`, "JSON_INVALID", "", "too early"},
		{&patdv1.CreateTokenRequest{}, `{"name":"a"]`, "JSON_INVALID", "", "at line 1:12"},
		{&patdv1.CreateTokenRequest{}, `{"name":"a",}`, "JSON_INVALID", "", "at line 1:13"},
		{&patdv1.CreateTokenRequest{}, "{\"name\":\"a\"}\n {}", "JSON_INVALID", "", "at line 2:2"},
		{&patdv1.CreateTokenRequest{}, ` ["a"]`, "JSON_INVALID", "", "not a JSON object: error at line 1:2"},
		{&patdv1.CreateTokenRequest{}, `null`, "JSON_INVALID", "", "not a JSON object"},
		{&patdv1.Feature{}, `{"consent":"MAYBE"}`, "JSON_INVALID", "consent", "in capitals"},
		{&patdv1.BatchIntrospectRequest{}, `{"requests":[{"token":"a"}, {"token":5}]}`, "JSON_INVALID", "token", "a string: error at line 1:38"},
		{&patdv1.BatchIntrospectRequest{}, `{"requests":[{"token":"a"}, {"tokn":5}]}`, "FIELD_UNKNOWN", "tokn", "at line 1:30"},
		{&patdv1.BatchIntrospectRequest{}, `{"requests":[{"token":"a"}, 5]}`, "JSON_INVALID", "requests", "at line 1:29"},
		{&patdv1.BatchIntrospectRequest{}, `{"requests":{}}`, "JSON_INVALID", "requests", "a list"},
		{&patdv1.UpdateTokenRequest{}, `{"token":{"expireTime":"x"}}`, "JSON_INVALID", "expire_time", "RFC 3339"},
		{&patdv1.UpdateTokenRequest{}, `{"token":[]}`, "JSON_INVALID", "token", "an object"},
	} {
		if decode([]byte(c.text), c.m.ProtoReflect().New().Interface()) == nil {
			t.Errorf("%s is well formed", c.text)
		}
		e := badJSON([]byte(c.text), c.m)
		field := e.Violations[0].Field
		if e.Code != tokens.CodeInvalid || e.Reason != c.reason || field != c.field ||
			!strings.Contains(e.Message, c.says) {
			t.Errorf(
				"%s: %s, field %q, %q; want %s, %q, %q",
				c.text,
				e.Reason,
				field,
				e.Message,
				c.reason,
				c.field,
				c.says,
			)
		}
	}
}

// FuzzBadJSON holds the search for a fault to the decoder's verdict: it finds none in what the decoder takes, and
// repeats nothing of the values in what the decoder refuses.
func FuzzBadJSON(f *testing.F) {
	for _, text := range []string{
		`{"name":"n","ttl":"60d","scopes":["a"],"labels":{"a":"b"}}`, `{"name":null,"scopes":null}`,
		`{"expireTime":"2027-01-31T12:00:00Z"}`, `{"ttl":{"seconds":1}}`,
		`{"n\u0061me":"marker"}`, `{"name":5}`, `{`, ``, ` {} `, `{"scopes":[1]}`, "{}\n\t{}", `{"name":"a","name":"b"}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := &patdv1.CreateTokenRequest{}
		if decode([]byte(text), m) == nil {
			if found := findFault([]byte(text), m.ProtoReflect().Type()); found != nil {
				t.Errorf("%q: %+v in what is well formed", text, found)
			}
			return
		}
		e := badJSON([]byte(text), m)
		if e.Reason != "JSON_INVALID" && e.Reason != "FIELD_UNKNOWN" ||
			e.Reason == "JSON_INVALID" && strings.Contains(e.Message, "marker") {
			t.Errorf("%q: %s, %s", text, e.Reason, e.Message)
		}
	})
}
