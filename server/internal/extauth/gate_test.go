package extauth

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"
)

// TestUserIDsSurviveInAHeader takes ids of any bytes, also such as no user can have.
func TestUserIDsSurviveInAHeader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.SampledFrom([]rune(`a%,"\{} ü日|@+;=:/`+"\r\n\x00")), 0, 40, -1)).
			Draw(t, "id")
		got := encodeUser(id)
		for _, c := range []byte(got) {
			if c <= ' ' || c >= 0x7f || strings.ContainsRune(`,"\{}`, rune(c)) {
				t.Fatalf("%q becomes %q, which holds %q", id, got, c)
			}
		}
		if back, err := url.PathUnescape(got); err != nil || back != id {
			t.Fatalf("%q becomes %q, which is read as %q: %v", id, got, back, err)
		}
	})
	for id, want := range map[string]string{
		"auth0|0123": "auth0|0123", "alice@example.com": "alice@example.com", "a+b": "a+b", "100%": "100%25", "a%41": "a%2541", "ü b": "%C3%BC%20b",
		"a,b": "a%2Cb", `{"x"}\`: "%7B%22x%22%7D%5C", "": "",
	} {
		if got := encodeUser(id); got != want {
			t.Errorf("%q becomes %q, want %q", id, got, want)
		}
	}
}

func TestOneBearerTokenIsRead(t *testing.T) {
	const missing, malformed = `Bearer realm="patd"`, `Bearer realm="patd", error="invalid_request"`
	for _, c := range []struct {
		headers         []string
		token, refusing string
	}{
		{[]string{"Bearer x"}, "x", ""}, {[]string{"bEARER x.y-z~="}, "x.y-z~=", ""}, {[]string{"Bearer  x"}, "x", ""},
		{nil, "", missing}, {[]string{""}, "", missing}, {[]string{"Bearer"}, "", missing}, {[]string{"Bearer "}, "", missing},
		{[]string{"Basic x"}, "", missing}, {[]string{"x"}, "", missing}, {[]string{"Basic x,Bearer y"}, "", missing}, {[]string{" Bearer x"}, "", missing},
		{[]string{"Bearer x", "Bearer y"}, "", malformed}, {[]string{"Bearer x", "Bearer x"}, "", malformed}, {[]string{"Basic x", "Bearer y"}, "", malformed},
		{[]string{"Bearer x", ""}, "", malformed}, {[]string{"Bearer x,Bearer y"}, "", malformed}, {[]string{"Bearer x, Basic y"}, "", malformed},
		{[]string{"Bearer x,y"}, "", malformed}, {[]string{"Bearer x "}, "", malformed},
	} {
		secret, refused := Accept{}.read(presented{authorization: c.headers, apiKey: []string{"y"}})
		switch {
		case c.refusing == "" && (refused != nil || secret.Reveal() != c.token):
			t.Errorf("%q: %v, want the token %q", c.headers, refused, c.token)
		case c.refusing != "":
			if refused == nil {
				t.Fatalf("%q: %q is taken", c.headers, secret.Reveal())
			}
			if h, st := refused.headers(
				"",
			); st.Code() != codes.Unauthenticated || !strings.HasPrefix(h.Get("WWW-Authenticate"), c.refusing) ||
				!secret.IsEmpty() {
				t.Errorf("%q: %v, want %s", c.headers, h, c.refusing)
			}
		}
	}
}

// TestOneCredentialIsTakenInOneOfTheAcceptedWays presents tokens as the password of Basic credentials and in X-API-Key.
func TestOneCredentialIsTakenInOneOfTheAcceptedWays(t *testing.T) {
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	const none, twice = `Bearer realm="patd"`, `Bearer realm="patd", error="invalid_request", error_description="give one token, once"`
	both := Accept{Basic: true, APIKey: true}
	for _, c := range []struct {
		accept          Accept
		authorization   []string
		apiKey          []string
		token, refusing string
	}{
		{both, []string{"Bearer x"}, nil, "x", ""}, {both, []string{basic("anybody:x")}, nil, "x", ""}, {both, []string{basic(":x")}, nil, "x", ""},
		{both, []string{"bAsIc " + base64.StdEncoding.EncodeToString([]byte("u:x"))}, nil, "x", ""}, {both, nil, []string{"x"}, "x", ""},
		{both, []string{basic("u:")}, nil, "", none}, {both, []string{basic("x")}, nil, "", none}, {both, []string{"Basic %"}, nil, "", none},
		{both, nil, []string{""}, "", none}, {both, []string{"Digest x"}, nil, "", none},
		{both, []string{basic("u:x")}, []string{"x"}, "", twice}, {both, []string{"Bearer x"}, []string{"y"}, "", twice}, {both, nil, []string{"x", "x"}, "", twice},
		{both, []string{basic("u:x"), "Bearer x"}, nil, "", twice}, {both, []string{basic("u:x") + ", Bearer x"}, nil, "", twice}, {both, nil, []string{"x, y"}, "", twice},
		{both, []string{basic("u:x y")}, nil, "", twice}, {both, []string{""}, []string{"x"}, "", twice},
		{Accept{}, []string{basic("u:x")}, nil, "", none}, {Accept{}, nil, []string{"x"}, "", none}, {Accept{APIKey: true}, []string{basic("u:x")}, nil, "", none},
		{Accept{Basic: true}, nil, []string{"x"}, "", none}, {Accept{Basic: true}, []string{basic("u:x")}, []string{"not looked at"}, "x", ""},
	} {
		secret, refused := c.accept.read(presented{c.authorization, c.apiKey})
		if c.refusing == "" {
			if refused != nil || secret.Reveal() != c.token {
				t.Errorf("%+v: refused, want %q", c, c.token)
			}
			continue
		}
		if refused == nil {
			t.Errorf("%+v: %q is taken", c, secret.Reveal())
			continue
		}
		h, _ := refused.headers("")
		want := []string{`Basic realm="patd", charset="UTF-8"`, c.refusing}
		if !c.accept.Basic {
			want = want[1:]
		}
		if got := h.Values("WWW-Authenticate"); !slices.Equal(got, want) {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}

func TestScopesOfARouteAreReadOrRefused(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{nil, nil}, {[]string{"a"}, []string{"a"}}, {[]string{"b a", "c"}, []string{"b", "a", "c"}}, {[]string{" b  a b", "a"}, []string{"b", "a"}},
		{[]string{strings.Repeat("s", 128) + " urn:x/y,z%"}, []string{strings.Repeat("s", 128), "urn:x/y,z%"}},
	} {
		got, err := readScopes(c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v", c.in, got, err)
		}
	}
	for _, in := range [][]string{
		{""}, {"a", ""}, {"  "}, {"a\tb"}, {"a\nb"}, {`a"b`}, {`a\b`}, {"ü"}, {"a\x00"}, {strings.Repeat("s", 129)}, {"\xff"},
		{"pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0"},
	} {
		if got, err := readScopes(in); err == nil || strings.Contains(err.Error(), "0Eoh") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}
